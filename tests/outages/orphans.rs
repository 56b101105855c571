//! A replica that is killed in the middle of a write leaves a transaction open. Others
//! end it: nobody waits for it until the server gives it up after a minute.

use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};
use tidemark::pb;

use crate::{
    client::{create, ready},
    mongo::{FAIL_POINT, admin, fail, one_node},
    support::{Tidemark, at_some_try},
};

/// Within this a write by the service succeeds, and an edit in the database: the age of
/// an orphan, the pauses between looks, and a busy machine. The server gives a transaction
/// up after 60 s.
const SERVICE_LIMIT: Duration = Duration::from_secs(18);
const EDIT_LIMIT: Duration = Duration::from_secs(40);
const TODO: &str = "lists/home/todos/a";
/// Name of the application that is killed.
const KILLED: &str = "orphaned";

fn update(title: &str, request_id: String) -> pb::UpdateTodoRequest {
    pb::UpdateTodoRequest {
        todo: Some(pb::Todo {
            name: TODO.into(),
            title: title.into(),
            ..pb::Todo::default()
        }),
        request_id,
        ..pb::UpdateTodoRequest::default()
    }
}

/// A replica leaves a transaction open that has changed the todo.
async fn leave_one_open(uri: &str) {
    // On a busy machine a replica may find and end it before it is killed.
    at_some_try("a transaction that was left open", async || {
        kill_in_transaction(uri).await;
        let open = open_transactions().await;
        (open > 0).then_some(()).ok_or(open)
    })
    .await;
}

/// A replica changes the todo in a transaction, can neither end nor abort it, and is
/// killed.
async fn kill_in_transaction(uri: &str) {
    let uri = format!("{uri}&appName={KILLED}");
    let (service, mut client) = ready(Tidemark::start(&["--mongodb-uri", &uri])).await;
    let commands = ["insert", "abortTransaction"];
    let data = doc! { "failCommands": &commands[..], "closeConnection": true };
    fail(KILLED, "alwaysOn", data).await;
    let id = uuid::Uuid::new_v4().to_string();
    let refused = client.update_todo(update("lost", id)).await;
    refused.expect_err("its request id could not be stored");
    service.kill();
    fail(KILLED, "off", doc! {}).await;
}

async fn open_transactions() -> usize {
    let current = doc! {
        "currentOp": true,
        "type": "idleSession",
        "transaction": { "$exists": true },
        "clientMetadata.application.name": KILLED,
    };
    let reply = admin().await.database("admin").run_command(current).await;
    let reply = reply.expect("asked");
    reply.get_array("inprog").expect("a list").len()
}

#[tokio::test]
async fn a_transaction_of_a_killed_replica_holds_nobody_up() {
    let _one = FAIL_POINT.lock().await;
    let uri = one_node().uri("orphans");
    let (_service, mut client) = ready(Tidemark::start(&["--mongodb-uri", &uri])).await;
    create(&mut client, "a", "x").await;

    leave_one_open(&uri).await;
    let began = Instant::now();
    let written = client
        .update_todo(update("by another replica", String::new()))
        .await;
    written.expect("written");
    assert!(began.elapsed() < SERVICE_LIMIT, "{:?}", began.elapsed());

    // A transaction meets the same conflict at once, and may be told to come again.
    leave_one_open(&uri).await;
    let began = Instant::now();
    loop {
        let id = uuid::Uuid::new_v4().to_string();
        match client.update_todo(update("once", id)).await {
            Ok(_) => break,
            Err(status) => assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}"),
        }
        assert!(began.elapsed() < SERVICE_LIMIT, "{:?}", began.elapsed());
    }

    leave_one_open(&uri).await;
    let began = Instant::now();
    let todos: mongodb::Collection<Document> =
        admin().await.database("orphans").collection("todos");
    let edited = todos.update_one(
        doc! { "_id": TODO },
        doc! { "$set": { "title": "by hand" } },
    );
    assert_eq!(edited.await.expect("edited").modified_count, 1);
    assert!(began.elapsed() < EDIT_LIMIT, "{:?}", began.elapsed());
}
