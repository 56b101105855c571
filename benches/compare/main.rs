//! Measures Tidemark against two baselines, in turns, on this machine, and
//! writes BENCHMARKS.md.
//!
//! `cargo bench --bench compare -- short` takes minutes, `-- long` hours.
//! `-- short near_hit memory` measures some rows only, and writes nothing;
//! with `write` among them it writes those, and leaves the others as they were.
//! `TIDEMARK_TEST_BUILDS=one:other cargo bench ... -- short builds` runs two builds of
//! the program in turns.

mod access;
mod baseline;
mod builds;
mod http2;
mod load;
mod near;
mod plot;
mod report;
mod servers;
mod start;
#[path = "../../tests/support/mod.rs"]
mod support;
mod tiers;
mod watch;

use std::time::Duration;

use report::Report;

/// How long and how often.
struct Form {
    round: Duration,
    rounds: usize,
    long: bool,
}

/// One run.
struct Bench {
    form: Form,
    report: Report,
}

/// The rows by name, in the order of the report.
const ROWS: [(&str, Measure); 16] = [
    ("near_hit", Bench::near_hit),
    ("access", Bench::access),
    ("shared", Bench::shared),
    ("strong", Bench::strong),
    ("hot_key", Bench::hot_key),
    ("hot_list", Bench::hot_list),
    ("write_read", Bench::write_read),
    ("watchers", Bench::watchers),
    ("replay", Bench::replay),
    ("memory", Bench::memory),
    ("memory_small", Bench::memory_small),
    ("growth_todos", Bench::growth_todos),
    ("growth_connections", Bench::growth_connections),
    ("growth_changes", Bench::growth_changes),
    ("embedded", Bench::embedded),
    ("builds", Bench::builds),
];

type Measure = fn(&mut Bench);

fn main() {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let serve = |work: std::pin::Pin<Box<dyn Future<Output = ()>>>| {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(work);
    };
    match args.as_slice() {
        ["limit", get, page] => serve(Box::pin(baseline::limit(get, page))),
        ["plain", redis, mongo] => serve(Box::pin(baseline::plain(redis, mongo))),
        ["short", rows @ ..] => {
            let form = Form {
                round: Duration::from_millis(1500),
                rounds: 7,
                long: false,
            };
            measure(
                Bench {
                    form,
                    report: Report::new("short"),
                },
                rows,
            );
        }
        ["long", rows @ ..] => {
            let form = Form {
                round: Duration::from_secs(5),
                rounds: 11,
                long: true,
            };
            measure(
                Bench {
                    form,
                    report: Report::new("long"),
                },
                rows,
            );
        }
        _ => {
            println!(
                "usage: cargo bench --bench compare -- short|long [ROW...]\nrows: {}",
                names().join(" ")
            );
        }
    }
}

fn names() -> Vec<&'static str> {
    ROWS.iter().map(|(name, _)| *name).collect()
}

fn measure(mut bench: Bench, args: &[&str]) {
    report::enter_repository();
    let (write, wanted): (Vec<_>, Vec<_>) = args.iter().copied().partition(|arg| *arg == "write");
    if let Some(wrong) = wanted.iter().find(|name| !names().contains(name)) {
        eprintln!("no row {wrong:?}; there are: {}", names().join(" "));
        std::process::exit(2);
    }
    let mut failed = Vec::new();
    for (name, row) in ROWS {
        if wanted.is_empty() || wanted.contains(&name) {
            println!("== {name}");
            // A row that fails says so, and the others are measured.
            let measured =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| row(&mut bench)));
            if measured.is_err() {
                failed.push(name);
            }
        }
    }
    if wanted.is_empty() || !write.is_empty() {
        bench.report.write(wanted.is_empty());
    }
    if !failed.is_empty() {
        eprintln!("not measured, for errors told above: {}", failed.join(" "));
        std::process::exit(1);
    }
}
