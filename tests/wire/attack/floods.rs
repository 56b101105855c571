//! Floods of what costs its sender little: frames without calls, handshakes, lines of the
//! log, identifiers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use h2::client::Builder;
use prost::Message as _;
use tidemark::pb::{self, Role};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

use super::{GET, is_busy, streams::others_are_served};
use crate::{
    client::*,
    pod::{self, Pod},
    raw::{ATTACKER, PREFACE, Peer, frame, framed, head, status, tcp},
    support::{Tidemark, eventually, folder},
    tls::{Authority, Files},
};

/// How long one attacker goes on.
const FLOOD: Duration = Duration::from_secs(2);

/// A debug build takes ten times the CPU.
fn slack(seconds: u64) -> Duration {
    let optimized = std::env::var_os("TEST_BINARY").is_some();
    Duration::from_secs(if optimized { seconds } else { 6 * seconds })
}

/// A connection after its preface and settings.
async fn raw(service: &Tidemark) -> TcpStream {
    let mut stream = tcp(service, ATTACKER).await.expect("connected");
    let hello = [PREFACE, &frame(4, 0, 0, &[])].concat();
    stream.write_all(&hello).await.expect("sent");
    stream
}

/// Sends these bytes again and again until the service closes the connection or the time
/// is over; `reads`: and reads what comes.
async fn pour(stream: TcpStream, bytes: Vec<u8>, reads: bool) {
    let (mut reader, mut writer) = stream.into_split();
    let reading = async move {
        let mut buffer = vec![0; 64 << 10];
        if !reads {
            std::future::pending::<()>().await;
        }
        while reader.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    };
    let writing = async move { while writer.write_all(&bytes).await.is_ok() {} };
    let flood = async {
        tokio::select! {
            () = reading => {}
            () = writing => {}
        }
    };
    // It may go on for ever.
    let _ = timeout(FLOOD, flood).await;
}

/// Frames that are no calls, by the ten thousand: each kind from four connections, of
/// which two read what comes back.
#[tokio::test]
async fn floods_of_frames_take_little() {
    let (service, mut client) = pod::embedded().await;
    let before = service.peak();
    let many = |one: &[u8]| one.repeat((32 << 10) / one.len());
    let open = head(1, "/todo.v1.TodoService/GetTodo");
    // HEADERS without END_HEADERS.
    let mut unfinished = open.clone();
    unfinished[4] = 0;
    let mut resets = Vec::new();
    for n in 1..200 {
        resets.extend(head(2 * n + 1, "/todo.v1.TodoService/GetTodo"));
        resets.extend(frame(3, 0, 2 * n + 1, &8_u32.to_be_bytes()));
    }
    // A header of 4000 bytes, and heads that refer to it some thousand times, in a byte each.
    let mut referring = [0x40, 1, b'x', 0x7f, 0xa1, 0x1e].to_vec();
    referring.extend(vec![b'y'; 4000]);
    let mut referring = frame(1, 5, 1, &referring);
    for n in 1..200 {
        referring.extend(frame(1, 5, 2 * n + 1, &[0xbe; 8000]));
    }
    // Heads that are too large, in several frames.
    let mut oversized = Vec::new();
    for n in 0..50 {
        let mut begin = head(2 * n + 1, "/todo.v1.TodoService/GetTodo");
        begin[4] = 0;
        oversized.extend(begin);
        let value = [&[0, 1, b'x', 0x7f, 0xa1, 0x1e][..], &[b'y'; 4000]].concat();
        for last in 0..6 {
            let flags = if last == 5 { 4 } else { 0 };
            oversized.extend(frame(9, flags, 2 * n + 1, &value));
        }
    }
    let mut calls = Vec::new();
    for n in 0..900 {
        calls.extend(head(2 * n + 1, "/todo.v1.TodoService/GetTodo"));
    }
    // Each changes the windows of all calls.
    let windows = [[0, 4, 0, 0, 0, 0], [0, 4, 0, 0, 0xff, 0xff]];
    let windows = windows.map(|setting| frame(4, 0, 0, &setting)).concat();
    let largest = 0x7fff_ffff_u32.to_be_bytes();
    let settings = [0, 4, 0, 0, 0xff, 0xff].repeat(20);
    let once = Vec::new();
    // Replies of 1.8 MB, taken a byte at a time.
    let batch = super::large_batch(&mut client, 40).await;
    let batch = framed(&batch.encode_to_vec(), false);
    let mut small_windows = frame(4, 0, 0, &[0, 4, 0, 0, 0, 1]);
    let mut bytewise = Vec::new();
    for n in 1..20 {
        small_windows.extend(head(2 * n + 1, "/todo.v1.TodoService/BatchGetTodos"));
        small_windows.extend(frame(0, 1, 2 * n + 1, &batch));
        bytewise.extend(frame(8, 0, 2 * n + 1, &1_u32.to_be_bytes()));
    }
    let floods = [
        ("PING", once.clone(), many(&frame(6, 0, 0, &[7; 8]))),
        ("PING answers", once.clone(), many(&frame(6, 1, 0, &[7; 8]))),
        ("SETTINGS", once.clone(), many(&frame(4, 0, 0, &settings))),
        (
            "windows",
            once.clone(),
            many(&frame(8, 0, 0, &1_u32.to_be_bytes())),
        ),
        (
            "windows of a call",
            open.clone(),
            many(&frame(8, 0, 1, &1_u32.to_be_bytes())),
        ),
        (
            "windows of no call",
            once.clone(),
            many(&frame(8, 0, 9, &1_u32.to_be_bytes())),
        ),
        (
            "priorities",
            once.clone(),
            many(&frame(2, 0, 3, &[0, 0, 0, 0, 1])),
        ),
        ("empty DATA", open.clone(), many(&frame(0, 0, 1, &[]))),
        ("padding", open.clone(), many(&frame(0, 8, 1, &[0; 1]))),
        ("unknown", once.clone(), many(&frame(0x50, 0, 0, &[0; 32]))),
        ("CONTINUATION", unfinished, many(&frame(9, 0, 1, &[0; 64]))),
        (
            "resets of no call",
            once.clone(),
            many(&frame(3, 0, 1, &8_u32.to_be_bytes())),
        ),
        ("calls and resets", once.clone(), resets),
        ("references", once.clone(), referring),
        ("oversized heads", once.clone(), oversized),
        ("windows of all calls", calls, many(&windows)),
        (
            "a window beyond all",
            once.clone(),
            many(&frame(8, 0, 0, &largest)),
        ),
        (
            "a call's beyond all",
            open.clone(),
            many(&frame(8, 0, 1, &largest)),
        ),
        (
            "trailers",
            open.clone(),
            many(&frame(1, 5, 1, &[0, 1, b'x', 1, b'y'])),
        ),
        (
            "promises",
            open.clone(),
            many(&frame(5, 4, 1, &[0, 0, 0, 2])),
        ),
        ("farewells", once.clone(), many(&frame(7, 0, 0, &[0; 8]))),
        ("a byte at a time", small_windows, many(&bytewise)),
        ("a large frame", once, vec![0xff; 32 << 10]),
    ];
    for (what, first, bytes) in floods {
        let mut attackers = JoinSet::new();
        for n in 0..4 {
            let mut stream = raw(&service).await;
            let (first, bytes) = (first.clone(), bytes.clone());
            attackers.spawn(async move {
                let _ = stream.write_all(&first).await;
                pour(stream, bytes, n % 2 == 0).await;
            });
        }
        sleep(Duration::from_millis(300)).await;
        let began = Instant::now();
        for _ in 0..5 {
            others_are_served(&service, &mut client, before).await;
        }
        let took = began.elapsed();
        assert!(is_busy() || took < slack(5), "{what}: {took:?}");
        attackers.join_all().await;
    }
    eventually("their ends", Duration::from_secs(60), async || {
        (service.metric("tidemark_connections ") <= 2).then_some(())
    })
    .await;
}

/// Sends such requests as fast as they are answered; `reads`: and reads the answers.
async fn flood_requests(
    peer: &mut Peer,
    (method, path): (&str, &str),
    reads: bool,
) -> Result<std::convert::Infallible, h2::Error> {
    loop {
        let mut answers = Vec::new();
        for _ in 0..500 {
            let request = http::Request::builder()
                .method(method)
                .uri(format!("http://127.0.0.1{path}"))
                .header("origin", "https://todos.example")
                .header("access-control-request-method", "POST");
            answers.push(peer.begin_with(request, true).await?.0);
        }
        if !reads {
            sleep(FLOOD).await;
        }
        for answer in answers {
            status(answer).await?;
        }
    }
}

/// Requests that are no calls, each kind from four connections, of which two read the answers.
#[tokio::test]
async fn floods_of_requests_that_are_no_calls_take_little() {
    let (service, mut client) = pod::embedded_with(&["--cors-allow-origins", "*"]).await;
    let before = service.peak();
    for kind in [
        ("GET", "/"),
        ("GET", "/ui/page.js"),
        ("GET", "/ui/status"),
        ("GET", "/healthz"),
        ("HEAD", "/readyz"),
        ("OPTIONS", "/todo.v1.TodoService/GetTodo"),
        ("PUT", "/todo.v1.TodoService/GetTodo"),
        ("POST", "/"),
        ("DELETE", "/no/such/page"),
    ] {
        let mut attackers = JoinSet::new();
        for n in 0..4 {
            let mut peer = Peer::connect(&service, ATTACKER, &Builder::new()).await;
            attackers.spawn(async move {
                // It may go on for ever.
                let _ = timeout(FLOOD, flood_requests(&mut peer, kind, n % 2 == 0)).await;
            });
        }
        sleep(Duration::from_millis(300)).await;
        let began = Instant::now();
        for _ in 0..5 {
            others_are_served(&service, &mut client, before).await;
        }
        let took = began.elapsed();
        assert!(is_busy() || took < slack(5), "{kind:?}: {took:?}");
        attackers.join_all().await;
    }
}

/// A service with TLS in its pod, and a client.
pub(super) async fn with_tls() -> (Pod, Authority, Client) {
    let authority = Authority::new("ours");
    let files = Files::new(&authority.sign());
    let (cert, key) = (files.path("cert.pem"), files.path("key.pem"));
    let dir = folder("data").display().to_string();
    let args = ["--data-dir", &dir, "--tls-cert", &cert, "--tls-key", &key];
    let pod = Pod::start(&args);
    let client = eventually("a client", Duration::from_secs(180), async || {
        let mut client = tls_client(&pod, &authority).await?;
        get(&mut client, "lists/home/todos/none", None)
            .await
            .is_err_and(|status| status.code() == tonic::Code::NotFound)
            .then_some(client)
    });
    let client = client.await;
    (pod, authority, client)
}

async fn tls_client(service: &Tidemark, authority: &Authority) -> Option<Client> {
    let channel = tonic::transport::Endpoint::from_shared(service.address.clone())
        .expect("an address")
        .tls_config(crate::tls::trusting(authority))
        .expect("TLS");
    Some(Client::new(channel.connect().await.ok()?))
}

/// A client's TLS over this connection.
pub(super) async fn handshake(
    authority: &Authority,
    stream: TcpStream,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("PEM");
    roots.add(root).expect("a root");
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("localhost").expect("a name");
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await
}

pub(super) fn tls_tcp_address(service: &Tidemark) -> std::net::SocketAddr {
    let address = service.address.trim_start_matches("https://");
    address.parse().expect("an address")
}

/// Handshakes that begin and never end, garbage in place of one and after one, and
/// connections that are silent after it.
#[tokio::test]
async fn handshakes_in_great_number_take_little() {
    let (service, authority, mut client) = with_tls().await;
    let before = service.peak();
    let address = tls_tcp_address(&service);
    let connect = || crate::raw::tcp_to(address, ATTACKER, None);
    let mut held = Vec::new();
    // The head of a handshake record of 512 bytes, and a part of it; an alert; no TLS.
    for n in 0..600 {
        let bytes: &[u8] = match n % 3 {
            0 => &[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
            1 => &[21, 3, 3, 0, 2, 1, 0],
            _ => PREFACE,
        };
        let mut stream = connect().await.expect("connected");
        // The service may have closed it.
        let _ = stream.write_all(bytes).await;
        held.push(stream);
    }
    let mut idle = Vec::new();
    for n in 0..100 {
        let stream = connect().await.expect("connected");
        let mut stream = handshake(&authority, stream).await.expect("TLS");
        if n % 2 == 0 {
            // A handshake record under no key, below TLS.
            let (tcp, _) = stream.get_mut();
            let _ = tcp.write_all(&[22, 3, 3, 0, 4, 0, 0, 0, 0]).await;
        }
        idle.push(stream);
    }
    // Whole handshakes, as fast as they go.
    let flood = async {
        loop {
            let some = (0..50).map(|_| async { handshake(&authority, connect().await?).await });
            futures::future::join_all(some).await;
        }
    };
    let honest = async {
        let mut took = Vec::new();
        for _ in 0..100 {
            let began = Instant::now();
            let read = get(&mut client, "lists/home/todos/none", None).await;
            assert_eq!(read.expect_err("none").code(), tonic::Code::NotFound);
            took.push(began.elapsed());
            sleep(Duration::from_millis(10)).await;
        }
        took.sort_unstable();
        took
    };
    let took = tokio::select! {
        took = honest => took,
        () = flood => unreachable!("it goes on"),
    };
    // The slowest few say more about other work on the machine.
    assert!(is_busy() || took[89] < slack(2), "{took:?}");
    let mut another = tls_client(&service, &authority).await.expect("connected");
    let read = get(&mut another, "lists/home/todos/none", None).await;
    assert_eq!(read.expect_err("none").code(), tonic::Code::NotFound);
    let more = service.peak().saturating_sub(before);
    assert!(more < 96 << 20, "{more} bytes more");
    eventually("their ends", Duration::from_secs(60), async || {
        (service.metric("tidemark_connections ") <= 3).then_some(())
    })
    .await;
    let slow = service.metric("tidemark_tls_handshakes_total{kind=\"slow\"}");
    assert!(slow >= 100, "{slow}");
    drop((held, idle));
}

/// Nobody reads stderr any more, where the log and the audit log go: calls are answered,
/// lines are dropped and counted, and the process ends when it is asked to.
#[tokio::test]
async fn a_stderr_that_nobody_reads_stops_nothing() {
    let dir = folder("data").display().to_string();
    let args = ["--data-dir", &dir, "--audit-log", "stderr", "--auth", "off"];
    let envs = [("RUST_LOG".to_owned(), "debug".to_owned())];
    let is_read = Arc::new(AtomicBool::new(true));
    let reading = Arc::clone(&is_read);
    let service = Tidemark::launch(&args, &envs, move |_| {
        while !reading.load(Relaxed) {
            thread::sleep(Duration::from_millis(10));
        }
    });
    let (service, client) = ready(service).await;
    is_read.store(false, Relaxed);
    let creates = (0..8000).map(|n| {
        let mut client = client.clone();
        async move { create_in(&mut client, "lists/home", &format!("t{n}"), titled("x")).await }
    });
    let mut created = futures::stream::iter(creates).buffer_unordered(64);
    while let Some(created) = created.next().await {
        created.expect("created");
    }
    let lost = eventually("lost lines", Duration::from_secs(60), async || {
        let log = service.metric("tidemark_log_lines_dropped_total");
        let audit = service.metric("tidemark_audit_lines_total{kind=\"dropped\"}");
        (log + audit > 0).then_some((log, audit))
    })
    .await;
    eprintln!("lines lost, of the log and of the audit log: {lost:?}");
    service.terminate();
    let began = Instant::now();
    assert_eq!(service.exit_code(Duration::from_secs(60)).await, Some(0));
    eprintln!("ended after {:?}", began.elapsed());
    is_read.store(true, Relaxed);
}

/// Requests in grpc-web that unpack to far more than they are.
#[tokio::test]
async fn grpc_web_bombs_take_little() {
    let (service, mut client) = pod::embedded_with(&["--cors-allow-origins", "*"]).await;
    let before = service.peak();
    let mut peer = Peer::connect(&service, ATTACKER, &Builder::new()).await;
    let mut calls = JoinSet::new();
    for n in 0..200 {
        let kind = ["application/grpc-web+proto", "application/grpc-web-text"][n % 2];
        let request = http::Request::post(format!("http://tidemark/{}", super::BATCH))
            .header("content-type", kind)
            .header("origin", "https://todos.example")
            .header("x-grpc-web", "1")
            .header("grpc-encoding", "gzip");
        let (response, mut stream) = peer.begin_with(request, false).await.expect("sent");
        let body = match n % 4 {
            // Base64 of a bomb; and text that is no base64.
            1 => base64(&super::bomb()).into(),
            3 => "\u{1F600}".repeat(30_000).into(),
            _ => super::bomb(),
        };
        // The service may have answered already.
        let _ = stream.send_data(body, true);
        calls.spawn(timeout(Duration::from_secs(60), async move {
            let response = response.await?;
            Ok::<_, h2::Error>(response.status())
        }));
    }
    while let Some(call) = calls.join_next().await {
        let answer = call.expect("no panic").expect("in time");
        assert!(answer.is_ok_and(|status| status.is_success() || status.is_client_error()));
    }
    others_are_served(&service, &mut client, before).await;
}

pub(super) fn base64(bytes: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.encode(bytes)
}

/// What is kept of a `request_id` is on the disk: many of them take no memory.
#[tokio::test]
async fn many_request_ids_take_little() {
    let (service, client) = pod::embedded().await;
    let before = service.peak();
    let creates = (0..6000_u128).map(|n| {
        let mut client = client.clone();
        async move {
            let request = pb::CreateTodoRequest {
                parent: "lists/home".into(),
                todo_id: String::new(),
                todo: Some(titled("x")),
                request_id: uuid(n),
            };
            client.create_todo(request).await.map(drop)
        }
    });
    let mut created = futures::stream::iter(creates).buffer_unordered(64);
    while let Some(created) = created.next().await {
        created.expect("created");
    }
    let more = service.peak().saturating_sub(before);
    assert!(more < 64 << 20, "{more} bytes more");
}

fn uuid(n: u128) -> String {
    let hex = format!("{:032x}", (n << 80) | 0x4000_8000_0000_0000_0000);
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// Repeats a call until it is answered. UNAVAILABLE says that nothing was done. It comes when two
/// heartbeats in a row are a second late, behind commits that a busy machine is slow to do: that counts
/// as an outage.
async fn until_available<T>(call: impl AsyncFn() -> Result<T, tonic::Status>) -> T {
    eventually(
        "an answer",
        Duration::from_secs(120),
        async || match call().await {
            Ok(answer) => Some(answer),
            Err(status) => {
                assert_eq!(status.code(), tonic::Code::Unavailable, "{status}");
                eprintln!("repeated: {status}");
                None
            }
        },
    )
    .await
}

pub(super) fn owners(list: usize, round: usize) -> std::collections::BTreeMap<String, i32> {
    let member = |m| {
        (
            format!("user:{m:0>200}-{list}-{round}"),
            i32::from(Role::Owner),
        )
    };
    (0..256).map(member).collect()
}

/// Creates a list with as many members as it may have, then changes and reads it.
async fn change_members(client: &Client, n: usize) {
    let list = |round| pb::TodoList {
        name: format!("lists/l{n}"),
        title: "x".repeat(200),
        members: owners(n, round),
        ..Default::default()
    };
    until_available(async || {
        let create = pb::CreateTodoListRequest {
            todo_list: Some(pb::TodoList {
                name: String::new(),
                ..list(0)
            }),
            todo_list_id: format!("l{n}"),
            ..Default::default()
        };
        client.clone().create_todo_list(create).await
    })
    .await;
    for round in 1..4 {
        let token = until_available(async || {
            let update = pb::UpdateTodoListRequest {
                todo_list: Some(list(round)),
                update_mask: Some(prost_types::FieldMask {
                    paths: vec!["members".into()],
                }),
            };
            let updated = client.clone().update_todo_list(update).await?;
            Ok(updated.into_inner().token)
        })
        .await;
        let read = until_available(async || {
            let read = pb::GetTodoListRequest {
                name: format!("lists/l{n}"),
                consistency: with_token(&token),
            };
            let read = client.clone().get_todo_list(read).await?;
            Ok(read.into_inner().todo_list.expect("a list"))
        })
        .await;
        assert!(read.members == owners(n, round), "{n}, {round}");
    }
}

/// Lists with as many members as they may have, created, changed and read.
#[tokio::test]
async fn lists_of_many_members_take_little() {
    let (mut service, client) = pod::embedded().await;
    service.set_most(400);
    let lists = (0..100).map(|n| {
        let client = client.clone();
        async move { change_members(&client, n).await }
    });
    // Many more at once are refused: each of these writes holds some 200 KiB.
    let mut done = futures::stream::iter(lists).buffer_unordered(8);
    let mut lists = 0;
    while done.next().await.is_some() {
        lists += 1;
    }
    assert_eq!(lists, 100);
}

/// Reads and watches of lists that nobody has: each name is another key.
#[tokio::test]
async fn many_names_of_lists_take_little() {
    let (service, mut client) = pod::embedded().await;
    let before = service.peak();
    let mut builder = Builder::new();
    // The peer's own bound of messages that it does not read.
    builder.data_frame_budget(usize::MAX);
    // Nor would it read replies once progress of the watches fills its window.
    builder.initial_connection_window_size(1 << 30);
    let mut peer = Peer::connect(&service, ATTACKER, &builder).await;
    let mut watches = Vec::new();
    for round in 0..20 {
        let mut calls = Vec::new();
        for n in 0..200 {
            let list = format!("lists/{round}-{n:0>50}");
            let name = format!("{list}/todos/{n:0>50}");
            calls.push(match n % 2 {
                0 => peer.call(super::LIST, &page_of(&list)).await,
                _ => {
                    let request = pb::GetTodoRequest {
                        name,
                        consistency: None,
                    };
                    peer.call(GET, &request).await
                }
            });
        }
        for call in calls {
            let code = status(call.expect("sent").0).await.expect("a status");
            // OK, NOT_FOUND, RESOURCE_EXHAUSTED, or UNAVAILABLE on a machine that stalls.
            assert!([0, 5, 8, 14].contains(&code), "{code}");
        }
        for n in 0..20 {
            let watch = pb::WatchTodosRequest {
                parent: format!("lists/{round}-{n}"),
                ..Default::default()
            };
            watches.push(peer.call(super::WATCH, &watch).await.expect("sent"));
        }
    }
    others_are_served(&service, &mut client, before).await;
    drop((watches, peer));
    eventually("their ends", Duration::from_secs(60), async || {
        (service.metric("tidemark_watchers") == 0).then_some(())
    })
    .await;
}
