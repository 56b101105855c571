//! Clients of several languages accept gzip always. It must not cost where it does not
//! pay.

use std::fs;

use tidemark::pb;
use tonic::codec::CompressionEncoding::Gzip;

use crate::{client::*, pod, support::Tidemark};

/// Rounds of a measurement at least, and at most: a machine whose speed changes may be slow
/// for one of the clients in each of a few rounds.
const ROUNDS: usize = 5;
const MAX_ROUNDS: usize = 40;

/// CPU time of the service so far, in nanoseconds.
fn cpu(service: &Tidemark) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", service.pid())).expect("alive");
    let used = tasks.flatten().map(|task| {
        // A thread may have ended meanwhile.
        let times = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let on_cpu = times.split(' ').next().unwrap_or_default();
        on_cpu.parse::<u64>().unwrap_or_default()
    });
    used.sum()
}

/// CPU time of these calls by a client as it is, and by one that accepts gzip and one
/// that sends it: the least of some rounds in turns, until they are good.
async fn measure(
    service: &Tidemark,
    client: &Client,
    calls: usize,
    is_good: impl Fn([u64; 3]) -> bool,
    call: impl AsyncFn(&mut Client),
) -> [u64; 3] {
    let mut clients = [
        client.clone(),
        client.clone().accept_compressed(Gzip),
        client.clone().accept_compressed(Gzip).send_compressed(Gzip),
    ];
    let mut least = [u64::MAX; 3];
    for round in 0..MAX_ROUNDS {
        if round >= ROUNDS && is_good(least) {
            break;
        }
        for (client, least) in clients.iter_mut().zip(&mut least) {
            let before = cpu(service);
            for _ in 0..calls {
                call(client).await;
            }
            *least = (*least).min((cpu(service) - before) / calls as u64);
        }
    }
    least
}

#[tokio::test]
async fn gzip_costs_nothing_for_single_todos() {
    let (service, mut client) = pod::embedded().await;
    for n in 0..50 {
        let todo = pb::Todo {
            notes: "word ".repeat(70),
            ..titled("x")
        };
        create_in(&mut client, "lists/home", &format!("t{n}"), todo)
            .await
            .expect("created");
    }
    // 1.1 on a quiet machine; compressing each reply costs 2.5 times as much.
    let is_good = |[plain, accepts, _]: [u64; 3]| accepts * 10 < plain * 13;
    let one = measure(&service, &client, 400, is_good, async |client| {
        get(client, "lists/home/todos/t1", None)
            .await
            .expect("found");
    });
    let [plain, accepts, sends] = one.await;
    eprintln!("a todo of 400 bytes: {plain} ns, accepts gzip {accepts} ns, sends gzip {sends} ns");
    assert!(
        is_good([plain, accepts, sends]),
        "{accepts} ns instead of {plain}"
    );

    let list = measure(
        &service,
        &client,
        20,
        |_| true,
        async |client| {
            let request = pb::ListTodosRequest {
                page_size: 50,
                ..page_of("lists/home")
            };
            let page = client.list_todos(request).await.expect("listed");
            assert_eq!(page.into_inner().todos.len(), 50);
        },
    );
    let [plain, accepts, sends] = list.await;
    eprintln!("a page of 50: {plain} ns, accepts gzip {accepts} ns, sends gzip {sends} ns");
}
