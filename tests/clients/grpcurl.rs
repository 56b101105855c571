//! The lines of the docs, run as they stand by a real grpcurl.

use std::{
    collections::HashMap,
    path::Path,
    process::{Command, Output},
};

use crate::{
    client::embedded,
    program::{PATIENCE, Program, dies_with_this_thread, root, told},
    support::{eventually, folder},
};

/// Where the docs' service listens.
const ADDRESS: &str = "127.0.0.1:50051";

/// A line to paste, and what the docs say comes back.
struct Example {
    line: String,
    answer: String,
}

/// A fenced block of `sh` and the block of `text` that follows it.
fn examples(page: &str) -> Vec<Example> {
    let mut blocks = page.split("```sh\n");
    blocks.next();
    let example = |block: &str| {
        let (line, rest) = block.split_once("\n```\n").expect("the block ends");
        assert!(!line.contains('\n'), "one line a block: {line}");
        let answer = rest
            .trim_start()
            .strip_prefix("```text\n")
            .unwrap_or_else(|| panic!("no answer to {line}"));
        let (answer, _) = answer.split_once("\n```").expect("the answer ends");
        Example {
            line: line.into(),
            answer: answer.into(),
        }
    };
    blocks.map(example).collect()
}

/// Runs a line as a shell would, with the grpcurl that was built for it.
fn paste(line: &str) -> String {
    let grpcurl = told("TIDEMARK_GRPCURL");
    let folder = Path::new(&grpcurl)
        .parent()
        .expect("a folder")
        .display()
        .to_string();
    let path = format!("{folder}:{}", std::env::var("PATH").expect("PATH"));
    // Both outputs as they come: answers, then the error that ends them.
    let run = Command::new("sh")
        .args(["-c", &format!("{line} 2>&1")])
        .env("PATH", path)
        .output();
    let Output { stdout, .. } = run.expect("sh");
    String::from_utf8(stdout).expect("text")
}

/// What the service makes anew in each run, by its key in the answer.
fn made_by_the_service(key: &str) -> bool {
    let keys = [
        "token",
        "nextPageToken",
        "etag",
        "createTime",
        "updateTime",
        "completeTime",
        "commitTime",
    ];
    keys.contains(&key) || is_measured(key)
}

/// What depends on how fast this run was. `source` does too: a slow machine asks
/// a farther tier.
fn is_measured(key: &str) -> bool {
    ["stalenessBound", "staleness_bound_ms", "source"].contains(&key)
}

/// Key and value of a line such as `"etag": "abc",`. The JSON library of grpcurl
/// puts one space or two after the colon, so that nobody relies on it.
fn field(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.trim().strip_prefix('"')?.split_once("\":")?;
    Some((key, value.trim().trim_end_matches(',').trim_matches('"')))
}

fn plain(line: &str) -> String {
    line.replace("\":  ", "\": ")
}

/// Values of the docs, and what stands for them in this run.
#[derive(Default)]
struct Values(HashMap<String, String>);

impl Values {
    fn put_into(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (shown, made)| {
            text.replace(shown, made)
        })
    }

    /// Compares an answer with the one in the docs, and learns its values.
    fn compare(&mut self, line: &str, shown: &str, came: &str) {
        let lines = (shown.lines().count(), came.trim_end().lines().count());
        assert_eq!(
            lines.0, lines.1,
            "{line}\nanswered\n{came}\ninstead of\n{shown}"
        );
        for (shown_line, came_line) in shown.lines().zip(came.lines()) {
            match (field(shown_line), field(came_line)) {
                (Some((key, shown)), Some((came_key, came)))
                    if made_by_the_service(key) && !shown.is_empty() =>
                {
                    assert_eq!(key, came_key, "{line}");
                    assert!(!came.is_empty(), "{line}\nanswered an empty {key}");
                    let cached = came != "SOURCE_ORIGIN" || !line.contains("cached_only");
                    assert!(cached, "{line}\nwas loaded");
                    if !is_measured(key) {
                        self.learn(key, shown, came);
                    }
                }
                _ => assert_eq!(
                    plain(came_line),
                    plain(&self.put_into(shown_line)),
                    "{line}\nanswered\n{came}"
                ),
            }
        }
    }

    fn learn(&mut self, key: &str, shown: &str, came: &str) {
        let before = self.0.insert(shown.to_owned(), came.to_owned());
        // Equal etags in the docs are equal here; tokens move on by themselves.
        if key == "etag" {
            assert!(
                before.is_none_or(|before| before == came),
                "two etags for {shown}"
            );
        }
    }
}

#[tokio::test]
async fn each_line_of_the_docs_answers_as_they_say() {
    let page = std::fs::read_to_string(root().join("docs/grpcurl.md")).expect("docs/grpcurl.md");
    let examples = examples(&page);
    let calls = [
        "GetTodo",
        "BatchGetTodos",
        "ListTodos",
        "CreateTodo",
        "UpdateTodo",
        "DeleteTodo",
        "WatchTodos",
    ];
    for call in calls
        .into_iter()
        .chain(["Health/Check", "Health/Watch", " list", " describe"])
    {
        assert!(
            examples.iter().any(|example| example.line.contains(call)),
            "no example of {call}"
        );
    }
    let (service, _client) = embedded().await;
    let address = service.address.trim_start_matches("http://").to_owned();
    let mut values = Values::default();
    for Example { line, answer } in examples {
        assert!(line.contains(ADDRESS), "{line}");
        let came = paste(&values.put_into(&line).replace(ADDRESS, &address));
        values.compare(&line, &answer, &came);
    }
    assert!(
        values.0.len() > 10,
        "the service made few values: {:?}",
        values.0
    );
}

/// The three lines that `tidemark serve` prints, pasted as they stand, are also
/// those of README.md.
#[tokio::test]
async fn the_lines_that_serve_prints_work() {
    let mut serve = dies_with_this_thread(env!("CARGO_BIN_EXE_tidemark"));
    let dir = folder("printed").display().to_string();
    serve.args([
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--metrics-listen",
        "127.0.0.1:0",
        "--data-dir",
        &dir,
    ]);
    let mut program = Program::start(&mut serve);
    program.says("TodoService/ListTodos", 1).await;
    let printed = program.lines();
    let address = printed[0]
        .strip_prefix("tidemark listens on http://")
        .expect("it says where it listens");
    let printed: Vec<_> = printed.iter().map(|line| line.trim()).collect();
    let lines: Vec<_> = printed
        .into_iter()
        .filter(|line| line.starts_with("grpcurl "))
        .collect();
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    for line in &lines {
        assert!(
            readme.contains(&line.replace(address, ADDRESS)),
            "README.md lacks {line}"
        );
    }
    eventually("readiness", PATIENCE, async || {
        let health = paste(&format!(
            "grpcurl -plaintext {address} grpc.health.v1.Health/Check"
        ));
        health.contains("\"SERVING\"").then_some(())
    })
    .await;
    let [create, get, list] = lines[..] else {
        panic!("three lines, not {lines:#?}")
    };
    let created = plain(&paste(create));
    assert!(
        created.contains("\"name\": \"lists/home/todos/milk\"") && created.contains("token"),
        "{created}"
    );
    let got = plain(&paste(get));
    assert!(
        got.contains("\"title\": \"Buy milk\"") && got.contains("stalenessBound"),
        "{got}"
    );
    let listed = plain(&paste(list));
    assert!(
        listed.contains("\"title\": \"Buy milk\"") && listed.contains("\"todos\": ["),
        "{listed}"
    );
    the_other_lines_of_the_readme(&readme, address);
}

/// Those that serve does not print, in their order, on the same service.
fn the_other_lines_of_the_readme(readme: &str, address: &str) {
    let wanted = [
        ("BatchGetTodos", "\"missing\": ["),
        ("UpdateTodo", "\"STATE_COMPLETED\""),
        ("WatchTodos", "\"progress\": {"),
        ("DeleteTodo", "\"token\": "),
        ("Health/Check", "\"SERVING\""),
    ];
    for (call, answer) in wanted {
        let of_it = |line: &&str| line.starts_with("grpcurl ") && line.contains(call);
        let line = readme
            .lines()
            .find(of_it)
            .unwrap_or_else(|| panic!("README.md has no line for {call}"));
        let came = plain(&paste(&line.replace(ADDRESS, address)));
        assert!(came.contains(answer), "{line}\nanswered\n{came}");
    }
}
