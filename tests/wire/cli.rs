//! The command line as people use it: the real binary against a real service.

mod import;
mod lists;
mod settings;
mod show;

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use tidemark::config::SETTINGS;

use crate::{
    client::*,
    support::{Tidemark, folder, free_port, spawn},
    tls::{self, Authority, Files},
};

const COMMANDS: [&str; 18] = [
    "serve",
    "import",
    "generate",
    "get",
    "list",
    "lists",
    "share",
    "unshare",
    "create",
    "update",
    "delete",
    "watch",
    "add",
    "done",
    "status",
    "check",
    "completions",
    "man",
];

fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_tidemark"))
}

fn run(args: &[&str]) -> Output {
    binary().args(args).output().expect("run")
}

fn stdout(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// The address of the metrics of a service, for `--metrics`.
pub fn metrics_address(service: &Tidemark) -> String {
    let address = service.metrics.trim_start_matches("http://");
    address.trim_end_matches("/metrics").to_owned()
}

/// A client command that is asked of a service, and succeeds.
fn done(service: &Tidemark, args: &[&str]) -> String {
    let out = run(&[args, &["--server", &service.address]].concat());
    assert_eq!(out.status.code(), Some(0), "{args:?}: {}", stderr(&out));
    stdout(&out)
}

#[test]
fn every_command_has_help_with_an_example() {
    let all = stdout(&run(&["--help"]));
    for command in COMMANDS {
        assert!(
            all.contains(&format!("  {command} ")),
            "--help lacks {command}"
        );
        let help = run(&[command, "--help"]);
        assert_eq!(help.status.code(), Some(0));
        let help = stdout(&help);
        assert!(help.contains(&format!("tidemark {command}")), "{help}");
        assert!(
            help.contains("Example"),
            "{command} has no example:\n{help}"
        );
    }
    assert!(
        all.contains("Examples:") && all.contains("Exit codes"),
        "{all}"
    );
}

/// Data that could not be written is an error; a reader who has enough is none.
#[tokio::test]
async fn output_that_cannot_be_written_is_an_error() {
    let (service, _client) = embedded().await;
    done(&service, &["add", "home", "milk"]);
    let formats = ["table", "json", "yaml", "name"];
    for format in formats {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let out = binary()
            .args(["list", "home", "-o", format, "--server", &service.address])
            .stdout(full.expect("opened"))
            .output()
            .expect("run");
        assert_eq!(out.status.code(), Some(1), "{format}");
        assert!(
            stderr(&out).contains("error: stdout: No space left"),
            "{format}: {}",
            stderr(&out)
        );
    }
    for args in [
        &["completions", "bash"][..],
        &["man"],
        &["openapi"],
        &["serve", "--print-config"],
        &["key", "new", "user:ada"],
        &["generate", "5"],
        &["generate", "5000"],
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let out = binary().args(args).stdout(full.expect("opened")).output();
        let out = out.expect("run");
        assert_eq!(out.status.code(), Some(1), "{args:?}: {}", stderr(&out));
        assert!(stderr(&out).contains("No space left"), "{}", stderr(&out));
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let out = binary().args(args).stdout(writer).output().expect("run");
        assert_eq!(out.status.code(), Some(0), "{args:?}: {}", stderr(&out));
        assert!(!stderr(&out).contains("panicked"), "{}", stderr(&out));
    }
    let none = run(&["get", "home/milk", "--timeout", "0s"]);
    assert_eq!(none.status.code(), Some(2), "{}", stderr(&none));
}

/// A first start without room ends with that, and does not leave a file that is no store.
#[tokio::test]
async fn a_first_start_without_room_leaves_nothing_behind() {
    let dir = folder("data");
    let data = dir.to_str().expect("a path");
    // A file that must not grow is a full disk to the store.
    let limited = "ulimit -f 1; exec \"$0\" serve --data-dir \"$1\" --listen 127.0.0.1:0 --metrics-listen off";
    let out = Command::new("sh")
        .args(["-c", limited, env!("CARGO_BIN_EXE_tidemark"), data])
        .output()
        .expect("run");
    let said = stderr(&out);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("File too large"), "{said}");
    let left: Vec<_> = dir.read_dir().expect("a folder").collect();
    assert!(left.is_empty(), "{left:?}");
    ready(Tidemark::start(&["--data-dir", data])).await;
}

#[test]
fn the_man_page_and_the_completions_know_everything() {
    let page = stdout(&run(&["man"]));
    assert!(
        page.contains(".TH tidemark 1"),
        "{}",
        page.chars().take(300).collect::<String>()
    );
    for command in COMMANDS {
        assert!(
            page.contains(&format!("TIDEMARK {}", command.to_uppercase())),
            "the page lacks {command}"
        );
    }
    for setting in &SETTINGS {
        let flag = format!("\\-\\-{}", setting.name.replace('-', "\\-"));
        assert!(page.contains(&flag), "the page lacks {flag}");
    }
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let completions = stdout(&run(&["completions", shell]));
        assert!(
            completions.contains("cors-allow-origins") && completions.contains("watch"),
            "{shell}"
        );
    }
}

#[tokio::test]
async fn todos_from_first_to_last() {
    let (service, _client) = embedded().await;
    let created = done(
        &service,
        &[
            "create",
            "lists/home",
            "--id",
            "milk",
            "--title",
            "Buy milk",
            "--priority",
            "high",
        ],
    );
    assert!(
        created.contains("home/milk") && created.contains("Buy milk"),
        "{created}"
    );
    done(
        &service,
        &[
            "create",
            "lists/home",
            "--id",
            "bread",
            "--title",
            "Buy bread",
            "--label",
            "shop",
        ],
    );

    let json = done(
        &service,
        &[
            "get",
            "lists/home/todos/milk",
            "--output",
            "json",
            "--consistency",
            "fully_consistent",
        ],
    );
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["todo"]["title"], "Buy milk");
    assert_eq!(json["todo"]["priority"], "PRIORITY_HIGH");
    let token = json["read"]["token"].as_str().expect("a token");
    let some = run(&[
        "get",
        "lists/home/todos/milk",
        "lists/home/todos/none",
        "--at-least-as-fresh",
        token,
        "--server",
        &service.address,
    ]);
    assert_eq!(some.status.code(), Some(1), "{}", stderr(&some));
    assert!(stdout(&some).contains("Buy milk"), "{}", stdout(&some));
    assert!(
        stderr(&some).contains("does not exist"),
        "{}",
        stderr(&some)
    );

    done(
        &service,
        &["update", "lists/home/todos/milk", "--state", "completed"],
    );
    let list = done(
        &service,
        &[
            "list",
            "lists/home",
            "--filter",
            "state = COMPLETED",
            "--consistency",
            "fully_consistent",
        ],
    );
    assert!(
        list.contains("home/milk") && list.contains("completed") && !list.contains("bread"),
        "{list}"
    );
    let all = done(
        &service,
        &[
            "list",
            "lists/home",
            "--page-size",
            "1",
            "--all",
            "--consistency",
            "fully_consistent",
        ],
    );
    assert!(all.contains("milk") && all.contains("bread"), "{all}");

    done(&service, &["delete", "lists/home/todos/milk"]);
    let gone = run(&[
        "get",
        "lists/home/todos/milk",
        "--consistency",
        "fully_consistent",
        "--server",
        &service.address,
    ]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(
        stderr(&gone).contains("TODO_NOT_FOUND") && stderr(&gone).contains("lists/home/todos/milk")
    );
}

#[tokio::test]
async fn what_goes_wrong_is_told_and_has_its_exit_code() {
    let (service, _client) = embedded().await;
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let server = service.address.as_str();
    for (args, code, word) in [
        (
            &["get", "lists/home/todos/milk", "--server", &nobody][..],
            1,
            "is `tidemark serve` running there?",
        ),
        (
            &["get", "lists/home/todos/milk", "--server", "localhost"],
            2,
            "http://127.0.0.1:50051",
        ),
        (
            &["get", "lists/home/todos/milk", "--server", "not an address"],
            2,
            "not an address",
        ),
        (
            &[
                "get",
                "lists/home/todos/milk",
                "--server",
                server,
                "--ca",
                "/none.pem",
            ],
            2,
            "https",
        ),
        (
            &[
                "get",
                "lists/home/todos/milk",
                "--server",
                "https://h",
                "--ca",
                "/none.pem",
            ],
            2,
            "/none.pem",
        ),
        (
            &[
                "get",
                "lists/home/todos/milk",
                "--server",
                server,
                "--cert",
                "/c.pem",
            ],
            2,
            "--key",
        ),
        (&["get", "home", "--server", server], 1, "lists/"),
        (&["get"], 2, "Usage"),
        (
            &["update", "lists/home/todos/milk", "--server", server],
            2,
            "--title",
        ),
        (&["create", "lists/home", "--server", server], 1, "title"),
        (
            &[
                "list",
                "lists/home",
                "--filter",
                "colour = RED",
                "--server",
                server,
            ],
            1,
            "FILTER_INVALID",
        ),
        (
            &[
                "watch",
                "lists/home",
                "--after",
                "nonsense",
                "--server",
                server,
            ],
            1,
            "TOKEN_INVALID",
        ),
        (
            &["watch", "lists/home", "--server", &nobody],
            1,
            "cannot be reached",
        ),
        (&["import", "/none.jsonl", "--list", "no list"], 2, "--list"),
        (
            &["import", "/none.jsonl", "--near-capacity", "much"],
            2,
            "near-capacity",
        ),
        (&["import", "/none.jsonl"], 1, "/none.jsonl"),
    ] {
        let out = run(args);
        assert_eq!(out.status.code(), Some(code), "{args:?}: {}", stderr(&out));
        assert!(stderr(&out).contains(word), "{args:?}: {}", stderr(&out));
    }
}

#[tokio::test]
async fn a_watch_goes_on_by_itself_when_the_service_was_killed() {
    let (dir, listen) = (
        folder("data").display().to_string(),
        format!("127.0.0.1:{}", free_port()),
    );
    let serve = || Tidemark::start(&["--data-dir", &dir, "--listen", &listen]);
    let (service, mut client) = ready(serve()).await;
    let before = create(&mut client, "before", "not seen: the watch begins later").await;
    let args = [
        "watch",
        "lists/home",
        "--include-todo",
        "--progress",
        // Without a token it may begin before a write that the feed has not returned yet.
        "--after",
        &before.token,
        "--server",
        &service.address,
    ];
    let args = args.map(ToOwned::to_owned);
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_tidemark"));
    let mut watch = spawn(program, &args, &[], (Stdio::piped(), Stdio::inherit()));
    let out = watch.stdout.take().expect("stdout");
    let (lines, told) = mpsc::channel();
    thread::spawn(move || {
        BufReader::new(out)
            .lines()
            .map_while(Result::ok)
            .try_for_each(|line| lines.send(line))
    });
    let next = |word: &str| loop {
        let line = told.recv_timeout(Duration::from_secs(120)).expect("a line");
        if line.contains(word) {
            break line;
        }
        assert!(line.starts_with("nothing missed"), "{line}");
    };
    next("nothing missed");
    create(&mut client, "milk", "Buy milk").await;
    let line = next("created");
    assert!(
        line.contains("Z created lists/home/todos/milk  [active, normal] Buy milk"),
        "{line}"
    );
    service.kill();
    let (_service, mut client) = ready(serve()).await;
    // Most likely before the watch is back: the token brings it all the same.
    create(&mut client, "bread", "Buy bread").await;
    assert!(next("created").contains("lists/home/todos/bread"));
    watch.kill().expect("killed");
    watch.wait().expect("waited for");
}

#[tokio::test]
async fn client_commands_speak_tls() {
    let ours = Authority::new("ours");
    let signed = ours.sign();
    let files = Files::new(&signed);
    let ca = files.write("ca.pem", &ours.pem());
    let service = tls::serve(&files, &["--tls-client-ca", &ca]);
    tls::ready_by_tls(&service, &tls::showing(&ours, &signed)).await;
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| files.path(name));
    let create = [
        "create",
        "lists/home",
        "--id",
        "milk",
        "--title",
        "Buy milk",
    ];
    let told = done(
        &service,
        &[&create[..], &["--ca", &ca, "--cert", &cert, "--key", &key]].concat(),
    );
    assert!(told.contains("Buy milk"), "{told}");
    // The one side speaks TLS, and the other does not.
    let plain = service.address.replace("https://", "http://");
    for args in [&["list", "home"][..], &["watch", "home"], &["status"]] {
        let out = run(&[args, &["--server", &plain]].concat());
        let told = stderr(&out);
        assert_eq!(out.status.code(), Some(1), "{args:?}: {told}");
        assert!(
            told.contains("use https:// in --server"),
            "{args:?}: {told}"
        );
    }
    let (open, _client) = embedded().await;
    let tls = open.address.replace("http://", "https://");
    let told = stderr(&run(&["list", "home", "--server", &tls, "--ca", &ca]));
    assert!(told.contains("use http:// in --server"), "{told}");
    for with in [&[][..], &["--ca", &ca]] {
        let out = run(&[&["list", "lists/home", "--server", &service.address], with].concat());
        let told = stderr(&out);
        assert!(
            out.status.code() == Some(1) && told.contains("see --ca, --cert and --key"),
            "{told}"
        );
    }
}
