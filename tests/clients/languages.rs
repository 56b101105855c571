//! Each language's program, as its README says to start it.

use std::{collections::BTreeMap, path::Path};

use tidemark::pb::{self, todo::State};

use crate::{
    client::{create_in, list, page_of, retitle, strong, titled},
    program::{Language, Program, dies_with_this_thread, told},
    replicas::{Replica, answered, never_ready},
    support::free_port,
    unavailable::Unavailable,
};

/// The lines of the tour, whose `get` line is true of any source and bound.
const TOUR: &[&str] = &[
    "list: PRIORITY_URGENT Water the plants",
    "list: PRIORITY_HIGH Read a book",
    "list: PRIORITY_NORMAL Buy milk",
    "read: 20 times",
    "refused: ERROR_REASON_ETAG_MISMATCH, it is now: Call home at six",
    "refused: ERROR_REASON_TODO_NOT_FOUND, says SOURCE_ORIGIN",
    "refused: ERROR_REASON_FILTER_INVALID at character 0",
    "too short a deadline: DEADLINE_EXCEEDED",
    "at another replica: Written at one replica",
];

/// Todos that the tour creates.
const CREATED: u64 = 5;

async fn tour(language: Language, database: &str) {
    let (one, other) = (
        Replica::start(database, &[]).await,
        Replica::start(database, &[]).await,
    );
    let (third, nowhere) = never_ready();
    let mut args = vec!["tour", "lists/tour", &one.address, &other.address];
    // Connect knows no service config: it stays with one replica, and does not
    // ask for its health.
    let has_service_config = !matches!(language, Language::TypeScript);
    if has_service_config {
        args.push(&nowhere);
    }
    let (code, lines, errors) = language.run(&args);
    assert_eq!(code, Some(0), "{lines:#?}\n{errors}");
    let get = &lines[0];
    assert!(
        get.starts_with("get: Water the plants, from SOURCE_"),
        "{get}"
    );
    assert!(get.contains(", misses nothing older than "), "{get}");
    assert_eq!(lines[1..], *TOUR);
    let deleted = |replica: &Replica| answered(replica.service(), "DeleteTodo");
    let deleted = deleted(&one) + deleted(&other);
    assert_eq!(deleted, CREATED, "the tour deletes what it created");
    if has_service_config {
        for replica in [&one, &other] {
            let calls = answered(replica.service(), "ListTodos");
            assert!(
                calls >= 5,
                "round robin gave one replica {calls} calls of 20 and more"
            );
        }
        for call in ["GetTodo", "ListTodos", "CreateTodo", "UpdateTodo"] {
            assert_eq!(
                answered(&third, call),
                0,
                "{call} went to a replica that is not ready"
            );
        }
        assert!(
            answered(&third, "other") >= 1,
            "nobody asked for the health of the one that is not ready"
        );
    }
}

/// A read is tried four times in all, at a server that is never available.
async fn retries(language: Language) {
    let server = Unavailable::start().await;
    let address = server.address.clone();
    let run = move || language.run(&["get", "lists/home/todos/milk", &address]);
    let (code, lines, errors) = tokio::task::spawn_blocking(run).await.expect("run");
    assert_eq!((code, lines.len()), (Some(1), 0), "{errors}");
    assert!(errors.contains("ERROR_REASON_UNSPECIFIED"), "{errors}");
    assert_eq!(server.asked(), ["/todo.v1.TodoService/GetTodo"; 4]);
}

/// The program follows a list while its replicas break, drain and come back.
async fn mirror(database: &str, more: &[&str], start: impl FnOnce(&str, &str) -> Program) {
    let mut one = Replica::start(database, more).await;
    let mut other = Replica::start(database, more).await;
    for id in ["a", "b", "c"] {
        create(&mut one, id).await;
    }
    let mut program = start(&one.address, &other.address);
    program.says("following", 1).await;
    create(&mut one, "d").await;
    retitle(&mut other.client, "lists/home/todos/a", "another title").await;
    program.says("put: lists/home/todos/d todo d", 1).await;
    program
        .says("put: lists/home/todos/a another title", 1)
        .await;

    // Wherever the watch is, it is lost both ways: by a break, and by a drain.
    one.kill();
    create(&mut other, "e").await;
    delete(&mut other, "b").await;
    program.says("put: lists/home/todos/e todo e", 1).await;
    program.says("gone: lists/home/todos/b", 1).await;
    one.start_again().await;

    other.drain().await;
    create(&mut one, "f").await;
    retitle(&mut one.client, "lists/home/todos/c", "changed meanwhile").await;
    program.says("put: lists/home/todos/f todo f", 1).await;
    other.start_again().await;

    one.kill();
    create(&mut other, "g").await;
    delete(&mut other, "d").await;
    program.says("put: lists/home/todos/g todo g", 1).await;
    program.says("gone: lists/home/todos/d", 1).await;

    let there = shown(&mut other).await;
    let (code, lines) = program.finish().await;
    assert_eq!(code, Some(0));
    let has: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with("has: "))
        .cloned()
        .collect();
    assert_eq!(has, there);
    let lost = |how: &str| {
        lines
            .iter()
            .any(|line| line.starts_with("lost: ") && line.ends_with(how))
    };
    assert!(lost("UNAVAILABLE ERROR_REASON_DRAINING"), "{lines:#?}");
    assert!(lost("ERROR_REASON_UNSPECIFIED"), "{lines:#?}");
    assert!(
        !lines.iter().any(|line| line.starts_with("reset")),
        "{lines:#?}"
    );
}

async fn create(replica: &mut Replica, id: &str) {
    let made = create_in(
        &mut replica.client,
        "lists/home",
        id,
        titled(&format!("todo {id}")),
    )
    .await;
    made.expect("created");
}

async fn delete(replica: &mut Replica, id: &str) {
    let request = pb::DeleteTodoRequest {
        name: format!("lists/home/todos/{id}"),
        ..Default::default()
    };
    replica.client.delete_todo(request).await.expect("deleted");
}

/// The list as a program shows it in the end.
async fn shown(replica: &mut Replica) -> Vec<String> {
    let request = pb::ListTodosRequest {
        consistency: strong(),
        ..page_of("lists/home")
    };
    let todos = list(&mut replica.client, request).await.todos;
    let sorted: BTreeMap<_, _> = todos
        .into_iter()
        .map(|todo| (todo.name.clone(), todo))
        .collect();
    let done = |todo: &pb::Todo| {
        if todo.state() == State::Completed {
            " (done)"
        } else {
            ""
        }
    };
    sorted
        .values()
        .map(|todo| format!("has: {} {}{}", todo.name, todo.title, done(todo)))
        .collect()
}

fn page(port: u16, servers: &[&str]) -> Program {
    let mut command = dies_with_this_thread("node");
    command
        .args([
            "clients/typescript/dist/web/test.js",
            &port.to_string(),
            "lists/home",
        ])
        .args(servers);
    assert!(
        Path::new(&told("TIDEMARK_CHROMIUM")).is_file(),
        "TIDEMARK_CHROMIUM is no file"
    );
    Program::start(&mut command)
}

macro_rules! tests_of {
    ($language:ident, $tour:ident, $mirror:ident, $retries:ident) => {
        #[tokio::test]
        async fn $tour() {
            tour(Language::$language, stringify!($tour)).await;
        }

        #[tokio::test]
        async fn $mirror() {
            let start = |one: &str, other: &str| {
                Language::$language.start(&["mirror", "lists/home", one, other])
            };
            mirror(stringify!($mirror), &[], start).await;
        }

        #[tokio::test]
        async fn $retries() {
            retries(Language::$language).await;
        }
    };
}

tests_of!(Go, go_tour, go_mirror, go_retries);
tests_of!(Java, java_tour, java_mirror, java_retries);
tests_of!(Python, python_tour, python_mirror, python_retries);
tests_of!(
    TypeScript,
    typescript_tour,
    typescript_mirror,
    typescript_retries
);

#[tokio::test]
async fn typescript_goes_on_to_a_replica_that_is_ready() {
    let mut one = Replica::start("typescript_get", &[]).await;
    create(&mut one, "milk").await;
    let (_third, nowhere) = never_ready();
    let args = ["get", "lists/home/todos/milk", &nowhere, &one.address];
    let (code, lines, errors) = Language::TypeScript.run(&args);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(lines, ["todo milk"]);
}

#[tokio::test]
async fn browser_mirror() {
    let port = free_port();
    let origin = format!("http://127.0.0.1:{port}");
    let start = |one: &str, other: &str| page(port, &[one, other]);
    mirror("browser_mirror", &["--cors-allow-origins", &origin], start).await;
}

#[tokio::test]
async fn browser_writes() {
    let port = free_port();
    let origin = format!("http://127.0.0.1:{port}");
    let mut replica = Replica::start("browser_writes", &["--cors-allow-origins", &origin]).await;
    create(&mut replica, "milk").await;
    let mut program = page(port, &[&replica.address]);
    program.says("following", 1).await;
    program.hears("add Written in a browser");
    program.says(" Written in a browser", 1).await;
    program.hears("complete lists/home/todos/milk");
    program.says("wrote: lists/home/todos/milk", 1).await;
    program
        .says("put: lists/home/todos/milk todo milk", 1)
        .await;
    let there = shown(&mut replica).await;
    assert!(
        there.contains(&"has: lists/home/todos/milk todo milk (done)".to_owned()),
        "{there:#?}"
    );
    let (code, lines) = program.finish().await;
    assert_eq!(code, Some(0));
    let has: Vec<_> = lines
        .into_iter()
        .filter(|line| line.starts_with("has: "))
        .collect();
    assert_eq!(has, there);
}

/// The setting is what lets the page in: the same page, another origin allowed.
#[tokio::test]
async fn browser_is_refused_from_another_origin() {
    let replica = Replica::start(
        "browser_cors",
        &["--cors-allow-origins", "http://todos.example"],
    )
    .await;
    let mut program = page(free_port(), &[&replica.address]);
    program.says("lost: ", 2).await;
    assert_eq!(program.count("following"), 0);
}
