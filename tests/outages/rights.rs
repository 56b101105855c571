//! The least role of docs/operations.md is enough, and a missing right is named.

use std::time::{Duration, Instant};

use mongodb::{
    Client, ClientSession,
    bson::{Bson, Document, doc},
    options::{ClientOptions, DriverInfo},
};
use tidemark::{
    model::OriginTime,
    origin::{
        FeedStart, Origin, Rule, WriteError,
        mongo::{MongoDb, Status, check},
    },
};

use crate::{
    mongo::{create, update},
    support::{Server, eventually, folder, initiate, mongod_of_a_set},
};

/// A replica set of one that wants a login.
async fn secured() -> (Server, Client) {
    let key = folder("mongod-key").join("key");
    std::fs::write(&key, "c2VjcmV0IG9mIHRoZSB0ZXN0cw==").expect("written");
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("set");
    let server = mongod_of_a_set(100, &["--keyFile", &key.display().to_string()]);
    let port = server.port;
    let uri = format!("mongodb://127.0.0.1:{port}/?directConnection=true");
    let member = doc! { "_id": 0, "host": format!("127.0.0.1:{port}") };
    initiate(&uri, doc! { "_id": "tests", "members": [member] }).await;
    // The first user may be made without a login, from this machine.
    let nobody = Client::with_uri_str(&uri).await.expect("a client");
    let root = doc! { "createUser": "root", "pwd": "root", "roles": ["root"] };
    eventually("the first user", Duration::from_secs(60), async || {
        nobody
            .database("admin")
            .run_command(root.clone())
            .await
            .ok()
    })
    .await;
    let uri = format!("mongodb://root:root@127.0.0.1:{port}/?replicaSet=tests&authSource=admin");
    let root = Client::with_uri_str(uri).await.expect("a client");
    (server, root)
}

/// Everything that the service does with a collection.
const ALL: [&str; 7] = [
    "find",
    "insert",
    "update",
    "remove",
    "createCollection",
    "createIndex",
    "listIndexes",
];

/// What the service needs, as docs/operations.md has it.
fn privileges(database: &str) -> Vec<Document> {
    let on = |collection: &str, actions: &[&str]| {
        let actions: Vec<_> = actions.iter().map(|action| Bson::from(*action)).collect();
        doc! { "resource": { "db": database, "collection": collection }, "actions": actions }
    };
    vec![
        doc! { "resource": { "cluster": true }, "actions": ["replSetGetConfig"] },
        on("", &["find", "changeStream", "listCollections"]),
        on("todos", &ALL),
        on("lists", &ALL),
        on("tidemark_heartbeats", &ALL),
        on(
            "tidemark_requests",
            &[
                "find",
                "insert",
                "update",
                "createCollection",
                "createIndex",
                "listIndexes",
            ],
        ),
    ]
}

async fn user(root: &Client, name: &str, privileges: Vec<Document>) {
    let admin = root.database("admin");
    let role = doc! { "createRole": name, "privileges": privileges, "roles": [] };
    admin.run_command(role).await.expect("a role");
    let user = doc! { "createUser": name, "pwd": "x", "roles": [name] };
    admin.run_command(user).await.expect("a user");
}

/// Changes a todo in a transaction, as a replica does, and leaves it open.
async fn left_open(uri: &str) -> ClientSession {
    let mut options = ClientOptions::parse(uri).await.expect("a URI");
    options.driver_info = Some(DriverInfo::builder().name("tidemark").build());
    let client = Client::with_options(options).expect("a client");
    let mut session = client.start_session().await.expect("a session");
    session.start_transaction().await.expect("begun");
    let todos: mongodb::Collection<Document> = client.database("app").collection("todos");
    let filter = doc! { "_id": crate::mongo::name("a").as_str() };
    let update = todos.update_one(filter, doc! { "$set": { "title": "lost" } });
    update.session(&mut session).await.expect("updated");
    session
}

#[tokio::test]
async fn the_least_role_is_enough_and_less_is_named() {
    let (server, root) = secured().await;
    let uri = |user: &str| {
        let port = server.port;
        format!("mongodb://{user}:x@127.0.0.1:{port}/app?replicaSet=tests&authSource=admin")
    };
    user(&root, "least", privileges("app")).await;
    let origin = MongoDb::connect(&uri("least"), 0, 8)
        .await
        .expect("connected");
    let h0 = origin
        .heartbeat(0, Duration::from_secs(20))
        .await
        .expect("a heartbeat");
    let mut feed = origin
        .open_feed(FeedStart::After(h0))
        .await
        .expect("a feed");
    origin
        .write(create("a", "x"), None, None)
        .await
        .expect("written");
    let request = tidemark::model::RequestId {
        id: uuid::Uuid::new_v4(),
        fingerprint: [0; 16],
    };
    origin
        .write(update("a", "y"), Some(request), None)
        .await
        .expect("written");
    feed.next().await.expect("an event");
    origin
        .load_todos(
            &[crate::mongo::name("a")],
            OriginTime::ZERO.next(),
            Duration::from_secs(20),
        )
        .await
        .expect("loaded");
    let _open = left_open(&uri("least")).await;
    let began = Instant::now();
    let written = origin.write(update("a", "z"), None, None).await;
    written.expect("written");
    assert!(began.elapsed() < Duration::from_secs(18), "it was ended");
    // A busy server builds indexes in the background after the start.
    eventually("a good check", Duration::from_secs(60), async || {
        let findings = check(&uri("least"), Duration::from_secs(600)).await;
        let worst = findings.iter().map(|finding| finding.status).max();
        if worst != Some(Status::Ok) {
            eprintln!("{findings:#?}");
        }
        (worst == Some(Status::Ok)).then_some(())
    })
    .await;

    let mut fewer = privileges("app");
    fewer.remove(0);
    user(&root, "fewer", fewer).await;
    let refused = MongoDb::connect(&uri("fewer"), 0, 8)
        .await
        .err()
        .expect("refused");
    assert!(
        refused.to_string().contains("replSetGetConfig"),
        "{refused}"
    );
    let mut reader = privileges("app");
    for privilege in &mut reader {
        if let Ok(actions) = privilege.get_array_mut("actions") {
            actions.retain(|action| {
                !["insert", "remove"].contains(&action.as_str().unwrap_or_default())
            });
        }
    }
    user(&root, "reader", reader).await;
    let findings = check(&uri("reader"), Duration::from_secs(600)).await;
    for right in ["right to remove from todos", "right to insert into todos"] {
        let found = findings.iter().find(|finding| finding.what == right);
        assert_eq!(
            found.map(|found| found.status),
            Some(Status::Error),
            "{right}: {findings:#?}"
        );
    }
    let origin = MongoDb::connect(&uri("reader"), 0, 8)
        .await
        .expect("connected");
    match origin.write(create("b", "x"), None, None).await {
        Err(WriteError::Refused { rule, .. }) => assert_eq!(rule, Rule::Rights),
        other => panic!("{other:?}"),
    }
}
