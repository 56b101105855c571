//! Replies that would be above what clients accept.

use std::{collections::BTreeSet, time::Duration};

use futures::StreamExt as _;
use mongodb::bson::doc;
use tidemark::pb::{self, watch_todos_response::Event};
use tonic::{Code, Status};

use crate::{
    client::*,
    pod,
    support::{eventually, mongo},
};

/// Writes at once: far from what the service refuses.
const AT_ONCE: usize = 16;

/// The largest valid todo has about 45 KB.
fn large(notes: usize) -> pb::Todo {
    pb::Todo {
        notes: "\u{1F600}".repeat(notes),
        ..titled("large")
    }
}

async fn fill(client: &Client, list: &str, count: usize, todo: pb::Todo) {
    let creates = (0..count).map(|n| {
        let (mut client, todo) = (client.clone(), todo.clone());
        async move {
            create_in(&mut client, list, &format!("t{n}"), todo)
                .await
                .expect("created");
        }
    });
    futures::stream::iter(creates)
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<()>>()
        .await;
}

/// All names of a list, by pages of a thousand.
async fn walk(client: &mut Client, parent: &str, order: &str) -> (Vec<String>, usize) {
    let (mut seen, mut pages, mut page_token) = (Vec::new(), 0, String::new());
    loop {
        let request = pb::ListTodosRequest {
            page_size: 1000,
            order_by: order.into(),
            page_token,
            consistency: strong(),
            ..page_of(parent)
        };
        let page = list(client, request).await;
        assert!(!page.todos.is_empty());
        seen.extend(names(&page));
        pages += 1;
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return (seen, pages);
        }
    }
}

#[tokio::test]
async fn large_lists_are_shown_whole() {
    let (_service, mut client) = pod::embedded().await;
    for (list, count, todo) in [
        ("lists/six", 1000, large(1500)),
        ("lists/most", 300, large(8192)),
    ] {
        fill(&client, list, count, todo).await;
        for order in ["", "due_time"] {
            let (seen, pages) = walk(&mut client, list, order).await;
            let distinct: BTreeSet<_> = seen.iter().collect();
            assert_eq!(
                (seen.len(), distinct.len()),
                (count, count),
                "{list} {order}"
            );
            assert!(pages > 1, "{list}");
        }
    }
    let one = get(&mut client, "lists/most/todos/t1", None)
        .await
        .expect("fits");
    assert_eq!(one.todo.expect("a todo").notes.chars().count(), 8192);
}

#[tokio::test]
async fn a_list_whose_todos_grow_meanwhile_is_shown_whole() {
    let (_service, mut client) = pod::embedded().await;
    fill(&client, "lists/grows", 400, large(1)).await;
    let first = pb::ListTodosRequest {
        page_size: 100,
        order_by: "create_time".into(),
        consistency: strong(),
        ..page_of("lists/grows")
    };
    let page = list(&mut client, first.clone()).await;
    let mut seen = names(&page);
    let grow = (0..400).map(|n| {
        let mut client = client.clone();
        let todo = pb::Todo {
            name: format!("lists/grows/todos/t{n}"),
            ..large(8192)
        };
        async move {
            let request = pb::UpdateTodoRequest {
                todo: Some(todo),
                ..Default::default()
            };
            client.update_todo(request).await.expect("updated");
        }
    });
    futures::stream::iter(grow)
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<()>>()
        .await;
    let mut page_token = page.next_page_token;
    while !page_token.is_empty() {
        let request = pb::ListTodosRequest {
            page_size: 1000,
            page_token,
            ..first.clone()
        };
        let page = list(&mut client, request).await;
        seen.extend(names(&page));
        page_token = page.next_page_token;
    }
    let distinct: BTreeSet<_> = seen.iter().collect();
    assert_eq!((seen.len(), distinct.len()), (400, 400));
}

#[tokio::test]
async fn a_large_batch_is_refused_with_what_fits() {
    let (_service, mut client) = pod::embedded().await;
    fill(&client, "lists/home", 1, large(8192)).await;
    let batch = |count| pb::BatchGetTodosRequest {
        names: vec!["lists/home/todos/t0".into(); count],
        consistency: None,
    };
    let status = client
        .batch_get_todos(batch(1000))
        .await
        .expect_err("too large");
    let text = status.message().to_owned();
    let (code, reason, metadata) = refused(Err::<(), _>(status));
    assert_eq!(
        (code, reason.as_str()),
        (Code::ResourceExhausted, "MESSAGE_TOO_LARGE")
    );
    assert!(metadata["limit_bytes"].parse::<usize>().expect("a number") < 4 << 20);
    let fits = text
        .split_whitespace()
        .rev()
        .find_map(|word| word.parse().ok());
    let fits: usize = fits.unwrap_or_else(|| panic!("no number in {text}"));
    assert!(fits > 50, "{text}");
    let reply = client
        .batch_get_todos(batch(fits))
        .await
        .expect("fits")
        .into_inner();
    assert_eq!(reply.todos.len(), fits);
}

/// An edit made in the database is not held to the limits of the contract.
#[tokio::test]
async fn a_todo_that_no_client_can_receive_blocks_nothing() {
    let (_service, mut client) = real("oversized").await;
    let todos = mongo().todos("oversized").await;
    create(&mut client, "small", "x").await;
    let created = create(&mut client, "huge", "x").await;
    let watch = pb::WatchTodosRequest {
        parent: "lists/home".into(),
        include_todo: true,
        start: Some(pb::watch_todos_request::Start::After(created.token)),
        ..Default::default()
    };
    let mut changes = client.watch_todos(watch).await.expect("open").into_inner();
    changes.message().await.expect("alive");
    let name = "lists/home/todos/huge";
    let edit = doc! { "$set": { "notes": "x".repeat(6 << 20) } };
    todos
        .update_one(doc! { "_id": name }, edit)
        .await
        .expect("edited");
    // A busy database may miss the time limit of a load.
    let read = eventually("the edit", Duration::from_secs(30), async || {
        let read = get(&mut client.clone(), name, strong()).await;
        let answered = |status: &Status| status.code() != Code::Unavailable;
        read.err().filter(answered)
    })
    .await;
    let (code, reason, _) = refused(Err::<(), _>(read));
    assert_eq!(
        (code, reason.as_str()),
        (Code::ResourceExhausted, "MESSAGE_TOO_LARGE")
    );
    let request = pb::ListTodosRequest {
        consistency: strong(),
        ..page_of("lists/home")
    };
    let page = list(&mut client, request).await;
    assert_eq!(names(&page), ["lists/home/todos/small"]);
    assert_eq!(page.unreadable, [name]);
    let batch = pb::BatchGetTodosRequest {
        names: vec![name.into(); 2],
        consistency: None,
    };
    let batch = client.batch_get_todos(batch).await.expect("read");
    assert_eq!(batch.into_inner().unreadable, [name, name]);
    loop {
        let message = changes.message().await.expect("alive").expect("a message");
        if let Some(Event::Change(change)) = message.event {
            assert_eq!((change.name.as_str(), change.todo), (name, None));
            break;
        }
    }
}
