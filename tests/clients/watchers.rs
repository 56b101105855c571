//! A thousand watchers, of two languages, while 10,000 todos are imported.

use std::{
    fmt::Write as _,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    client::{Client, create, get, ready},
    program::{Program, dies_with_this_thread, root, told},
    support::{Mongo, Tidemark, folder, tidemark_binary},
};

const LIST: &str = "lists/imported";
const TODOS: usize = 10_000;
const GO_WATCHERS: usize = 900;
const PYTHON_WATCHERS: usize = 100;
/// How long the slowest watcher may take to show all.
const PATIENCE: Duration = Duration::from_mins(11);

/// Todos of some 400 bytes.
fn records() -> String {
    let notes = "Ask for the discount that was promised last time. ".repeat(6);
    (0..TODOS).fold(String::new(), |mut text, n| {
        let record =
            format!(r#"{{"name":"{LIST}/todos/t{n}","title":"Todo {n}","notes":"{notes}"}}"#);
        writeln!(text, "{record}").expect("written");
        text
    })
}

/// The lag of the frontier in seconds, looked at ten times a second, until `stop`: what it
/// was at most in three quarters of the looks, since the machine may give the service or
/// the database no CPU for some of them; and the most memory.
fn watch_service(service: Arc<Tidemark>, stop: Arc<AtomicBool>) -> thread::JoinHandle<(f64, u64)> {
    thread::spawn(move || {
        let (mut lags, mut memory) = (Vec::<f64>::new(), 0);
        while !stop.load(Relaxed) {
            let text = service.metrics_text();
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("tidemark_frontier_lag_seconds "));
            lags.push(line.expect("a lag").parse().expect("a number"));
            let status = fs::read_to_string(format!("/proc/{}/status", service.pid()));
            let status = status.expect("it lives");
            let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let peak = peak.and_then(|line| line.trim().strip_suffix(" kB"));
            memory = peak.expect("VmHWM").trim().parse::<u64>().expect("KiB") >> 10;
            thread::sleep(Duration::from_millis(100));
        }
        lags.sort_unstable_by(f64::total_cmp);
        (lags[lags.len() * 3 / 4], memory)
    })
}

/// How long each read of a todo takes that is near.
async fn read_steadily(mut client: Client, stop: Arc<AtomicBool>) -> Vec<Duration> {
    let mut latencies = Vec::new();
    while !stop.load(Relaxed) {
        let began = Instant::now();
        get(&mut client, "lists/home/todos/milk", None)
            .await
            .expect("read");
        latencies.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    latencies
}

/// `clients/test` builds the Go program; then
/// `cargo test --test clients -- --ignored a_thousand_watchers`
#[tokio::test]
#[ignore = "some minutes, and the clients built"]
async fn a_thousand_watchers_see_an_import() {
    let mongo = Mongo::start(1, 200);
    let uri = mongo.uri("watchers");
    let args = ["--mongodb-uri", &uri, "--memory-limit", "768MiB"];
    let (service, mut client) = ready(Tidemark::start(&args)).await;
    let service = Arc::new(service);
    let address = service.address.trim_start_matches("http://").to_owned();
    let clients = root().join("clients");

    let (go, python) = (GO_WATCHERS.to_string(), PYTHON_WATCHERS.to_string());
    let program = clients.join("go/bin/watchers").display().to_string();
    let mut go = Program::start(dies_with_this_thread(&program).args([LIST, &go, &address]));
    let script = clients.join("python/example/watchers.py");
    let mut command = dies_with_this_thread(&told("TIDEMARK_PYTHON"));
    command
        .env("PYTHONPATH", clients.join("python"))
        .arg(script);
    let mut python = Program::start(command.args([LIST, &python, &address]));
    create(&mut client, "milk", "x").await;
    go.says("following", 1).await;
    python.says("following", 1).await;
    assert_eq!(
        service.metric("tidemark_watchers"),
        (GO_WATCHERS + PYTHON_WATCHERS) as u64
    );

    let (stop, file): (Arc<AtomicBool>, _) = (Arc::default(), folder("import").join("todos.jsonl"));
    let watching = watch_service(Arc::clone(&service), Arc::clone(&stop));
    fs::write(&file, records()).expect("written");
    let reading = tokio::spawn(read_steadily(client.clone(), Arc::clone(&stop)));
    let began = Instant::now();
    let import = tokio::process::Command::new(tidemark_binary())
        .args(["import", "--mongodb-uri", &uri])
        .arg(&file)
        .output();
    let import = import.await.expect("run");
    assert!(
        import.status.success(),
        "{}",
        String::from_utf8_lossy(&import.stderr)
    );
    let imported = began.elapsed();
    for program in [&mut go, &mut python] {
        program.hears("imported");
    }
    for (program, count) in [(&mut go, GO_WATCHERS), (&mut python, PYTHON_WATCHERS)] {
        program.says_within("right: ", 1, PATIENCE).await;
        let lines = program.lines();
        let line = lines.last().expect("a line");
        eprintln!("{line}");
        let right = format!("right: {count} of {count} with {TODOS} todos");
        assert!(line.starts_with(&right), "{line}");
    }
    stop.store(true, Relaxed);
    let (lag, memory) = watching.join().expect("no panic");
    let mut reads = reading.await.expect("no panic");
    reads.sort_unstable();
    let (p50, p99) = (reads[reads.len() / 2], reads[reads.len() * 99 / 100]);
    eprintln!(
        "{} reads of another caller: p50 {p50:?}, p99 {p99:?}, at most {:?}",
        reads.len(),
        reads[reads.len() - 1]
    );
    let sent = service.metric("tidemark_watch_changes_total");
    let resets = service.metric("tidemark_watch_resets_total");
    eprintln!(
        "import {imported:?}, all watchers right after {:?}; lag {lag:.2} s, {memory} MiB at most; {sent} changes sent, {resets} resets",
        began.elapsed()
    );
    assert!(lag < 2.0, "the frontier was {lag} s behind");
    assert!(memory < 768, "{memory} MiB");
}
