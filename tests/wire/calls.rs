//! Each call, on both origins.

use tidemark::pb::{self, todo::State};
use tonic::Code;

use crate::client::*;

async fn every_call(mut client: Client) {
    let created = create(&mut client, "milk", "Buy milk").await;
    let todo = created.todo.expect("a todo");
    assert_eq!(
        (todo.name.as_str(), todo.title.as_str()),
        ("lists/home/todos/milk", "Buy milk")
    );
    assert_eq!(todo.state(), State::Active);
    assert!(!todo.etag.is_empty() && todo.create_time.is_some());

    let read = get(&mut client, &todo.name, with_token(&created.token))
        .await
        .expect("found");
    assert_eq!(
        read.todo.as_ref(),
        Some(&todo),
        "what was written is read, to the last field"
    );
    assert!(!read.read.expect("a ReadInfo").token.is_empty());

    let again = create_in(&mut client, "lists/home", "milk", titled("x")).await;
    let (code, reason, metadata) = refused(again);
    assert_eq!(
        (code, reason.as_str()),
        (Code::AlreadyExists, "TODO_ALREADY_EXISTS")
    );
    assert!(metadata.contains_key("token"));

    let done = pb::Todo {
        name: todo.name.clone(),
        state: State::Completed.into(),
        ..Default::default()
    };
    let request = pb::UpdateTodoRequest {
        todo: Some(done),
        ..Default::default()
    };
    let updated = client
        .update_todo(request)
        .await
        .expect("updated")
        .into_inner();
    let now = updated.todo.expect("a todo");
    assert!(now.complete_time.is_some() && now.etag != todo.etag && now.title == "Buy milk");

    let stale = pb::Todo {
        etag: todo.etag.clone(),
        ..pb::Todo {
            name: todo.name.clone(),
            ..titled("no")
        }
    };
    let request = pb::UpdateTodoRequest {
        todo: Some(stale),
        ..Default::default()
    };
    let (code, reason, metadata) = refused(client.update_todo(request).await);
    assert_eq!((code, reason.as_str()), (Code::Aborted, "ETAG_MISMATCH"));
    assert_eq!(
        title(&mut client, &todo.name, with_token(&metadata["token"])).await,
        "Buy milk"
    );

    let names = [
        "lists/home/todos/milk",
        "lists/home/todos/none",
        "lists/home/todos/milk",
    ];
    let request = pb::BatchGetTodosRequest {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        consistency: None,
    };
    let many = client
        .batch_get_todos(request)
        .await
        .expect("read")
        .into_inner();
    assert_eq!(
        (many.todos.len(), many.missing),
        (2, vec!["lists/home/todos/none".to_owned()])
    );

    let delete = |etag: &str, allow_missing| pb::DeleteTodoRequest {
        name: "lists/home/todos/milk".into(),
        etag: etag.into(),
        allow_missing,
    };
    let (code, ..) = refused(client.delete_todo(delete(&todo.etag, false)).await);
    assert_eq!(code, Code::Aborted);
    let gone = client
        .delete_todo(delete(&now.etag, false))
        .await
        .expect("deleted")
        .into_inner();
    let (code, reason, metadata) =
        refused(get(&mut client, &todo.name, with_token(&gone.token)).await);
    assert_eq!((code, reason.as_str()), (Code::NotFound, "TODO_NOT_FOUND"));
    for key in ["token", "source", "staleness_bound_ms"] {
        assert!(metadata.contains_key(key), "{key}");
    }
    let (code, _, metadata) = refused(client.delete_todo(delete("", false)).await);
    assert!(code == Code::NotFound && metadata.contains_key("token"));
    client
        .delete_todo(delete("", true))
        .await
        .expect("missing is allowed");
    let missing = pb::Todo {
        name: "lists/home/todos/new".into(),
        ..titled("made by update")
    };
    let request = pb::UpdateTodoRequest {
        todo: Some(missing.clone()),
        ..Default::default()
    };
    assert_eq!(refused(client.update_todo(request).await).0, Code::NotFound);
    let request = pb::UpdateTodoRequest {
        todo: Some(missing),
        allow_missing: true,
        ..Default::default()
    };
    client.update_todo(request).await.expect("created");
}

async fn request_ids(mut client: Client) {
    let request = |title: &str| pb::CreateTodoRequest {
        parent: "lists/ids".into(),
        todo: Some(titled(title)),
        todo_id: String::new(),
        request_id: "6a4c1c9e-6b1d-4a39-8f0e-0d6c2d5d7d11".into(),
    };
    let first = client
        .create_todo(request("once"))
        .await
        .expect("created")
        .into_inner();
    let again = client
        .create_todo(request("once"))
        .await
        .expect("the first outcome")
        .into_inner();
    assert_eq!(first.todo, again.todo);
    let (code, reason, _) = refused(client.create_todo(request("twice")).await);
    assert_eq!(
        (code, reason.as_str()),
        (Code::InvalidArgument, "FIELD_INVALID")
    );
    let all = list(
        &mut client,
        pb::ListTodosRequest {
            consistency: strong(),
            ..page_of("lists/ids")
        },
    )
    .await;
    assert_eq!(all.todos.len(), 1);
}

async fn pages(mut client: Client) {
    for n in 0..23 {
        let mut todo = titled(&format!("todo {n}"));
        todo.priority = 1 + n % 4;
        todo.labels = if n % 2 == 0 {
            vec!["even".into()]
        } else {
            vec![]
        };
        todo.due_time = (n % 3 == 0).then_some(prost_types::Timestamp {
            seconds: i64::from(n % 5),
            nanos: 0,
        });
        create_in(&mut client, "lists/pages", &format!("t{n}"), todo)
            .await
            .expect("created");
    }
    let mut token = String::new();
    for order in ["", "create_time", "due_time", "priority desc"] {
        let (mut seen, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = pb::ListTodosRequest {
                page_size: 5,
                order_by: order.into(),
                page_token,
                consistency: if token.is_empty() {
                    strong()
                } else {
                    with_token(&token)
                },
                ..page_of("lists/pages")
            };
            let reply = list(&mut client, request).await;
            seen.extend(reply.todos);
            token = reply.read.expect("a ReadInfo").token;
            page_token = reply.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        let mut names: Vec<_> = seen.iter().map(|todo| todo.name.clone()).collect();
        names.sort();
        names.dedup();
        assert_eq!(
            (seen.len(), names.len()),
            (23, 23),
            "{order}: every todo exactly once"
        );
        let key = |todo: &pb::Todo| match order {
            "" => (-millis(todo.create_time.as_ref()), todo.name.clone()),
            "create_time" => (millis(todo.create_time.as_ref()), todo.name.clone()),
            "due_time" => (
                todo.due_time.as_ref().map_or(i64::MAX, |due| due.seconds),
                todo.name.clone(),
            ),
            _ => (-i64::from(todo.priority), todo.name.clone()),
        };
        assert!(seen.is_sorted_by_key(key), "{order}");
    }
    let filtered = |filter: &str| pb::ListTodosRequest {
        filter: filter.into(),
        consistency: with_token(&token),
        ..page_of("lists/pages")
    };
    let even = list(
        &mut client,
        filtered("labels:\"even\" AND priority >= HIGH"),
    )
    .await;
    assert!(!even.todos.is_empty());
    assert!(
        even.todos
            .iter()
            .all(|todo| todo.labels == ["even"] && todo.priority >= 3)
    );
    assert_eq!(
        list(&mut client, filtered("due_time < \"1970-01-01T00:00:02Z\""))
            .await
            .todos
            .len(),
        4
    );
    assert_eq!(
        list(&mut client, filtered("state != ACTIVE"))
            .await
            .todos
            .len(),
        0
    );
}

fn millis(time: Option<&prost_types::Timestamp>) -> i64 {
    time.map_or(0, |time| {
        time.seconds * 1000 + i64::from(time.nanos / 1_000_000)
    })
}

#[tokio::test]
async fn every_call_on_the_embedded_store() {
    let (_service, client) = embedded().await;
    every_call(client.clone()).await;
    request_ids(client.clone()).await;
    pages(client).await;
}

#[tokio::test]
async fn every_call_on_mongodb_and_redis() {
    let (_service, client) = real("every_call").await;
    every_call(client.clone()).await;
    request_ids(client.clone()).await;
    pages(client).await;
}
