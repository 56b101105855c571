//! A start knows what waiting does not help, and creates nothing then.

use std::time::{Duration, Instant};

use mongodb::{
    Client,
    bson::{Document, doc},
};
use tidemark::origin::{
    ConnectError,
    mongo::{MongoDb, Status, check},
};
use tokio::time::{sleep, timeout};

use crate::{
    client::{create, ready, titled},
    mongo::{FAIL_POINT, admin, connect, create as write, fail, one_node, uri},
    support::{Tidemark, eventually, mongo, standalone_mongod},
};

/// Why a start is refused for good. A busy server may be late, and then it is tried again.
async fn refusal(uri: &str) -> String {
    eventually(
        "a refusal",
        Duration::from_secs(60),
        async || match MongoDb::connect(uri, 0, 8).await {
            Err(ConnectError::Permanent(cause)) => Some(cause.to_string()),
            Err(ConnectError::Transient(cause)) => {
                eprintln!("tried again: {cause}");
                None
            }
            Ok(_) => panic!("{uri} was accepted"),
        },
    )
    .await
}

#[tokio::test]
async fn a_collection_of_the_wrong_kind_is_refused_by_name() {
    let client = admin().await;
    let made = [
        (
            "view",
            doc! { "create": "todos", "viewOn": "x", "pipeline": [] },
        ),
        (
            "series",
            doc! { "create": "todos", "timeseries": { "timeField": "t" } },
        ),
        (
            "capped",
            doc! { "create": "todos", "capped": true, "size": 4096 },
        ),
        (
            "folded",
            doc! { "create": "todos", "collation": { "locale": "en", "strength": 2 } },
        ),
    ];
    for (database, command) in made {
        let database = client.database(database);
        database.run_command(command).await.expect("made");
        let told = refusal(&uri(database.name())).await;
        assert!(told.contains(".todos "), "{told}");
        let names = database.list_collection_names().await.expect("names");
        assert!(
            !names.iter().any(|name| name.starts_with("tidemark")),
            "{names:?}"
        );
    }
    for database in ["admin", "local", "config"] {
        assert!(refusal(&one_node().uri(database)).await.contains(database));
        let names = client
            .database(database)
            .list_collection_names()
            .await
            .expect("names");
        assert!(
            !names
                .iter()
                .any(|name| name == "todos" || name.starts_with("tidemark")),
            "{names:?}"
        );
    }
}

#[tokio::test]
async fn servers_that_never_answer_as_a_set_are_told_apart() {
    let alone = standalone_mongod();
    let wait = Duration::from_secs(60);
    let uri = format!("mongodb://127.0.0.1:{}/?replicaSet=tests", alone.port);
    eventually("the standalone server", wait, async || {
        let refused = MongoDb::connect(&uri, 0, 8).await.err()?;
        refused.to_string().contains("standalone").then_some(())
    })
    .await;
    let set = one_node()
        .uri("x")
        .replace("replicaSet=tests", "replicaSet=wrong");
    let told = refusal(&set).await;
    assert!(
        told.contains("\"tests\"") && told.contains("wrong"),
        "{told}"
    );
}

#[tokio::test]
async fn an_index_that_serves_is_used_whatever_its_name_is() {
    let database = admin().await.database("renamed");
    let index = doc! { "name": "mine", "key": { "parent": 1, "create_time": -1, "_id": 1 } };
    let command = doc! { "createIndexes": "todos", "indexes": [index] };
    database.run_command(command).await.expect("an index");
    let _origin = connect(&uri("renamed")).await;
    let todos: mongodb::Collection<Document> = database.collection("todos");
    // A busy server builds them in the background after the start.
    let names = eventually("the indexes", Duration::from_secs(60), async || {
        let names = todos.list_index_names().await.ok()?;
        (names.len() >= 5).then_some(names)
    })
    .await;
    assert_eq!(names.len(), 5, "{names:?}");
    assert!(names.contains(&"mine".into()) && !names.contains(&"tidemark_newest".into()));
}

/// One database has one identity, whatever the rights of a user are.
#[tokio::test]
async fn the_identity_does_not_depend_on_what_failed() {
    let _one = FAIL_POINT.lock().await;
    let first = connect(&uri("identity")).await.id();
    let config = |code: i32| doc! { "failCommands": ["replSetGetConfig"], "errorCode": code };
    fail("identity", doc! { "times": 1 }, config(13)).await;
    assert!(refusal(&uri("identity")).await.contains("clusterMonitor"));
    fail("identity", doc! { "times": 1 }, config(6)).await;
    let passing = MongoDb::connect(&uri("identity"), 0, 8).await.err();
    assert!(
        matches!(passing, Some(ConnectError::Transient(_))),
        "{passing:?}"
    );
    assert_eq!(connect(&uri("identity")).await.id(), first);
    fail("identity", "off", doc! {}).await;
}

#[tokio::test]
async fn a_check_finds_what_a_start_would_meet() {
    let window = Duration::from_secs(600);
    let worst = |findings: &[tidemark::origin::mongo::Finding]| {
        findings.iter().map(|finding| finding.status).max()
    };
    let _origin = connect(&uri("checked")).await;
    // A busy server builds indexes in the background after the start.
    let findings = eventually("a good check", Duration::from_secs(60), async || {
        let findings = check(&uri("checked"), window).await;
        if worst(&findings) != Some(Status::Ok) {
            eprintln!("{findings:#?}");
            return None;
        }
        Some(findings)
    })
    .await;
    assert!(
        findings
            .iter()
            .any(|finding| finding.what == "oplog window")
    );
    let database = admin().await.database("checked");
    let strict = doc! { "collMod": "todos", "validator": { "owner": { "$exists": true } } };
    database.run_command(strict).await.expect("a validator");
    let findings = check(&uri("checked"), window).await;
    let insert = findings
        .iter()
        .find(|finding| finding.what == "insert of a todo");
    assert!(
        insert.is_some_and(|insert| insert.detail.contains("validator")),
        "{findings:#?}"
    );
    let findings = check(&one_node().uri("local"), window).await;
    assert_eq!(worst(&findings), Some(Status::Error), "{findings:#?}");
    let todos: mongodb::Collection<Document> = database.collection("todos");
    assert_eq!(todos.count_documents(doc! {}).await.expect("counted"), 0);
}

async fn index_builds(client: &Client) -> usize {
    let current = doc! { "currentOp": true, "command.createIndexes": { "$exists": true } };
    let reply = client
        .database("admin")
        .run_command(current)
        .await
        .expect("asked");
    reply.get_array("inprog").map_or(0, Vec::len)
}

/// With a member stopped an index build may take as long as that lasts. Writes,
/// reads and starts go on meanwhile.
#[tokio::test]
async fn an_index_build_is_waited_for_by_nobody() {
    let set = mongo();
    let client = set.client().await;
    let uri = set.uri("rebuilt");
    let (_service, mut service) = ready(Tidemark::start(&["--mongodb-uri", &uri])).await;
    let database = client.database("rebuilt");
    let other: mongodb::Collection<Document> = database.collection("other");
    for part in 0..20_i32 {
        let document = |n| doc! { "_id": format!("lists/home/todos/r{part}-{n}"), "parent": "lists/home", "title": "r" };
        other
            .insert_many((0..1000).map(document))
            .await
            .expect("inserted");
    }
    let hello = client
        .database("admin")
        .run_command(doc! { "hello": 1 })
        .await
        .expect("hello");
    let primary = hello.get_str("primary").expect("a primary").to_owned();
    let secondary = set
        .nodes
        .iter()
        .find(|node| !primary.ends_with(&node.port.to_string()));
    let secondary = secondary.expect("a secondary");
    secondary.freeze();
    let rename =
        doc! { "renameCollection": "rebuilt.other", "to": "rebuilt.todos", "dropTarget": true };
    client
        .database("admin")
        .run_command(rename)
        .await
        .expect("renamed");
    let began = Instant::now();
    let mut n = 0;
    while began.elapsed() < Duration::from_secs(8) {
        let id = format!("n{n}");
        let write = crate::client::create_in(&mut service, "lists/home", &id, titled("x"));
        // Far less than the index build takes.
        let done = timeout(Duration::from_secs(15), write)
            .await
            .expect("in time");
        done.expect("written");
        assert!(index_builds(&client).await <= 2, "one build at a time");
        n += 1;
        sleep(Duration::from_millis(100)).await;
    }
    let (_second, mut second) = ready(Tidemark::start(&["--mongodb-uri", &uri])).await;
    create(&mut second, "from-the-second", "x").await;
    secondary.thaw();
    let todos: mongodb::Collection<Document> = database.collection("todos");
    eventually("the indexes", Duration::from_secs(120), async || {
        (todos.list_index_names().await.ok()?.len() == 5).then_some(())
    })
    .await;
    drop(write("unused", "x"));
}
