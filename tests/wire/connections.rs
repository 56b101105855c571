//! Connections: silent ones, cancelled calls, too many of them, their age, and
//! what a shutdown waits for.

use std::{
    net::Ipv4Addr,
    process::Command,
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use h2::client::Builder;
use tidemark::pb;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{sleep, timeout},
};

use crate::{
    client::*,
    pod,
    raw::{ATTACKER, Peer, framed, next, tcp, tcp_to},
    support::{eventually, free_port},
};

const WATCH: &str = "todo.v1.TodoService/WatchTodos";
const GET: &str = "todo.v1.TodoService/GetTodo";

fn watch_all() -> pb::WatchTodosRequest {
    pb::WatchTodosRequest {
        parent: "lists/-".into(),
        ..Default::default()
    }
}

/// A connection on which nothing comes is closed after ten seconds; one that
/// spoke HTTP/2 and is idle is not.
#[tokio::test]
async fn a_silent_connection_is_closed() {
    let (service, _client) = pod::embedded().await;
    let began = Instant::now();
    let mut idle = Peer::connect(&service, ATTACKER, &Builder::new()).await;
    let mut silent = tcp(&service, ATTACKER).await.expect("connected");
    let mut half = tcp(&service, ATTACKER).await.expect("connected");
    half.write_all(b"PRI * HTTP/2.0\r\n").await.expect("sent");
    for stream in [&mut silent, &mut half] {
        // Settings of the server, then the end or a reset.
        let mut bytes = Vec::new();
        let read = timeout(Duration::from_secs(60), stream.read_to_end(&mut bytes));
        let _ = read.await.expect("closed in time");
        assert!(began.elapsed() >= Duration::from_secs(9));
    }
    let request = pb::GetTodoRequest::default();
    let (response, _) = idle.call(GET, &request).await.expect("it is open");
    response.await.expect("it is served");
    eventually("the count", Duration::from_secs(60), async || {
        let silent = service.metric("tidemark_connections_closed_total{kind=\"silent\"}");
        (silent >= 2).then_some(())
    })
    .await;
}

/// Cancelling calls is normal: the watch on the same connection lives. The
/// service is stopped meanwhile, so that it sees all calls and their ends at
/// once.
#[tokio::test]
async fn cancelled_calls_leave_the_connection_alone() {
    let (service, mut client) = pod::embedded().await;
    let mut peer = Peer::connect(&service, ATTACKER, &Builder::new()).await;
    let (response, _watch) = peer.call(WATCH, &watch_all()).await.expect("sent");
    let mut changes = response.await.expect("a response").into_body();
    next(&mut changes, Duration::from_secs(60))
        .await
        .expect("progress")
        .expect("open");
    for round in 0..3 {
        service.freeze();
        let mut calls = Vec::new();
        for n in 0..400 {
            let method = if n % 10 == 0 { WATCH } else { GET };
            calls.push(peer.begin(method, None).await.expect("sent"));
        }
        sleep(Duration::from_millis(300)).await;
        for (_, stream) in &mut calls {
            stream.send_reset(h2::Reason::CANCEL);
        }
        sleep(Duration::from_millis(300)).await;
        service.thaw();
        create(&mut client, &format!("todo-{round}"), "x").await;
        let change = next(&mut changes, Duration::from_secs(60)).await;
        change
            .expect("the watch goes on")
            .expect("the connection lives");
    }
}

/// Streams that end because the peer breaks the rules are counted: the 1,025th
/// ends the connection.
#[tokio::test]
async fn a_peer_that_breaks_the_rules_is_given_up() {
    const HEADERS: u8 = 1;
    const GOAWAY: u8 = 7;
    let (service, _client) = pod::embedded().await;
    let mut stream = tcp(&service, ATTACKER).await.expect("connected");
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // Empty settings.
    bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    // Requests that end at once and have no path: only `:method: POST`.
    for n in 0..1500_u32 {
        bytes.extend([0, 0, 1, HEADERS, 0x05]);
        bytes.extend((2 * n + 1).to_be_bytes());
        bytes.push(0x83);
    }
    stream.write_all(&bytes).await.expect("sent");
    let told = async {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.expect("a frame");
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            stream.read_exact(&mut payload).await.expect("a payload");
            if head[3] == GOAWAY {
                return payload;
            }
        }
    };
    let payload = timeout(Duration::from_secs(60), told)
        .await
        .expect("GOAWAY");
    // ENHANCE_YOUR_CALM.
    assert_eq!(payload[4..8], [0, 0, 0, 0xb]);
}

/// SIGTERM ends the process soon, whatever its peers do not do.
#[tokio::test]
async fn a_shutdown_does_not_wait_for_peers_that_do_not_move() {
    let limit = Duration::from_secs(2);
    for case in [
        "silent",
        "half sent",
        "unread watch",
        "unread reply",
        "idle",
    ] {
        // The fastest of some: the machine may have given the process no CPU.
        let mut fastest = Duration::MAX;
        for _ in 0..4 {
            fastest = fastest.min(time_of_shutdown(case).await);
            if fastest < limit {
                break;
            }
        }
        assert!(fastest < limit, "{case}: {fastest:?}");
    }
}

/// How long the process takes to end while a peer does this.
async fn time_of_shutdown(case: &str) -> Duration {
    let (service, mut client) = pod::embedded().await;
    create(&mut client, "milk", &"x".repeat(1000)).await;
    let mut builder = Builder::new();
    if case.starts_with("unread") {
        builder.initial_window_size(0);
    }
    let silent = tcp(&service, ATTACKER).await.expect("connected");
    let mut peer = Peer::connect(&service, ATTACKER, &builder).await;
    let get = pb::GetTodoRequest {
        name: "lists/home/todos/milk".into(),
        ..Default::default()
    };
    let held = match case {
        "half sent" => {
            let (response, mut stream) = peer.begin(GET, None).await.expect("sent");
            stream
                .send_data(framed(&[0; 20], false).slice(..9), false)
                .expect("sent");
            Some((response, stream))
        }
        "unread watch" => Some(peer.call(WATCH, &watch_all()).await.expect("sent")),
        "unread reply" => Some(peer.call(GET, &get).await.expect("sent")),
        _ => None,
    };
    sleep(Duration::from_millis(500)).await;
    let began = Instant::now();
    service.terminate();
    let code = service.exit_code(Duration::from_secs(60)).await;
    let took = began.elapsed();
    assert_eq!(code, Some(0), "{case}");
    drop((silent, held));
    took
}

/// A connection that reaches its age is told to go: its watch ends with a last
/// progress message and DRAINING, and calls go on over the next connection.
#[tokio::test]
async fn a_connection_has_an_age() {
    let (service, mut client) = pod::embedded_with(&["--max-connection-age", "2s"]).await;
    let began = Instant::now();
    let mut messages = client
        .watch_todos(watch_all())
        .await
        .expect("open")
        .into_inner();
    let mut last = None;
    let end = loop {
        match messages.next().await.expect("an end with a status") {
            Ok(message) => last = Some(message),
            Err(status) => break status,
        }
    };
    let (_, reason, _) = refused(Err::<(), _>(end));
    assert_eq!(reason, "DRAINING");
    let event = last.and_then(|message| message.event);
    assert!(
        matches!(event, Some(pb::watch_todos_response::Event::Progress(_))),
        "{event:?}"
    );
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "{:?}",
        began.elapsed()
    );
    create(&mut client, "milk", "x").await;
    eventually("the count", Duration::from_secs(60), async || {
        let aged = service.metric("tidemark_connections_closed_total{kind=\"age\"}");
        (aged > 0).then_some(())
    })
    .await;
}

/// One address cannot have all connections.
#[tokio::test]
async fn connections_are_bounded() {
    let (service, _client) = pod::embedded_with(&[
        "--max-connections",
        "20",
        "--max-connections-per-address",
        "4",
    ])
    .await;
    let mut held = Vec::new();
    let refused = eventually("a refusal", Duration::from_secs(60), async || {
        let stream = tcp(&service, ATTACKER).await.expect("connected");
        let Ok(mut peer) = Peer::over(stream, &Builder::new()).await else {
            return Some(held.len());
        };
        // A connection that is refused is closed, and answers nothing.
        let Ok((response, _)) = peer.call(GET, &pb::GetTodoRequest::default()).await else {
            return Some(held.len());
        };
        if response.await.is_err() {
            return Some(held.len());
        }
        held.push(peer);
        None
    })
    .await;
    assert_eq!(refused, 4);
    let other = Ipv4Addr::new(127, 0, 0, 3);
    let mut peer = Peer::connect(&service, other, &Builder::new()).await;
    let (response, _) = peer
        .call(GET, &pb::GetTodoRequest::default())
        .await
        .expect("sent");
    response.await.expect("another address is served");
    eventually("the count", Duration::from_secs(60), async || {
        let text = service.metrics_text();
        let series = "tidemark_connections_closed_total{kind=\"address_limit\"}";
        let line = text.lines().find(|line| line.starts_with(series))?;
        (!line.ends_with(" 0")).then_some(())
    })
    .await;
}

/// Connections that speak, and then stay idle or hold a watch, take all places from two
/// addresses, and take them again: each has to give some up for another address.
#[tokio::test]
async fn idle_and_busy_connections_make_room_for_other_addresses() {
    const PLACES: usize = 40;
    for is_busy in [false, true] {
        let limits = [
            "--max-connections",
            "40",
            "--max-connections-per-address",
            "30",
        ];
        let (service, mut client) = pod::embedded_with(&limits).await;
        create(&mut client, "milk", "x").await;
        let mut held = Vec::new();
        let closed = || service.metric("tidemark_connections_closed_total{kind=\"limit\"}");
        let refused = eventually("all places taken", Duration::from_secs(60), async || {
            for host in [2, 3] {
                let from = Ipv4Addr::new(127, 0, 0, host);
                let stream = tcp(&service, from).await.expect("connected");
                if let Ok(mut peer) = Peer::over(stream, &Builder::new()).await {
                    let watch = is_busy.then(watch_all);
                    if let Some(watch) = watch
                        && let Ok(call) = peer.call(WATCH, &watch).await
                    {
                        held.push((peer, Some(call)));
                    } else {
                        held.push((peer, None));
                    }
                }
            }
            Some(closed()).filter(|closed| *closed > 0 && held.len() >= PLACES - 1)
        })
        .await;
        for n in 0..10 {
            let mut another = eventually("a connection", Duration::from_secs(30), async || {
                let from = Ipv4Addr::new(127, 0, 0, 4);
                let stream = tcp(&service, from).await.expect("connected");
                Peer::over(stream, &Builder::new()).await.ok()
            })
            .await;
            let request = pb::GetTodoRequest {
                name: "lists/home/todos/milk".into(),
                consistency: None,
            };
            let (response, _) = another.call(GET, &request).await.expect("sent");
            let head = response
                .await
                .unwrap_or_else(|problem| panic!("call {n}: {problem}"));
            assert!(head.status().is_success() && !head.headers().contains_key("grpc-status"));
            held.push((another, None));
        }
        assert_eq!(title(&mut client, "lists/home/todos/milk", None).await, "x");
        assert!(closed() >= refused + 10, "{} closed", closed());
    }
}

/// Nobody can keep probes and scrapers out, from however many addresses.
#[tokio::test]
async fn probes_and_scrapers_get_in_beside_connections_that_speak() {
    let health = format!("127.0.0.1:{}", free_port());
    let (service, _client) = pod::embedded_with(&["--health-listen", &health]).await;
    let metrics = service.metrics.trim_start_matches("http://");
    let metrics = metrics.trim_end_matches("/metrics");
    for (port, path) in [(&*health, "/readyz"), (metrics, "/metrics")] {
        let port = port.parse().expect("an address");
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        let (mut held, mut refused) = (Vec::new(), 0);
        for n in 0.. {
            let from = Ipv4Addr::new(127, 0, 0, 2 + u8::try_from(n % 8).expect("small"));
            let mut stream = tcp_to(port, from, None).await.expect("connected");
            let mut answer = [0; 12];
            // It may be refused.
            let _ = stream.write_all(request.as_bytes()).await;
            match stream.read_exact(&mut answer).await {
                Ok(_) => held.push(stream),
                Err(_) => refused += 1,
            }
            // It has been seen that they speak.
            sleep(Duration::from_millis(5)).await;
            if refused == 30 {
                break;
            }
            assert!(n < 2000, "never full");
        }
        for _ in 0..20 {
            let mut stream = tcp_to(port, Ipv4Addr::LOCALHOST, None)
                .await
                .expect("connected");
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("sent");
            let mut answer = String::new();
            let read = stream.read_to_string(&mut answer);
            timeout(Duration::from_secs(30), read)
                .await
                .expect("in time")
                .expect("answered");
            assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
            // The others go on asking.
            for stream in &mut held {
                let _ = stream.try_write(request.as_bytes());
            }
        }
    }
}

/// Without a free file descriptor, the service says so once, does not spin, and
/// metrics answer.
#[tokio::test]
async fn the_limit_of_open_files_is_survived() {
    let (service, mut client) = pod::embedded().await;
    let pid = service.pid();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("readable")
        .count();
    let limit = open + 4;
    let set = Command::new("prlimit")
        .args([
            "--pid",
            &pid.to_string(),
            &format!("--nofile={limit}:{limit}"),
        ])
        .status();
    assert!(set.expect("prlimit").success());
    let mut held = Vec::new();
    for _ in 0..60 {
        held.push(tcp(&service, ATTACKER).await.expect("in the backlog"));
    }
    eventually("a pause", Duration::from_secs(60), async || {
        (service.metric("tidemark_accept_pauses_total") > 0).then_some(())
    })
    .await;
    let (before, began) = (
        service.metric("tidemark_accept_pauses_total"),
        Instant::now(),
    );
    sleep(Duration::from_secs(2)).await;
    let pauses = service.metric("tidemark_accept_pauses_total") - before;
    assert!(
        pauses as f64 / began.elapsed().as_secs_f64() < 50.0,
        "{pauses} pauses"
    );
    // The log is written by a thread, and read by another one.
    let about = async || {
        let warnings = service.log("WARN").into_iter();
        let about = warnings.filter(|line| line.contains("open files"));
        about.collect::<Vec<_>>()
    };
    let about = eventually("a warning", Duration::from_secs(60), async || {
        Some(about().await).filter(|about| !about.is_empty())
    })
    .await;
    // One in a minute at most.
    let most = 1 + began.elapsed().as_secs() / 60;
    assert!(about.len() as u64 <= most, "{about:?}");
    // Those who are connected are served.
    create(&mut client, "milk", "x").await;
    drop(held);
    eventually("a new connection", Duration::from_secs(60), async || {
        health(&service, "liveness").await.ok()
    })
    .await;
}
