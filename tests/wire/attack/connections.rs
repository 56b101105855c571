//! What a connection can hold beside its calls: heads and handshakes that do not end, tables
//! of headers, buffers of the kernel.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

use super::{
    floods::{handshake, tls_tcp_address, with_tls},
    streams::{others_are_served, queues},
};
use crate::{
    client::*,
    pod::{self, Pod},
    raw::{ATTACKER, PREFACE, address, frame, tcp, tcp_to},
    support::eventually,
};

/// Memory of a connection, with TLS or without, as budgets count it.
const CONNECTION_BYTES: u64 = 52 << 10;

/// A connection whose table of headers has as many paths as it can have. Each is in another
/// read buffer of the service, because something large and unknown comes after each.
async fn with_pinned_buffers(service: &Pod) -> Option<TcpStream> {
    const PATHS: u32 = 107;
    let mut stream = tcp(service, ATTACKER).await.ok()?;
    let filler = frame(0x50, 0, 0, &[0; 8192]);
    let mut bytes = [PREFACE, &frame(4, 0, 0, &[])].concat();
    for n in 0..PATHS {
        // GET, http, an authority that is not indexed, a path that is.
        let head = [0x82, 0x86, 1, 1, b'a', 0x44, 1, b'/'];
        bytes.extend(frame(1, 5, 2 * n + 1, &head));
        bytes.extend(&filler);
    }
    let sent = timeout(Duration::from_secs(60), stream.write_all(&bytes)).await;
    sent.ok()?.ok()?;
    Some(stream)
}

/// Tables of headers hold parts of read buffers, and so all of them: 0.7 MiB a connection,
/// as long as it is open. Before the memory ends, the connections of who has most are closed.
#[tokio::test]
async fn buffers_that_tables_of_headers_hold_are_bounded() {
    const LIMIT: u64 = 320 << 20;
    const CONNECTIONS: usize = 600;
    let limits = ["--memory-limit", "320MiB", "--near-capacity", "32MiB"];
    let (mut service, mut client) = pod::embedded_with(&limits).await;
    service.set_most(LIMIT >> 20);
    create(&mut client, "milk", "x").await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS / 8 {
        let some = (0..8).map(|_| with_pinned_buffers(&service));
        // The service may have closed it meanwhile.
        held.extend(futures::future::join_all(some).await.into_iter().flatten());
        // As fast as a network of 1 Gbit/s, and not as the loopback.
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(title(&mut client, "lists/home/todos/milk", None).await, "x");
    }
    let closed = service.metric("tidemark_connections_closed_total{kind=\"memory\"}");
    assert!(closed > 10, "{closed} closed, {} bytes", service.peak());
    let peak = service.peak();
    assert!(peak < LIMIT, "{peak} bytes");
    let probe = health(&service, "readiness").await;
    assert_eq!(probe.expect("a probe is answered"), SERVING);
    drop(held);
}

/// Heads of HTTP/1.1 that never end, and such that are too large.
#[tokio::test]
async fn unfinished_heads_of_http_1_take_little() {
    const EACH: usize = 450;
    let (service, mut client) = pod::embedded().await;
    let before = service.peak();
    let head = |size| {
        let head = format!(
            "GET /healthz HTTP/1.1\r\nhost: a\r\nx: {}",
            "y".repeat(size)
        );
        head.into_bytes()
    };
    let mut held = Vec::new();
    for _ in 0..EACH {
        let mut unfinished = tcp(&service, ATTACKER).await.expect("connected");
        unfinished.write_all(&head(15_000)).await.expect("sent");
        held.push(unfinished);
        let mut large = tcp(&service, ATTACKER).await.expect("connected");
        // The service may have closed it already.
        let _ = large.write_all(&head(64_000)).await;
        held.push(large);
    }
    let mut answer = Vec::new();
    let mut large = held.pop().expect("the last");
    let read = timeout(Duration::from_secs(60), large.read_to_end(&mut answer));
    let _ = read.await.expect("closed in time");
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
    let more = service.peak().saturating_sub(before);
    let most = (EACH as u64 + 100) * CONNECTION_BYTES;
    assert!(more < most, "{more} bytes more, at most {most}");
    others_are_served(&service, &mut client, before).await;
}

/// Handshakes whose hello announces 64 KiB and goes on for long, in records of any size.
#[tokio::test]
async fn large_hellos_take_little() {
    const EACH: usize = 300;
    let (service, _authority, mut client) = with_tls().await;
    let before = service.peak();
    let hello = |size: usize, record: usize| {
        let mut message = vec![1, 0, 0xff, 0xf0, 3, 3];
        message.resize(size, 0);
        let records = message.chunks(record).flat_map(|part| {
            let length = u16::try_from(part.len()).expect("short").to_be_bytes();
            [&[22, 3, 1][..], &length, part].concat()
        });
        records.collect::<Vec<u8>>()
    };
    // Held until the time for a handshake is over; too large; too large, a byte a record.
    let hellos = [
        hello(20_000, 16_000),
        hello(65_000, 16_000),
        hello(65_000, 1),
    ];
    let mut sending = JoinSet::new();
    let address = tls_tcp_address(&service);
    for n in 0..3 * EACH {
        let bytes = hellos[n % 3].clone();
        let mut stream = tcp_to(address, ATTACKER, None).await.expect("connected");
        sending.spawn(async move {
            // The service may have closed it already.
            let _ = timeout(Duration::from_secs(5), stream.write_all(&bytes)).await;
            stream
        });
    }
    let ended = |kind| service.metric(&format!("tidemark_tls_handshakes_total{{kind=\"{kind}\"}}"));
    // On a busy machine the time is over for some that are too large before they are read.
    eventually("refusals", Duration::from_secs(120), async || {
        let (failed, each) = (ended("failed"), EACH as u64);
        (failed >= 2 * each || failed + ended("slow") >= 3 * each).then_some(())
    })
    .await;
    assert!(ended("failed") >= EACH as u64, "{}", ended("failed"));
    let held = sending.join_all().await;
    let more = service.peak().saturating_sub(before);
    assert!(more < 40 << 20, "{more} bytes more");
    is_served(&mut client).await;
    drop(held);
}

/// A peer that asks for new keys again and again, and sends nothing with them.
#[tokio::test]
async fn floods_of_key_updates_end() {
    let (service, authority, mut client) = with_tls().await;
    let tcp = tcp_to(tls_tcp_address(&service), ATTACKER, None);
    let tcp = tcp.await.expect("connected");
    let mut stream = handshake(&authority, tcp).await.expect("TLS");
    let flood = async {
        loop {
            let (_, session) = stream.get_mut();
            session.refresh_traffic_keys().expect("queued");
            stream.flush().await?;
            tokio::task::yield_now().await;
            // The service's own updates are read, and in the end that it closes.
            let mut buffer = [0; 1024];
            let read = timeout(Duration::from_millis(1), stream.read(&mut buffer)).await;
            if read.is_ok_and(|read| read.map_or(true, |read| read == 0)) {
                return Ok::<_, std::io::Error>(());
            }
        }
    };
    let ended = timeout(Duration::from_secs(60), flood).await;
    assert!(ended.is_ok(), "it goes on");
    is_served(&mut client).await;
}

/// Another caller, by TLS.
async fn is_served(client: &mut Client) {
    let read = get(client, "lists/home/todos/none", None).await;
    assert_eq!(read.expect_err("none").code(), tonic::Code::NotFound);
}

/// Peers that first send much, so that the kernel would give them large buffers, and then do
/// not read the answers, so that the service does not read on.
#[tokio::test]
async fn what_the_kernel_receives_is_bounded() {
    let (service, mut client) = pod::embedded().await;
    let before = service.peak();
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut stream = tcp(&service, ATTACKER).await.expect("connected");
        let hello = [PREFACE, &frame(4, 0, 0, &[])].concat();
        stream.write_all(&hello).await.expect("sent");
        let (mut reader, mut writer) = stream.into_split();
        let pings = frame(6, 0, 0, &[7; 8]).repeat(2000);
        let sending = tokio::spawn(async move {
            let pour = async { while writer.write_all(&pings).await.is_ok() {} };
            let _ = timeout(Duration::from_secs(4), pour).await;
            writer
        });
        let reading = async {
            let mut buffer = vec![0; 64 << 10];
            while reader.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
        };
        let _ = timeout(Duration::from_millis(500), reading).await;
        held.push((reader, sending));
    }
    for (_, sending) in &mut held {
        let _ = sending.await.expect("no panic");
    }
    let received: Vec<_> = queues(address(&service).port())
        .iter()
        .map(|it| it.1)
        .collect();
    assert!(
        received.iter().any(|bytes| *bytes > 8 << 10),
        "{received:?}"
    );
    assert!(
        received.iter().all(|bytes| *bytes < 192 << 10),
        "{received:?}"
    );
    others_are_served(&service, &mut client, before).await;
}
