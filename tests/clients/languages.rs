//! Each language's program, as its README says to start it.

use std::collections::BTreeMap;

use tidemark::pb;

use crate::{
    client::{create_in, list, page_of, retitle, strong, titled},
    program::Language,
    replicas::{Replica, answered, never_ready},
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
    "in a microsecond: DEADLINE_EXCEEDED",
    "at another replica: Written at one replica",
];

async fn tour(language: Language, database: &str) {
    let (one, other) = (Replica::start(database, &[]).await, Replica::start(database, &[]).await);
    let (third, nowhere) = never_ready();
    let args = ["tour", "lists/tour", &one.address, &other.address, &nowhere];
    let (code, lines, errors) = language.run(&args);
    assert_eq!(code, Some(0), "{lines:#?}\n{errors}");
    let get = &lines[0];
    assert!(get.starts_with("get: Water the plants, from SOURCE_"), "{get}");
    assert!(get.contains(", misses nothing older than "), "{get}");
    assert_eq!(lines[1..], *TOUR);
    for replica in [&one, &other] {
        let calls = answered(replica.service(), "ListTodos");
        assert!(calls >= 5, "round robin gave one replica {calls} calls of 20 and more");
    }
    for call in ["GetTodo", "ListTodos", "CreateTodo", "UpdateTodo"] {
        assert_eq!(answered(&third, call), 0, "{call} went to a replica that is not ready");
    }
    assert!(answered(&third, "other") >= 1, "nobody asked for the health of the one that is not ready");
}

async fn mirror(language: Language, database: &str) {
    let mut one = Replica::start(database, &[]).await;
    let mut other = Replica::start(database, &[]).await;
    let create = async |replica: &mut Replica, id: &str| {
        let made = create_in(&mut replica.client, "lists/home", id, titled(&format!("todo {id}"))).await;
        made.expect("created");
    };
    for id in ["a", "b", "c"] {
        create(&mut one, id).await;
    }
    let mut program = language.start(&["mirror", "lists/home", &one.address, &other.address]);
    program.says("following", 1).await;
    create(&mut one, "d").await;
    retitle(&mut other.client, "lists/home/todos/a", "another title").await;
    program.says("put: lists/home/todos/d todo d", 1).await;
    program.says("put: lists/home/todos/a another title", 1).await;

    // Wherever the watch is, it is lost both ways: by a break, and by a drain.
    one.kill();
    create(&mut other, "e").await;
    delete(&mut other, "lists/home/todos/b").await;
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
    delete(&mut other, "lists/home/todos/d").await;
    program.says("put: lists/home/todos/g todo g", 1).await;
    program.says("gone: lists/home/todos/d", 1).await;

    let all =
        list(&mut other.client, pb::ListTodosRequest { consistency: strong(), ..page_of("lists/home") });
    let there: BTreeMap<_, _> =
        all.await.todos.into_iter().map(|todo| (todo.name.clone(), todo.title.clone())).collect();
    let there: Vec<_> = there.into_iter().map(|(name, title)| format!("has: {name} {title}")).collect();
    let (code, lines) = program.finish().await;
    assert_eq!(code, Some(0));
    let has: Vec<_> = lines.iter().filter(|line| line.starts_with("has: ")).cloned().collect();
    assert_eq!(has, there);
    let told = |text: &str| lines.iter().any(|line| line.starts_with(text));
    assert!(told("lost: UNAVAILABLE ERROR_REASON_DRAINING"), "{lines:#?}");
    assert!(told("lost: UNAVAILABLE ERROR_REASON_UNSPECIFIED"), "{lines:#?}");
    assert!(!told("reset"), "{lines:#?}");
}

async fn delete(replica: &mut Replica, name: &str) {
    let request = pb::DeleteTodoRequest { name: name.into(), ..Default::default() };
    replica.client.delete_todo(request).await.expect("deleted");
}

#[tokio::test]
async fn go_tour() {
    tour(Language::Go, "go_tour").await;
}

#[tokio::test]
async fn go_mirror() {
    mirror(Language::Go, "go_mirror").await;
}

#[tokio::test]
async fn python_tour() {
    tour(Language::Python, "python_tour").await;
}

#[tokio::test]
async fn python_mirror() {
    mirror(Language::Python, "python_mirror").await;
}

#[tokio::test]
async fn java_tour() {
    tour(Language::Java, "java_tour").await;
}

#[tokio::test]
async fn java_mirror() {
    mirror(Language::Java, "java_mirror").await;
}
