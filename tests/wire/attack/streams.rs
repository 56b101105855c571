//! Calls that are open for long, and responses that are not read: each holds memory
//! until its caller goes on.

use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::{
    SendStream,
    client::{Builder, ResponseFuture},
};
use prost::Message as _;
use tokio::{
    io::AsyncWriteExt as _,
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic_health::pb::HealthCheckRequest;

use crate::{
    client::*,
    pod::{self, Pod},
    raw::{ATTACKER, PREFACE, Peer, address, frame, framed, head, status, tcp_to},
    support::eventually,
};

const HEALTH_CHECK: &str = "grpc.health.v1.Health/Check";
const HEALTH_WATCH: &str = "grpc.health.v1.Health/Watch";
const REFLECTION: &str = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
/// What one attack may take, in bytes: an eighth of the pod.
const LITTLE: u64 = 96 << 20;

fn post(path: &str) -> http::request::Builder {
    http::Request::post(format!("http://tidemark/{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

/// Another caller is served, probes are answered, and the memory is little.
pub(super) async fn others_are_served(service: &Pod, client: &mut Client, before: u64) {
    let probe = health(service, "readiness").await;
    assert_eq!(probe.expect("a probe is answered"), SERVING);
    service.metrics_text();
    let _ = create_in(client, "lists/home", "milk", titled("x")).await;
    let read = get(client, "lists/home/todos/milk", None).await;
    read.expect("a caller is served");
    let more = service.peak().saturating_sub(before);
    assert!(more < LITTLE, "{more} bytes more");
}

/// Whether a stream was opened, and not refused.
async fn is_open(response: ResponseFuture) -> bool {
    let response = response.await.expect("a response");
    let refusal = response.headers().get("grpc-status");
    assert!(refusal.is_none_or(|status| status == "8"), "{refusal:?}");
    refusal.is_none()
}

/// The streams of health stay open as long as their clients like.
#[tokio::test]
async fn health_watches_are_bounded() {
    let (service, mut client) = pod::embedded().await;
    let before = service.peak();
    let mut builder = Builder::new();
    // The peer's own bound of messages that it does not read.
    builder.data_frame_budget(usize::MAX);
    let (mut peers, mut open, mut refused) = (Vec::new(), Vec::new(), 0);
    for _ in 0..7 {
        let mut peer = Peer::connect(&service, ATTACKER, &builder).await;
        let mut calls = Vec::new();
        for n in 0..900 {
            let request = HealthCheckRequest {
                service: format!("{n}{}", "x".repeat(3900)),
            };
            calls.push(peer.call(HEALTH_WATCH, &request).await.expect("sent"));
        }
        for (response, stream) in calls {
            let response = response.await.expect("a response");
            if response.headers().contains_key("grpc-status") {
                refused += 1;
            } else {
                open.push((response, stream));
            }
        }
        peers.push(peer);
    }
    assert!(
        open.len() < 5000 && refused > 1000,
        "{} open, {refused} refused",
        open.len()
    );
    others_are_served(&service, &mut client, before).await;
}

/// Health is answered whatever is used up; so only few such calls may be open. These hold
/// 14 KiB of headers each.
#[tokio::test]
async fn unfinished_health_checks_are_bounded() {
    let (service, mut client) = pod::embedded().await;
    let before = service.peak();
    const KIND: &str = "{kind=\"health checks and metrics\"}";
    let bound_used = || service.metric(&format!("tidemark_bound_used{KIND}"));
    let (mut peers, mut calls, mut most_used) = (Vec::new(), Vec::new(), 0);
    for connection in 0..3 {
        let mut peer = Peer::connect(&service, ATTACKER, &Builder::new()).await;
        for n in 0..100 {
            let mut request = post(HEALTH_CHECK);
            for header in 0..3 {
                let value = format!("{connection}-{n}-{header}-{}", "x".repeat(4700));
                request = request.header(format!("x-{header}"), value);
            }
            calls.push(peer.begin_with(request, false).await.expect("sent"));
        }
        peers.push(peer);
        most_used = bound_used().max(most_used);
    }
    // They are given up after ten seconds: on a busy machine some before the last is sent.
    eventually("refusals and calls", Duration::from_secs(20), async || {
        most_used = bound_used().max(most_used);
        assert!(most_used <= 64, "{most_used}");
        let refused = service.metric(&format!("tidemark_overloaded_total{KIND}"));
        (refused >= 100 && most_used >= 40).then_some(())
    })
    .await;
    others_are_served(&service, &mut client, before).await;
}

/// A message that does not end is held by its stream, whose head was answered.
#[tokio::test]
async fn unfinished_messages_of_reflection_are_bounded() {
    let (service, mut client) = pod::embedded().await;
    let before = service.peak();
    let (mut peers, mut streams, mut refused) = (Vec::new(), Vec::new(), 0);
    let began = Instant::now();
    let part = framed(&[b'x'; 65_000], false).slice(..64_000);
    for _ in 0..3 {
        let mut peer = Peer::connect(&service, ATTACKER, &Builder::new()).await;
        for _ in 0..300 {
            let (response, mut stream) = peer.begin(REFLECTION, None).await.expect("sent");
            if is_open(response).await {
                // Sent as far as the windows allow.
                let _ = stream.send_data(part.clone(), false);
                streams.push(stream);
            } else {
                refused += 1;
            }
        }
        peers.push(peer);
    }
    // A message that does not end is given up after ten seconds: then others may begin.
    let rounds = 1 + usize::try_from(began.elapsed().as_secs() / 10).expect("short");
    let open = streams.len();
    assert!(open < 200 * rounds, "{open} open, {refused} refused");
    assert!(rounds > 1 || refused > 600, "{refused} refused");
    sleep(Duration::from_millis(500)).await;
    others_are_served(&service, &mut client, before).await;
    drop((streams, peers));
    eventually("the memory back", Duration::from_secs(60), async || {
        let used = service.metric("tidemark_budget_used_bytes{kind=\"unfinished requests\"}");
        (used == 0).then_some(())
    })
    .await;
}

/// Errors are headers, which have no window: short requests, and 7 KiB each in return.
/// Once the buffers of the sockets are full, they are held by the service.
#[tokio::test]
async fn a_peer_that_does_not_read_its_errors_is_closed() {
    let (service, mut client) = pod::embedded().await;
    let before = service.peak();
    let names = vec!["\n\n\n\n".to_owned(); 16];
    let request = tidemark::pb::BatchGetTodosRequest {
        names,
        consistency: None,
    };
    let request = framed(&request.encode_to_vec(), false);
    let stream = tcp_to(address(&service), ATTACKER, Some(2048)).await;
    let mut stream = stream.expect("connected");
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    stream.write_all(&bytes).await.expect("sent");
    let (kind, mut sent) = ("{kind=\"errors in flight\"}", 0);
    let room = service.metric(&format!("tidemark_budget_limit_bytes{kind}"));
    let used = || service.metric(&format!("tidemark_budget_used_bytes{kind}"));
    let closed = || service.metric("tidemark_connections_closed_total{kind=\"unread\"}") == 1;
    // Three quarters are one caller's: within a round that crosses them the peer is closed.
    // Not faster than the service answers: it would refuse what is beyond the calls of one
    // connection.
    while used() < room * 7 / 10 && !closed() {
        assert!(sent < 20_000, "all was written");
        let mut calls = Vec::new();
        for n in sent..sent + 100 {
            calls.extend(head(2 * n + 1, "/todo.v1.TodoService/BatchGetTodos"));
            calls.extend(frame(0, 1, 2 * n + 1, &request));
        }
        sent += 100;
        // Fails only if it was closed meanwhile.
        let written = stream.write_all(&calls).await;
        eventually("the answers", Duration::from_secs(60), async || {
            assert!(used() <= room, "{} of {room}", used());
            let answered = written.is_ok() && wrong_batches(&service) >= u64::from(sent);
            (answered || closed()).then_some(())
        })
        .await;
    }
    others_are_served(&service, &mut client, before).await;
    eventually("the end", Duration::from_secs(120), async || {
        closed().then_some(())
    })
    .await;
    eventually("the memory back", Duration::from_secs(60), async || {
        (used() == 0).then_some(())
    })
    .await;
    others_are_served(&service, &mut client, before).await;
}

/// Batches that were refused for their names.
fn wrong_batches(service: &Pod) -> u64 {
    const COUNT: &str =
        "tidemark_rpc_duration_seconds_count{call=\"BatchGetTodos\",code=\"INVALID_ARGUMENT\"} ";
    let text = service.metrics_text();
    let count = text.lines().find_map(|line| line.strip_prefix(COUNT));
    count.map_or(0, |count| count.parse().expect("a count"))
}

/// A client that reads gets all its errors, however many it asks for at once.
#[tokio::test]
async fn a_peer_that_reads_its_errors_gets_all() {
    let (service, _client) = pod::embedded().await;
    let mut peer = Peer::connect(&service, ATTACKER, &Builder::new()).await;
    let request = tidemark::pb::BatchGetTodosRequest {
        names: vec!["\n\n\n\n".to_owned(); 16],
        consistency: None,
    };
    let mut codes = JoinSet::new();
    for n in 0..2000 {
        let (response, _) = peer
            .call("todo.v1.TodoService/BatchGetTodos", &request)
            .await
            .expect("sent");
        if n == 0 {
            // With it come the settings: how many calls at once are allowed.
            assert_eq!(status(response).await.expect("a status"), 3);
        } else {
            codes.spawn(status(response));
        }
    }
    while let Some(code) = codes.join_next().await {
        // INVALID_ARGUMENT.
        assert_eq!(code.expect("no panic").expect("a status"), 3);
    }
    assert!(peer.is_alive());
}

/// The port for metrics, whose responses are not read.
#[tokio::test]
async fn unread_metrics_are_bounded() {
    let (service, mut client) = pod::embedded().await;
    let before = service.peak();
    let at = service.metrics.trim_start_matches("http://");
    let at = at.trim_end_matches("/metrics").parse().expect("an address");
    let mut builder = Builder::new();
    builder.initial_window_size(0);
    let (mut peers, mut calls) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let stream = tcp_to(at, ATTACKER, None).await.expect("connected");
        let mut peer = Peer::over(stream, &builder).await.expect("HTTP/2");
        for _ in 0..400 {
            let request = http::Request::get("http://tidemark/metrics");
            calls.push(peer.begin_with(request, true).await.expect("sent"));
        }
        peers.push(peer);
    }
    eventually("refusals", Duration::from_secs(120), async || {
        let refused =
            service.metric("tidemark_overloaded_total{kind=\"health checks and metrics\"}");
        (refused >= 1900).then_some(())
    })
    .await;
    others_are_served(&service, &mut client, before).await;
}

/// A reply has a task and a stream in HTTP/2 until it is written, however small it is. So
/// has a refusal in JSON, whose body waits for the peer's window. Beyond its share of both,
/// a caller is refused in a few bytes.
#[tokio::test]
async fn small_replies_that_are_not_read_are_bounded() {
    let (service, mut client) = pod::embedded().await;
    create(&mut client, "milk", "x").await;
    let request = tidemark::pb::GetTodoRequest {
        name: "lists/home/todos/milk".into(),
        consistency: None,
    };
    let part = |kind: &str| {
        let used = format!("tidemark_budget_used_bytes{{kind=\"{kind}\"}}");
        let limit = format!("tidemark_budget_limit_bytes{{kind=\"{kind}\"}}");
        service.metric(&used) * 100 / service.metric(&limit)
    };
    let unread = || service.metric("tidemark_connections_closed_total{kind=\"unread\"}");
    let mut builder = Builder::new();
    builder.initial_window_size(0);
    let (mut peers, mut calls) = (Vec::new(), Vec::new());
    for _ in 0..12 {
        let mut peer = Peer::connect(&service, ATTACKER, &builder).await;
        for _ in 0..900 {
            calls.push(peer.call(super::GET, &request).await.expect("sent"));
        }
        peers.push(peer);
    }
    // 10,800 replies of some 100 bytes.
    eventually(
        "its share of replies",
        Duration::from_secs(60),
        async || (part("replies in flight") > 50).then_some(()),
    )
    .await;
    eventually(
        "its share of errors",
        Duration::from_secs(120),
        async || {
            let mut peer = Peer::connect(&service, ATTACKER, &builder).await;
            for _ in 0..900 {
                calls.push(in_json(&mut peer).await.expect("sent"));
            }
            peers.push(peer);
            (part("errors in flight") > 20).then_some(())
        },
    )
    .await;
    // Who reads gets an answer, behind the other calls of its address, and others are served.
    // Its connection is closed while all room for the errors of this address is in use.
    let code = eventually("an answer", Duration::from_secs(120), async || {
        let mut reads = Peer::connect(&service, ATTACKER, &Builder::new()).await;
        let (response, _) = reads.call(super::GET, &request).await.ok()?;
        let code = timeout(Duration::from_secs(60), status(response)).await;
        code.expect("in time").ok()
    })
    .await;
    assert!(code == 0 || code == 8, "{code}");
    let now = service.peak();
    others_are_served(&service, &mut client, now).await;
    // They are given up, and not because their client goes away.
    eventually("their ends", Duration::from_secs(240), async || {
        (unread() >= 10).then_some(())
    })
    .await;
    eventually("the memory back", Duration::from_secs(180), async || {
        (part("replies in flight") == 0 && part("errors in flight") == 0).then_some(())
    })
    .await;
    others_are_served(&service, &mut client, now).await;
}

/// A read in JSON of a todo that does not exist.
async fn in_json(peer: &mut Peer) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
    let request = http::Request::post(format!("http://tidemark/{}", super::GET))
        .header("content-type", "application/json");
    let (response, mut stream) = peer.begin_with(request, false).await?;
    let body = r#"{"name":"lists/home/todos/none"}"#;
    stream.send_data(body.into(), true)?;
    Ok((response, stream))
}

/// A large reply waits for its translation to JSON, as all others of its caller do. Without
/// a bound on what waits, four connections took 750 MiB.
#[tokio::test]
async fn large_replies_in_json_are_bounded() {
    let (mut service, mut client) = pod::embedded().await;
    service.set_most(320);
    let batch = super::large_batch(&mut client, 80).await;
    let body = serde_json::json!({ "names": batch.names }).to_string();
    let (mut peers, mut calls) = (Vec::new(), JoinSet::new());
    for host in 2..6 {
        let from = std::net::Ipv4Addr::new(127, 0, 0, host);
        let mut peer = Peer::connect(&service, from, &Builder::new()).await;
        for _ in 0..100 {
            let request = http::Request::post(format!("http://tidemark/{}", super::BATCH))
                .header("content-type", "application/json");
            let (response, mut stream) = peer.begin_with(request, false).await.expect("sent");
            stream.send_data(body.clone().into(), true).expect("sent");
            calls.spawn(response);
        }
        peers.push(peer);
    }
    let mut read = JoinSet::new();
    let (mut done, mut refused) = (0, 0);
    while let Some(response) = calls.join_next().await {
        let response = response.expect("no panic").expect("a response");
        match response.status().as_u16() {
            200 => done += 1,
            429 => refused += 1,
            other => panic!("{other}"),
        }
        read.spawn(async move {
            let mut body = response.into_body();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
            }
        });
        let got = get(&mut client, "lists/home/todos/large", None).await;
        got.expect("another caller is served");
    }
    assert!(done > 0 && refused > 0, "{done} done, {refused} refused");
    eventually("the memory back", Duration::from_secs(60), async || {
        let used = service.metric("tidemark_budget_used_bytes{kind=\"replies in flight\"}");
        (used == 0).then_some(())
    })
    .await;
    let closed = service.metric("tidemark_connections_closed_total{kind=\"memory\"}");
    assert_eq!(closed, 0);
}

/// What is written to the sockets of peers that do not read them is the kernel's memory,
/// which counts as the pod's.
#[tokio::test]
async fn sockets_that_are_not_read_take_little() {
    let (service, mut client) = pod::embedded().await;
    let before = service.peak();
    let batch = super::large_batch(&mut client, 40).await;
    let batch = framed(&batch.encode_to_vec(), false);
    let mut streams = Vec::new();
    for _ in 0..10 {
        let stream = tcp_to(address(&service), ATTACKER, Some(2048)).await;
        let mut stream = stream.expect("connected");
        // Windows as large as there are: only the socket is in the way.
        let mut bytes = PREFACE.to_vec();
        bytes.extend(frame(4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]));
        bytes.extend(frame(8, 0, 0, &0x7fff_0000_u32.to_be_bytes()));
        bytes.extend(head(1, "/todo.v1.TodoService/BatchGetTodos"));
        bytes.extend(frame(0, 1, 1, &batch));
        stream.write_all(&bytes).await.expect("sent");
        streams.push(stream);
    }
    eventually("replies", Duration::from_secs(60), async || {
        let used = service.metric("tidemark_budget_used_bytes{kind=\"replies in flight\"}");
        (used > 10 << 20).then_some(())
    })
    .await;
    eventually("full queues", Duration::from_secs(20), async || {
        let queues = send_queues(address(&service).port());
        assert!(queues.len() >= 10, "{queues:?}");
        // The bound, and one piece of the kernel's, of 64 KiB.
        assert!(queues.iter().all(|bytes| *bytes < 128 << 10), "{queues:?}");
        queues.iter().any(|bytes| *bytes > 8 << 10).then_some(())
    })
    .await;
    sleep(Duration::from_millis(500)).await;
    let queues = send_queues(address(&service).port());
    assert!(queues.iter().all(|bytes| *bytes < 128 << 10), "{queues:?}");
    others_are_served(&service, &mut client, before).await;
}

/// Bytes that the kernel holds to be sent from this port, by connection.
fn send_queues(port: u16) -> Vec<u64> {
    queues(port).into_iter().map(|(send, _)| send).collect()
}

/// Bytes that the kernel holds for this port, by connection: to be sent, and to be read.
pub(super) fn queues(port: u16) -> Vec<(u64, u64)> {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("readable");
    let local = format!(":{port:04X}");
    let fields = table.lines().map(|line| line.split_whitespace().collect());
    let of_port = |fields: &Vec<&str>| fields.len() > 4 && fields[1].ends_with(&local);
    let number = |text: &str| u64::from_str_radix(text, 16).expect("a number");
    let both = |fields: Vec<&str>| {
        let (send, receive) = fields[4].split_once(':').expect("two queues");
        (number(send), number(receive))
    };
    fields.filter(of_port).map(both).collect()
}
