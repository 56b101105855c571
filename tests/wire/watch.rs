//! Watches: nothing is missed, and every message says where to resume.

use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};
use tidemark::{
    model::Token,
    pb::{self, todo_change::Kind, watch_todos_request::Start, watch_todos_response::Event},
};
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};

use crate::{client::*, support::mongo};

type Stream = Streaming<pb::WatchTodosResponse>;

fn request(parent: &str, after: Option<&str>) -> pb::WatchTodosRequest {
    pb::WatchTodosRequest {
        parent: parent.into(),
        include_todo: true,
        start: after.map(|token| Start::After(token.into())),
        ..Default::default()
    }
}

async fn watch(client: &mut Client, parent: &str, after: Option<&str>) -> Stream {
    client
        .watch_todos(request(parent, after))
        .await
        .expect("watching")
        .into_inner()
}

async fn next(stream: &mut Stream) -> Result<Option<pb::WatchTodosResponse>, Status> {
    timeout(Duration::from_secs(60), stream.message())
        .await
        .expect("a message in time")
}

/// The token of the first message.
async fn start_of(stream: &mut Stream) -> String {
    let first = next(stream).await.expect("no error");
    first.expect("a message").token
}

/// The next message that is no progress.
async fn event(stream: &mut Stream) -> (Event, String) {
    loop {
        let message = next(stream).await.expect("no error").expect("no end");
        match message.event.expect("an event") {
            Event::Progress(_) => {}
            event => return (event, message.token),
        }
    }
}

async fn change(stream: &mut Stream) -> (pb::TodoChange, String) {
    match event(stream).await {
        (Event::Change(change), token) => (change, token),
        other => panic!("{other:?}"),
    }
}

async fn every_change(mut client: Client) {
    let mut stream = watch(&mut client, "lists/home", None).await;
    let first = next(&mut stream)
        .await
        .expect("no error")
        .expect("a message at once");
    assert!(matches!(first.event, Some(Event::Progress(_))) && !first.token.is_empty());
    let mut all = watch(&mut client, "lists/-", None).await;
    create(&mut client, "milk", "Buy milk").await;
    create_in(&mut client, "lists/other", "x", titled("elsewhere"))
        .await
        .expect("created");
    let name = "lists/home/todos/milk";
    let (created, created_token) = change(&mut stream).await;
    assert_eq!(
        (created.name.as_str(), created.kind()),
        (name, Kind::Created)
    );
    assert_eq!(created.todo.expect("asked for").title, "Buy milk");
    assert!(created.commit_time.is_some());
    retitle(&mut client, name, "Buy bread").await;
    let (updated, _) = change(&mut stream).await;
    assert_eq!(
        (
            updated.kind(),
            updated.todo.expect("asked for").title.as_str()
        ),
        (Kind::Updated, "Buy bread")
    );
    let request = pb::DeleteTodoRequest {
        name: name.into(),
        ..Default::default()
    };
    client.delete_todo(request).await.expect("deleted");
    let (deleted, last) = change(&mut stream).await;
    assert_eq!((deleted.kind(), deleted.todo), (Kind::Deleted, None));
    // Changes of one todo that wait to be sent are merged into the last of them, so the other
    // list's may come first.
    let mut seen = Vec::new();
    while seen.last() != Some(&Kind::Deleted) {
        let (change, _) = change(&mut all).await;
        match change.name.as_str() {
            "lists/other/todos/x" => seen.insert(0, change.kind()),
            other => {
                assert_eq!(other, name);
                seen.push(change.kind());
            }
        }
    }
    assert_eq!(seen[0], Kind::Created, "of the other list: {seen:?}");
    assert!(seen.len() > 1, "{seen:?}");
    // From the start again; and from a cursor in the middle.
    let mut again = watch(&mut client, "lists/home", Some(&first.token)).await;
    // What happened to one todo meanwhile is told as one.
    assert_eq!(change(&mut again).await.0.kind(), Kind::Deleted);
    let mut middle = watch(&mut client, "lists/home", Some(&created_token)).await;
    assert_eq!(change(&mut middle).await.0.kind(), Kind::Deleted);
    // List, then watch from the list's token, misses nothing.
    let page = list(&mut client, page_of("lists/home")).await;
    let mut from_list = watch(
        &mut client,
        "lists/home",
        Some(&page.read.expect("a ReadInfo").token),
    )
    .await;
    create(&mut client, "after", "the list").await;
    loop {
        let (change, _) = change(&mut from_list).await;
        if change.name == "lists/home/todos/after" {
            break;
        }
    }
    get(&mut client, "lists/home/todos/after", with_token(&last))
        .await
        .expect("a watch's token is good for reads");
}

#[tokio::test]
async fn every_change_on_the_embedded_store() {
    let (_service, client) = embedded().await;
    every_change(client).await;
}

#[tokio::test]
async fn every_change_on_mongodb() {
    let (_service, client) = real("watch").await;
    every_change(client).await;
}

/// An answer may have seen more than it is fresh to (a todo newer than its
/// page). A watch from its token begins where the answer ends, and a client
/// that keeps only its last token still reads nothing older than the answer.
#[tokio::test]
async fn a_watch_does_not_forget_what_its_token_has_seen() {
    let (_service, mut client) = embedded().await;
    let mut stream = watch(&mut client, "lists/home", None).await;
    let start = start_of(&mut stream).await;
    let written = create(&mut client, "a", "x").await.token;
    let token = |text: &str| Token::decode(text).expect("a token");
    let answer = Token {
        fresh_to: token(&start).fresh_to,
        ..token(&written)
    };
    assert!(answer.seen > answer.fresh_to);
    let mut stream = watch(&mut client, "lists/home", Some(&answer.encode())).await;
    let first = token(
        &next(&mut stream)
            .await
            .expect("no error")
            .expect("a message")
            .token,
    );
    assert_eq!(first, answer);
    assert_eq!(
        change(&mut stream).await.0.name,
        "lists/home/todos/a",
        "it begins before the write"
    );
}

#[tokio::test]
async fn a_watch_goes_on_at_another_replica() {
    let (one, mut first) = real("watch_resume").await;
    let (_two, mut second) = real("watch_resume").await;
    let mut stream = watch(&mut first, "lists/home", None).await;
    next(&mut stream).await.expect("no error");
    create(&mut second, "a", "x").await;
    let (_, token) = change(&mut stream).await;
    one.kill();
    create(&mut second, "b", "x").await;
    create(&mut second, "c", "x").await;
    let mut stream = watch(&mut second, "lists/home", Some(&token)).await;
    assert_eq!(change(&mut stream).await.0.name, "lists/home/todos/b");
    assert_eq!(change(&mut stream).await.0.name, "lists/home/todos/c");
    // A replica that starts later serves a cursor from before its start.
    let (_three, mut third) = real_with("watch_resume", &["--replay-window", "15s"]).await;
    let mut stream = watch(&mut third, "lists/home", Some(&token)).await;
    assert_eq!(change(&mut stream).await.0.name, "lists/home/todos/b");
}

/// A transaction is never cut in half: all its changes but the last carry the
/// cursor from before it.
#[tokio::test]
async fn a_transaction_is_not_cut_in_half() {
    let (_service, mut client) = real("watch_txn").await;
    let mut stream = watch(&mut client, "lists/home", None).await;
    let start = start_of(&mut stream).await;
    let mongo = mongo().client().await;
    let todos = mongo.database("watch_txn").collection::<Document>("todos");
    let session = mongo.start_session().await;
    let mut transaction = session.expect("a session");
    // The driver repeats it where the database asks for that, such as while it has no lock.
    let committed = transaction.start_transaction().and_run2(async |session| {
        for id in ["a", "b", "c"] {
            let name = format!("lists/home/todos/{id}");
            let todo = doc! { "_id": name, "parent": "lists/home", "title": id };
            todos.insert_one(todo).session(&mut *session).await?;
        }
        Ok(())
    });
    committed.await.expect("committed");
    let cursor = |text: &str| {
        tidemark::model::Token::decode(text)
            .expect("a token")
            .fresh_to
    };
    let changes = [
        change(&mut stream).await,
        change(&mut stream).await,
        change(&mut stream).await,
    ];
    let cursors: Vec<_> = changes.iter().map(|(_, token)| cursor(token)).collect();
    assert_eq!(cursors[0], cursors[1]);
    assert!(cursors[2] > cursors[1]);
    assert!(cursors[0] >= cursor(&start));
    let mut again = watch(&mut client, "lists/home", Some(&changes[1].1)).await;
    assert_eq!(change(&mut again).await.0.name, "lists/home/todos/a");
}

#[tokio::test]
async fn a_drop_is_told_as_a_reset_to_all_cursors_before_it() {
    let (_service, mut client) = real("watch_drop").await;
    let mut stream = watch(&mut client, "lists/home", None).await;
    let start = start_of(&mut stream).await;
    create(&mut client, "a", "x").await;
    change(&mut stream).await;
    mongo()
        .todos("watch_drop")
        .await
        .drop()
        .await
        .expect("dropped");
    let (reset, token) = event(&mut stream).await;
    assert!(matches!(reset, Event::Reset(_)), "{reset:?}");
    let listed = pb::ListTodosRequest {
        consistency: with_token(&token),
        ..page_of("lists/home")
    };
    assert!(list(&mut client, listed).await.todos.is_empty());
    let mut late = watch(&mut client, "lists/home", Some(&start)).await;
    loop {
        if matches!(event(&mut late).await.0, Event::Reset(_)) {
            break;
        }
    }
}

#[tokio::test]
async fn a_drained_watch_ends_with_progress_and_draining() {
    let (service, mut client) = embedded().await;
    let mut stream = watch(&mut client, "lists/home", None).await;
    next(&mut stream).await.expect("no error");
    service.terminate();
    let mut last = None;
    let end = loop {
        match next(&mut stream).await {
            Ok(message) => last = Some(message.expect("a last message")),
            Err(end) => break end,
        }
    };
    let last = last.expect("a message before the end");
    assert!(matches!(last.event, Some(Event::Progress(_))) && !last.token.is_empty());
    let (code, reason, _) = refused(Err::<(), _>(end));
    assert_eq!((code, reason.as_str()), (Code::Unavailable, "DRAINING"));
    assert_eq!(service.exit_code(Duration::from_secs(60)).await, Some(0));
}

/// While nothing changes, the token advances and the bound stays small: a client that
/// comes back after hours resumes from where it was told that it is.
#[tokio::test]
async fn an_idle_watch_goes_on_with_its_token() {
    let (_service, mut client) = embedded().await;
    // From the create on: without a token a watch may still deliver it.
    let created = create(&mut client, "milk", "Buy milk").await;
    let request = pb::WatchTodosRequest {
        progress_interval: Some(prost_types::Duration {
            seconds: 1,
            nanos: 0,
        }),
        ..request("lists/home", Some(&created.token))
    };
    let stream = client.watch_todos(request).await;
    let mut stream = stream.expect("watching").into_inner();
    let (mut last, mut advanced) = (0, 0);
    let began = Instant::now();
    // Not each of them: a machine that gives the service no CPU delays its heartbeats.
    while advanced < 4 {
        assert!(began.elapsed() < Duration::from_secs(120), "{advanced}");
        let message = next(&mut stream).await.expect("no error").expect("no end");
        let Some(Event::Progress(progress)) = message.event else {
            panic!("{message:?}")
        };
        let bound = progress.staleness_bound.expect("a bound");
        let cursor = Token::decode(&message.token).expect("a token").fresh_to.0;
        assert!(cursor >= last, "{cursor} after {last}");
        advanced += usize::from(cursor > last && bound.seconds < 3);
        last = cursor;
    }
}
