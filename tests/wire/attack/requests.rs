//! Requests in odd forms: encodings, times, metadata, HTTP/1.1.

use std::time::Duration;

use bytes::Bytes;
use h2::client::Builder;
use prost::Message as _;
use tidemark::pb;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
    time::timeout,
};

use super::{
    BATCH, GET,
    floods::{base64, owners},
    large_batch,
    streams::others_are_served,
};
use crate::{
    client::*,
    pod::{self, Pod},
    raw::{ATTACKER, Peer, framed, status, tcp},
};

/// Longest time for an answer of a busy machine.
const ANSWER: Duration = Duration::from_secs(60);

/// A frame of zstd that declares a window of 2^`log` bytes, with these blocks of one byte
/// repeated 128 KiB times.
fn zstd_frame(log: u8, blocks: usize) -> Vec<u8> {
    const REPEATED: u32 = (128 << 10) << 3 | 1 << 1;
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, (log - 10) << 3];
    for _ in 0..blocks {
        frame.extend(&REPEATED.to_le_bytes()[..3]);
        frame.push(0x0a);
    }
    // An empty last block.
    frame.extend([1, 0, 0]);
    frame
}

/// Messages that declare large windows, or are many frames, and encodings that are not known:
/// a hundred of each at once. None takes what it declares, and each is refused.
#[tokio::test]
async fn encodings_that_declare_much_take_little() {
    let (service, mut client) = pod::embedded().await;
    let before = service.peak();
    let mut peer = Peer::connect(&service, ATTACKER, &Builder::new()).await;
    let no_gzip = vec![0x1f, 0x8b, 8, 0x1e, 0, 0, 0, 0, 0, 3, 0xff, 0xff];
    for (what, encoding, message, codes) in [
        ("a window of 128 MiB", "zstd", zstd_frame(27, 1), [3, 13]),
        ("a window of 2 GiB", "zstd", zstd_frame(31, 1), [3, 13]),
        ("a bomb", "zstd", zstd_frame(27, 50_000), [8, 8]),
        (
            "many frames",
            "zstd",
            zstd_frame(27, 0).repeat(20_000),
            [0, 3],
        ),
        ("no zstd", "zstd", vec![0xff; 200_000], [3, 13]),
        ("half a head", "gzip", no_gzip, [3, 13]),
        ("deflate", "deflate", vec![0; 1000], [12, 12]),
        ("no encoding", "br", vec![0; 1000], [12, 12]),
        ("identity", "identity", vec![0; 1000], [3, 13]),
    ] {
        let mut calls = JoinSet::new();
        for _ in 0..100 {
            let (response, mut stream) = peer.begin(BATCH, Some(encoding)).await.expect("sent");
            // The service may have answered already.
            let _ = stream.send_data(framed(&message, true), true);
            calls.spawn(timeout(ANSWER, status(response)));
        }
        while let Some(call) = calls.join_next().await {
            let code = call.expect("no panic").expect("in time").expect("a status");
            // Many at once may be refused as such.
            assert!(codes.contains(&code) || code == 8, "{what}: {code}");
        }
        others_are_served(&service, &mut client, before).await;
    }
}

/// Deadlines that are over, or beyond all time, and metadata that is not what it says.
#[tokio::test]
async fn odd_deadlines_and_metadata_do_no_harm() {
    let (service, mut client) = pod::embedded().await;
    create(&mut client, "milk", "x").await;
    let request = pb::GetTodoRequest {
        name: "lists/home/todos/milk".into(),
        consistency: None,
    };
    let body: Bytes = framed(&request.encode_to_vec(), false);
    let before = service.peak();
    let mut peer = Peer::connect(&service, ATTACKER, &Builder::new()).await;
    let many: Vec<_> = (0..300)
        .map(|n| (format!("x-{n}"), "y".to_owned()))
        .collect();
    let one = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    for (what, headers, codes) in [
        ("none left", one("grpc-timeout", "1n"), [0, 4]),
        ("the most", one("grpc-timeout", "99999999H"), [0, 0]),
        ("no number", one("grpc-timeout", "xS"), [0, 3]),
        ("no base64", one("x-trace-bin", "!!!"), [0, 3]),
        (
            "no base64 in ours",
            one("grpc-status-details-bin", "!"),
            [0, 0],
        ),
        ("no trace", one("traceparent", "00-zz-zz-zz"), [0, 0]),
        ("many", many, [0, 0]),
    ] {
        for _ in 0..20 {
            let mut head = http::Request::post(format!("http://tidemark/{GET}"))
                .header("content-type", "application/grpc")
                .header("te", "trailers");
            for (name, value) in &headers {
                head = head.header(name, value);
            }
            let (response, mut stream) = peer.begin_with(head, false).await.expect("sent");
            // The service may have answered already.
            let _ = stream.send_data(body.clone(), true);
            let code = timeout(ANSWER, status(response)).await.expect("in time");
            let code = code.expect("a status");
            assert!(codes.contains(&code), "{what}: {code}");
        }
    }
    others_are_served(&service, &mut client, before).await;
}

/// Sends bytes and reads until the service closes.
async fn exchange(service: &Pod, bytes: &[u8]) -> String {
    let stream = tcp(service, ATTACKER).await.expect("connected");
    let (mut reader, mut writer) = stream.into_split();
    let mut text = Vec::new();
    let reading = async {
        // Closed with bytes of ours unread, the connection is reset.
        let _ = reader.read_to_end(&mut text).await;
    };
    let writing = async {
        let _ = writer.write_all(bytes).await;
    };
    let both = async { tokio::join!(reading, writing) };
    timeout(ANSWER, both).await.expect("closed in time");
    String::from_utf8_lossy(&text).into_owned()
}

/// Requests of HTTP/1.1 with all that it has and nobody uses.
#[tokio::test]
async fn odd_requests_of_http_1_do_no_harm() {
    const PIPELINED: usize = 3000;
    let (service, mut client) = pod::embedded().await;
    let before = service.peak();
    let probe = "GET /healthz HTTP/1.1\r\nhost: a\r\n";
    let call = "POST /todo.v1.TodoService/GetTodo HTTP/1.1\r\nhost: a\r\n\
        content-type: application/json\r\nconnection: close\r\n";
    let chunked = format!("{call}transfer-encoding: chunked\r\n\r\n");
    let long = "x".repeat(64 << 10);
    let fields = "x: y\r\n".repeat(200);
    let close = "connection: close\r\n\r\n";
    let pipelined = format!("{}{probe}{close}", format!("{probe}\r\n").repeat(PIPELINED));
    let answers = exchange(&service, pipelined.as_bytes()).await;
    assert_eq!(answers.matches("HTTP/1.1 200").count(), PIPELINED + 1);
    for (what, request, statuses) in [
        (
            "upgrade",
            format!("{probe}upgrade: h2c\r\n{close}"),
            ["200", "200"],
        ),
        (
            "another address",
            format!("GET http://evil.example/healthz HTTP/1.1\r\nhost: a\r\n{close}"),
            ["200", "200"],
        ),
        (
            "connect",
            format!("CONNECT a:1 HTTP/1.1\r\nhost: a\r\n{close}"),
            ["405", "400"],
        ),
        (
            "options",
            format!("OPTIONS * HTTP/1.1\r\nhost: a\r\n{close}"),
            ["405", "400"],
        ),
        (
            "a long name",
            format!("{probe}{long}: x\r\n{close}"),
            ["431", "400"],
        ),
        (
            "a long path",
            format!("GET /{long} HTTP/1.1\r\nhost: a\r\n{close}"),
            ["414", "431"],
        ),
        (
            "many fields",
            format!("{probe}{fields}{close}"),
            ["431", "400"],
        ),
        (
            "an extension",
            format!("{chunked}2;{long}\r\n{{}}\r\n0\r\n\r\n"),
            ["400", "400"],
        ),
        (
            "trailers",
            format!("{chunked}2\r\n{{}}\r\n0\r\nx: {long}\r\n\r\n"),
            ["400", "400"],
        ),
        (
            "two lengths",
            format!("{call}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}"),
            ["400", "400"],
        ),
        (
            "a length and chunks",
            format!("{call}content-length: 9\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
            ["400", "400"],
        ),
        (
            "expect",
            format!("{call}expect: 100-continue\r\ncontent-length: 2\r\n\r\n{{}}"),
            ["100", "400"],
        ),
    ] {
        let answer = exchange(&service, request.as_bytes()).await;
        let status = answer.get(9..12).unwrap_or_default();
        assert!(
            answer.is_empty() || statuses.contains(&status),
            "{what}: {answer}"
        );
    }
    others_are_served(&service, &mut client, before).await;
}

/// Bodies that break the rules of HTTP/1.1, or of base64, in each kind of call: the peer
/// waits for the answer, and gets one before a body's deadline of 10 s.
#[tokio::test]
async fn broken_bodies_of_http_1_are_refused_at_once() {
    const AT_ONCE: Duration = Duration::from_secs(5);
    let (service, mut client) = pod::embedded_with(&["--cors-allow-origins", "*"]).await;
    let before = service.peak();
    let call = |path: &str, kind: &str, rest: &str| {
        format!(
            "POST /{path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
            content-type: application/{kind}\r\n{rest}"
        )
    };
    let chunks = |chunks: &str| format!("transfer-encoding: chunked\r\n\r\n{chunks}");
    let base64 = |text: &str| format!("content-length: {}\r\n\r\n{text}", text.len());
    let broken = [
        chunks("zz\r\n{}\r\n0\r\n\r\n"),
        chunks("-1\r\n{}"),
        chunks("FFFFFFFFFFFFFFFFFF\r\n{}"),
        chunks("2\r\n{}XX0\r\n\r\n"),
        chunks(&format!(
            "2\r\n{{}}\r\n0\r\n{}\r\n",
            "x: y\r\n".repeat(3000)
        )),
    ];
    let broken_text = ["!!!!", "AAA", "A===", "AAAA\r\nAAA="].map(base64);
    const WATCH: &str = "todo.v1.TodoService/WatchTodos";
    const REFLECTION: &str = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let cases = [
        (GET, "json", "HTTP/1.1 400", &broken[..]),
        (GET, "grpc-web", "grpc-status: 3", &broken[..]),
        (GET, "grpc-web-text", "grpc-status: 3", &broken[..]),
        (WATCH, "grpc-web", "grpc-status: 3", &broken[..]),
        (REFLECTION, "grpc-web", "grpc-status: 3", &broken[..]),
        (GET, "grpc-web-text", "grpc-status: 3", &broken_text[..]),
        (
            REFLECTION,
            "grpc-web-text",
            "grpc-status: 3",
            &broken_text[..],
        ),
    ];
    for (path, kind, expected, bodies) in cases {
        for body in bodies {
            let request = call(path, kind, body);
            let answer = exchange(&service, request.as_bytes());
            let answer = timeout(AT_ONCE, answer).await.expect("at once");
            // A call that fails before its head has its status there, else in its trailers.
            assert!(
                answer.contains(expected) || answer.contains("grpc-status:3"),
                "{path} {kind} {body:?}: {answer}"
            );
            assert!(!answer.contains("tonic"), "{answer}");
        }
    }
    others_are_served(&service, &mut client, before).await;
}

/// Large replies wait for their translation to JSON, or for a peer that does not read: they are
/// charged meanwhile.
#[tokio::test]
async fn large_replies_that_wait_take_little() {
    let (mut service, mut client) = pod::embedded_with(&["--cors-allow-origins", "*"]).await;
    service.set_most(400);
    let batch = large_batch(&mut client, 80).await;
    client.batch_get_todos(batch.clone()).await.expect("3.6 MB");
    let json = serde_json::json!({ "names": batch.names }).to_string();
    ask_for_large_replies(&service, (BATCH, 200), &batch.encode_to_vec(), json).await;
    // Pages of lists, of some 3.3 MB, share the documents of the near cache.
    for n in 0..60 {
        let create = pb::CreateTodoListRequest {
            todo_list: Some(pb::TodoList {
                members: owners(n, 0),
                ..Default::default()
            }),
            todo_list_id: format!("l{n}"),
            ..Default::default()
        };
        client.create_todo_list(create).await.expect("created");
    }
    let page = pb::ListTodoListsRequest {
        page_size: 1000,
        ..Default::default()
    };
    let lists = "todo.v1.TodoService/ListTodoLists";
    let json = serde_json::json!({ "pageSize": 1000 }).to_string();
    ask_for_large_replies(&service, (lists, 200), &page.encode_to_vec(), json).await;
    let now = service.peak();
    others_are_served(&service, &mut client, now).await;
}

/// Calls in each protocol, so many at once on each of four connections, whose peers read, and do
/// not.
async fn ask_for_large_replies(
    service: &Pod,
    (path, at_once): (&str, usize),
    message: &[u8],
    json: String,
) {
    const CONNECTIONS: usize = 4;
    let message = framed(message, false);
    let kinds: [(&str, Bytes); 4] = [
        ("application/json", json.into()),
        ("application/grpc", message.clone()),
        ("application/grpc-web", message.clone()),
        ("application/grpc-web-text", base64(&message).into()),
    ];
    let (reads, mut does_not_read) = (Builder::new(), Builder::new());
    does_not_read.initial_window_size(0);
    for (kind, body) in &kinds {
        for builder in [&reads, &does_not_read] {
            let (mut calls, mut peers) = (JoinSet::new(), Vec::new());
            for _ in 0..CONNECTIONS {
                let mut peer = Peer::connect(service, ATTACKER, builder).await;
                for _ in 0..at_once {
                    let request = http::Request::post(format!("http://tidemark/{path}"))
                        .header("content-type", *kind);
                    let (response, mut stream) =
                        peer.begin_with(request, false).await.expect("sent");
                    stream.send_data(body.clone(), true).expect("sent");
                    calls.spawn(response);
                }
                peers.push(peer);
            }
            let mut answered = Vec::new();
            while let Some(outcome) = calls.join_next().await {
                answered.extend(outcome.expect("no panic"));
            }
            assert!(!answered.is_empty(), "{kind}");
        }
        eprintln!("{path} {kind}: {} bytes at most", service.peak());
    }
}
