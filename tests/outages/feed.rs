//! The feed never stands still: whatever it meets, the frontier goes on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use mongodb::bson::{Document, doc};
use tidemark::{
    origin::{FeedEvent, FeedStart},
    pb,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    client::{Client, create, get, ready, strong},
    mongo::{FAIL_POINT, admin, connect, fail, uri},
    proxy,
    support::{Mongo, Tidemark, eventually},
};

/// Waits until answers from the caches are fresh: the frontier moves.
async fn frontier_moves(client: &mut Client, limit: Duration) {
    let fresh = pb::Consistency {
        requirement: Some(pb::consistency::Requirement::CachedOnly(true)),
    };
    eventually("a frontier that moves", limit, async || {
        // Loaded, and then old enough that only the frontier can make it fresh.
        get(client, "lists/home/todos/a", None).await.ok()?;
        sleep(Duration::from_millis(2500)).await;
        let reply = get(client, "lists/home/todos/a", Some(fresh.clone()))
            .await
            .ok()?;
        let bound = reply.read?.staleness_bound?;
        (bound.seconds < 2).then_some(())
    })
    .await;
}

/// A strong read. While a busy server is late with heartbeats, it is refused.
async fn is_read(client: &mut Client, name: &str) {
    eventually("a strong read", Duration::from_secs(60), async || {
        get(client, name, strong()).await.ok()
    })
    .await;
}

#[tokio::test]
async fn a_change_too_large_to_read_does_not_stop_the_feed() {
    let uri = uri("large");
    let args = ["--mongodb-uri", uri.as_str()];
    let (service, mut client) = ready(Tidemark::start(&args)).await;
    create(&mut client, "a", "x").await;
    let large: mongodb::Collection<Document> = admin().await.database("large").collection("other");
    // Beside other tests it may not fit into the server's cache for a moment (388).
    eventually("a large document", Duration::from_secs(60), async || {
        let document = doc! { "_id": "x".repeat(7 << 20) };
        large.insert_one(document).await.ok()
    })
    .await;
    create(&mut client, "b", "x").await;
    is_read(&mut client, "lists/home/todos/a").await;
    frontier_moves(&mut client, Duration::from_secs(90)).await;
    drop(service);
    // The event lies within the replay window of a new process.
    let (_service, mut client) = ready(Tidemark::start(&args)).await;
    is_read(&mut client, "lists/home/todos/b").await;
}

#[tokio::test]
async fn every_error_of_a_stream_is_got_over() {
    let _one = FAIL_POINT.lock().await;
    let uri = uri("streams");
    let (_service, mut client) = ready(Tidemark::start(&["--mongodb-uri", &uri])).await;
    create(&mut client, "a", "x").await;
    for (code, times) in [
        (10334, 12),
        (286, 1),
        (280, 1),
        (43, 3),
        (1, 6),
        (13, 2),
        (11600, 3),
    ] {
        let data = doc! { "failCommands": ["getMore"], "errorCode": code };
        fail("streams", doc! { "times": times }, data).await;
        frontier_moves(&mut client, Duration::from_secs(90)).await;
        is_read(&mut client, "lists/home/todos/a").await;
    }
    fail("streams", "off", doc! {}).await;
}

/// A right taken away ends the process with the reason, after a while.
#[tokio::test]
async fn a_right_taken_away_for_good_ends_the_process_with_the_reason() {
    let _one = FAIL_POINT.lock().await;
    let uri = uri("taken");
    let (service, _client) = ready(Tidemark::start(&["--mongodb-uri", &uri])).await;
    let data = doc! { "failCommands": ["aggregate", "getMore"], "errorCode": 13 };
    fail("taken", "alwaysOn", data).await;
    assert_eq!(service.exit_code(Duration::from_secs(120)).await, Some(1));
    fail("taken", "off", doc! {}).await;
    let errors = service.log("ERROR").join("\n");
    assert!(errors.contains("no feed of changes"), "{errors}");
}

/// Millions of writes to another database lie within the replay window. Some
/// two minutes of filling: `cargo test --test outages -- --ignored flood`.
#[tokio::test]
#[ignore = "fills an oplog with 5.5 million entries, which takes minutes"]
async fn a_flood_in_another_database_does_not_keep_a_start_from_being_ready() {
    let set = crate::support::Mongo::start(1, 4000);
    let other: mongodb::Collection<Document> =
        set.client().await.database("other").collection("flood");
    for round in 0..550_i32 {
        let documents = (0..10_000).map(|n| doc! { "_id": round * 10_000 + n });
        other.insert_many(documents).await.expect("inserted");
    }
    let uri = set.uri("flooded");
    let began = Instant::now();
    let (_service, _client) = ready(Tidemark::start(&["--mongodb-uri", &uri])).await;
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "{:?}",
        began.elapsed()
    );
}

/// How a server names its version in its greeting, and that of MongoDB 8.0.
const VERSION: &[u8] = b"\x10maxWireVersion\0";
const NEW: i32 = 25;

/// Puts the new version into greetings, wherever they lie in these bytes.
fn disguise(bytes: &mut [u8]) {
    let places: Vec<_> = (0..bytes.len().saturating_sub(VERSION.len() + 4))
        .filter(|at| bytes[*at..].starts_with(VERSION))
        .collect();
    for at in places {
        let at = at + VERSION.len();
        bytes[at..at + 4].copy_from_slice(&NEW.to_le_bytes());
    }
}

/// A proxy before a mongod that is of the new version once it is upgraded; its port.
fn before_upgrade(target: u16, upgraded: Arc<AtomicBool>) -> u16 {
    proxy(target, move |client, server| {
        pass(client, server, Arc::clone(&upgraded))
    })
}

async fn pass(client: TcpStream, server: TcpStream, upgraded: Arc<AtomicBool>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = async {
        let mut chunk = vec![0; 1 << 16];
        while let Ok(read @ 1..) = from_server.read(&mut chunk).await {
            if upgraded.load(Ordering::Relaxed) {
                disguise(&mut chunk[..read]);
            }
            if to_client.write_all(&chunk[..read]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = back => {}
        _ = copy(&mut from_client, &mut to_server) => {}
    }
}

/// Since MongoDB 8.0 several events can have one time. A set may be upgraded under a
/// running replica: each feed goes by what the server is when it is opened.
#[tokio::test]
async fn an_upgrade_under_a_running_replica_is_noticed() {
    let upgraded = Arc::new(AtomicBool::new(false));
    let set = Mongo::start_behind(1, 100, |port| before_upgrade(port, Arc::clone(&upgraded)));
    let origin = connect(&set.uri("upgraded")).await;
    for (id, new) in [("before", false), ("after", true)] {
        upgraded.store(new, Ordering::Relaxed);
        let h0 = origin.heartbeat(1, Duration::from_secs(20)).await;
        let from = FeedStart::After(h0.expect("a heartbeat"));
        let mut feed = origin.open_feed(from).await.expect("a feed");
        let write = crate::mongo::create(id, "x");
        origin.write(write, None, None).await.expect("written");
        let change = async {
            loop {
                let items = feed.next().await.expect("events");
                let mut items = items.into_iter();
                if let Some(item) = items.find(|item| matches!(item.event, FeedEvent::Change(_))) {
                    return item;
                }
            }
        };
        let change = timeout(Duration::from_secs(60), change).await;
        assert_eq!(change.expect("a change").alone, !new, "{id}");
    }
}
