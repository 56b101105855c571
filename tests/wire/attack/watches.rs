//! Watches that are not read, have many names, or begin long ago; and connections that
//! say nothing.

use std::{net::Ipv4Addr, time::Duration};

use futures::StreamExt as _;
use h2::client::Builder;
use tidemark::pb;
use tokio::time::sleep;

use super::WATCH;
use crate::{
    client::*,
    pod::{self, Pod},
    raw::{ATTACKER, Peer, tcp},
    support::{eventually, folder},
};

/// What one attack may take, in bytes.
const LITTLE: u64 = 64 << 20;

/// Creates so many todos of some 400 bytes, many at once.
async fn import(client: &Client, count: usize) {
    let creates = (0..count).map(|n| {
        let mut client = client.clone();
        let todo = pb::Todo {
            notes: "x".repeat(300),
            ..titled("x")
        };
        async move { create_in(&mut client, "lists/home", &format!("t{n}"), todo).await }
    });
    let created: Vec<_> = futures::stream::iter(creates)
        .buffer_unordered(64)
        .collect()
        .await;
    let failed = created.iter().find(|created| created.is_err());
    assert!(failed.is_none(), "{failed:?}");
}

fn watch_home() -> pb::WatchTodosRequest {
    pb::WatchTodosRequest {
        parent: "lists/home".into(),
        include_todo: true,
        ..Default::default()
    }
}

async fn no_watchers(service: &Pod) {
    eventually(
        "the ends of the watches",
        Duration::from_secs(60),
        async || (service.metric("tidemark_watchers") == 0).then_some(()),
    )
    .await;
}

/// A thousand watches of one connection that are not read, during an import.
#[tokio::test]
async fn unread_watches_share_what_is_pending() {
    let (service, mut client) = pod::embedded().await;
    let before = service.peak();
    let mut builder = Builder::new();
    builder.initial_window_size(0);
    let mut peer = Peer::connect(&service, ATTACKER, &builder).await;
    let mut calls = Vec::new();
    for _ in 0..1000 {
        calls.push(peer.call(WATCH, &watch_home()).await.expect("sent"));
    }
    eventually("all watches", Duration::from_secs(60), async || {
        (service.metric("tidemark_watchers") == 1000).then_some(())
    })
    .await;
    import(&client, 4200).await;
    assert_eq!(
        title(&mut client, "lists/home/todos/t4199", strong()).await,
        "x"
    );
    let more = service.peak().saturating_sub(before);
    assert!(more < LITTLE, "{more} bytes more");
    drop((calls, peer));
    no_watchers(&service).await;
}

/// Each of these watches is not read from another moment on: what it has taken of the changes
/// of large todos is not what the others have taken.
#[tokio::test]
async fn unread_watches_of_large_todos_share_what_is_pending() {
    const WATCHES: usize = 200;
    /// More than a watch takes at once.
    const CHANGES: usize = 48;
    let (service, mut client) = pod::embedded().await;
    let todo = pb::Todo {
        notes: "\u{1F600}".repeat(8192),
        ..titled("x")
    };
    let before = service.peak();
    let mut builder = Builder::new();
    builder.initial_window_size(0);
    let mut peer = Peer::connect(&service, ATTACKER, &builder).await;
    let mut calls = Vec::new();
    for watch in 1..=WATCHES {
        calls.push(peer.call(WATCH, &watch_home()).await.expect("sent"));
        eventually("the watch", Duration::from_secs(60), async || {
            (service.metric("tidemark_watchers") == watch as u64).then_some(())
        })
        .await;
        let writes = (0..CHANGES).map(|n| {
            let (mut client, todo) = (client.clone(), todo.clone());
            let request = pb::UpdateTodoRequest {
                todo: Some(pb::Todo {
                    name: format!("lists/home/todos/t{n}"),
                    title: watch.to_string(),
                    ..todo
                }),
                allow_missing: true,
                ..Default::default()
            };
            async move { client.update_todo(request).await.map(drop) }
        });
        for written in futures::future::join_all(writes).await {
            written.expect("written");
        }
    }
    assert_eq!(
        title(&mut client, "lists/home/todos/t0", strong()).await,
        WATCHES.to_string()
    );
    let more = service.peak().saturating_sub(before);
    assert!(more < 2 * LITTLE, "{more} bytes more");
    drop((calls, peer));
    no_watchers(&service).await;
}

/// Names have a budget: most of these watches are refused.
#[tokio::test]
async fn watches_of_many_names_are_bounded() {
    let (service, mut client) = pod::embedded().await;
    let before = service.peak();
    let names = (0..1000).map(|n| format!("lists/home/todos/{n:060}"));
    let request = pb::WatchTodosRequest {
        names: names.collect(),
        ..watch_home()
    };
    let mut builder = Builder::new();
    // The peer's own bound of messages that it does not read.
    builder.data_frame_budget(usize::MAX);
    let mut peer = Peer::connect(&service, ATTACKER, &builder).await;
    let (mut open, mut refused) = (Vec::new(), 0);
    for _ in 0..600 {
        let (response, stream) = peer.call(WATCH, &request).await.expect("sent");
        let response = response.await.expect("a response");
        match response.headers().get("grpc-status") {
            None => open.push((response, stream)),
            Some(status) => {
                assert_eq!(status, "8");
                refused += 1;
            }
        }
    }
    assert!(
        open.len() > 20 && refused > 300,
        "{} open, {refused} refused",
        open.len()
    );
    // Another caller has its share.
    let mut messages = client
        .watch_todos(request)
        .await
        .expect("open")
        .into_inner();
    messages.message().await.expect("alive").expect("progress");
    let more = service.peak().saturating_sub(before);
    assert!(more < LITTLE, "{more} bytes more");
    drop((open, peer, messages));
    no_watchers(&service).await;
}

/// A feed that catches up for a watch ends with it, also if nothing of it was read.
#[tokio::test]
async fn catch_up_feeds_of_unread_watches_come_back() {
    const USED: &str = "tidemark_bound_used{kind=\"watches that begin before the recent changes\"}";
    let dir = folder("data").display().to_string();
    let args = [
        "--data-dir",
        &dir,
        "--replay-window",
        "4s",
        "--staleness-limit",
        "4s",
    ];
    let (first, mut client) = Pod::ready(&args).await;
    let token = create(&mut client, "first", "x").await.token;
    import(&client, 500).await;
    // The store knows the time of one change a second: it replays from the last one that is
    // older than the window.
    sleep(Duration::from_millis(1200)).await;
    create(&mut client, "later", "x").await;
    sleep(Duration::from_millis(4500)).await;
    first.terminate();
    assert_eq!(first.exit_code(Duration::from_secs(60)).await, Some(0));
    let (service, mut client) = Pod::ready(&args).await;
    let request = pb::WatchTodosRequest {
        start: Some(pb::watch_todos_request::Start::After(token)),
        ..watch_home()
    };
    // However many callers there are, the share of each is one feed at least.
    let mut others = Vec::new();
    for last in 10..30 {
        let from = Ipv4Addr::new(127, 0, 0, last);
        others.push(Peer::connect(&service, from, &Builder::new()).await);
    }
    let mut builder = Builder::new();
    builder.initial_window_size(0);
    for _ in 0..2 {
        let mut peer = Peer::connect(&service, ATTACKER, &builder).await;
        let mut calls = Vec::new();
        for _ in 0..16 {
            calls.push(peer.call(WATCH, &request).await.expect("sent"));
        }
        // Most of what the memory is for is one caller's, and not all of it.
        eventually("the feeds", Duration::from_secs(60), async || {
            (6..=12).contains(&service.metric(USED)).then_some(())
        })
        .await;
        // Another caller still catches up.
        let mut messages = client
            .watch_todos(request.clone())
            .await
            .expect("open")
            .into_inner();
        messages.message().await.expect("alive").expect("a change");
        drop((messages, calls, peer));
        eventually("the places", Duration::from_secs(60), async || {
            (service.metric(USED) == 0).then_some(())
        })
        .await;
    }
}

/// More silent connections than the memory is for, from three addresses: they make room
/// for callers, and are closed.
#[tokio::test]
async fn silent_connections_take_little_and_make_room() {
    let (service, mut client) = pod::embedded().await;
    let before = service.peak();
    let mut held = Vec::new();
    for n in 0..2400 {
        let from = Ipv4Addr::new(127, 0, 0, [2, 3, 4][n % 3]);
        held.push(tcp(&service, from).await);
    }
    let open = service.metric("tidemark_connections ");
    assert!(open < 1500, "{open}");
    let mut another = connect(&service).await;
    create(&mut another, "milk", "x").await;
    assert_eq!(title(&mut client, "lists/home/todos/milk", None).await, "x");
    let more = service.peak().saturating_sub(before);
    assert!(more < LITTLE, "{more} bytes more");
    eventually("their ends", Duration::from_secs(60), async || {
        (service.metric("tidemark_connections ") < 10).then_some(())
    })
    .await;
    drop(held);
}
