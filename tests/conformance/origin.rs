//! What every origin must do.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mongodb::bson::{Document, doc};
use tidemark::{
    model::{
        Change, ChangeKind, Filter, ListName, Order, OriginTime, PageQuery, Patch, RequestId,
        TodoName, Touched, Value, Write,
    },
    origin::{
        Feed, FeedError, FeedEvent, FeedStart, Origin, OriginError, WriteError, embedded::Embedded,
        mongo::MongoDb,
    },
    pb,
};
use tokio::time::timeout;
use uuid::Uuid;

use crate::support::{Mongo, eventually, folder, mongo};

pub type Any = Arc<dyn Origin>;

/// Of a read or heartbeat: a busy machine may stop a server for seconds.
pub const LIMIT: Duration = Duration::from_secs(20);

/// The longest wait for an event of a feed.
pub const WAIT: Duration = Duration::from_secs(60);

/// MongoDB as an origin. A busy server may be late, and then the start is tried again.
pub async fn connect(uri: &str) -> Any {
    let connected = eventually("a connection", WAIT, async || {
        MongoDb::connect(uri, 0, 64).await.ok()
    });
    Arc::new(connected.await)
}

fn name(id: impl std::fmt::Display) -> TodoName {
    TodoName::parse(&format!("lists/home/todos/{id}")).expect("a name")
}

pub fn patch(title: &str) -> Patch {
    Patch {
        title: Some(title.into()),
        ..Patch::default()
    }
}

pub fn create(id: impl std::fmt::Display, title: &str) -> Write {
    let name = name(id);
    Write::Create {
        todo: patch(title).create(name.as_str(), 1000),
        name,
    }
}

fn update(id: impl std::fmt::Display, title: &str) -> Write {
    Write::Update {
        name: name(id),
        patch: patch(title),
        etag: None,
        allow_missing: false,
    }
}

fn delete(id: impl std::fmt::Display) -> Write {
    Write::Delete {
        name: name(id),
        etag: None,
        allow_missing: false,
    }
}

pub async fn done(origin: &Any, write: Write) -> OriginTime {
    origin.write(write, None, None).await.expect("written").time
}

fn title(value: &Value) -> Option<String> {
    match value {
        Value::Todo(raw) => {
            let todo: pb::Todo = prost::Message::decode(raw.clone()).expect("a todo");
            assert!(!todo.etag.is_empty());
            Some(todo.title)
        }
        _ => None,
    }
}

/// A load is exactly the state at its time, also while others write.
async fn loads_are_exact(origin: &Any) {
    done(origin, create("exact", "0")).await;
    let writer = Arc::clone(origin);
    let writing = tokio::spawn(async move {
        let mut times = BTreeMap::new();
        for n in 1..=200 {
            times.insert(done(&writer, update("exact", &n.to_string())).await, n);
        }
        times
    });
    let mut seen = Vec::new();
    while !writing.is_finished() {
        let (as_of, values) = origin
            .load_todos(&[name("exact")], OriginTime::ZERO.next(), LIMIT)
            .await
            .expect("loaded");
        seen.push((
            as_of,
            title(&values[0])
                .expect("there")
                .parse::<i32>()
                .expect("a number"),
        ));
    }
    let times = writing.await.expect("written");
    for (as_of, n) in seen {
        let wanted = times.range(..=as_of).next_back().map_or(0, |(_, n)| *n);
        assert_eq!(n, wanted, "at {as_of}");
    }
}

async fn loads_honour_after(origin: &Any) {
    let mut last = OriginTime::ZERO;
    for n in 0..50 {
        let time = done(origin, create(format!("after-{n}"), "x")).await;
        assert!(time > last, "times rise");
        let (as_of, values) = origin
            .load_todos(&[name(format!("after-{n}")), name("never")], time, LIMIT)
            .await
            .expect("loaded");
        assert!(as_of >= time && title(&values[0]).is_some() && values[1] == Value::Absent);
        last = as_of;
    }
    let ahead = OriginTime(last.0 + (1 << 45));
    assert!(matches!(
        origin.load_todos(&[name("x")], ahead, LIMIT).await,
        Err(OriginError::Ahead(_))
    ));
}

async fn refusals_tell_a_time(origin: &Any) {
    let time = done(origin, create("refused", "x")).await;
    match origin.write(create("refused", "y"), None, None).await {
        Err(WriteError::AlreadyExists { at }) => assert!(at >= time),
        other => panic!("{other:?}"),
    }
    let with_etag = Write::Delete {
        name: name("refused"),
        etag: Some("no".into()),
        allow_missing: false,
    };
    match origin.write(with_etag, None, None).await {
        Err(WriteError::EtagMismatch { at, current }) => assert!(at >= time && current != "no"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        origin.write(update("missing", "x"), None, None).await,
        Err(WriteError::NotFound { .. })
    ));
    let nameless = Write::Update {
        name: name("new"),
        patch: Patch::default(),
        etag: None,
        allow_missing: true,
    };
    assert!(matches!(
        origin.write(nameless, None, None).await,
        Err(WriteError::Invalid(_))
    ));
}

/// Ten at once with one request id: one write.
async fn a_request_id_writes_once(origin: &Any) {
    let request = RequestId {
        id: Uuid::new_v4(),
        fingerprint: [7; 16],
    };
    let tries = (0..10).map(|n| {
        let origin = Arc::clone(origin);
        tokio::spawn(async move {
            origin
                .write(create(format!("once-{n}"), "x"), Some(request), None)
                .await
        })
    });
    let mut etags = Vec::new();
    for tried in tries.collect::<Vec<_>>() {
        etags.push(
            tried
                .await
                .expect("no panic")
                .expect("the one outcome")
                .body,
        );
    }
    etags.dedup();
    assert_eq!(etags.len(), 1);
    let other = RequestId {
        fingerprint: [8; 16],
        ..request
    };
    assert!(matches!(
        origin.write(create("other", "x"), Some(other), None).await,
        Err(WriteError::RequestIdReused)
    ));
}

async fn imports_make_no_doubles(origin: &Any) {
    let todos: Vec<_> = (0..500)
        .map(|n| patch("x").create(name(format!("import-{n}")).as_str(), 1000))
        .collect();
    assert_eq!(
        origin
            .import(todos[..300].to_vec())
            .await
            .expect("imported")
            .created,
        300
    );
    assert_eq!(origin.import(todos).await.expect("imported").created, 200);
}

/// The next changes of todos whose id begins with this, and where the feed
/// then stands.
async fn changes(feed: &mut dyn Feed, prefix: &str, wanted: usize) -> Vec<Change> {
    let mut found = Vec::new();
    while found.len() < wanted {
        let items = timeout(WAIT, feed.next())
            .await
            .expect("in time")
            .expect("a feed");
        for item in items {
            match item.event {
                FeedEvent::Change(change) if change.name.as_str().contains(prefix) => {
                    assert_eq!(change.time, item.time);
                    found.push(change);
                }
                _ => {}
            }
        }
    }
    found
}

async fn the_feed_has_every_change_once(origin: &Any) {
    let start = origin.heartbeat(1, LIMIT).await.expect("acknowledged");
    let mut times = Vec::new();
    times.push(done(origin, create("feed-a", "x")).await);
    times.push(done(origin, update("feed-a", "y")).await);
    times.push(done(origin, create("feed-b", "x")).await);
    times.push(done(origin, delete("feed-a")).await);
    let mut feed = origin
        .open_feed(FeedStart::After(start))
        .await
        .expect("open");
    let seen = changes(feed.as_mut(), "/feed-", 4).await;
    assert_eq!(
        seen.iter().map(|change| change.time).collect::<Vec<_>>(),
        times
    );
    let kinds: Vec<_> = seen.iter().map(|change| change.kind).collect();
    assert_eq!(
        kinds,
        [
            ChangeKind::Created,
            ChangeKind::Updated,
            ChangeKind::Created,
            ChangeKind::Deleted
        ]
    );
    let Touched::Paths(paths) = &seen[1].touched else {
        panic!("an update says what it touched")
    };
    let mut paths: Vec<_> = paths.iter().map(AsRef::as_ref).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["title", "update_time"]);
    // A time is exclusive; another feed is independent of the first.
    let mut later = origin
        .open_feed(FeedStart::After(times[1]))
        .await
        .expect("open");
    assert_eq!(changes(later.as_mut(), "/feed-", 2).await[0].time, times[2]);
    // A position goes on right after what was given.
    let position = feed.position().expect("a position");
    drop(feed);
    let next = done(origin, create("feed-c", "x")).await;
    let mut resumed = origin
        .open_feed(FeedStart::Resume(position))
        .await
        .expect("open");
    assert_eq!(changes(resumed.as_mut(), "/feed-", 1).await[0].time, next);
}

async fn heartbeats_come_back(origin: &Any) {
    let start = origin.heartbeat(10, LIMIT).await.expect("acknowledged");
    let mut feed = origin
        .open_feed(FeedStart::After(start))
        .await
        .expect("open");
    for number in 11..20 {
        let write = done(origin, create(format!("beat-{number}"), "x")).await;
        let time = origin.heartbeat(number, LIMIT).await.expect("acknowledged");
        assert!(
            time > write,
            "above every write that was acknowledged before"
        );
        let mut back = None;
        while back.is_none() {
            let items = timeout(WAIT, feed.next())
                .await
                .expect("in time")
                .expect("a feed");
            back = items.into_iter().find(
                |item| matches!(item.event, FeedEvent::Heartbeat { number: n } if n == number),
            );
        }
        assert_eq!(back.expect("back").time, time);
    }
}

async fn pages_are_in_order(origin: &Any) {
    let list = ListName::parse("lists/pages").expect("a name");
    for n in 0..30 {
        let name = list.todo(&format!("t{n:02}")).expect("a name");
        let mut todo = patch("x").create(name.as_str(), i64::from(n / 3) * 1000);
        todo.priority = 1 + n % 4;
        done(origin, Write::Create { name, todo }).await;
    }
    for order in [
        Order::CreateTimeDesc,
        Order::CreateTime,
        Order::DueTime,
        Order::PriorityDesc,
    ] {
        let (mut after, mut names) = (None, Vec::new());
        loop {
            let query = PageQuery {
                list: list.clone(),
                filter: Filter::default(),
                order,
                size: 7,
                after,
            };
            let (_, page) = origin
                .load_page(&query, OriginTime(1), LIMIT)
                .await
                .expect("loaded");
            assert!(page.names.len() <= 7);
            names.extend(page.names);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(names.len(), 30, "{order:?}");
        let mut once = names.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), 30, "{order:?}");
        if order == Order::CreateTime || order == Order::DueTime {
            assert_eq!(once, names, "ties go by name, and what has no due time too");
        }
    }
}

async fn all(origin: Any) {
    loads_are_exact(&origin).await;
    loads_honour_after(&origin).await;
    refusals_tell_a_time(&origin).await;
    a_request_id_writes_once(&origin).await;
    imports_make_no_doubles(&origin).await;
    the_feed_has_every_change_once(&origin).await;
    heartbeats_come_back(&origin).await;
    pages_are_in_order(&origin).await;
}

async fn is_forgotten(origin: &Any, start: FeedStart) -> bool {
    let events = async { origin.open_feed(start).await?.next().await };
    // A feed with nothing to tell waits, and has lost nothing.
    let events = timeout(Duration::from_secs(2), events).await;
    matches!(events, Ok(Err(FeedError::HistoryLost(_))))
}

#[tokio::test]
async fn forgotten_history_is_told_by_the_embedded_store() {
    let origin: Any = Arc::new(Embedded::open(&folder("data"), 0).expect("opened"));
    assert!(is_forgotten(&origin, FeedStart::After(OriginTime(0))).await);
}

/// An oplog that is overrun: for a start by time and for a resume.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgotten_history_is_told_by_mongodb() {
    let mongo = Mongo::start(1, 1);
    let origin = connect(&mongo.uri("forgotten")).await;
    let start = origin.heartbeat(1, LIMIT).await.expect("acknowledged");
    let mut feed = origin
        .open_feed(FeedStart::After(start))
        .await
        .expect("open");
    done(&origin, create("a", "x")).await;
    changes(feed.as_mut(), "/", 1).await;
    let position = feed.position().expect("a position");
    drop(feed);
    assert!(
        !is_forgotten(&origin, FeedStart::Resume(position.clone())).await,
        "nothing is lost yet"
    );
    let rubbish = mongo
        .client()
        .await
        .database("rubbish")
        .collection::<Document>("rubbish");
    let batch = vec![doc! { "text": "x".repeat(100_000) }; 100];
    eventually(
        "the oplog to be overrun",
        Duration::from_secs(120),
        async || {
            rubbish.insert_many(&batch).await.expect("written");
            is_forgotten(&origin, FeedStart::After(start))
                .await
                .then_some(())
        },
    )
    .await;
    eventually("a position that is forgotten", WAIT, async || {
        let start = FeedStart::Resume(position.clone());
        is_forgotten(&origin, start).await.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_conforms() {
    all(Arc::new(
        Embedded::open(&folder("data"), 0).expect("opened"),
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mongodb_conforms() {
    let uri = mongo().uri("conformance");
    all(connect(&uri).await).await;
}

/// Numbers go on above all that were ever given out, and the history is kept.
#[tokio::test]
async fn the_embedded_store_goes_on_where_it_was() {
    let dir = folder("data");
    let (id, time) = {
        let origin: Any = Arc::new(Embedded::open(&dir, 0).expect("opened"));
        done(&origin, create("a", "x")).await;
        (
            origin.id(),
            origin.heartbeat(1, LIMIT).await.expect("acknowledged"),
        )
    };
    let origin = loop {
        // The writer's thread lets go of the file a moment later.
        match Embedded::open(&dir, 0) {
            Ok(origin) => break Arc::new(origin) as Any,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    assert_eq!(origin.id(), id);
    let start = origin.replay_start(
        origin.heartbeat(0, LIMIT).await.expect("acknowledged"),
        Duration::from_secs(600),
    );
    assert!(done(&origin, create("b", "x")).await > time);
    let mut feed = origin
        .open_feed(FeedStart::After(start))
        .await
        .expect("open");
    let seen = changes(feed.as_mut(), "/", 2).await;
    assert_eq!(
        seen.iter()
            .map(|change| change.name.clone())
            .collect::<Vec<_>>(),
        [name("a"), name("b")]
    );
}
