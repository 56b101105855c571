//! Lists in MongoDB: documents written by hand, and dropped collections.

use std::{sync::Arc, time::Duration};

use mongodb::bson::{Document, doc};
use tidemark::{
    model::{ListPatch, ListsQuery, OriginTime, Value},
    origin::{FeedEvent, FeedStart, WriteError},
    pb::Role,
};
use tokio::time::timeout;

use crate::{
    lists::{create, delete, import, list, load, names, update},
    origin::{self, Any, LIMIT, WAIT, done},
    support::{eventually, mongo},
};

async fn connect(database: &str) -> (Any, mongodb::Database) {
    let origin = origin::connect(&mongo().uri(database)).await;
    let database = mongo().client().await.database(database);
    (origin, database)
}

async fn insert_many(database: &mongodb::Database, collection: &str, documents: Vec<Document>) {
    let collection = database.collection::<Document>(collection);
    collection.insert_many(documents).await.expect("inserted");
}

async fn insert(database: &mongodb::Database, collection: &str, document: Document) {
    let collection = database.collection::<Document>(collection);
    collection.insert_one(document).await.expect("inserted");
}

#[tokio::test]
async fn documents_written_by_hand() {
    let (origin, database) = connect("lists_by_hand").await;
    let map = doc! { "_id": "lists/map", "members": { "ada": "WRITER", "group:a": "READER" } };
    insert(&database, "lists", map).await;
    let Value::List(read) = load(&origin, "map", OriginTime(1)).await else {
        panic!("unreadable");
    };
    let expected = [("ada".to_owned(), 2), ("group:a".to_owned(), 1)];
    assert_eq!(read.members, expected.into());
    // It is found by a member once it was written through the service.
    assert!(names(&origin, Some(&["ada"]), 10).await.is_empty());
    let patch = ListPatch {
        title: Some("Map".into()),
        members: None,
    };
    done(&origin, update("map", patch.clone(), Some(&read.etag))).await;
    assert_eq!(names(&origin, Some(&["ada"]), 10).await, ["lists/map"]);

    let unreadable = doc! {
        "_id": "lists/wrong",
        "members": [{ "principal": "ada", "role": "KING" }],
    };
    insert(&database, "lists", unreadable).await;
    let time = match load(&origin, "wrong", OriginTime(1)).await {
        Value::Unreadable(why) => {
            assert_eq!(why.field, "members[0]");
            assert!(why.problem.contains("KING"), "{}", why.problem);
            OriginTime(1)
        }
        other => panic!("{other:?}"),
    };
    match origin.write(update("wrong", patch, None), None, None).await {
        Err(WriteError::Unreadable { field, at, .. }) => {
            assert!(field == "members[0]" && at > time);
        }
        other => panic!("{other:?}"),
    }
    // Names of another form do not exist, and neither do the parents of what is no todo.
    for name in ["lists/a b", "lists/-", "list", "lists/a/b"] {
        insert(&database, "lists", doc! { "_id": name }).await;
        let todo = doc! { "_id": format!("{name}/todos/1"), "parent": name };
        insert(&database, "todos", todo).await;
    }
    let no_todo =
        |n: usize| doc! { "_id": format!("lists/other/todos/{n}"), "parent": "lists/none" };
    insert_many(&database, "todos", (0..120).map(no_todo).collect()).await;
    insert(&database, "todos", doc! { "_id": "x", "parent": "lists/x" }).await;
    insert(
        &database,
        "todos",
        doc! { "_id": "lists/y/todos/1", "parent": "lists/y" },
    )
    .await;
    assert_eq!(
        names(&origin, None, 10).await,
        ["lists/map", "lists/wrong", "lists/y"]
    );
    // An array of parents is no parent, and hides none.
    let parents = vec!["lists/b", "lists/c"];
    let array = |n: usize| doc! { "_id": format!("lists/b/todos/{n}"), "parent": parents.clone() };
    insert_many(&database, "todos", (0..150).map(array).collect()).await;
    let all = ["lists/map", "lists/wrong", "lists/y"];
    assert_eq!(names(&origin, None, 10).await, all);
    assert_eq!(names(&origin, None, 1).await, all);
    done(&origin, delete("wrong", None, false)).await;
}

/// A drop resets the caches, and gives their entries another identity.
#[tokio::test]
async fn lists_are_dropped() {
    let (origin, database) = connect("lists_dropped").await;
    done(&origin, create("a", "x", &[("ada", Role::Owner)])).await;
    import(&origin, &list("b"), 1).await;
    let scope = origin.entry_scope();
    let start = origin.heartbeat(1, LIMIT).await.expect("acknowledged");
    let mut feed = origin
        .open_feed(FeedStart::After(start))
        .await
        .expect("open");
    let lists = database.collection::<Document>("lists");
    lists.drop().await.expect("dropped");
    let reset = async {
        loop {
            let items = feed.next().await.expect("a feed");
            let is_reset = |event: &FeedEvent| matches!(event, FeedEvent::Reset { .. });
            if items.iter().any(|item| is_reset(&item.event)) {
                return;
            }
        }
    };
    timeout(WAIT, reset).await.expect("a reset");
    assert_ne!(origin.entry_scope(), scope);
    assert_eq!(load(&origin, "a", OriginTime(1)).await, Value::Absent);
    assert_eq!(names(&origin, None, 10).await, ["lists/b"]);
    assert!(names(&origin, Some(&["ada"]), 10).await.is_empty());
    // Whoever makes it again, it gets its index and an identity.
    let scope = origin.entry_scope();
    done(&origin, create("a", "x", &[])).await;
    eventually("the index", Duration::from_secs(20), async || {
        origin.heartbeat(2, LIMIT).await.expect("acknowledged");
        let names = lists.list_index_names().await.ok()?;
        names.contains(&"tidemark_members".to_owned()).then_some(())
    })
    .await;
    assert_ne!(origin.entry_scope(), scope);

    let todos = database.collection::<Document>("todos");
    todos.drop().await.expect("dropped");
    assert_eq!(names(&origin, None, 10).await, ["lists/a"]);
    database.drop().await.expect("dropped");
    assert!(names(&origin, None, 10).await.is_empty());
    assert_eq!(load(&origin, "a", OriginTime(1)).await, Value::Absent);
}

/// A page reads its own part of an index, and no more.
#[tokio::test]
async fn a_page_of_lists_reads_little() {
    let (origin, database) = connect("lists_read_little").await;
    let document = |n: usize| {
        let principal = if n.is_multiple_of(2) { "ada" } else { "bob" };
        let member = doc! { "principal": principal, "role": "OWNER" };
        let all = doc! { "principal": "group:all", "role": "READER" };
        doc! { "_id": format!("lists/l{n:03}"), "members": [member, all] }
    };
    insert_many(&database, "lists", (0..300).map(document).collect()).await;
    import(&origin, &list("todos"), 900).await;
    // A busy server builds them in the background after the start.
    for (collection, count) in [("lists", 2), ("todos", 5)] {
        let collection = database.collection::<Document>(collection);
        eventually("the indexes", Duration::from_secs(60), async || {
            (collection.list_index_names().await.ok()?.len() == count).then_some(())
        })
        .await;
    }
    let profile = database.run_command(doc! { "profile": 2 });
    profile.await.expect("profiled");
    let query = |members: Option<&[&str]>| ListsQuery {
        members: members.map(|members| members.iter().map(|m| Arc::from(*m)).collect()),
        size: 10,
        after: Some(list("l100")),
    };
    for members in [Some(&["ada", "bob", "eve", "group:all"][..]), None] {
        let loaded = origin
            .load_lists(&query(members), OriginTime(1), LIMIT)
            .await;
        let (_, page) = loaded.expect("loaded");
        assert!(page.more);
        assert_eq!(page.names.first(), Some(&list("l101")));
    }
    database
        .run_command(doc! { "profile": 0 })
        .await
        .expect("done");
    let profile = database.collection::<Document>("system.profile");
    let filter = doc! { "op": "query", "command.$db": "lists_read_little" };
    let mut seen = 0;
    let mut profiled = profile.find(filter).await.expect("found");
    while profiled.advance().await.expect("read") {
        let query = profiled.deserialize_current().expect("a document");
        let collection = query.get_str("ns").expect("a name");
        if !collection.ends_with(".lists") && !collection.ends_with(".todos") {
            continue;
        }
        seen += 1;
        let examined = |field| query.get_i32(field).expect("a number");
        let few = examined("docsExamined") <= 30 && examined("keysExamined") <= 120;
        assert!(few && !query.contains_key("hasSortStage"), "{query}");
        assert!(
            query
                .get_str("planSummary")
                .is_ok_and(|plan| plan.contains("IXSCAN")),
            "{query}"
        );
    }
    assert!(seen >= 3, "{seen}");
}
