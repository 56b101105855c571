//! What all callers share has a share for each: one that takes all it can get leaves
//! room for another.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use h2::client::Builder;
use tidemark::pb;
use tokio::{task::JoinSet, time::timeout};
use tonic::Code;

use crate::{
    client::*,
    pod::{self, Pod},
    raw::{ATTACKER, Peer, status},
    support::{Mongo, Tidemark, eventually, folder, redis},
};

const BATCH: &str = "todo.v1.TodoService/BatchGetTodos";
const CREATE: &str = "todo.v1.TodoService/CreateTodo";
const GET: &str = "todo.v1.TodoService/GetTodo";
const WATCH: &str = "todo.v1.TodoService/WatchTodos";
/// RESOURCE_EXHAUSTED.
const EXHAUSTED: i32 = 8;

/// The codes that these calls end with.
type Codes = JoinSet<Option<i32>>;

/// Sends these messages, all at once, from the attacker's address.
async fn flood<M: prost::Message>(
    service: &Tidemark,
    method: &str,
    messages: impl Iterator<Item = M>,
) -> (Vec<Peer>, Codes) {
    let (mut peers, mut codes) = (Vec::new(), JoinSet::new());
    for (n, message) in messages.enumerate() {
        if n % 900 == 0 {
            peers.push(Peer::connect(service, ATTACKER, &Builder::new()).await);
        }
        let peer = peers.last_mut().expect("a connection");
        let (response, _) = peer.call(method, &message).await.expect("sent");
        codes.spawn(async move { status(response).await.ok() });
    }
    (peers, codes)
}

async fn overloaded(service: &Tidemark, kind: &str) {
    let series = format!("tidemark_overloaded_total{{kind=\"{kind}\"}}");
    eventually(kind, Duration::from_secs(60), async || {
        let text = service.metrics_text();
        text.lines()
            .any(|line| line.starts_with(&series) && !line.ends_with(" 0"))
            .then_some(())
    })
    .await;
}

/// Reads, writes and strong reads wait for a database that does not answer. The one who
/// fills what may wait is refused; another caller waits like anybody.
#[tokio::test]
async fn one_caller_cannot_fill_what_waits_for_the_database() {
    let mongo = Mongo::start(1, 50);
    let uri = mongo.uri("shares");
    let args = ["--mongodb-uri", &uri, "--max-origin-loads", "16"];
    let (service, mut client) = Pod::ready(&args).await;
    create(&mut client, "milk", "x").await;
    mongo.nodes[0].freeze();

    let gets = (0..600).map(|n| pb::GetTodoRequest {
        name: format!("lists/flood/todos/{n}"),
        consistency: None,
    });
    let began = Instant::now();
    let (_gets, mut got) = flood(&service, GET, gets).await;
    let creates = (0..1100).map(|n| pb::CreateTodoRequest {
        parent: "lists/flood".into(),
        todo: Some(titled("x")),
        todo_id: format!("w{n}"),
        request_id: String::new(),
    });
    let (_creates, mut created) = flood(&service, CREATE, creates).await;
    overloaded(&service, "keys waiting to be loaded").await;
    overloaded(&service, "writes under way").await;
    // Three quarters of 16 keys for each of 16 loads and of 1024 writes are one caller's.
    let used = |kind: &str| service.metric(&format!("tidemark_bound_used{{kind=\"{kind}\"}}"));
    let (keys, writes) = (used("keys waiting to be loaded"), used("writes under way"));
    assert!(keys <= 192 && writes <= 768, "{keys}, {writes}");
    // What is given up makes room again, after two seconds at the earliest: on a machine that
    // takes as long for the flood, more of it is admitted by and by.
    let is_quick = began.elapsed() < Duration::from_secs(2);

    let read = refused(get_once(&mut client, "lists/home/todos/bread", None).await);
    assert_eq!(read.1, "ORIGIN_UNAVAILABLE", "{read:?}");
    let write = create_in(&mut client, "lists/home", "bread", titled("x"));
    let write = timeout(Duration::from_secs(1), write).await;
    if let Ok(ended) = write {
        assert_ne!(refused(ended).1, "OVERLOADED");
    }
    let refusals = async |codes: &mut Codes, wanted: usize| {
        let mut refusals = 0;
        while refusals < wanted {
            let code = timeout(Duration::from_secs(30), codes.join_next()).await;
            let Ok(Some(code)) = code else {
                panic!("{refusals} refusals, not {wanted}");
            };
            refusals += usize::from(code.expect("no panic") == Some(EXHAUSTED));
        }
    };
    refusals(&mut got, if is_quick { 600 - 192 - 16 } else { 1 }).await;
    refusals(&mut created, if is_quick { 1100 - 768 } else { 1 }).await;
    mongo.nodes[0].thaw();
}

/// One caller cannot have all watches of all lists.
#[tokio::test]
async fn watches_of_all_lists_are_shared() {
    // The memory of a pod is for fewer.
    let (service, mut client) = pod::embedded_with(&["--memory-limit", "off"]).await;
    let all = pb::WatchTodosRequest {
        parent: "lists/-".into(),
        ..Default::default()
    };
    let mut peers = Vec::new();
    let (mut open, mut refused) = (JoinSet::new(), 0);
    for n in 0..3200 {
        if n % 900 == 0 {
            peers.push(Peer::connect(&service, ATTACKER, &Builder::new()).await);
        }
        let peer = peers.last_mut().expect("a connection");
        let (response, _) = peer.call(WATCH, &all).await.expect("sent");
        let response = response.await.expect("a response");
        if response.headers().contains_key("grpc-status") {
            refused += 1;
        } else {
            let mut body = response.into_body();
            open.spawn(async move {
                while let Some(Ok(bytes)) = body.data().await {
                    // Fails only when the stream has ended.
                    let _ = body.flow_control().release_capacity(bytes.len());
                }
            });
        }
    }
    assert_eq!((open.len(), refused), (3072, 128));
    let mut messages = client.watch_todos(all).await.expect("open").into_inner();
    messages.message().await.expect("alive").expect("progress");
    drop((open, peers));
    eventually("the places back", Duration::from_secs(60), async || {
        let used = service.metric("tidemark_bound_used{kind=\"watches of all lists\"}");
        (used == 1).then_some(())
    })
    .await;
}

/// Todos that the near cache cannot hold are held by the requests for them. These stop
/// at what fits into a response, and have a budget together.
#[tokio::test]
async fn large_batches_that_miss_take_bounded_memory() {
    large_batches_take_bounded_memory(&[]).await;
}

/// The same if Redis has them all: its replies are as large as those of the database.
#[tokio::test]
async fn large_batches_from_redis_take_bounded_memory() {
    let redis = redis();
    let url = format!("redis://127.0.0.1:{}", redis.port);
    large_batches_take_bounded_memory(&["--redis-url", &url]).await;
}

async fn large_batches_take_bounded_memory(more: &[&str]) {
    let dir = folder("data").display().to_string();
    let args = [
        "--data-dir",
        &dir,
        "--near-capacity",
        "1MiB",
        "--memory-limit",
        "320MiB",
    ];
    let (mut service, mut client) = Pod::ready(&[&args, more].concat()).await;
    service.set_most(320);
    const TODOS: usize = 400;
    let creates = (0..TODOS).map(|n| {
        let mut client = client.clone();
        let todo = pb::Todo {
            notes: "\u{1F600}".repeat(8192),
            ..titled(&"\u{1F600}".repeat(1024))
        };
        async move { create_in(&mut client, "lists/large", &format!("t{n}"), todo).await }
    });
    let created: Vec<_> = futures::stream::iter(creates)
        .buffer_unordered(8)
        .collect()
        .await;
    assert!(created.iter().all(Result::is_ok));
    let batch = |from: usize, count: usize| pb::BatchGetTodosRequest {
        names: (from..from + count)
            .map(|n| format!("lists/large/todos/t{}", n % TODOS))
            .collect(),
        consistency: None,
    };
    let large = client.batch_get_todos(batch(0, TODOS)).await;
    let large = large.expect_err("refused");
    assert_eq!(large.code(), Code::ResourceExhausted);
    let fits = large.message().split_whitespace().rev();
    let fits = fits.filter_map(|word| word.parse().ok()).next();
    let fits: usize = fits.unwrap_or_else(|| panic!("no number in {large:?}"));
    assert!(fits > 50, "{fits}");
    client.batch_get_todos(batch(0, fits)).await.expect("fits");
    let request = pb::ListTodosRequest {
        page_size: 1000,
        ..page_of("lists/large")
    };
    let page = list(&mut client, request).await;
    assert!(page.todos.len() > 50 && !page.next_page_token.is_empty());

    let batches = (0..400).map(|n| batch(n * 7, if n % 2 == 0 { TODOS } else { fits }));
    let (_peers, mut codes) = flood(&service, BATCH, batches).await;
    client.batch_get_todos(batch(0, 20)).await.expect("served");
    while codes.join_next().await.is_some() {}
    for kind in ["loads in flight", "decoded requests"] {
        let used = format!("tidemark_budget_used_bytes{{kind=\"{kind}\"}}");
        eventually("the memory back", Duration::from_secs(60), async || {
            (service.metric(&used) == 0).then_some(())
        })
        .await;
    }
}
