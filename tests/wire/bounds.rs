//! What a caller is told when the database does not answer, and when a bound
//! of the replica is reached.

mod compression;
mod errors;
mod near;
mod not_grpc;
mod raw;
mod replies;
mod requests;
mod shares;

use std::time::{Duration, Instant};

use tidemark::pb;
use tonic::{Code, codec::CompressionEncoding};

use crate::{
    client::*,
    pod::{self, Pod},
    support::{Mongo, at_some_try, eventually, quickly},
};

fn name(n: u32) -> String {
    format!("lists/home/todos/none-{n}")
}

/// One mongod that freezes: reads past their deadline, past the bound of what may wait,
/// past the staleness limit; and a write whose outcome nobody knows.
#[tokio::test]
async fn a_frozen_database_is_told_by_its_reasons() {
    let mongo = Mongo::start(1, 50);
    let uri = mongo.uri("frozen");
    let args = [
        "--mongodb-uri",
        &uri,
        "--max-origin-loads",
        "1",
        "--staleness-limit",
        "4s",
    ];
    let (service, mut client) = Pod::ready(&args).await;
    create(&mut client, "milk", "x").await;
    assert_eq!(title(&mut client, "lists/home/todos/milk", None).await, "x");
    mongo.nodes[0].freeze();

    // Frame by frame: a client library has a clock of its own, which may run out first.
    let request = pb::GetTodoRequest {
        name: name(0),
        consistency: None,
    };
    // On a busy machine the time may be over before the request is at the database.
    at_some_try("a deadline at the origin", async || {
        let post = raw::post(&format!("{}GetTodo", raw::TODOS)).header("grpc-timeout", "300m");
        let reply = raw::send(&service, post, raw::frame(&request)).await;
        let (code, reason, metadata) = refused(Err::<(), _>(reply.status.expect("a status")));
        assert_eq!(
            (code, reason.as_str()),
            (Code::DeadlineExceeded, "DEADLINE_EXCEEDED")
        );
        let tier = metadata["tier"].clone();
        (tier == "origin").then_some(()).ok_or(tier)
    })
    .await;

    let writing = {
        let mut client = client.clone();
        tokio::spawn(
            async move { create_in(&mut client, "lists/home", "bread", titled("x")).await },
        )
    };
    let reads = (1..60).map(|n| {
        let mut client = client.clone();
        async move { refused(get_once(&mut client, &name(n), None).await) }
    });
    let told = futures::future::join_all(reads).await;
    let with = |wanted| {
        told.iter()
            .filter(|(_, reason, _)| reason == wanted)
            .count()
    };
    assert!(
        with("OVERLOADED") > 0 && with("ORIGIN_UNAVAILABLE") > 0,
        "{told:?}"
    );
    assert_eq!(
        with("OVERLOADED") + with("ORIGIN_UNAVAILABLE"),
        told.len(),
        "{told:?}"
    );

    let unavailable = eventually("the staleness limit", Duration::from_secs(60), async || {
        get_once(&mut client.clone(), "lists/home/todos/milk", None)
            .await
            .err()
    })
    .await;
    assert_eq!(refused(Err::<(), _>(unavailable)).1, "ORIGIN_UNAVAILABLE");
    quickly("the refusal", Duration::from_secs(1), async || {
        let again = get_once(&mut client, "lists/home/todos/milk", None).await;
        assert_eq!(refused(again).0, Code::Unavailable);
    })
    .await;
    assert_ne!(health(&service, "readiness").await.expect("known"), SERVING);

    let (code, reason, _) = refused(writing.await.expect("no panic"));
    assert_eq!(
        (code, reason.as_str()),
        (Code::Unknown, "WRITE_OUTCOME_UNKNOWN")
    );
    mongo.nodes[0].thaw();
    eventually("reads again", Duration::from_secs(60), async || {
        get_once(&mut client.clone(), "lists/home/todos/milk", strong())
            .await
            .ok()
    })
    .await;
}

/// A few kilobytes that unpack to more than a request may have.
#[tokio::test]
async fn what_unpacks_to_too_much_is_refused() {
    let (_service, client) = pod::embedded().await;
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let mut client = client.clone().send_compressed(encoding);
        let large = titled(&"x".repeat(6 << 20));
        let (code, reason, _) = refused(create_in(&mut client, "lists/home", "large", large).await);
        assert_eq!(
            (code, reason.as_str()),
            (Code::ResourceExhausted, "MESSAGE_TOO_LARGE"),
            "{encoding:?}"
        );
    }
}

/// Without a database, callers get a few words of ours.
#[tokio::test]
async fn what_the_driver_says_stays_inside() {
    let mongo = Mongo::start(1, 50);
    let uri = mongo.uri("gone");
    let args = ["--mongodb-uri", &uri, "--staleness-limit", "3s"];
    let (_service, mut client) = Pod::ready(&args).await;
    create(&mut client, "milk", "x").await;
    mongo.nodes[0].kill();
    let mut texts = Vec::new();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(12) {
        for n in 0..3 {
            let read = get_once(&mut client, &name(n), None).await;
            texts.push(read.expect_err("no database"));
        }
        texts.extend(
            get_once(&mut client, "lists/home/todos/milk", strong())
                .await
                .err(),
        );
        let bread = create_in(&mut client, "lists/home", "bread", titled("x"));
        let written = tokio::time::timeout(Duration::from_secs(3), bread).await;
        texts.extend(written.ok().and_then(Result::err));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(
        texts
            .iter()
            .any(|status| status.code() == Code::Unavailable)
    );
    for status in texts {
        let details = String::from_utf8_lossy(status.details()).into_owned();
        for text in [status.message(), &details] {
            assert!(text.len() < 300, "{text}");
            for inside in ["127.0.0.1", "localhost", "Topology", "ReplicaSet", "rs0"] {
                assert!(!text.contains(inside), "{text}");
            }
        }
    }
}
