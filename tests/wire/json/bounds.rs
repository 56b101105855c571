//! Calls in JSON that are large, deep, slow, or many.

use std::{fmt::Write as _, time::Instant};

use super::*;

/// Largest request in bytes.
const LIMIT: usize = 256 << 10;

#[tokio::test]
async fn large_requests_are_refused() {
    let (service, _client) = embedded().await;
    let padded = |length: usize| {
        let mut body = String::from(r#"{"name":""#);
        body.push_str(&"a".repeat(length - body.len() - 2));
        body + "\"}"
    };
    // Its name is wrong, but it was read.
    let reply = send(
        &mut connection(&service).await,
        request("GetTodo", padded(LIMIT)),
    )
    .await;
    assert_eq!(reply.failed().2, "FIELD_INVALID");
    assert!(reply.body.len() < 8 << 10, "{} bytes", reply.body.len());
    let reply = send(
        &mut connection(&service).await,
        request("GetTodo", padded(LIMIT + 1)),
    )
    .await;
    let (status, code, reason, _, metadata) = reply.failed();
    assert_eq!(
        (status, &*code, &*reason),
        (429, "resource_exhausted", "MESSAGE_TOO_LARGE")
    );
    assert_eq!(metadata["limit_bytes"], LIMIT.to_string());
    // The head is enough: a request that does not end is given up with another error.
    let head = "POST /todo.v1.TodoService/GetTodo HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
        content-type: application/json\r\ncontent-length: 1000000000000\r\n\r\n{";
    let reply = raw(&service, head.as_bytes()).await;
    assert!(
        reply.starts_with("HTTP/1.1 429") && reply.contains("MESSAGE_TOO_LARGE"),
        "{reply}"
    );
    // A length that is not announced.
    let mut chunked = String::from(
        "POST /todo.v1.TodoService/GetTodo HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
        content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
    );
    for _ in 0..33 {
        write!(chunked, "2000\r\n{}\r\n", " ".repeat(0x2000)).expect("a text");
    }
    let reply = raw(&service, chunked.as_bytes()).await;
    assert!(reply.starts_with("HTTP/1.1 429"), "{reply}");
}

#[tokio::test]
async fn deep_and_wide_json_takes_neither_stack_nor_memory() {
    let (service, _client) = embedded().await;
    let mut open = connection(&service).await;
    let deep =
        |begin: &str, level: &str| format!("{begin}{}", level.repeat(LIMIT / 2 / level.len()));
    for body in [
        deep("", "["),
        deep(r#"{"name":"#, "["),
        deep(r#"{"consistency":"#, r#"{"maxStaleness":"#),
        deep("", r#"{"todo":"#),
        deep(r#"{"consistency":{"maxStaleness":"#, r#"{"a":"#),
        // Numbers that no type holds.
        r#"{"name":1e400}"#.into(),
        r#"{"name":-1e999999999}"#.into(),
        format!(r#"{{"name":{}}}"#, "9".repeat(LIMIT / 2)),
        format!(r#"{{"name":0.{}1}}"#, "0".repeat(LIMIT / 2)),
        r#"{"consistency":{"maxStaleness":1e400}}"#.into(),
    ] {
        for method in ["GetTodo", "UpdateTodo"] {
            let reply = send(&mut open, request(method, body.clone())).await;
            assert_eq!(reply.failed().0, 400, "{}", &body[..14]);
        }
    }
    let wide = format!(r#"{{"names":[{}""]}}"#, r#""","#.repeat(87_000));
    assert!(wide.len() < LIMIT);
    let reply = send(&mut open, request("BatchGetTodos", wide)).await;
    let (status, _, _, text, metadata) = reply.failed();
    assert_eq!(status, 400);
    assert_eq!(metadata["field"], "names");
    assert!(text.contains("too many values"), "{text}");
    // A mask is one text in JSON, and many in the message.
    let mask = format!(r#"{{"updateMask":"{}a"}}"#, "a,".repeat(120_000));
    let reply = send(&mut open, request("UpdateTodo", mask)).await;
    assert_eq!(reply.failed().4["field"], "updateMask");
    let fields: String = (0..20_000).fold(String::new(), |mut all, n| {
        write!(all, "\"f{n}\":0,").expect("a text");
        all
    });
    let reply = send(&mut open, request("GetTodo", format!("{{{fields}}}"))).await;
    assert_eq!(reply.failed().4["field"], "f0");
}

#[tokio::test]
async fn replies_are_bounded_too() {
    let (service, mut client) = embedded().await;
    // Each of these characters is one byte in protobuf and two in JSON.
    let notes = "\"".repeat(8_000);
    for number in 0..300 {
        let todo = pb::Todo {
            notes: notes.clone(),
            ..titled("x")
        };
        create_in(&mut client, "lists/home", &format!("t{number}"), todo)
            .await
            .expect("created");
    }
    let page = |size: u32| json!({"parent": "lists/home", "pageSize": size});
    let (status, _, reason, text, _) = call(&service, "ListTodos", &page(300)).await.failed();
    assert_eq!((status, &*reason), (429, "MESSAGE_TOO_LARGE"));
    assert!(text.contains("4194304") && text.contains("fewer"), "{text}");
    let page = call(&service, "ListTodos", &page(200)).await.done();
    assert_eq!(page["todos"].as_array().map(Vec::len), Some(200));
    assert_eq!(page["todos"][0]["notes"], notes);
}

#[tokio::test]
async fn old_and_odd_ways_to_send_it() {
    let (service, mut client) = embedded().await;
    create(&mut client, "milk", "Buy milk").await;
    let body = r#"{"name":"lists/home/todos/milk"}"#;
    let head = |version: &str, more: &str| {
        format!(
            "POST /todo.v1.TodoService/GetTodo HTTP/{version}\r\nhost: x\r\n\
            content-type: application/json\r\n{more}\r\n"
        )
    };
    let length = format!("content-length: {}\r\n", body.len());
    // HTTP/1.0, whose replies end with the connection.
    let reply = raw(
        &service,
        format!("{}{body}", head("1.0", &length)).as_bytes(),
    )
    .await;
    assert!(
        reply.starts_with("HTTP/1.0 200") && reply.contains("Buy milk"),
        "{reply}"
    );
    assert!(!reply.contains("chunked"), "{reply}");
    // In chunks of one byte.
    let mut chunks = head("1.1", "transfer-encoding: chunked\r\nconnection: close\r\n");
    for byte in body.chars() {
        write!(chunks, "1\r\n{byte}\r\n").expect("a text");
    }
    chunks.push_str("0\r\n\r\n");
    let reply = raw(&service, chunks.as_bytes()).await;
    assert!(
        reply.starts_with("HTTP/1.1 200") && reply.contains("Buy milk"),
        "{reply}"
    );
    // Three requests at once on one connection, the last of which ends it.
    let one = format!("{}{body}", head("1.1", &length));
    let bad = format!("{}x{}", head("1.1", &length), &body[1..]);
    let last = format!(
        "{}{body}",
        head("1.1", &format!("{length}connection: close\r\n"))
    );
    let reply = raw(&service, format!("{one}{bad}{last}").as_bytes()).await;
    let statuses: Vec<_> = reply
        .match_indices("HTTP/1.1 ")
        .map(|(at, _)| &reply[at + 9..at + 12])
        .collect();
    assert_eq!(statuses, ["200", "400", "200"], "{reply}");
}

#[tokio::test]
async fn a_body_that_does_not_end_is_given_up() {
    let (service, _client) = embedded().await;
    let began = Instant::now();
    let head = "POST /todo.v1.TodoService/GetTodo HTTP/1.1\r\nhost: x\r\n\
        content-type: application/json\r\ncontent-length: 100\r\n\r\n{\"name\":";
    let address = service.address.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut reply = vec![0; 4096];
    let read = tokio::time::timeout(Duration::from_secs(60), stream.read(&mut reply));
    let count = read.await.expect("in time").expect("a reply");
    let reply = String::from_utf8_lossy(&reply[..count]);
    assert!(
        reply.starts_with("HTTP/1.1 504") && reply.contains("request"),
        "{reply}"
    );
    let took = began.elapsed();
    assert!((9..40).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test]
async fn a_thousand_calls_at_once() {
    const CONNECTIONS: usize = 100;
    let (service, mut client) = embedded().await;
    create(&mut client, "milk", "Buy milk").await;
    let one = async |number: usize| {
        let mut open = connection(&service).await;
        for call in 0..10 {
            let name = if (number + call).is_multiple_of(2) {
                "milk"
            } else {
                "none"
            };
            let body = format!(r#"{{"name":"lists/home/todos/{name}"}}"#);
            let reply = send(&mut open, request("GetTodo", body)).await;
            match name {
                "milk" => assert_eq!(reply.done()["todo"]["title"], "Buy milk"),
                _ => assert_eq!(reply.failed().0, 404),
            }
        }
    };
    futures::future::join_all((0..CONNECTIONS).map(one)).await;
    // The same over one connection of HTTP/2.
    let address = service.address.trim_start_matches("http://");
    let stream = TcpStream::connect(address).await.expect("connected");
    let executor = hyper_util::rt::TokioExecutor::new();
    let handshake = hyper::client::conn::http2::handshake(executor, TokioIo::new(stream)).await;
    let (sender, connection) = handshake.expect("HTTP/2");
    tokio::spawn(connection);
    let calls = (0..1000).map(|_| {
        let mut sender: hyper::client::conn::http2::SendRequest<Full<Bytes>> = sender.clone();
        let url = format!("{}{TODOS}GetTodo", service.address);
        let request = Request::post(url)
            .header("content-type", "application/json")
            .body(Full::from(r#"{"name":"lists/home/todos/milk"}"#))
            .expect("a request");
        async move {
            sender.ready().await.expect("open");
            let response = sender.send_request(request).await.expect("a response");
            let status = response.status();
            let body = response.into_body().collect().await.expect("a body");
            (status, body.to_bytes())
        }
    });
    for (status, body) in futures::future::join_all(calls).await {
        assert_eq!(status, StatusCode::OK);
        assert!(body.windows(8).any(|word| word == b"Buy milk"));
    }
    // What was charged for the calls is given back.
    eventually("budgets in use", Duration::from_secs(60), async || {
        let used = service.metrics_text();
        let used = used
            .lines()
            .filter(|line| line.starts_with("tidemark_budget_used_bytes{"))
            .filter(|line| line.contains("request") || line.contains("repl"))
            .all(|line| line.ends_with(" 0"));
        used.then_some(())
    })
    .await;
}

/// With as little memory as the service starts with, the largest calls are still served, or
/// refused for good: "wait and try again" would never come true.
#[tokio::test]
async fn with_the_least_memory_the_largest_calls_are_served() {
    let least = ["--memory-limit", "199MiB", "--near-capacity", "1MiB"];
    let dir = folder("data").display().to_string();
    let args = [&["--data-dir", &dir][..], &least[..]].concat();
    let (service, mut client) = ready(Tidemark::start(&args)).await;
    // 37 KB each, 4.18 MB in all; in JSON a little more.
    let notes = "\u{1F600}".repeat(8192);
    const FITTING: usize = 113;
    for n in 0..FITTING {
        let todo = pb::Todo {
            notes: notes.clone(),
            ..titled(&"\u{1F600}".repeat(1000))
        };
        let created = create_in(&mut client, "lists/home", &format!("t{n}"), todo).await;
        created.expect("created");
    }
    let names: Vec<_> = (0..FITTING)
        .map(|n| format!("lists/home/todos/t{n}"))
        .collect();
    let batch = pb::BatchGetTodosRequest {
        names: names.clone(),
        consistency: None,
    };
    let read = client.batch_get_todos(batch).await.expect("served");
    assert_eq!(read.into_inner().todos.len(), FITTING);
    let read = call(&service, "BatchGetTodos", &json!({ "names": names })).await;
    assert_eq!(read.done()["todos"].as_array().map(Vec::len), Some(FITTING));
    let page = json!({"parent": "lists/home", "pageSize": FITTING});
    let page = call(&service, "ListTodos", &page).await.done();
    assert_eq!(page["todos"].as_array().map(Vec::len), Some(FITTING));
    let many = pb::BatchGetTodosRequest {
        names: vec![String::new(); 130_000],
        consistency: None,
    };
    let (_, reason, _) = refused(client.batch_get_todos(many).await);
    assert_ne!(reason, "OVERLOADED");
}
