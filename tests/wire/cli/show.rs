//! What commands print: formats, escapes, errors, watches, status.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::Stdio,
};

use tidemark::pb;

use super::{binary, done, metrics_address, run, stderr, stdout};
use crate::{client::*, support::Tidemark};

#[tokio::test]
async fn data_goes_to_stdout_and_freshness_to_stderr() {
    let (service, mut client) = embedded().await;
    create(&mut client, "milk", "Buy milk").await;
    let out = |args: &[&str]| {
        let out = run(&[args, &["--server", &service.address]].concat());
        assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
        (stdout(&out), stderr(&out))
    };
    let list = ["list", "home", "--consistency", "Fully_Consistent"];
    let (table, said) = out(&list);
    assert_eq!(
        table,
        "NAME       STATE   PRIORITY  DUE  LABELS  TITLE\nhome/milk  active  normal                 Buy milk\n"
    );
    assert!(
        said.starts_with("from origin, at most ") && said.contains(", token "),
        "{said}"
    );
    let (names, _) = out(&[&list[..], &["-o", "name"]].concat());
    assert_eq!(names, "lists/home/todos/milk\n");
    let (json, said) = out(&[&list[..], &["-o", "JSON"]].concat());
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["todos"][0]["title"], "Buy milk");
    assert_eq!(said, "");
    let (yaml, _) = out(&[&list[..], &["-o", "yaml"]].concat());
    assert!(
        yaml.starts_with("---\n") && yaml.contains("title: Buy milk\n"),
        "{yaml}"
    );
    let (details, said) = out(&["get", "home/milk"]);
    assert!(
        details.contains("Title:     Buy milk\n") && details.contains("Etag: "),
        "{details}"
    );
    assert!(said.contains("token "), "{said}");
}

#[tokio::test]
async fn short_commands_write_what_they_say() {
    let (service, mut client) = embedded().await;
    done(
        &service,
        &[
            "add",
            "home",
            "Buy",
            "milk",
            "--id",
            "milk",
            "--due",
            "2026-12-01",
            "--label",
            "shop",
        ],
    );
    let name = "lists/home/todos/milk";
    let todo = async |client: &mut Client| {
        let reply = get(client, name, strong()).await.expect("there");
        reply.todo.expect("a todo")
    };
    let now = todo(&mut client).await;
    assert_eq!(
        (now.title.as_str(), now.labels.as_slice()),
        ("Buy milk", &["shop".to_owned()][..])
    );
    done(
        &service,
        &[
            "update",
            "home/milk",
            "--add-label",
            "cold",
            "--remove-label",
            "shop",
            "--priority",
            "URGENT",
        ],
    );
    let now = todo(&mut client).await;
    assert_eq!(
        (now.labels.as_slice(), now.priority().as_str_name()),
        (&["cold".to_owned()][..], "PRIORITY_URGENT")
    );
    done(
        &service,
        &["update", name, "--clear", "due", "--clear", "labels"],
    );
    let now = todo(&mut client).await;
    assert!(now.due_time.is_none() && now.labels.is_empty(), "{now:?}");
    done(
        &service,
        &[
            "update",
            name,
            "--due",
            "2026-12-01T00:00:00Z",
            "--label",
            "x",
        ],
    );
    done(&service, &["update", name, "--due", "", "--label", ""]);
    let now = todo(&mut client).await;
    assert!(now.due_time.is_none() && now.labels.is_empty(), "{now:?}");
    done(&service, &["done", "home/milk"]);
    assert_eq!(todo(&mut client).await.state(), pb::todo::State::Completed);
    let listed = done(
        &service,
        &[
            "list",
            "home",
            "--filter",
            "state = completed and priority >= High",
            "--consistency",
            "fully_consistent",
        ],
    );
    assert!(listed.contains("home/milk"), "{listed}");
}

#[tokio::test]
async fn a_name_that_is_refused_does_not_keep_the_others_from_it() {
    let (service, _client) = embedded().await;
    for id in ["a", "b"] {
        done(&service, &["create", "home", "--id", id, "--title", id]);
    }
    let said = |args: &[&str]| {
        let out = run(&[args, &["--server", &service.address]].concat());
        assert_eq!(out.status.code(), Some(1), "{args:?}: {}", stderr(&out));
        (stdout(&out), stderr(&out))
    };
    for args in [&[][..], &["-o", "json"], &["-o", "name"]] {
        let names = ["done", "home/a", "home/none", "home", "home/b"];
        let (out, error) = said(&[&names[..], args].concat());
        assert!(out.contains("/a") && out.contains("/b"), "{out}");
        let lines: Vec<_> = error.lines().filter(|l| l.starts_with("  home")).collect();
        assert_eq!(lines.len(), 2, "{error}");
        assert!(
            lines[0].starts_with("  home/none: ") && lines[0].contains("TODO_NOT_FOUND"),
            "{error}"
        );
        assert!(
            lines[1].starts_with("  home: ") && lines[1].contains("FIELD_INVALID"),
            "{error}"
        );
        assert!(
            error.contains("error: 2 of 4 todos were not completed"),
            "{error}"
        );
    }
    let (out, error) = said(&["delete", "home/a", "home/none", "home/b"]);
    assert_eq!(
        out,
        "deleted lists/home/todos/a\ndeleted lists/home/todos/b\n"
    );
    assert!(
        error.contains("error: 1 of 3 todos were not deleted\n  home/none: "),
        "{error}"
    );
    let several = ["delete", "home/a", "home/b", "--etag", "x"];
    let out = run(&[&several[..], &["--server", &service.address]].concat());
    assert_eq!(out.status.code(), Some(2), "{}", stderr(&out));
    let all = ["delete", "home/a", "home/b", "--allow-missing"];
    done(&service, &all);
    let (_, error) = said(&["add", "home", ""]);
    assert!(error.starts_with("error: TITLE is required"), "{error}");
}

#[tokio::test]
async fn control_characters_are_escaped_but_in_json() {
    const TITLE: &str = "a\u{1b}]0;owned\u{7}\nlists/home/todos/forged  \u{9b}31m \u{202e}x";
    let (service, mut client) = embedded().await;
    let created = create_in(
        &mut client,
        "lists/home",
        "odd",
        pb::Todo {
            notes: "one\n\u{1b}[2J".into(),
            labels: vec!["l\u{1b}[1m".into()],
            ..titled(TITLE)
        },
    );
    // A service that refuses the title is as good.
    if created.await.is_err() {
        return;
    }
    let strong = ["--consistency", "fully_consistent"];
    for args in [
        &["list", "home"][..],
        &["get", "home/odd"],
        &["get", "home/odd", "home/odd"],
        &["list", "home", "-o", "yaml"],
        &["update", "home/odd", "--state", "active"],
    ] {
        let more = if args[0] == "update" {
            &[][..]
        } else {
            &strong
        };
        let shown = done(&service, &[args, more].concat());
        let is_safe = |c: char| c == '\n' || !c.is_control() && c != '\u{202e}';
        assert!(shown.chars().all(is_safe), "{args:?}: {shown:?}");
        assert!(
            !shown
                .lines()
                .any(|line| line.starts_with("lists/home/todos/forged")),
            "{shown}"
        );
    }
    let json = done(
        &service,
        &[&["get", "home/odd", "-o", "json"], &strong[..]].concat(),
    );
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["todo"]["title"], TITLE);
    let out = run(&["get", "home/\u{1b}[2J", "--server", &service.address]);
    assert!(!stderr(&out).contains('\u{1b}'), "{}", stderr(&out));
}

#[tokio::test]
async fn a_get_of_several_fails_if_one_does_not_exist() {
    let (service, _client) = embedded().await;
    done(&service, &["add", "home", "Milk", "--id", "milk"]);
    done(&service, &["add", "home", "Bread", "--id", "bread"]);
    let get = |args: &[&str]| run(&[&["get"], args, &["--server", &service.address]].concat());
    for output in ["table", "name", "json", "yaml"] {
        let both = get(&["home/milk", "home/bread", "-o", output]);
        assert_eq!(both.status.code(), Some(0), "{}", stderr(&both));
        let one = get(&["home/none", "home/milk", "-o", output]);
        assert_eq!(one.status.code(), Some(1), "{output}");
        assert!(stdout(&one).contains("home/todos/milk") || stdout(&one).contains("home/milk"));
        let error = "error: 1 of 2 todos were not read\n  home/none: does not exist\n";
        assert!(stderr(&one).ends_with(error), "{}", stderr(&one));
    }
}

#[tokio::test]
async fn errors_are_said_once_in_the_words_of_the_command() {
    let (service, _client) = embedded().await;
    let said = |args: &[&str]| {
        let out = run(&[args, &["--server", &service.address]].concat());
        assert_eq!(out.status.code(), Some(1), "{}", stderr(&out));
        assert_eq!(stdout(&out), "");
        stderr(&out)
    };
    let filter = said(&[
        "list",
        "home",
        "--filter",
        "state = active AND colour = RED",
    ]);
    let lines: Vec<_> = filter.lines().collect();
    assert_eq!(lines.len(), 3, "{filter}");
    assert!(
        lines[0].starts_with("error: --filter is wrong at character 19: "),
        "{filter}"
    );
    assert_eq!(lines[1], "  state = active AND colour = RED");
    assert_eq!(lines[2], format!("{}^", " ".repeat(2 + 19)));
    let order = said(&["list", "home", "--order-by", "title"]);
    assert!(
        order.starts_with("error: --order-by is wrong") && order.contains("\n  title\n  ^"),
        "{order}"
    );
    let title = said(&["create", "home", "--id", "a b"]);
    assert!(
        title.contains("--title") && title.contains("--id") && !title.contains("todo_id"),
        "{title}"
    );
    let missing = ["get", "home/none", "--consistency", "fully_consistent"];
    let first = said(&missing);
    assert_eq!(first.matches("lists/home/todos/none").count(), 1, "{first}");
    assert!(
        first.contains("\n  from origin, at most ") && !first.contains("staleness_bound_ms"),
        "{first}"
    );
    let name = said(&["get", "home"]);
    assert!(
        name.starts_with("error: NAME \"home\"") && name.contains("expected home/milk or "),
        "{name}"
    );
    let size = said(&["list", "home", "--page-size", "-3"]);
    assert!(size.starts_with("error: --page-size "), "{size}");
    let keys = |text: &str| {
        text.lines()
            .skip(1)
            .map(|line| {
                line.trim()
                    .split([':', ' '])
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            })
            .collect::<Vec<_>>()
    };
    for _ in 0..3 {
        assert_eq!(keys(&said(&missing)), keys(&first));
    }
    assert!(keys(&first).is_sorted(), "{first}");
}

#[tokio::test]
async fn a_watch_says_that_it_is_connected_and_how_to_resume() {
    let (service, mut client) = embedded().await;
    let mut watch = binary()
        .args(["watch", "home", "--server", &service.address])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let mut said = BufReader::new(watch.stderr.take().expect("stderr"));
    let mut line = String::new();
    said.read_line(&mut line).expect("a line");
    assert!(
        line.starts_with("connected to http://") && line.contains("lists/home"),
        "{line}"
    );
    create(&mut client, "milk", "Buy milk").await;
    let mut shown = BufReader::new(watch.stdout.take().expect("stdout"));
    let mut change = String::new();
    shown.read_line(&mut change).expect("a line");
    let (time, rest) = change.split_once(' ').expect("a time first");
    assert!(time.parse::<prost_types::Timestamp>().is_ok(), "{change}");
    assert_eq!(rest, "created lists/home/todos/milk\n");
    let pid = watch.id().to_string();
    assert!(
        std::process::Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .expect("kill")
            .success()
    );
    assert_eq!(watch.wait().expect("ended").code(), Some(0));
    let mut rest = String::new();
    said.read_to_string(&mut rest).expect("read");
    let token = rest
        .lines()
        .find_map(|line| line.strip_prefix("resume with --after "))
        .unwrap_or_else(|| panic!("no token in {rest:?}"));
    // The token is that of the change: it is not shown again.
    create(&mut client, "bread", "Buy bread").await;
    let mut again = binary()
        .args([
            "watch",
            "home",
            "--after",
            token,
            "-o",
            "name",
            "--server",
            &service.address,
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let mut first = String::new();
    BufReader::new(again.stdout.take().expect("stdout"))
        .read_line(&mut first)
        .expect("a line");
    assert_eq!(first, "lists/home/todos/bread\n");
    again.kill().expect("killed");
    again.wait().expect("ended");
}

#[tokio::test]
async fn status_shows_a_replica_on_one_screen() {
    let (service, mut client) = embedded().await;
    create(&mut client, "milk", "Buy milk").await;
    let metrics = metrics_address(&service);
    let shown = done(&service, &["status", "--metrics", &metrics]);
    assert!(shown.contains("no Redis in use"), "{shown}");
    for word in [
        "readiness",
        "serving",
        "feed lag",
        "staleness bound",
        "reads",
        "version",
        "near cache",
        "memory",
    ] {
        assert!(shown.contains(word), "{word:?} is not in\n{shown}");
    }
    assert!(shown.lines().count() <= 24, "{shown}");
    let json = done(&service, &["status", "--metrics", &metrics, "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["health"]["readiness"], "serving");
    // Without metrics health is shown all the same.
    let shown = done(&service, &["status", "--metrics", "127.0.0.1:1"]);
    assert!(
        shown.contains("serving") && shown.contains("not available"),
        "{shown}"
    );
    service.kill();
    let out = run(&["status", "--watch", "1ms", "--server", &service.address]);
    assert_eq!(out.status.code(), Some(2));
    assert!(stderr(&out).contains("at least 100ms"), "{}", stderr(&out));
    let out = run(&["status", "--server", &service.address]);
    assert_eq!(out.status.code(), Some(1));
    assert!(
        stderr(&out).contains("cannot be reached"),
        "{}",
        stderr(&out)
    );
}

#[tokio::test]
async fn the_answer_of_the_service_arrives_before_the_deadline_of_the_command() {
    // A service that listens but has no database yet: calls wait for it.
    let uri = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=500";
    let service = Tidemark::start(&["--mongodb-uri", uri]);
    let args = ["get", "home/milk", "--timeout", "2s"];
    let args = [&args[..], &["--server", &service.address]].concat();
    // One of some: the machine may have given the service no CPU before the deadline.
    let mut all = Vec::new();
    let is_answer =
        |said: &String| said.contains("ORIGIN_UNAVAILABLE") || said.contains("DEADLINE_EXCEEDED");
    while !all.iter().any(is_answer) {
        assert!(all.len() < 5, "{all:?}");
        let out = run(&args);
        assert_eq!(out.status.code(), Some(1));
        all.push(stderr(&out));
    }
}

#[tokio::test]
async fn colours_are_for_terminals_only_and_can_be_switched_off() {
    let (service, mut client) = embedded().await;
    create(&mut client, "milk", "Buy milk").await;
    let list = format!(
        "{} list home --server {}",
        env!("CARGO_BIN_EXE_tidemark"),
        service.address
    );
    let on_terminal = |colour: &str| {
        let out = std::process::Command::new("script")
            .args(["--quiet", "--return", "--command", &list, "/dev/null"])
            .env("TERM", "xterm")
            .env("NO_COLOR", colour)
            .stdin(Stdio::null())
            .output()
            .expect("script of util-linux is there");
        stdout(&out)
    };
    assert!(on_terminal("").contains('\u{1b}'));
    assert!(!on_terminal("1").contains('\u{1b}'));
    assert!(!done(&service, &["list", "home"]).contains('\u{1b}'));
}
