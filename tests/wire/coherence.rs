//! No answer is older than it says: edits behind the service's back, Redis
//! that loses and brings back data, several replicas.

use std::time::Duration;

use mongodb::bson::doc;
use tidemark::pb::{self, Source, consistency::Requirement};
use tonic::Code;

use crate::{
    client::*,
    support::{Tidemark, eventually, mongo, redis, redis_cli},
};

const NAME: &str = "lists/home/todos/milk";
/// Longest wait for what the feed brings: less than the staleness limit of 15 s, after which
/// a replica loads again also what it did not hear of.
const BY_THE_FEED: Duration = Duration::from_secs(12);

async fn edit(database: &str, title: &str) {
    let change = doc! { "$set": { "title": title } };
    let todos = mongo().todos(database).await;
    let done = todos
        .update_one(doc! { "_id": NAME }, change)
        .await
        .expect("edited");
    assert_eq!(done.matched_count, 1);
}

/// The second drawback of read-through caching: records updated in the
/// database but not in the cache.
#[tokio::test]
async fn an_edit_straight_in_the_database_is_seen() {
    let (_service, mut client) = real("edit").await;
    create(&mut client, "milk", "by the service").await;
    for round in 0..20 {
        let by_hand = format!("by hand {round}");
        edit("edit", &by_hand).await;
        assert_eq!(title(&mut client, NAME, strong()).await, by_hand);
        // Without any consistency it takes as long as the feed.
        let again = format!("again {round}");
        edit("edit", &again).await;
        eventually("the edit in a plain read", BY_THE_FEED, async || {
            (title(&mut client, NAME, None).await == again).then_some(())
        })
        .await;
    }
}

/// The first drawback: cold misses. A miss of one replica is a hit of the next.
#[tokio::test]
async fn what_one_replica_loaded_another_reads_from_redis() {
    let (_one, mut one) = real("shared").await;
    let (_two, mut two) = real("shared").await;
    // Redis that is too late is not used: then another todo is read.
    let mut shared = None;
    for n in 0..50 {
        let created = create(&mut one, &format!("milk-{n}"), "x").await;
        let name = created.todo.expect("a todo").name;
        let read = get(&mut one, &name, with_token(&created.token)).await;
        let read = read.expect("found").read.expect("a ReadInfo");
        assert_eq!(read.source(), Source::Origin);
        // It is written to Redis off the request's path.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let read = get(&mut two, &name, with_token(&read.token)).await;
        let read = read.expect("found").read.expect("a ReadInfo");
        if read.source() == Source::Shared {
            shared = Some(name);
            break;
        }
        assert_eq!(read.source(), Source::Origin);
    }
    let name = shared.expect("one of them comes from Redis");
    let read = get(&mut two, &name, None)
        .await
        .expect("found")
        .read
        .expect("a ReadInfo");
    assert_eq!(read.source(), Source::Near);
    let absent = get(&mut two, "lists/home/todos/none", None).await;
    assert_eq!(refused(absent).0, Code::NotFound);
    let again = refused(get(&mut two, "lists/home/todos/none", None).await);
    assert_eq!(
        again.2["source"], "SOURCE_NEAR",
        "an absent todo is cached like any other"
    );
}

/// The third drawback: a cache node replaced by an empty one; and worse, by
/// one that brings back what it once had.
#[tokio::test]
async fn redis_may_lose_everything_and_bring_back_old_entries() {
    // One of its own: it is emptied.
    let redis = redis();
    let (uri, url) = (
        mongo().uri("redis_loss"),
        format!("redis://127.0.0.1:{}", redis.port),
    );
    let start = async || {
        let args = ["--mongodb-uri", &uri, "--redis-url", &url];
        let (service, client) = ready(Tidemark::start(&args)).await;
        eventually("Redis", Duration::from_secs(60), async || {
            (health(&service, "shared").await.ok()? == SERVING).then_some(())
        })
        .await;
        (service, client)
    };
    let (_one, mut one) = start().await;
    let (_two, mut two) = start().await;
    let token = create(&mut one, "milk", "old").await.token;
    assert_eq!(title(&mut one, NAME, with_token(&token)).await, "old");
    let key = eventually("the entry in Redis", Duration::from_secs(60), async || {
        let keys = redis_cli(redis.port, &["keys", "*"]);
        let key = keys.lines().find(|key| key.ends_with(NAME));
        if key.is_none() {
            // What Redis takes too long for is dropped.
            let token = retitle(&mut one, NAME, "old").await.token;
            title(&mut one, NAME, with_token(&token)).await;
        }
        key.map(ToOwned::to_owned)
    })
    .await;
    let kept = format!("{key}-kept");
    assert_eq!(redis_cli(redis.port, &["copy", &key, &kept]), "1");
    let bring_back = || {
        let copied = redis_cli(redis.port, &["copy", &kept, &key, "REPLACE"]);
        assert_eq!(copied, "1");
    };
    let token = retitle(&mut one, NAME, "new").await.token;
    bring_back();
    // The old entry is back; nobody may be told of it.
    assert_eq!(title(&mut two, NAME, with_token(&token)).await, "new");
    assert_eq!(title(&mut two, NAME, strong()).await, "new");
    let (_three, mut three) = start().await;
    bring_back();
    assert_eq!(
        title(&mut three, NAME, None).await,
        "new",
        "a new replica has no memory, and is not fooled"
    );
    redis_cli(redis.port, &["flushall"]);
    assert_eq!(title(&mut three, NAME, strong()).await, "new");
    redis_cli(redis.port, &["set", &key, "rubbish"]);
    assert_eq!(title(&mut three, NAME, strong()).await, "new");
}

/// The fourth drawback: the races of cache-aside. Readers fill while writers
/// change, on two replicas; nobody goes back in time.
#[tokio::test]
async fn sessions_never_go_back_whatever_replica_they_ask() {
    let (_one, mut one) = real("sessions").await;
    let (_two, two) = real("sessions").await;
    create(&mut one, "milk", "0").await;
    let mut writer = one.clone();
    let writing = tokio::spawn(async move {
        for n in 1..=300 {
            if n % 2 == 0 {
                edit("sessions", &n.to_string()).await;
            } else {
                retitle(&mut writer, NAME, &n.to_string()).await;
            }
        }
    });
    let mut readers = Vec::new();
    for _ in 0..8 {
        let mut replicas = [one.clone(), two.clone()];
        readers.push(tokio::spawn(async move {
            let (mut token, mut last) = (String::new(), 0);
            for round in 0..400 {
                let consistency = if token.is_empty() {
                    None
                } else {
                    with_token(&token)
                };
                let reply = get(&mut replicas[round % 2], NAME, consistency)
                    .await
                    .expect("found");
                let now: u32 = reply.todo.expect("a todo").title.parse().expect("a number");
                assert!(now >= last, "{now} after {last}");
                last = now;
                token = reply.read.expect("a ReadInfo").token;
            }
        }));
    }
    for reader in readers {
        reader.await.expect("no reader went back");
    }
    writing.await.expect("written");
    assert_eq!(title(&mut one, NAME, strong()).await, "300");
}

#[tokio::test]
async fn a_page_follows_its_list() {
    let (_one, mut one) = real("page_follows").await;
    let (_two, mut two) = real("page_follows").await;
    let page = |consistency| pb::ListTodosRequest {
        consistency,
        ..page_of("lists/home")
    };
    assert!(list(&mut two, page(None)).await.todos.is_empty());
    for n in 0..10 {
        let token = create(&mut one, &format!("t{n}"), "x").await.token;
        assert_eq!(
            list(&mut two, page(with_token(&token))).await.todos.len(),
            n + 1
        );
        assert_eq!(
            list(&mut one, page(None)).await.todos.len(),
            n + 1,
            "the writer's replica sees its own write"
        );
    }
    mongo()
        .todos("page_follows")
        .await
        .delete_many(doc! {})
        .await
        .expect("deleted");
    assert!(list(&mut two, page(strong())).await.todos.is_empty());
}

#[tokio::test]
async fn dropping_the_collection_makes_all_that_is_cached_void() {
    let (_service, mut client) = real("dropped").await;
    create(&mut client, "milk", "x").await;
    assert_eq!(title(&mut client, NAME, None).await, "x");
    mongo()
        .todos("dropped")
        .await
        .drop()
        .await
        .expect("dropped");
    assert_eq!(
        refused(get(&mut client, NAME, strong()).await).0,
        Code::NotFound
    );
    create(&mut client, "milk", "again").await;
    assert_eq!(title(&mut client, NAME, strong()).await, "again");
    mongo()
        .client()
        .await
        .database("dropped")
        .drop()
        .await
        .expect("dropped");
    assert_eq!(
        refused(get(&mut client, NAME, strong()).await).0,
        Code::NotFound
    );
    create(&mut client, "milk", "once more").await;
    // The feed goes on after the invalidate.
    edit("dropped", "by hand").await;
    eventually("the edit in a plain read", BY_THE_FEED, async || {
        (title(&mut client, NAME, None).await == "by hand").then_some(())
    })
    .await;
}

#[tokio::test]
async fn bounds_and_sources_are_told() {
    let (_service, mut client) = real("bounds").await;
    create(&mut client, "milk", "x").await;
    let cached_only = || consistency(Requirement::CachedOnly(true));
    let (code, reason, _) = refused(get(&mut client, NAME, cached_only()).await);
    assert_eq!(
        (code, reason.as_str()),
        (Code::Unavailable, "CACHE_ONLY_MISS")
    );
    get(&mut client, NAME, None).await.expect("found");
    let read = get(&mut client, NAME, cached_only())
        .await
        .expect("cached")
        .read
        .expect("a ReadInfo");
    assert_eq!(read.source(), Source::Near);
    for ms in [0, 50, 500, 5000] {
        let d = prost_types::Duration {
            seconds: ms / 1000,
            nanos: i32::try_from(ms % 1000).expect("small") * 1_000_000,
        };
        let began = std::time::Instant::now();
        let reply = get(&mut client, NAME, consistency(Requirement::MaxStaleness(d)))
            .await
            .expect("found");
        let bound = reply
            .read
            .expect("a ReadInfo")
            .staleness_bound
            .expect("a bound");
        let bound = Duration::new(bound.seconds.unsigned_abs(), bound.nanos.unsigned_abs());
        let limit = Duration::from_millis(ms.unsigned_abs()) + began.elapsed();
        assert!(bound <= limit, "{bound:?} is more than {limit:?}");
    }
}
