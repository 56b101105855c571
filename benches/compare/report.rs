//! BENCHMARKS.md: what was wanted, what was measured, and on what.

use std::{path::Path, process::Command};

use super::plot::Plot;

/// One line of the table.
pub struct Row {
    pub work: &'static str,
    pub target: String,
    pub measured: String,
    pub reached: bool,
}

/// A plot, and the file that it is written to with the report.
struct Drawn {
    file: String,
    title: &'static str,
    svg: String,
}

/// What this run has found so far.
#[derive(Default)]
pub struct Report {
    form: &'static str,
    rows: Vec<Row>,
    plots: Vec<Drawn>,
    /// Figures behind the rows, one line each.
    details: Vec<String>,
}

/// Texts that are written by hand: the summary on top, and why targets are
/// missed at the end.
const SUMMARY: &str = include_str!("../summary.md");
const NOTES: &str = include_str!("../notes.md");

impl Report {
    pub fn new(form: &'static str) -> Self {
        Self {
            form,
            ..Self::default()
        }
    }

    pub fn row(
        &mut self,
        work: &'static str,
        target: impl Into<String>,
        measured: String,
        reached: bool,
    ) {
        let target = target.into();
        println!("{} {work}: {measured} (target: {target})", verdict(reached));
        self.rows.push(Row {
            work,
            target,
            measured,
            reached,
        });
    }

    pub fn detail(&mut self, line: String) {
        println!("  {line}");
        self.details.push(line);
    }

    pub fn plot(&mut self, plot: &Plot) {
        self.plots.push(Drawn {
            file: format!("benches/plots/{}.svg", plot.name),
            title: plot.title,
            svg: plot.svg(),
        });
    }

    /// Puts what was measured into this form's part of the report. `anew`: in
    /// place of all that stood there; else the other rows stay as they were.
    pub fn write(&self, anew: bool) {
        let file = format!("benches/parts/{}.md", self.form);
        std::fs::create_dir_all("benches/parts").expect("a folder");
        let old = if anew {
            String::new()
        } else {
            std::fs::read_to_string(&file).unwrap_or_default()
        };
        let rows = self.rows.iter().map(|row| {
            let Row {
                work,
                target,
                measured,
                reached,
            } = row;
            format!(
                "| {work} | {target} | {measured} | {} | {} |",
                verdict(*reached),
                today()
            )
        });
        let details = self.details.iter().map(|line| format!("- {line}"));
        std::fs::create_dir_all("benches/plots").expect("a folder");
        for Drawn { file, svg, .. } in &self.plots {
            std::fs::write(file, svg).expect("written");
        }
        let plots = self
            .plots
            .iter()
            .map(|Drawn { file, title, .. }| format!("![{title}]({file})"));
        let mut text = format!("## The {} form\n\n{}\n\n", self.form, machine());
        text += "| work | target | measured | reached | on |\n| --- | --- | --- | --- | --- |\n";
        text += &merged(&old, "| ", " | ", rows).join("\n");
        text += "\n\n### Figures behind it\n\n";
        text += &merged(&old, "- ", ": ", details).join("\n");
        text += "\n\n";
        text += &merged(&old, "![", "]", plots).join("\n\n");
        text += "\n\n";
        std::fs::write(&file, text).expect("written");
        let parts = ["short", "long"]
            .map(|form| std::fs::read_to_string(format!("benches/parts/{form}.md")));
        let parts = parts.map(Result::unwrap_or_default).concat();
        let text = format!("{HEAD}{SUMMARY}{METHOD}\n{parts}{NOTES}");
        std::fs::write("BENCHMARKS.md", text).expect("written");
        println!("written: BENCHMARKS.md");
    }
}

/// Old and new lines with this beginning, in the old order; a new one takes the
/// place of the old one that has the same text up to `end`.
fn merged(old: &str, begin: &str, end: &str, new: impl Iterator<Item = String>) -> Vec<String> {
    let key = |line: &str| {
        line[begin.len()..]
            .split(end)
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let is_entry =
        |line: &&str| line.starts_with(begin) && !["work", "---"].contains(&key(line).as_str());
    let mut lines: Vec<String> = old.lines().filter(is_entry).map(str::to_owned).collect();
    for line in new {
        match lines.iter_mut().find(|old| key(old) == key(&line)) {
            Some(old) => *old = line,
            None => lines.push(line),
        }
    }
    lines
}

fn today() -> String {
    let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    now.split('T').next().unwrap_or_default().to_owned()
}

const fn verdict(reached: bool) -> &'static str {
    if reached { "yes" } else { "NO" }
}

const HEAD: &str = "# Benchmarks

In short:

";

/// What follows the summary.
const METHOD: &str = "
Written by `cargo bench --bench compare -- short` (minutes) or `-- long` (hours). Two baselines run in the same
run, in turns. `limit` is a tonic server that returns one prebuilt todo with ordinary generated code: what the
framework costs. `plain` is a simple cache-aside service: tonic, fred and mongodb, a TTL, no
near cache. CPU is user and system time of the server process, from the kernel. The load generator
(`benches/compare/http2.rs`) shares the machine with the server. Figures are medians of the rounds; in brackets are the
least and the greatest. Latency at a fixed rate is counted from the instant at which a call was due. Each row is from
one run, on the day that it names.
";

fn machine() -> String {
    let first = |file: &str, key: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text
            .lines()
            .find(|line| line.starts_with(key))
            .unwrap_or_default()
            .to_owned();
        line.split_once(':')
            .map_or(line.clone(), |(_, value)| value.trim().to_owned())
    };
    let run = |program: &str, args: &[&str]| {
        let out = Command::new(program).args(args).output();
        out.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned())
            .unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    format!(
        "On {cores} cores of {} with {} of memory, kernel {}, {}, Redis {}, MongoDB 6.0.5. \
         Load average of the machine at the end of the last run: {load} (above the number \
         of cores other programs were running: latencies and rates are then worse than on a quiet machine, ratios of \
         CPU time hold).",
        first("/proc/cpuinfo", "model name"),
        first("/proc/meminfo", "MemTotal"),
        run("uname", &["-r"]),
        run("rustc", &["--version"]),
        run("redis-server", &["--version"])
            .split_whitespace()
            .nth(2)
            .unwrap_or("?")
            .trim_start_matches("v="),
    )
}

/// The median, and in brackets the least and the greatest.
pub struct Spread {
    pub median: f64,
    least: f64,
    greatest: f64,
}

impl Spread {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |n: usize| values.get(n).copied().unwrap_or(f64::NAN);
        Self {
            median: at(values.len() / 2),
            least: at(0),
            greatest: at(values.len().saturating_sub(1)),
        }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} ({} to {})",
            short(self.median),
            short(self.least),
            short(self.greatest)
        )
    }
}

/// Three digits or so.
pub fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => {
            let whole = format!("{value:.0}");
            let cut = whole.len() % 3;
            let mut text = whole[..cut].to_owned();
            for part in whole.as_bytes()[cut..].chunks(3) {
                if !text.is_empty() {
                    text.push(',');
                }
                text += &String::from_utf8_lossy(part);
            }
            text
        }
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The root of the repository is where the report goes.
pub fn enter_repository() {
    std::env::set_current_dir(Path::new(env!("CARGO_MANIFEST_DIR"))).expect("the repository");
}
