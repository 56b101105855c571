//! What the near cache counts is what it takes, whatever it is filled with.

use std::time::Duration;

use futures::StreamExt as _;
use tidemark::pb;

use crate::{
    client::*,
    pod::{self, Pod},
};

/// Capacity of the near cache in bytes.
const CAPACITY: u64 = 32 << 20;
/// Memory of the process for each byte that the near cache counts, in percent; see "Memory"
/// in docs/operations.md.
const OVERHEAD_PERCENT: u64 = 135;
/// What the process takes besides: buffers of calls under way, and pieces that the allocator
/// does not give back.
const SLACK: u64 = 8 << 20;

async fn with_near() -> (Pod, Client) {
    let capacity = CAPACITY.to_string();
    pod::embedded_with(&["--near-capacity", &capacity]).await
}

/// Calls `fill` with ascending numbers, some at once, until the near cache has been full for
/// as many calls again; then compares its count with the memory that came with it.
async fn assert_counted(service: &Pod, what: &str, fill: impl AsyncFn(usize)) {
    const AT_ONCE: usize = 8;
    let resident = || service.metric("process_resident_memory_bytes ");
    let calls = async |from: usize, count: usize| {
        let calls = (from..from + count).map(|n| fill(n));
        let calls = futures::stream::iter(calls).buffer_unordered(AT_ONCE);
        calls.for_each(|()| std::future::ready(())).await;
    };
    // Buffers and tables of the process are there.
    calls(0, 20).await;
    let (before, counted) = (resident(), service.metric("tidemark_near_bytes "));
    let (mut done, mut full_at) = (20, None);
    while full_at.is_none_or(|full| done < full * 2) {
        assert!(done < 20_000, "{what}: never full");
        calls(done, 50).await;
        done += 50;
        let bytes = service.metric("tidemark_near_bytes ");
        assert!(bytes <= CAPACITY, "{what}: {bytes}");
        if full_at.is_none() && bytes > CAPACITY / 10 * 9 {
            full_at = Some(done);
        }
    }
    // Counted ten times a second, where the service has the CPU for it.
    let begin = counted;
    let (mut taken, mut counted) = (0, 0);
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let bytes = service.metric("tidemark_near_bytes ");
        counted = bytes.saturating_sub(begin).max(1);
        taken = resident().saturating_sub(before);
        if taken <= counted * OVERHEAD_PERCENT / 100 + SLACK {
            break;
        }
    }
    let percent = taken * 100 / counted;
    eprintln!("{what}: {taken} bytes for {counted} counted, {percent} %, after {done} calls");
    assert!(
        taken <= counted * OVERHEAD_PERCENT / 100 + SLACK,
        "{what}: {taken} bytes for {counted}"
    );
}

/// Case of an attacker: each page is of another filter, of as much text as one may have.
#[tokio::test]
async fn pages_of_long_filters_take_what_is_counted() {
    let (service, client) = with_near().await;
    assert_counted(&service, "filters", async |n| {
        let label = |at: usize| {
            let text = format!("{at:02}{n:06}{}", "\u{1F600}".repeat(56));
            format!("labels:\"{text}\"")
        };
        let filter = (0..16).map(label).collect::<Vec<_>>().join(" AND ");
        let request = pb::ListTodosRequest {
            filter,
            ..page_of("lists/home")
        };
        list(&mut client.clone(), request).await;
    })
    .await;
}

#[tokio::test]
async fn names_that_no_todo_has_take_what_is_counted() {
    let (service, client) = with_near().await;
    assert_counted(&service, "absent names", async |n| {
        let names = (0..500).map(|name| format!("lists/none/todos/{n}-{name}"));
        let request = pb::BatchGetTodosRequest {
            names: names.collect(),
            consistency: None,
        };
        let batch = client.clone().batch_get_todos(request).await.expect("read");
        assert_eq!(batch.into_inner().missing.len(), 500);
    })
    .await;
}

/// Todos of the list whose pages are read.
const TODOS: usize = 300;

/// A service with this near cache, and todos with long names.
async fn with_many_names(capacity: u64) -> (Pod, Client) {
    let capacity = capacity.to_string();
    let (service, client) = pod::embedded_with(&["--near-capacity", &capacity]).await;
    for n in 0..TODOS {
        let todo = pb::Todo {
            due_time: Some(prost_types::Timestamp::default()),
            ..titled("x")
        };
        let (mut client, id) = (client.clone(), format!("{n:0>60}"));
        let created = create_in(&mut client, "lists/home", &id, todo).await;
        created.expect("created");
    }
    (service, client)
}

/// A page of all of them, of a filter for each number.
async fn page_of_many_names(client: &Client, n: usize) {
    let (hours, minutes, seconds) = (n / 3600, n / 60 % 60, n % 60);
    let request = pb::ListTodosRequest {
        page_size: 1000,
        filter: format!("due_time < \"2030-01-01T{hours:02}:{minutes:02}:{seconds:02}Z\""),
        ..page_of("lists/home")
    };
    let page = list(&mut client.clone(), request).await;
    assert_eq!(page.todos.len(), TODOS);
}

#[tokio::test]
async fn pages_of_many_names_take_what_is_counted() {
    let (service, client) = with_many_names(CAPACITY).await;
    assert_counted(&service, "pages", async |n| {
        page_of_many_names(&client, n).await;
    })
    .await;
}

/// A near cache of most of the pod, full of what takes most, while callers read on: it is not
/// mistaken for memory that somebody holds without a budget.
/// `cargo test --test wire -- --ignored --nocapture a_near_cache_of_most_of_the_pod`
#[tokio::test]
#[ignore = "minutes"]
async fn a_near_cache_of_most_of_the_pod_closes_no_connection() {
    const MOST: u64 = 420 << 20;
    const ROUND: usize = 500;
    let (mut service, _client) = with_many_names(MOST).await;
    service.set_most(pod::POD_BYTES >> 20);
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(connect(&service).await);
    }
    let (mut highest, mut full_rounds) = (0, 0);
    for round in 0..100 {
        let pages = (0..ROUND).map(|n| {
            let client = &clients[n % clients.len()];
            page_of_many_names(client, round * ROUND + n)
        });
        let pages = futures::stream::iter(pages).buffer_unordered(clients.len());
        pages.for_each(|()| std::future::ready(())).await;
        highest = highest.max(service.metric("process_resident_memory_bytes "));
        if service.metric("tidemark_near_bytes ") > MOST / 100 * 95 {
            full_rounds += 1;
        }
        if full_rounds == 5 {
            break;
        }
    }
    assert_eq!(full_rounds, 5, "never full");
    let percent = highest * 100 / pod::POD_BYTES;
    let closed = service.metric("tidemark_connections_closed_total{kind=\"memory\"}");
    eprintln!("{highest} bytes resident, {percent} % of the limit, {closed} connections closed");
    assert_eq!(closed, 0, "{highest} bytes resident");
}
