//! Writes and reads: each error of the server says what it means.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use mongodb::{
    Client,
    bson::{Document, RawArrayBuf, RawDocumentBuf, doc},
};
use tidemark::{
    model::{
        Filter, ListName, ListPatch, ListsQuery, Order, OriginTime, PageQuery, Patch, RequestId,
        TodoName, Write,
    },
    origin::{Origin, OriginError, Rule, WriteError, mongo::MongoDb},
    pb::TodoList,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use uuid::Uuid;

use crate::{
    proxy,
    support::{Mongo, at_some_try, eventually, quickly},
};

/// A replica set of one, for all tests of this binary that do not stop it.
pub fn one_node() -> &'static Mongo {
    static MONGO: OnceLock<Mongo> = OnceLock::new();
    MONGO.get_or_init(|| Mongo::start(1, 200))
}

/// Its URI; fail points of a test match the application's name.
pub fn uri(database: &str) -> String {
    format!("{}&appName={database}", one_node().uri(database))
}

pub async fn admin() -> Client {
    one_node().client().await
}

/// Lets commands of one application fail.
pub async fn fail(application: &str, mode: impl Into<mongodb::bson::Bson>, data: Document) {
    let mut data = data;
    data.insert("appName", application);
    let command = doc! { "configureFailPoint": "failCommand", "mode": mode.into(), "data": data };
    let set = admin().await.database("admin").run_command(command).await;
    set.expect("mongod runs with enableTestCommands");
}

/// One test at a time has the fail point: the server has only one.
pub static FAIL_POINT: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

pub async fn connect(uri: &str) -> Arc<dyn Origin> {
    let limit = Duration::from_secs(60);
    let connected = eventually("a connection", limit, async || {
        // A new set may still be electing its primary.
        MongoDb::connect(uri, 0, 8).await.ok()
    });
    Arc::new(connected.await)
}

pub fn name(id: &str) -> TodoName {
    TodoName::parse(&format!("lists/home/todos/{id}")).expect("a name")
}

pub fn patch(title: &str) -> Patch {
    Patch {
        title: Some(title.into()),
        ..Patch::default()
    }
}

pub fn create(id: &str, title: &str) -> Write {
    Write::Create {
        todo: patch(title).create(name(id).as_str(), 1000),
        name: name(id),
    }
}

pub fn update(id: &str, title: &str) -> Write {
    Write::Update {
        name: name(id),
        patch: patch(title),
        etag: None,
        allow_missing: false,
    }
}

fn page(size: u32) -> PageQuery {
    PageQuery {
        list: ListName::parse("lists/home").expect("a list"),
        filter: Filter::default(),
        order: Order::PriorityDesc,
        size,
        after: None,
    }
}

#[tokio::test]
async fn a_code_of_the_server_becomes_what_a_caller_can_act_on() {
    let _one = FAIL_POINT.lock().await;
    let origin = connect(&uri("codes")).await;
    let one = |code: i32| doc! { "failCommands": ["insert"], "errorCode": code };
    for code in [112, 365] {
        fail("codes", doc! { "times": 2 }, one(code)).await;
        let id = format!("passing-{code}");
        let done = origin.write(create(&id, "x"), None, None).await;
        assert!(done.is_ok(), "{code}: {done:?}");
        fail("codes", "alwaysOn", one(code)).await;
        let id = format!("lasting-{code}");
        let refused = origin.write(create(&id, "x"), None, None).await;
        assert!(
            matches!(&refused, Err(WriteError::Unavailable(cause)) if cause.code() == Some(code)),
            "{code}: {refused:?}"
        );
    }
    for (code, wanted) in [(13, Rule::Rights), (371, Rule::Other), (10334, Rule::Size)] {
        fail("codes", doc! { "times": 1 }, one(code)).await;
        match origin.write(create("refused", "x"), None, None).await {
            Err(WriteError::Refused { rule, cause }) => {
                assert_eq!((rule, cause.code()), (wanted, Some(code)));
            }
            other => panic!("{code}: {other:?}"),
        }
    }
    // An interrupted statement may have been done, and so may one whose write concern
    // failed.
    for code in [11600, 202, 64, 100] {
        fail("codes", "alwaysOn", one(code)).await;
        let unknown = origin.write(create("unknown", "x"), None, None).await;
        assert!(
            matches!(unknown, Err(WriteError::OutcomeUnknown { .. })),
            "{code}: {unknown:?}"
        );
    }
    // What fails before a statement that writes is known to have no effect.
    let find = doc! { "failCommands": ["find"], "closeConnection": true };
    fail("codes", "alwaysOn", find).await;
    let unsent = origin.write(update("passing-112", "y"), None, None).await;
    assert!(
        matches!(unsent, Err(WriteError::Unavailable(_))),
        "{unsent:?}"
    );
    fail("codes", "off", doc! {}).await;
}

/// When the connection breaks at a command, what a write says depends on whether this
/// command may have had an effect.
#[tokio::test]
async fn only_a_write_that_was_sent_may_have_had_an_effect() {
    let _one = FAIL_POINT.lock().await;
    let origin = connect(&uri("sent")).await;
    let list = |id: &str| ListName::parse(&format!("lists/{id}")).expect("a list");
    let lists = ["kept", "home"].map(|id| Write::CreateList {
        name: list(id),
        list: TodoList::default(),
    });
    let todos = [create("kept", "x"), create("other", "x")];
    for write in lists.into_iter().chain(todos) {
        origin.write(write, None, None).await.expect("created");
    }
    let delete = |etag: Option<&str>| Write::Delete {
        name: name("kept"),
        etag: etag.map(Into::into),
        allow_missing: false,
    };
    let delete_list = |id, force| Write::DeleteList {
        name: list(id),
        etag: None,
        force,
    };
    let update_list = Write::UpdateList {
        name: list("kept"),
        patch: ListPatch::default(),
        etag: None,
    };
    let create_list = Write::CreateList {
        name: list("new"),
        list: TodoList::default(),
    };
    let request = |id: u128| RequestId {
        id: Uuid::from_u128(id),
        fingerprint: [1; 16],
    };
    for (command, write, request, may_have_effect) in [
        ("insert", create("new", "x"), None, true),
        ("find", update("kept", "y"), None, false),
        ("findAndModify", update("kept", "y"), None, true),
        ("find", delete(Some("an etag")), None, false),
        ("delete", delete(None), None, true),
        ("insert", create_list, None, true),
        ("find", update_list.clone(), None, false),
        ("findAndModify", update_list, None, true),
        ("find", delete_list("kept", false), None, false),
        ("delete", delete_list("kept", false), None, false),
        ("commitTransaction", delete_list("kept", false), None, true),
        ("find", delete_list("home", true), None, false),
        ("delete", delete_list("home", true), None, true),
        ("insert", create("new", "x"), Some(request(1)), false),
        (
            "commitTransaction",
            create("new", "x"),
            Some(request(2)),
            true,
        ),
    ] {
        let closed = doc! { "failCommands": [command], "closeConnection": true };
        fail("sent", "alwaysOn", closed).await;
        let case = format!("{command} of {write:?}");
        match origin.write(write, request, None).await {
            Err(WriteError::OutcomeUnknown { .. }) if may_have_effect => {}
            Err(WriteError::Unavailable(_)) if !may_have_effect => {}
            other => panic!("{case}: {other:?}"),
        }
    }
    fail("sent", "off", doc! {}).await;
}

#[tokio::test]
async fn a_rule_of_the_operator_is_named() {
    let origin = connect(&uri("rules")).await;
    let database = admin().await.database("rules");
    origin
        .write(create("first", "same"), None, None)
        .await
        .expect("created");
    let unique = doc! {
        "createIndexes": "todos",
        "indexes": [{ "name": "one title", "key": { "title": 1 }, "unique": true }],
    };
    database.run_command(unique).await.expect("an index");
    let by_index = Rule::UniqueIndex {
        index: "one title".into(),
    };
    for write in [create("second", "same"), {
        origin
            .write(create("third", "other"), None, None)
            .await
            .expect("created");
        update("third", "same")
    }] {
        match origin.write(write, None, None).await {
            Err(WriteError::Refused { rule, .. }) => assert_eq!(rule, by_index),
            other => panic!("{other:?}"),
        }
    }
    let again = origin.write(create("first", "new"), None, None).await;
    assert!(
        matches!(again, Err(WriteError::AlreadyExists { .. })),
        "{again:?}"
    );
    let validator = doc! { "collMod": "todos", "validator": { "title": { "$ne": "bad" } } };
    database.run_command(validator).await.expect("a validator");
    for write in [create("bad", "bad"), update("third", "bad")] {
        match origin.write(write, None, None).await {
            Err(WriteError::Refused { rule, .. }) => assert_eq!(rule, Rule::Validator),
            other => panic!("{other:?}"),
        }
    }
    // Each document of an import stands for itself.
    let todos = ["good", "bad", "same", "better"]
        .map(|title| patch(title).create(name(&format!("import-{title}")).as_str(), 1000));
    let imported = origin.import(todos.to_vec()).await.expect("imported");
    let refused: Vec<_> = imported.refused.iter().map(|(at, _)| *at).collect();
    assert_eq!((imported.created, refused), (2, vec![1, 2]));
    let rules: Vec<_> = imported.refused.into_iter().map(|(_, rule)| rule).collect();
    let index = "one title".to_owned();
    assert_eq!(rules, [Rule::Validator, Rule::UniqueIndex { index }]);
}

/// A document with one more element, given as bytes.
fn with_element(id: &str, element: &[u8]) -> RawDocumentBuf {
    let document = doc! { "_id": name(id).as_str(), "parent": "lists/home", "title": "t" };
    let document = RawDocumentBuf::try_from(&document).expect("raw");
    let mut bytes = document.as_bytes().to_vec();
    bytes.pop();
    bytes.extend_from_slice(element);
    bytes.push(0);
    let length = i32::try_from(bytes.len()).expect("small").to_le_bytes();
    bytes[..4].copy_from_slice(&length);
    RawDocumentBuf::from_bytes(bytes).expect("a document")
}

#[tokio::test]
async fn a_document_that_cannot_be_sent_back_is_reported_as_damaged() {
    let origin = connect(&uri("damaged")).await;
    let database = admin().await.database("damaged");
    // `extra: { s: "\xff" }`, and a second `title`.
    let nested = b"\x03extra\0\x0e\0\0\0\x02s\0\x02\0\0\0\xff\0\0";
    let twice = b"\x02title\0\x02\0\0\0u\0";
    for (id, element) in [("utf8", &nested[..]), ("twice", &twice[..])] {
        let mut documents = RawArrayBuf::new();
        documents.push(with_element(id, element));
        let mut insert = RawDocumentBuf::new();
        insert.append(mongodb::bson::cstr!("insert"), "todos");
        insert.append(mongodb::bson::cstr!("documents"), documents);
        database.run_raw_command(insert).await.expect("inserted");
        let refused = origin.write(update(id, "new"), None, None).await;
        assert!(
            matches!(&refused, Err(WriteError::Unreadable { field, .. }) if field == "document"),
            "{id}: {refused:?}"
        );
        let delete = Write::Delete {
            name: name(id),
            etag: None,
            allow_missing: false,
        };
        origin.write(delete, None, None).await.expect("deleted");
    }
}

/// What the server or the network says once in passing is no error of a read.
#[tokio::test]
async fn a_read_is_repeated_once() {
    let _one = FAIL_POINT.lock().await;
    let origin = connect(&uri("repeated")).await;
    let written = origin.write(create("a", "x"), None, None).await;
    let after = written.expect("written").time;
    let limit = Duration::from_secs(20);
    let find = |more: Document| {
        let mut data = doc! { "failCommands": ["find"] };
        data.extend(more);
        data
    };
    let passing = [
        doc! { "errorCode": 10107 },
        doc! { "errorCode": 189 },
        doc! { "errorCode": 6 },
        doc! { "errorCode": 112 },
        doc! { "closeConnection": true },
    ];
    for error in passing {
        // After a lost connection a busy server may be found again too late.
        at_some_try(&format!("{error}"), async || {
            fail("repeated", doc! { "times": 1 }, find(error.clone())).await;
            origin.load_todos(&[name("a")], after, limit).await
        })
        .await;
        let (_, page) = at_some_try(&format!("{error}"), async || {
            fail("repeated", doc! { "times": 1 }, find(error.clone())).await;
            origin.load_page(&page(5), after, limit).await
        })
        .await;
        assert_eq!(page.names.len(), 1, "{error}");
    }
    // A rule of the server is met again.
    fail(
        "repeated",
        doc! { "times": 1 },
        find(doc! { "errorCode": 13 }),
    )
    .await;
    let refused = origin.load_todos(&[name("a")], after, limit).await;
    assert!(refused.is_err(), "{refused:?}");
    fail("repeated", "off", doc! {}).await;
}

/// A snapshot that the server does not have ends a read only with its limit.
#[tokio::test]
async fn a_read_asks_for_a_later_snapshot_until_its_limit() {
    let _one = FAIL_POINT.lock().await;
    let origin = connect(&uri("snapshots")).await;
    let written = origin.write(create("a", "x"), None, None).await;
    let after = written.expect("written").time;
    let limit = Duration::from_secs(30);
    let lists = ListsQuery {
        members: None,
        size: 5,
        after: None,
    };
    for code in [239, 246] {
        let refused = || doc! { "failCommands": ["find"], "errorCode": code };
        fail("snapshots", doc! { "times": 20 }, refused()).await;
        let loaded = origin.load_todos(&[name("a")], after, limit).await;
        assert!(loaded.is_ok(), "{code}: {loaded:?}");
        fail("snapshots", doc! { "times": 20 }, refused()).await;
        let page = origin.load_lists(&lists, after, limit).await;
        assert_eq!(page.expect("a page").1.names.len(), 1, "{code}");
        fail("snapshots", "alwaysOn", refused()).await;
        let limit = Duration::from_millis(300);
        let refused = origin.load_todos(&[name("a")], after, limit).await;
        assert!(
            matches!(&refused, Err(OriginError::Unavailable(cause)) if cause.code() == Some(code)),
            "{refused:?}"
        );
        fail("snapshots", "off", doc! {}).await;
    }
}

/// The server may forget a snapshot between two segments of a page.
#[tokio::test]
async fn a_page_is_read_again_when_its_snapshot_is_forgotten() {
    let set = Mongo::start(1, 100);
    let origin = connect(&set.uri("forgotten")).await;
    for n in 0..8 {
        origin
            .write(create(&format!("t{n}"), "x"), None, None)
            .await
            .expect("created");
    }
    let no_history = doc! { "setParameter": 1, "minSnapshotHistoryWindowInSeconds": 0 };
    let admin = set.client().await.database("admin");
    admin.run_command(no_history).await.expect("set");
    let writer = Arc::clone(&origin);
    let writing = tokio::spawn(async move {
        for n in 0.. {
            let write = update(&format!("t{}", n % 8), &n.to_string());
            writer.write(write, None, None).await.expect("written");
        }
    });
    for _ in 0..100 {
        let after = OriginTime::ZERO.next();
        // The server keeps no history at all; only the limit ends the tries.
        let limit = Duration::from_secs(60);
        let loaded = origin.load_page(&page(50), after, limit).await;
        let (_, page) = loaded.expect("loaded");
        assert_eq!(page.names.len(), 8);
    }
    writing.abort();
}

#[tokio::test]
async fn without_a_primary_a_write_is_unavailable_within_seconds() {
    let set = Mongo::start(1, 100);
    let origin = connect(&set.uri("primary")).await;
    origin
        .write(create("a", "x"), None, None)
        .await
        .expect("created");
    set.nodes[0].kill();
    eventually("a failed heartbeat", Duration::from_secs(20), async || {
        origin.heartbeat(1, Duration::from_millis(500)).await.err()
    })
    .await;
    let is_refused = async |write, send_by| {
        let refused = origin.write(write, None, send_by).await;
        assert!(
            matches!(refused, Err(WriteError::Unavailable(_))),
            "{refused:?}"
        );
    };
    for write in [create("b", "x"), update("a", "y")] {
        quickly("a refusal", Duration::from_secs(4), async || {
            is_refused(write.clone(), None).await;
        })
        .await;
    }
    // The caller's deadline comes before that.
    quickly("a refusal in time", Duration::from_secs(1), async || {
        let send_by = tokio::time::Instant::now() + Duration::from_millis(300);
        is_refused(create("c", "x"), Some(send_by)).await;
    })
    .await;
}

/// Drops all bytes of a connection that was quiet for this long, as firewalls do.
const FORGETS_AFTER: Duration = Duration::from_secs(11);

/// A proxy that forgets quiet connections without a word; its port.
fn forgetful(target: u16) -> u16 {
    proxy(target, pass)
}

async fn pass(mut client: TcpStream, mut server: TcpStream) {
    let (mut out, mut back) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let both = async {
        loop {
            let passed = timeout(FORGETS_AFTER, async {
                tokio::select! {
                    read = client.read(&mut out) => {
                        let read = read?;
                        server.write_all(&out[..read]).await.map(|()| read)
                    }
                    read = server.read(&mut back) => {
                        let read = read?;
                        client.write_all(&back[..read]).await.map(|()| read)
                    }
                }
            });
            match passed.await {
                Ok(Ok(0) | Err(_)) => return,
                Ok(Ok(_)) => {}
                // Forgotten: open, and nothing goes through any more.
                Err(_) => return std::future::pending().await,
            }
        }
    };
    both.await;
}

#[tokio::test]
async fn a_connection_that_was_idle_is_not_trusted() {
    let set = Mongo::start_behind(1, 100, forgetful);
    let origin = connect(&set.uri("idle")).await;
    let burst = |round: &'static str| {
        let origin = Arc::clone(&origin);
        async move {
            let writes = (0..32).map(|n| {
                let (origin, id) = (Arc::clone(&origin), format!("{round}-{n}"));
                async move { origin.write(create(&id, "x"), None, None).await }
            });
            futures::future::join_all(writes).await
        }
    };
    assert!(burst("before").await.iter().all(Result::is_ok));
    sleep(FORGETS_AFTER + Duration::from_secs(2)).await;
    let began = Instant::now();
    for done in burst("after").await {
        assert!(
            matches!(done, Ok(_) | Err(WriteError::Unavailable(_))),
            "{done:?}"
        );
    }
    // None waited for the 20 s after which a write is given up.
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
}
