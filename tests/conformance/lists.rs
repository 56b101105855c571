//! What every origin must do with lists.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use redb::{ReadableDatabase as _, TableDefinition};
use tidemark::{
    model::{
        ListName, ListPatch, ListsQuery, OriginTime, RequestId, TodoName, Value, Write, WriteDone,
    },
    origin::{Feed, FeedEvent, FeedItem, FeedStart, WriteError, embedded::Embedded},
    pb::{Role, Todo, TodoList},
};
use tokio::time::timeout;
use uuid::Uuid;

use crate::{
    origin::{Any, LIMIT, WAIT, connect, done, patch},
    support::{folder, mongo},
};

pub fn list(id: &str) -> ListName {
    ListName::parse(&format!("lists/{id}")).expect("a name")
}

pub fn create(id: &str, title: &str, members: &[(&str, Role)]) -> Write {
    let members = members.iter();
    Write::CreateList {
        name: list(id),
        list: TodoList {
            title: title.into(),
            members: members.map(|(m, r)| ((*m).into(), (*r).into())).collect(),
            ..TodoList::default()
        },
    }
}

pub fn update(id: &str, patch: ListPatch, etag: Option<&str>) -> Write {
    Write::UpdateList {
        name: list(id),
        patch,
        etag: etag.map(Into::into),
    }
}

pub fn delete(id: &str, etag: Option<&str>, force: bool) -> Write {
    Write::DeleteList {
        name: list(id),
        etag: etag.map(Into::into),
        force,
    }
}

fn titled(title: &str) -> ListPatch {
    ListPatch {
        title: Some(title.into()),
        members: None,
    }
}

fn decoded(done: &WriteDone) -> TodoList {
    prost::Message::decode(done.body.clone()).expect("a list")
}

pub async fn load(origin: &Any, id: &str, after: OriginTime) -> Value {
    let loaded = origin.load_list(&list(id), after, LIMIT).await;
    let (time, value) = loaded.expect("loaded");
    assert!(time >= after);
    value
}

fn readable(value: &Value) -> TodoList {
    match value {
        Value::List(list) => (**list).clone(),
        other => panic!("{other:?}"),
    }
}

/// The names of all pages.
pub async fn names(origin: &Any, members: Option<&[&str]>, size: u32) -> Vec<String> {
    let (mut after, mut names) = (None, Vec::<String>::new());
    let members = members.map(|members| members.iter().map(|m| Arc::from(*m)).collect());
    loop {
        let query = ListsQuery {
            members: members.clone(),
            size,
            after,
        };
        let loaded = origin.load_lists(&query, OriginTime(1), LIMIT).await;
        let (_, page) = loaded.expect("loaded");
        assert!(page.names.len() <= usize::try_from(size).expect("small"));
        assert!(page.names.is_sorted());
        names.extend(page.names.iter().map(ToString::to_string));
        after = page.names.last().cloned();
        if !page.more {
            return names;
        }
    }
}

pub async fn import(origin: &Any, list: &ListName, count: usize) {
    let todos: Vec<Todo> = (0..count)
        .map(|n| {
            let name = list.todo(&format!("t{n}")).expect("a name");
            patch("x").create(name.as_str(), 1000)
        })
        .collect();
    for batch in todos.chunks(1000) {
        let imported = origin.import(batch.to_vec()).await.expect("imported");
        assert_eq!(imported.created, batch.len());
    }
}

async fn a_list_is_written_and_read(origin: &Any) {
    assert_eq!(load(origin, "one", OriginTime(1)).await, Value::Absent);
    let members = [("user:a.b$c", Role::Owner), ("*", Role::Reader)];
    let created = origin.write(create("one", "One", &members), None, None);
    let created = created.await.expect("created");
    let first = readable(&load(origin, "one", created.time).await);
    assert_eq!(decoded(&created), first);
    assert_eq!(
        (first.name.as_str(), first.title.as_str()),
        ("lists/one", "One")
    );
    assert_eq!(first.members.len(), 2);
    assert!(first.create_time.is_some() && first.create_time == first.update_time);
    assert_eq!(first.etag.len(), 32);

    match origin.write(create("one", "x", &[]), None, None).await {
        Err(WriteError::AlreadyExists { at }) => assert!(at >= created.time),
        other => panic!("{other:?}"),
    }
    // Each field alone.
    let title = origin.write(update("one", titled("Two"), Some(&first.etag)), None, None);
    let title = title.await.expect("updated");
    let second = readable(&load(origin, "one", title.time).await);
    assert_eq!(decoded(&title), second);
    assert_eq!(
        (&second.members, second.title.as_str()),
        (&first.members, "Two")
    );
    assert_eq!(second.create_time, first.create_time);
    assert!(second.etag != first.etag);
    let members = ListPatch {
        title: None,
        members: Some(vec![("user:bob".into(), Role::Writer)]),
    };
    let time = done(origin, update("one", members, None)).await;
    let third = readable(&load(origin, "one", time).await);
    assert_eq!(third.members, [("user:bob".to_owned(), 2)].into());
    assert_eq!(third.title, "Two");
    assert!(names(origin, Some(&["user:a.b$c"]), 10).await.is_empty());
    assert_eq!(names(origin, Some(&["user:bob"]), 10).await, ["lists/one"]);

    for write in [
        update("one", titled("x"), Some(&first.etag)),
        delete("one", Some(&first.etag), false),
    ] {
        match origin.write(write, None, None).await {
            Err(WriteError::EtagMismatch { at, current }) => {
                assert!(at >= time && current == third.etag);
            }
            other => panic!("{other:?}"),
        }
    }
    let time = done(origin, delete("one", Some(&third.etag), false)).await;
    assert_eq!(load(origin, "one", time).await, Value::Absent);
    assert!(names(origin, Some(&["user:bob"]), 10).await.is_empty());
    for write in [
        update("one", titled("x"), None),
        delete("one", None, false),
        delete("one", None, true),
        delete("one", Some("x"), true),
    ] {
        let refused = origin.write(write, None, None).await;
        assert!(
            matches!(refused, Err(WriteError::NotFound { .. })),
            "{refused:?}"
        );
    }
}

async fn a_request_id_creates_one_list(origin: &Any) {
    let request = RequestId {
        id: Uuid::new_v4(),
        fingerprint: [7; 16],
    };
    let write = |id: &str| origin.write(create(id, "once", &[]), Some(request), None);
    let first = write("once-a").await.expect("written");
    // The name may have been generated anew: the first one counts.
    let again = write("once-b").await.expect("the same outcome");
    assert_eq!(again.body, first.body);
    assert_eq!(decoded(&again).name, "lists/once-a");
    assert_eq!(load(origin, "once-b", again.time).await, Value::Absent);
    let other = RequestId {
        fingerprint: [8; 16],
        ..request
    };
    let reused = origin.write(create("once-c", "x", &[]), Some(other), None);
    assert!(matches!(reused.await, Err(WriteError::RequestIdReused)));
}

/// All events of lists, and deletes of todos, until that of this list.
async fn events_until(feed: &mut dyn Feed, name: &ListName) -> Vec<FeedItem> {
    let mut found = Vec::new();
    loop {
        let items = timeout(WAIT, feed.next()).await;
        for item in items.expect("in time").expect("a feed") {
            if matches!(&item.event, FeedEvent::Change(_) | FeedEvent::List(_)) {
                found.push(item);
            }
        }
        let last = |item: &FeedItem| matches!(&item.event, FeedEvent::List(n) if n == name);
        if found.last().is_some_and(last) {
            return found;
        }
    }
}

async fn the_feed_has_every_change_of_a_list(origin: &Any) {
    let start = origin.heartbeat(1, LIMIT).await.expect("acknowledged");
    let mut times = Vec::new();
    times.push(done(origin, create("fed", "x", &[])).await);
    times.push(done(origin, update("fed", titled("y"), None)).await);
    times.push(done(origin, delete("fed", None, false)).await);
    times.push(done(origin, create("fed-end", "x", &[])).await);
    let feed = origin.open_feed(FeedStart::After(start)).await;
    let seen = events_until(feed.expect("open").as_mut(), &list("fed-end")).await;
    let fed = seen.iter().filter(|item| match &item.event {
        FeedEvent::List(name) => name.as_str().starts_with("lists/fed"),
        _ => false,
    });
    // The time of a write in a transaction is an upper bound.
    let fed: Vec<_> = fed.map(|item| item.time).collect();
    assert_eq!(fed.len(), 4);
    assert!(fed.is_sorted());
    for (seen, acknowledged) in fed.iter().zip(&times) {
        assert!(seen <= acknowledged, "{seen} {acknowledged}");
    }
}

/// A list exists as soon as it contains a todo: it can be changed, and then has a document.
async fn a_list_without_a_document_is_changed(origin: &Any) {
    import(origin, &list("bare"), 1).await;
    let with_etag = origin.write(update("bare", titled("x"), Some("wrong")), None, None);
    assert!(matches!(with_etag.await, Err(WriteError::NotFound { .. })));
    let patch = ListPatch {
        members: Some(vec![("ada".into(), Role::Owner)]),
        ..titled("Bare")
    };
    let written = origin.write(update("bare", patch, None), None, None).await;
    let written = written.expect("written");
    let bare = decoded(&written);
    assert_eq!((&*bare.name, &*bare.title), ("lists/bare", "Bare"));
    assert!(bare.create_time.is_some() && bare.create_time == bare.update_time);
    assert_eq!(readable(&load(origin, "bare", written.time).await), bare);
    assert_eq!(names(origin, Some(&["ada"]), 1000).await, ["lists/bare"]);
    let all = names(origin, None, 1000).await;
    assert_eq!(all.iter().filter(|name| *name == "lists/bare").count(), 1);
    let none = origin.write(update("none", titled("x"), None), None, None);
    assert!(matches!(none.await, Err(WriteError::NotFound { .. })));
    done(origin, delete("bare", None, true)).await;
}

async fn a_list_with_todos_is_deleted_by_force(origin: &Any) {
    const TODOS: usize = 1200;
    let full = list("full");
    let time = done(origin, create("full", "Full", &[("ada", Role::Owner)])).await;
    import(origin, &full, TODOS).await;
    // A list of nearly the same name keeps its todos.
    import(origin, &list("full-er"), 1).await;
    match origin.write(delete("full", None, false), None, None).await {
        Err(WriteError::NotEmpty { at }) => assert!(at >= time),
        other => panic!("{other:?}"),
    }
    let todos: Vec<TodoName> = [0, 499, 500, 1199]
        .iter()
        .map(|n| full.todo(&format!("t{n}")).expect("a name"))
        .collect();
    let wrong = origin.write(delete("full", Some("wrong"), true), None, None);
    assert!(matches!(wrong.await, Err(WriteError::EtagMismatch { .. })));
    let (start, values) = origin
        .load_todos(&todos, time, LIMIT)
        .await
        .expect("loaded");
    assert!(
        values.iter().all(|value| matches!(value, Value::Todo(_))),
        "untouched"
    );

    let time = done(origin, delete("full", None, true)).await;
    let (_, values) = origin
        .load_todos(&todos, time, LIMIT)
        .await
        .expect("loaded");
    assert_eq!(values, [const { Value::Absent }; 4]);
    assert_eq!(load(origin, "full", time).await, Value::Absent);
    let all = names(origin, None, 1000).await;
    assert!(!all.contains(&full.to_string()) && all.contains(&"lists/full-er".to_owned()));
    let feed = origin.open_feed(FeedStart::After(start)).await;
    let seen = events_until(feed.expect("open").as_mut(), &full).await;
    assert_eq!(seen.len(), TODOS + 1, "the list's own event is the last");

    // A list without a document: only by force, too.
    let refused = origin.write(delete("full-er", None, false), None, None);
    assert!(matches!(refused.await, Err(WriteError::NotEmpty { .. })));
    done(origin, delete("full-er", None, true)).await;
    let again = origin.write(delete("full-er", None, true), None, None);
    assert!(matches!(again.await, Err(WriteError::NotFound { .. })));
}

/// 2,500 lists and 300 that only contain todos, in pages.
async fn lists_are_paged(origin: &Any) {
    let id = |n: usize| format!("many-{n:04}");
    let of = |wanted: &dyn Fn(usize) -> bool| -> Vec<String> {
        let wanted = (0..2500).filter(|n| wanted(*n));
        wanted.map(|n| list(&id(n)).to_string()).collect()
    };
    stream::iter(0..2500)
        .for_each_concurrent(64, async |n| {
            let mut members = vec![];
            if n % 5 != 0 {
                members.push(("many:ada", Role::Reader));
            }
            if n % 3 == 0 {
                members.push(("group:many", Role::Writer));
            }
            done(origin, create(&id(n), "x", &members)).await;
        })
        .await;
    let ada = |n: usize| !n.is_multiple_of(5);
    let ops = |n: usize| n.is_multiple_of(3);
    for size in [1000, 333] {
        assert_eq!(names(origin, Some(&["many:ada"]), size).await, of(&ada));
        assert_eq!(names(origin, Some(&["group:many"]), size).await, of(&ops));
        let both = names(origin, Some(&["group:many", "many:ada"]), size).await;
        assert_eq!(both, of(&|n| ada(n) || ops(n)));
    }
    assert!(names(origin, Some(&["many"]), 10).await.is_empty());
    assert!(names(origin, Some(&[]), 10).await.is_empty());

    // 300 that only contain todos, most of them between the others; some with more
    // todos than are read at once.
    let mut todos = Vec::new();
    let mut expected: BTreeSet<String> = of(&|_| true).into_iter().collect();
    for n in 0..300 {
        let parent = list(&format!("many-{:04}.todos", n * 9));
        for todo in 0..(if n % 50 == 0 { 150 } else { 2 }) {
            let name = parent.todo(&format!("t{todo}")).expect("a name");
            todos.push(patch("x").create(name.as_str(), 1000));
        }
        expected.insert(parent.to_string());
    }
    for batch in todos.chunks(1000) {
        origin.import(batch.to_vec()).await.expect("imported");
    }
    for size in [1000, 333] {
        let mut all = names(origin, None, size).await;
        all.retain(|name| name.starts_with("lists/many-"));
        assert!(all.is_sorted());
        assert_eq!(all.len(), expected.len());
        assert!(all.iter().eq(&expected));
    }
}

/// A list's document is created before a todo elsewhere, and deleted after it: no page
/// shows the second list without the first one.
async fn a_page_of_lists_is_one_state(origin: &Any) {
    let writer = Arc::clone(origin);
    let writing = tokio::spawn(async move {
        let todo = list("state-b").todo("t").expect("a name");
        for _ in 0..40 {
            done(&writer, create("state-a", "x", &[])).await;
            import(&writer, &list("state-b"), 1).await;
            done(&writer, delete("state-b", None, true)).await;
            done(&writer, delete("state-a", None, false)).await;
        }
        todo
    });
    let mut seen = 0;
    while !writing.is_finished() {
        let mut names = names(origin, None, 1000).await;
        names.retain(|name| name.starts_with("lists/state-"));
        assert_ne!(names, ["lists/state-b"]);
        seen += 1;
    }
    writing.await.expect("written");
    assert!(seen > 0);
}

async fn all(origin: Any) {
    a_list_is_written_and_read(&origin).await;
    a_request_id_creates_one_list(&origin).await;
    the_feed_has_every_change_of_a_list(&origin).await;
    a_list_without_a_document_is_changed(&origin).await;
    a_list_with_todos_is_deleted_by_force(&origin).await;
    a_page_of_lists_is_one_state(&origin).await;
    lists_are_paged(&origin).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_the_embedded_store_conform() {
    all(Arc::new(
        Embedded::open(&folder("data"), 0).expect("opened"),
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_mongodb_conform() {
    let uri = mongo().uri("conformance_lists");
    all(connect(&uri).await).await;
}

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The store's file, once its writer has let go of it.
async fn file(dir: &std::path::Path) -> redb::Database {
    loop {
        match redb::Database::open(dir.join("todos.redb")) {
            Ok(file) => return file,
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

async fn format(dir: &std::path::Path) -> u64 {
    let file = file(dir).await;
    let txn = file.begin_read().expect("begun");
    let meta = txn.open_table(META).expect("a table");
    meta.get("format").expect("read").expect("there").value()
}

/// A file without lists is as the version before wrote it, and is read by it; one with
/// lists says so. The history goes on with the changes of both.
#[tokio::test]
async fn a_file_of_the_version_before_is_opened() {
    let dir = folder("data");
    let open = || Arc::new(Embedded::open(&dir, 0).expect("opened")) as Any;
    let origin = open();
    let start = origin.heartbeat(1, LIMIT).await.expect("acknowledged");
    import(&origin, &list("old"), 3).await;
    drop(origin);
    assert_eq!(format(&dir).await, 1);
    {
        let file = file(&dir).await;
        let txn = file.begin_write().expect("begun");
        for table in ["lists", "list_members"] {
            // By name and type: that version did not have them.
            let deleted = match table {
                "lists" => txn.delete_table(TableDefinition::<&str, &[u8]>::new(table)),
                _ => txn.delete_table(TableDefinition::<(&str, &str), ()>::new(table)),
            };
            assert!(deleted.expect("deleted"));
        }
        txn.commit().expect("committed");
    }
    let origin = open();
    assert_eq!(names(&origin, None, 10).await, ["lists/old"]);
    done(
        &origin,
        create("old", "Now a list", &[("ada", Role::Owner)]),
    )
    .await;
    drop(origin);
    assert_eq!(format(&dir).await, 2);
    let origin = open();
    let feed = origin.open_feed(FeedStart::After(start)).await;
    let seen = events_until(feed.expect("open").as_mut(), &list("old")).await;
    assert_eq!(seen.len(), 4);
    assert_eq!(names(&origin, Some(&["ada"]), 10).await, ["lists/old"]);
}
