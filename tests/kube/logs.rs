//! The output of a pod: one format on one stream.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Runs the program as the base of the manifests does, until it is ready and has
/// been stopped. Returns stdout, and the lines of stderr.
fn output_of_a_run() -> (String, Vec<String>) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidemark"))
        .args(["serve", "--listen", "127.0.0.1:0"])
        .args(["--metrics-listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.path().join("data"))
        .env("TIDEMARK_LOG_FORMAT", "json")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let pid = Pid::from_child(&child);
    let mut lines = Vec::new();
    for line in BufReader::new(child.stderr.take().expect("stderr")).lines() {
        let line = line.expect("text");
        if line.contains("caught up") {
            // The signal handler is installed a moment after the start.
            sleep(Duration::from_secs(1));
            kill_process(pid, Signal::TERM).expect("it runs");
        }
        lines.push(line);
    }
    let mut stdout = String::new();
    let mut piped = child.stdout.take().expect("stdout");
    piped.read_to_string(&mut stdout).expect("text");
    assert!(child.wait().expect("it exits").success());
    (stdout, lines)
}

#[test]
fn with_log_format_json_all_output_is_json_on_stderr() {
    let (stdout, lines) = output_of_a_run();
    assert_eq!(stdout, "");
    assert!(lines.len() > 2, "{lines:#?}");
    for line in &lines {
        let parsed: Result<Value, _> = serde_json::from_str(line);
        let entry = parsed.unwrap_or_else(|error| panic!("{error}: {line:?}"));
        for field in ["timestamp", "level"] {
            assert!(entry[field].is_string(), "no {field}: {line}");
        }
    }
    let listens: Vec<Value> = lines
        .iter()
        .filter(|line| line.contains("tidemark listens"))
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(listens.len(), 1, "{lines:#?}");
    let address = listens[0]["fields"]["grpc"].as_str().expect("an address");
    assert!(address.starts_with("127.0.0.1:"), "{address}");
}
