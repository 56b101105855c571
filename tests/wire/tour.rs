//! The README's quick tour, line by line as it stands there.

use std::{fs, process::Command};

use crate::support::{folder, free_port, mongo, redis_cluster};

/// The commands of the tour, each with what the README says it prints.
fn steps(readme: &str) -> Vec<(String, Vec<String>)> {
    let tour = readme
        .split("\n## ")
        .find(|section| section.starts_with("Quick tour"))
        .expect("the tour");
    let blocks = tour
        .split("```console\n")
        .skip(1)
        .map(|block| block.split("\n```").next().expect("a block"));
    let mut steps: Vec<(String, Vec<String>)> = Vec::new();
    for line in blocks.flat_map(str::lines) {
        match line.strip_prefix("$ ") {
            Some(command) => steps.push((command.to_owned(), Vec::new())),
            None => steps
                .last_mut()
                .expect("a command first")
                .1
                .push(line.to_owned()),
        }
    }
    steps
}

/// A line without what differs each time: ages, times, tokens, etags, and how far
/// an import has come.
fn lasting(line: &str) -> Option<String> {
    if line.ends_with(" a second") {
        return None;
    }
    let word = |word: &str| {
        let is_age = word.ends_with('s') && word.trim_end_matches('s').parse::<f64>().is_ok();
        let is_token = word.len() >= 32 && !word.contains('/');
        if word.parse::<prost_types::Timestamp>().is_ok() {
            "TIME".into()
        } else if is_age {
            "AGE".into()
        } else if is_token {
            "TOKEN".into()
        } else {
            word.to_owned()
        }
    };
    Some(
        line.split_whitespace()
            .map(word)
            .collect::<Vec<_>>()
            .join(" "),
    )
}

/// The todo that the second replica finds in Redis.
const IN_REDIS: &str = "list-203/17";

/// The command that reads a todo from Redis, again with the next todo where Redis answered
/// too late: on a busy machine it may take more than the 20 ms that a read waits for it.
fn with_slow_redis(command: &str) -> String {
    assert!(command.contains(IN_REDIS), "{command}");
    let command = command.replace(IN_REDIS, "$todo");
    format!(
        "todos=$(grep -o 'list-203/todos/[0-9]*' todos.jsonl | sed -n '1,20s|/todos||p')\n\
         for todo in {IN_REDIS} $todos; do\n\
         shown=$({command})\n\
         case $shown in 'from shared'*) break ;; esac\n\
         for next in $todos; do tidemark get $next >/dev/null 2>&1 || true; done\n\
         sleep 1\n\
         done\n\
         printf '%s\\n' \"$shown\""
    )
}

#[tokio::test]
async fn the_quick_tour_runs_as_written() {
    let readme =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("a README");
    let steps = steps(&readme);
    assert!(steps.len() > 12);
    let second = format!("127.0.0.1:{}", free_port());
    let mut script = String::from(
        "set -e -o pipefail\nexec 2>&1\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n",
    );
    for (at, (command, wanted)) in steps.iter().enumerate() {
        let command = command.replace("127.0.0.1:50052", &second);
        let command = match wanted.first() {
            Some(line) if line.starts_with("from shared") => with_slow_redis(&command),
            _ => command,
        };
        script += &format!("echo @@ {at}\n{command}\n");
    }
    let binaries = std::path::Path::new(env!("CARGO_BIN_EXE_tidemark"))
        .parent()
        .expect("a folder");
    let first = format!("127.0.0.1:{}", free_port());
    let mut bash = Command::new("timeout");
    bash.args(["--kill-after=5", "1800", "bash", "-c", &script])
        .current_dir(folder("tour"))
        .env(
            "PATH",
            format!(
                "{}:{}",
                binaries.display(),
                std::env::var("PATH").expect("a PATH")
            ),
        )
        .env("MONGODB_URI", mongo().uri("tour"))
        .env("REDIS_URL", redis_cluster().url())
        .env("TIDEMARK_LISTEN", &first)
        .env("TIDEMARK_METRICS_LISTEN", "off")
        .env("TIDEMARK_SERVER", format!("http://{first}"));
    let out = tokio::task::spawn_blocking(move || bash.output().expect("bash"))
        .await
        .expect("run");
    let printed = String::from_utf8_lossy(&out.stdout).into_owned();
    let mut parts = printed.split("@@ ").skip(1);
    for (command, wanted) in &steps {
        let part = parts
            .next()
            .unwrap_or_else(|| panic!("the tour ended before {command:?}:\n{printed}"));
        let got: Vec<_> = part.lines().skip(1).filter_map(lasting).collect();
        let wanted: Vec<_> = wanted
            .iter()
            .filter_map(|line| lasting(&line.replace("127.0.0.1:50051", &first)))
            .collect();
        assert!(got == wanted, "{command} printed {got:?}, not {wanted:?}");
    }
    assert!(out.status.success(), "{printed}");
}
