//! Attacks on the memory of the service, one by one and all at once.

mod connections;
mod floods;
mod requests;
mod streams;
mod watches;

use std::{
    fs,
    io::Write as _,
    net::Ipv4Addr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::StreamExt as _;
use h2::{
    SendStream,
    client::{Builder, ResponseFuture},
};
use tidemark::pb;
use tokio::{
    task::{JoinSet, LocalSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    client::*,
    pod::{self, Pod},
    raw::{ATTACKER, Peer, framed, status, tcp},
    support::eventually,
};

const GET: &str = "todo.v1.TodoService/GetTodo";
const BATCH: &str = "todo.v1.TodoService/BatchGetTodos";
const LIST: &str = "todo.v1.TodoService/ListTodos";
const UPDATE: &str = "todo.v1.TodoService/UpdateTodo";
const WATCH: &str = "todo.v1.TodoService/WatchTodos";
/// RESOURCE_EXHAUSTED and DEADLINE_EXCEEDED.
const EXHAUSTED: i32 = 8;
const TOO_LATE: i32 = 4;

/// 2,000,000 empty names, compressed: 4 KB that decode to 42 MB.
fn bomb() -> Bytes {
    static BOMB: OnceLock<Bytes> = OnceLock::new();
    let make = || {
        let names = [0x0a, 0].repeat(2_000_000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&names).expect("compressed");
        framed(&gzip.finish().expect("compressed"), true)
    };
    BOMB.get_or_init(make).clone()
}

/// A todo of some 45 KB, and a batch of it that takes `times` as much.
async fn large_batch(client: &mut Client, times: usize) -> pb::BatchGetTodosRequest {
    let todo = pb::Todo {
        notes: "\u{1F600}".repeat(8192),
        ..titled(&"\u{1F600}".repeat(1024))
    };
    // It may be there already.
    let _ = create_in(client, "lists/home", "large", todo).await;
    pb::BatchGetTodosRequest {
        names: vec!["lists/home/todos/large".into(); times],
        consistency: None,
    }
}

/// Requests that never end hold what they sent, and no longer than ten seconds.
#[tokio::test]
async fn unfinished_requests_hold_little_and_end() {
    let (service, _client) = pod::embedded().await;
    let before = service.peak();
    let mut peers = Vec::new();
    let mut calls = Vec::new();
    let began = Instant::now();
    for _ in 0..4 {
        let mut peer = Peer::connect(&service, ATTACKER, &Builder::new()).await;
        for _ in 0..16 {
            let (response, mut stream) = peer.begin(BATCH, Some("gzip")).await.expect("sent");
            stream.send_data(bomb(), false).expect("sent");
            calls.push((response, stream));
            // A head that announces 4 MiB.
            let (response, mut stream) = peer.begin(BATCH, None).await.expect("sent");
            let head = Bytes::from_static(&[0, 0, 0x40, 0, 0]);
            stream.send_data(head, false).expect("sent");
            calls.push((response, stream));
        }
        peers.push(peer);
    }
    for (response, _stream) in calls {
        let ended = timeout(Duration::from_secs(60), status(response)).await;
        let code = ended.expect("a deadline").expect("a status");
        assert!([TOO_LATE, EXHAUSTED].contains(&code), "{code}");
    }
    assert!(began.elapsed() >= Duration::from_secs(9));
    let more = service.peak().saturating_sub(before);
    assert!(more < 32 << 20, "{more} bytes more");
    eventually("the memory back", Duration::from_secs(60), async || {
        let used = service.metric("tidemark_budget_used_bytes{kind=\"unfinished requests\"}");
        (used == 0).then_some(())
    })
    .await;
}

/// Replies that nobody reads have a budget. The next callers are refused, other
/// callers are served, and the connection is given up.
#[tokio::test]
async fn unread_replies_are_bounded() {
    let (mut service, mut client) = pod::embedded().await;
    service.set_most(400);
    let batch = large_batch(&mut client, 80).await;
    client.batch_get_todos(batch.clone()).await.expect("3.6 MB");
    let mut builder = Builder::new();
    builder.initial_window_size(0);
    let mut peer = Peer::connect(&service, ATTACKER, &builder).await;
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        let (response, _) = peer.call(BATCH, &batch).await.expect("sent");
        calls.spawn(timeout(Duration::from_secs(60), status(response)));
    }
    eventually("a refusal", Duration::from_secs(30), async || {
        let refused = service.metric("tidemark_overloaded_total{kind=\"replies in flight\"}");
        (refused > 10).then_some(())
    })
    .await;
    // Calls are refused before the replies of the others are there.
    let budget = service.metric("tidemark_budget_limit_bytes{kind=\"replies in flight\"}");
    eventually("half of the budget", Duration::from_secs(5), async || {
        let used = service.metric("tidemark_budget_used_bytes{kind=\"replies in flight\"}");
        assert!(used <= budget, "{used} of {budget}");
        (used >= budget / 2).then_some(())
    })
    .await;
    // Another caller has its share of the budget.
    for _ in 0..5 {
        client.batch_get_todos(batch.clone()).await.expect("served");
    }
    let began = Instant::now();
    let _ = peer.end(Duration::from_secs(60)).await;
    assert!(began.elapsed() < Duration::from_secs(55));
    // It is counted after its end.
    eventually("the count", Duration::from_secs(5), async || {
        let closed = service.metric("tidemark_connections_closed_total{kind=\"unread\"}");
        (closed >= 1).then_some(())
    })
    .await;
    eventually("the memory back", Duration::from_secs(10), async || {
        let used = service.metric("tidemark_budget_used_bytes{kind=\"replies in flight\"}");
        (used == 0).then_some(())
    })
    .await;
}

/// What the attackers do, each for itself.
const SILENT: usize = 0;
const UNREAD_REPLIES: usize = 1;
const UNREAD_WATCHES: usize = 2;
const UNFINISHED: usize = 3;
const WRITES: usize = 5;
const STRONG_READS: usize = 6;
const PAGES: usize = 7;
const MISSES: usize = 8;
const MALFORMED: usize = 9;
const WATCHES_OF_ALL: usize = 10;
const HITS: usize = 11;
const JSON: usize = 12;
const WIDE_JSON: usize = 13;
const ATTACKS: usize = 14;

/// Todos of the list that is read as a whole.
const SMALL_TODOS: usize = 100;

/// Calls at once of an attacker that sends as much as it can.
const AT_ONCE: usize = 200;

/// One attacker: does its worst until it is dropped.
async fn attack(kind: usize, service: Arc<Pod>, batch: pb::BatchGetTodosRequest) {
    let from = Ipv4Addr::new(127, 0, 0, 2 + u8::try_from(kind % 4).expect("small"));
    loop {
        // Whatever ends it, it begins again.
        let _ = attack_once(kind, from, &service, &batch).await;
        sleep(Duration::from_millis(50)).await;
    }
}

async fn attack_once(
    kind: usize,
    from: Ipv4Addr,
    service: &Pod,
    batch: &pb::BatchGetTodosRequest,
) -> Result<(), Box<dyn std::error::Error>> {
    let second = Duration::from_secs(1);
    if kind == SILENT {
        let mut silent = Vec::new();
        for _ in 0..500 {
            silent.push(timeout(second, tcp(service, from)).await??);
        }
        sleep(second).await;
        return Ok(());
    }
    let mut builder = Builder::new();
    if kind == UNREAD_REPLIES || kind == UNREAD_WATCHES {
        builder.initial_window_size(0);
    }
    let stream = timeout(second, tcp(service, from)).await??;
    let mut peer = timeout(second, Peer::over(stream, &builder)).await??;
    if kind >= WRITES {
        return flood(kind, &mut peer).await;
    }
    let mut held = Vec::new();
    for n in 0..200 {
        match kind {
            UNREAD_REPLIES => held.push(peer.call(BATCH, batch).await?),
            UNREAD_WATCHES => {
                let names = (0..1000).map(|n| format!("lists/home/todos/{n:060}"));
                let request = pb::WatchTodosRequest {
                    parent: "lists/home".into(),
                    names: names.collect(),
                    ..Default::default()
                };
                held.push(peer.call(WATCH, &request).await?);
            }
            UNFINISHED => {
                let (response, mut stream) = peer.begin(BATCH, Some("gzip")).await?;
                stream.send_data(bomb(), n % 2 == 0)?;
                held.push((response, stream));
            }
            _ => {
                let (_, mut stream) = peer.begin(GET, None).await?;
                tokio::task::yield_now().await;
                stream.send_reset(h2::Reason::CANCEL);
            }
        }
        sleep(Duration::from_millis(2)).await;
    }
    sleep(second).await;
    Ok(())
}

/// Sends calls of one kind as fast as they are answered, some hundred at once.
async fn flood(kind: usize, peer: &mut Peer) -> Result<(), Box<dyn std::error::Error>> {
    for round in 0..50 {
        let mut calls = Vec::with_capacity(AT_ONCE);
        for n in 0..AT_ONCE {
            let (response, _) = match kind {
                WRITES => peer.call(UPDATE, &an_update(n)).await?,
                STRONG_READS => peer.call(GET, &a_strong_read(n)).await?,
                PAGES => peer.call(LIST, &a_page(round * AT_ONCE + n)).await?,
                MISSES => peer.call(BATCH, &some_misses(round * AT_ONCE + n)).await?,
                MALFORMED => peer.call(BATCH, &malformed_names()).await?,
                HITS => peer.call(BATCH, &many_hits()).await?,
                JSON | WIDE_JSON => in_json(peer, kind == WIDE_JSON).await?,
                _ => peer.call(WATCH, &all_lists()).await?,
            };
            calls.push(response);
        }
        if kind == WATCHES_OF_ALL {
            // Their messages are not read.
            sleep(Duration::from_secs(2)).await;
            return Ok(());
        }
        for response in calls {
            status(response).await?;
        }
    }
    Ok(())
}

fn an_update(n: usize) -> pb::UpdateTodoRequest {
    pb::UpdateTodoRequest {
        todo: Some(pb::Todo {
            name: format!("lists/flood/todos/{n}"),
            notes: "x".repeat(1000),
            ..titled("x")
        }),
        allow_missing: true,
        ..Default::default()
    }
}

fn a_strong_read(n: usize) -> pb::GetTodoRequest {
    pb::GetTodoRequest {
        name: format!("lists/flood/todos/{n}"),
        consistency: strong(),
    }
}

/// A page that was never asked for, of a filter that no todo passes.
fn a_page(n: usize) -> pb::ListTodosRequest {
    pb::ListTodosRequest {
        page_size: 1000,
        filter: format!("labels:\"none-{n}\""),
        ..page_of("lists/flood")
    }
}

/// A thousand names that no todo has.
fn some_misses(n: usize) -> pb::BatchGetTodosRequest {
    let names = (0..1000).map(|name| format!("lists/none/todos/{n}-{name}"));
    pb::BatchGetTodosRequest {
        names: names.collect(),
        consistency: None,
    }
}

fn malformed_names() -> pb::BatchGetTodosRequest {
    pb::BatchGetTodosRequest {
        names: vec!["\u{1F600}".repeat(20); 1000],
        consistency: None,
    }
}

fn small(n: usize) -> String {
    format!("lists/small/todos/{n}")
}

/// A thousand todos that are near.
fn many_hits() -> pb::BatchGetTodosRequest {
    pb::BatchGetTodosRequest {
        names: (0..1000).map(|n| small(n % SMALL_TODOS)).collect(),
        consistency: None,
    }
}

/// A batch in JSON: of a thousand todos, or of names that are no names.
async fn in_json(
    peer: &mut Peer,
    wide: bool,
) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
    let names = if wide {
        vec![String::new(); 80_000]
    } else {
        many_hits().names
    };
    let request = http::Request::post(format!("http://tidemark/{BATCH}"))
        .header("content-type", "application/json");
    let (response, mut stream) = peer.begin_with(request, false).await?;
    let body = serde_json::json!({ "names": names }).to_string();
    stream.send_data(body.into(), true)?;
    Ok((response, stream))
}

fn all_lists() -> pb::WatchTodosRequest {
    pb::WatchTodosRequest {
        parent: "lists/-".into(),
        include_todo: true,
        ..Default::default()
    }
}

/// What an honest caller saw.
#[derive(Default)]
struct Seen {
    reads: Vec<Duration>,
    writes: Vec<Duration>,
    failed: Vec<String>,
}

/// Parts of the time of an attack, of which the calmest counts: other work on the machine
/// delays calls in some of them, and what the attacks do in each.
const PARTS: usize = 3;

impl Seen {
    fn p99(latencies: &mut [Duration]) -> Duration {
        latencies.sort_unstable();
        latencies[latencies.len() * 99 / 100]
    }

    /// The least p99 of the parts; the latencies are in the order of their calls.
    fn calmest_p99(latencies: &mut [Duration]) -> Duration {
        let parts = latencies.chunks_mut(latencies.len().div_ceil(PARTS));
        parts.map(Self::p99).min().expect("some calls")
    }
}

/// Reads and writes for this long.
async fn honest(client: &mut Client, run: &str, time: Duration) -> Seen {
    let (mut seen, until, mut n) = (Seen::default(), Instant::now() + time, 0);
    while Instant::now() < until {
        let began = Instant::now();
        let outcome = if n % 10 == 0 {
            let id = format!("honest-{run}-{n}");
            let created = create_in(client, "lists/honest", &id, titled("x")).await;
            seen.writes.push(began.elapsed());
            created.map(drop)
        } else {
            let name = format!("lists/honest/todos/honest-{run}-{}", n - n % 10);
            let read = get_once(client, &name, None).await;
            seen.reads.push(began.elapsed());
            read.map(drop)
        };
        seen.failed
            .extend(outcome.err().map(|status| status.to_string()));
        n += 1;
        sleep(Duration::from_millis(5)).await;
    }
    seen
}

/// Starts all attackers on a thread of their own, so that they do not delay the
/// honest caller in this process.
fn start_attackers(
    service: &Arc<Pod>,
    batch: &pb::BatchGetTodosRequest,
    kinds: std::ops::Range<usize>,
    stop: CancellationToken,
) -> thread::JoinHandle<()> {
    let (service, batch) = (Arc::clone(service), batch.clone());
    bomb();
    thread::spawn(move || {
        // They stand for other machines: here, they must not take the CPU from the
        // honest caller's own thread.
        let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
        let _ = std::process::Command::new("renice")
            .args(["-n", "10", "-p", &thread])
            .output();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let local = LocalSet::new();
        local.block_on(&runtime, async move {
            let mut attackers = JoinSet::new();
            for kind in kinds {
                // Not `Send`: its errors are of any kind.
                attackers.spawn_local(attack(kind, Arc::clone(&service), batch.clone()));
            }
            stop.cancelled().await;
            attackers.shutdown().await;
        });
    })
}

/// Whether more is runnable than four tasks a core, one minute's mean.
fn is_busy() -> bool {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().and_then(|load| load.parse().ok());
    let cores = thread::available_parallelism().map_or(1, usize::from);
    load.unwrap_or(0.0) > 4.0 * cores as f64
}

/// A service with what the attackers ask for: a large todo, and small ones.
async fn attacked() -> (Arc<Pod>, Client, pb::BatchGetTodosRequest) {
    let (service, mut client) = pod::embedded().await;
    let batch = large_batch(&mut client, 80).await;
    let creates = (0..SMALL_TODOS).map(|n| {
        let mut client = client.clone();
        async move { create_in(&mut client, "lists/small", &n.to_string(), titled("x")).await }
    });
    for created in futures::future::join_all(creates).await {
        created.expect("created");
    }
    (Arc::new(service), client, batch)
}

/// All attacks at once, for this long. No call of an honest caller fails, its
/// watch sees each change, and the process lives within the memory of its pod.
async fn all_at_once(time: Duration) {
    let (service, mut client, batch) = attacked().await;
    let watched = Arc::new(AtomicU64::new(0));
    let mut changes = client
        .watch_todos(pb::WatchTodosRequest {
            parent: "lists/honest".into(),
            ..Default::default()
        })
        .await
        .expect("open")
        .into_inner();
    let counting = tokio::spawn({
        let watched = Arc::clone(&watched);
        async move {
            while let Some(message) = changes.next().await {
                let event = message.expect("the watch goes on").event;
                if matches!(event, Some(pb::watch_todos_response::Event::Change(_))) {
                    watched.fetch_add(1, Relaxed);
                }
            }
        }
    });
    let mut calm = honest(&mut client, "calm", Duration::from_secs(3)).await;
    let stop = CancellationToken::new();
    let attackers = start_attackers(&service, &batch, 0..ATTACKS, stop.clone());
    sleep(Duration::from_secs(1)).await;
    let mut stormy = honest(&mut client, "storm", time).await;
    stop.cancel();
    attackers.join().expect("no panic");
    assert!(
        stormy.failed.is_empty(),
        "{} failed: {:?}",
        stormy.failed.len(),
        stormy.failed.first()
    );
    let busy = is_busy();
    // A debug build takes ten times the CPU for each attack: it shows that no call fails,
    // an optimized one (TEST_BINARY) what the others' floods cost.
    let optimized = std::env::var_os("TEST_BINARY").is_some();
    let slack = Duration::from_millis(if optimized { 100 } else { 1000 });
    for (what, calm, stormy) in [
        ("reads", &mut calm.reads, &mut stormy.reads),
        ("writes", &mut calm.writes, &mut stormy.writes),
    ] {
        let (before, during) = (Seen::p99(calm), Seen::calmest_p99(stormy));
        eprintln!(
            "{what}: p99 {before:?} in calm, {during:?} under attack, {} calls",
            stormy.len()
        );
        // The attackers use the same cores. Other work on the machine would say
        // more about itself.
        assert!(
            busy || during < (before * 3).max(slack),
            "{what}: {before:?}, then {during:?}"
        );
    }
    let writes = (calm.writes.len() + stormy.writes.len()) as u64;
    eventually("all changes", Duration::from_secs(60), async || {
        (watched.load(Relaxed) == writes).then_some(())
    })
    .await;
    assert!(!counting.is_finished());
    counting.abort();
    let peak = service.peak();
    assert!(peak < 512 << 20, "{peak} bytes");
    service.terminate();
    assert_eq!(service.exit_code(Duration::from_secs(60)).await, Some(0));
}

#[tokio::test]
async fn an_honest_caller_is_served_during_all_attacks() {
    all_at_once(Duration::from_secs(15)).await;
}

/// What each attack alone costs an honest caller. Prints, and compares nothing.
/// `cargo test --test wire -- --ignored --nocapture each_attack_alone`
#[tokio::test]
#[ignore = "minutes"]
async fn each_attack_alone() {
    let (service, mut client, batch) = attacked().await;
    let seconds = Duration::from_secs(4);
    for kind in 0..=ATTACKS {
        let stop = CancellationToken::new();
        // The last round is calm.
        let kinds = kind..(kind + 1).min(ATTACKS);
        let attackers = start_attackers(&service, &batch, kinds, stop.clone());
        sleep(Duration::from_secs(1)).await;
        let mut seen = honest(&mut client, &format!("k{kind}"), seconds).await;
        stop.cancel();
        attackers.join().expect("no panic");
        eprintln!(
            "attack {kind}: p99 of reads {:?}, of writes {:?}, {} calls, {} failed",
            Seen::p99(&mut seen.reads),
            Seen::p99(&mut seen.writes),
            seen.reads.len() + seen.writes.len(),
            seen.failed.len(),
        );
    }
}

/// How much of what an honest caller waits for is the service's: the attackers run on the
/// same cores, whichever service they attack. Prints, and compares nothing.
/// `cargo test --test wire -- --ignored --nocapture attacks_on_another_service`
#[tokio::test]
#[ignore = "minutes"]
async fn attacks_on_another_service() {
    let (service, mut client, batch) = attacked().await;
    let (other, _other_client, _) = attacked().await;
    for round in 0..3 {
        for (what, attacked) in [
            ("nobody", None),
            ("another service", Some(&other)),
            ("this service", Some(&service)),
        ] {
            let stop = CancellationToken::new();
            let attackers =
                attacked.map(|it| start_attackers(it, &batch, 0..ATTACKS, stop.clone()));
            sleep(Duration::from_secs(1)).await;
            let run = format!("{}-{round}", what.replace(' ', "-"));
            let mut seen = honest(&mut client, &run, Duration::from_secs(15)).await;
            stop.cancel();
            if let Some(attackers) = attackers {
                attackers.join().expect("no panic");
            }
            eprintln!(
                "attacked is {what}: p99 of reads {:?}, of writes {:?}, {} failed",
                Seen::p99(&mut seen.reads),
                Seen::p99(&mut seen.writes),
                seen.failed.len(),
            );
        }
    }
    for service in [service, other] {
        service.terminate();
        assert_eq!(service.exit_code(Duration::from_secs(10)).await, Some(0));
    }
}

/// `cargo test --test wire -- --ignored attacks_of_two_minutes`
#[tokio::test]
#[ignore = "two minutes"]
async fn attacks_of_two_minutes() {
    all_at_once(Duration::from_secs(120)).await;
}
