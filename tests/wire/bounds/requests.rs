//! Requests that are too large, too slow, or not gRPC.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use tidemark::pb;
use tonic::{Code, codec::CompressionEncoding};

use super::raw::{TODOS, announced, call, collect, frame, open, post, send};
use crate::{
    client::*,
    pod::{self, Pod},
    support::{eventually, folder},
};

#[tokio::test]
async fn what_no_valid_request_needs_is_refused_at_its_head() {
    let (service, _) = pod::embedded().await;
    for (path, limit) in [
        ("/todo.v1.TodoService/BatchGetTodos", 256 << 10),
        ("/todo.v1.TodoService/WatchTodos", 256 << 10),
        ("/grpc.health.v1.Health/Check", 4 << 10),
        (
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            64 << 10,
        ),
    ] {
        // Five bytes, and the request stays open.
        let (_rest, response) = open(&service, post(path), announced(limit + 1, b"")).await;
        // Not DEADLINE_EXCEEDED, after ten seconds.
        let reply = collect(response.await.expect("a response")).await;
        assert_eq!(reply.code(), Code::ResourceExhausted, "{path}");
        if path.contains("reflection") {
            continue;
        }
        let (_, reason, metadata) = refused(Err::<(), _>(reply.status.expect("a status")));
        assert_eq!(reason, "MESSAGE_TOO_LARGE", "{path}");
        assert_eq!(metadata["limit_bytes"], limit.to_string(), "{path}");
    }
}

#[tokio::test]
async fn large_and_compressed_requests_take_no_memory() {
    let (service, client) = pod::embedded().await;
    create(&mut client.clone(), "milk", "x").await;
    let before = service.peak();
    let bomb = pb::BatchGetTodosRequest {
        names: vec![String::new(); 2_000_000],
        consistency: None,
    };
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let mut client = client.clone().send_compressed(encoding);
        let (code, reason, _) = refused(client.batch_get_todos(bomb.clone()).await);
        assert_eq!(
            (code, reason.as_str()),
            (Code::ResourceExhausted, "MESSAGE_TOO_LARGE")
        );
    }
    // Below the limit of bytes: what is wrong with it is told.
    let names = vec![String::new(); 120_000];
    let many = pb::BatchGetTodosRequest {
        names,
        consistency: None,
    };
    let (code, ..) = refused(client.clone().batch_get_todos(many).await);
    assert_eq!(code, Code::InvalidArgument);
    let update = |paths: usize| pb::UpdateTodoRequest {
        todo: Some(pb::Todo {
            name: "lists/home/todos/milk".into(),
            ..titled("y")
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["bad".into(); paths],
        }),
        ..Default::default()
    };
    let (code, ..) = refused(client.clone().update_todo(update(728_000)).await);
    assert_eq!(code, Code::ResourceExhausted);
    for paths in [33, 40_000] {
        let status = client.clone().update_todo(update(paths)).await;
        let status = status.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(
            status.message().contains(&format!("{paths} paths")),
            "{status:?}"
        );
    }
    let grown = service.peak().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more at the peak");
}

#[tokio::test]
async fn a_request_that_does_not_end_is_given_up() {
    let (service, _) = pod::embedded().await;
    let whole = frame(&pb::GetTodoRequest {
        name: "lists/home/todos/milk".into(),
        consistency: None,
    });
    let began = Instant::now();
    let calls = [
        ("GetTodo", Bytes::new()),
        ("GetTodo", announced(20_000, b"a")),
        // Complete, but the caller could send more.
        ("GetTodo", whole),
        ("WatchTodos", announced(20, b"")),
    ];
    let calls = calls.map(|(method, body)| {
        let service = &service;
        async move {
            let (_rest, response) = open(service, post(&format!("{TODOS}{method}")), body).await;
            let reply = collect(response.await.expect("a response")).await;
            refused(Err::<(), _>(reply.status.expect("a status")))
        }
    });
    for (code, reason, metadata) in futures::future::join_all(calls).await {
        assert_eq!(
            (code, reason.as_str()),
            (Code::DeadlineExceeded, "DEADLINE_EXCEEDED")
        );
        assert_eq!(metadata["tier"], "request");
    }
    let took = began.elapsed();
    assert!((9..40).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test]
async fn what_is_not_one_message_is_named() {
    let (service, _) = pod::embedded().await;
    let message = frame(&pb::GetTodoRequest {
        name: "lists/home/todos/milk".into(),
        consistency: None,
    });
    let twice = Bytes::from([message.as_ref(), message.as_ref()].concat());
    let cut = message.slice(..message.len() - 1);
    let nested = announced(40_000, &[0x0b; 40_000]);
    let bodies = [Bytes::new(), twice, cut, nested, announced(2, b"\xff\xff")];
    for body in bodies {
        let reply = send(&service, post("/todo.v1.TodoService/GetTodo"), body.clone()).await;
        let (code, reason, _) = refused(Err::<(), _>(reply.status.expect("a status")));
        assert_eq!(
            (code, reason.as_str()),
            (Code::InvalidArgument, "FIELD_INVALID"),
            "{body:?}"
        );
    }
}

/// What a page in a browser can send to any server without asking it first.
#[tokio::test]
async fn only_grpc_is_executed() {
    for web in [None, Some("https://todos.example")] {
        let dir = folder("data").display().to_string();
        let mut args = vec!["--data-dir", &dir];
        args.extend(
            web.map(|origin| ["--cors-allow-origins", origin])
                .into_iter()
                .flatten(),
        );
        let (service, mut client) = Pod::ready(&args).await;
        let body = frame(&pb::CreateTodoRequest {
            parent: "lists/home".into(),
            todo: Some(titled("x")),
            todo_id: "forged".into(),
            request_id: String::new(),
        });
        let request = |method: Method, kind: &str| {
            let uri = format!("http://localhost{TODOS}CreateTodo");
            http::Request::builder()
                .method(method)
                .uri(uri)
                .header("content-type", kind)
        };
        let forged = |request| send(&service, request, body.clone());
        for kind in [
            "text/plain",
            "application/grpc+json",
            "application/grpcx",
            "",
        ] {
            let reply = forged(request(Method::POST, kind)).await;
            assert_eq!(reply.http, 415, "{kind} {web:?}");
        }
        for method in [Method::PUT, Method::GET, Method::DELETE, Method::OPTIONS] {
            let reply = forged(request(method.clone(), "application/grpc")).await;
            assert_eq!(reply.http, 405, "{method} {web:?}");
        }
        let grpc_web = request(Method::POST, "application/grpc-web+proto");
        let foreign = forged(grpc_web.header("origin", "https://evil.example")).await;
        assert_eq!(foreign.http, 403);
        let missing = get(&mut client, "lists/home/todos/forged", strong()).await;
        assert_eq!(refused(missing).0, Code::NotFound);
    }
}

#[tokio::test]
async fn calls_are_counted_when_they_end() {
    let (service, mut client) = pod::embedded().await;
    create(&mut client, "milk", "x").await;
    let count = |call: &str, code: &str| {
        let series =
            format!("tidemark_rpc_duration_seconds_count{{call=\"{call}\",code=\"{code}\"}}");
        let text = service.metrics_text();
        let line = text.lines().find(|line| line.starts_with(&series));
        line.map_or(0, |line| {
            line.rsplit(' ')
                .next()
                .expect("a value")
                .parse()
                .expect("a count")
        })
    };
    let request = pb::WatchTodosRequest {
        parent: "lists/home".into(),
        ..Default::default()
    };
    let mut stream = client
        .watch_todos(request)
        .await
        .expect("open")
        .into_inner();
    stream.message().await.expect("alive").expect("a message");
    assert_eq!(
        count("WatchTodos", "OK") + count("WatchTodos", "CANCELLED"),
        0
    );
    drop(stream);
    // A call that its caller gives up before it has sent all of it.
    let (rest, response) = open(&service, post("/todo.v1.TodoService/GetTodo"), Bytes::new()).await;
    // Dropped too soon, the request would not reach the service.
    tokio::select! {
        biased;
        _ = response => panic!("answered before it is here"),
        () = crate::raw::request_begun(&service) => {}
    }
    drop(rest);
    eventually("cancelled calls", Duration::from_secs(60), async || {
        let counted: u64 = count("WatchTodos", "CANCELLED");
        let gets: u64 = count("GetTodo", "CANCELLED");
        (counted == 1 && gets == 1).then_some(())
    })
    .await;
    assert_eq!(count("WatchTodos", "OK"), 0);
}

#[tokio::test]
async fn small_replies_are_not_compressed() {
    let (service, mut client) = pod::embedded().await;
    for n in 0..60 {
        let todo = pb::Todo {
            notes: "word ".repeat(100),
            ..titled("x")
        };
        create_in(&mut client, "lists/home", &format!("t{n}"), todo)
            .await
            .expect("created");
    }
    let send = async |method: &str, body: Bytes| {
        let request = post(&format!("{TODOS}{method}")).header("grpc-accept-encoding", "gzip");
        let reply = send(&service, request, body).await;
        assert_eq!(reply.code(), Code::Ok);
        reply.body[0] == 1
    };
    let get = frame(&pb::GetTodoRequest {
        name: "lists/home/todos/t1".into(),
        consistency: strong(),
    });
    assert!(!send("GetTodo", get).await);
    let page = |size| {
        frame(&pb::ListTodosRequest {
            page_size: size,
            consistency: strong(),
            ..page_of("lists/home")
        })
    };
    assert!(!send("ListTodos", page(5)).await);
    assert!(send("ListTodos", page(60)).await);
    let watch = pb::WatchTodosRequest {
        parent: "lists/home".into(),
        ..Default::default()
    };
    let request = post("/todo.v1.TodoService/WatchTodos").header("grpc-accept-encoding", "gzip");
    let (rest, response) = open(&service, request, frame(&watch)).await;
    drop(rest);
    let response = response.await.expect("a response");
    assert!(!response.headers().contains_key("grpc-encoding"));
}

#[tokio::test]
async fn reflection_goes_on_after_an_unknown_symbol() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let (service, _) = pod::embedded().await;
    let channel = tonic::transport::Channel::from_shared(service.address.clone());
    let channel = channel
        .expect("an address")
        .connect()
        .await
        .expect("connected");
    let mut client = ServerReflectionClient::new(channel);
    let ask = |request| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(request),
    };
    let symbol = |name: &str| ask(MessageRequest::FileContainingSymbol(name.into()));
    let questions = vec![
        symbol("no.Such"),
        symbol(&"ö".repeat(20_000)),
        ask(MessageRequest::FileByFilename("no.proto".into())),
        symbol("todo.v1.TodoService"),
        symbol("todo.v1.TodoService.GetTodo"),
        symbol("todo.v1.Todo.State"),
        ask(MessageRequest::ListServices(String::new())),
    ];
    let stream = client
        .server_reflection_info(futures::stream::iter(questions))
        .await;
    let mut stream = stream.expect("open").into_inner();
    let mut answers = Vec::new();
    while let Some(answer) = stream.message().await.expect("the stream goes on") {
        answers.push(answer.message_response.expect("an answer"));
    }
    assert_eq!(answers.len(), 7);
    for answer in &answers[..3] {
        let MessageResponse::ErrorResponse(error) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(error.error_code, 5);
        assert!(error.error_message.len() < 2048);
    }
    for answer in &answers[3..6] {
        let MessageResponse::FileDescriptorResponse(file) = answer else {
            panic!("{answer:?}");
        };
        assert!(!file.file_descriptor_proto[0].is_empty());
    }
    let MessageResponse::ListServicesResponse(services) = &answers[6] else {
        panic!("{:?}", answers[6]);
    };
    assert!(
        services
            .service
            .iter()
            .any(|it| it.name == "todo.v1.TodoService")
    );
}

#[tokio::test]
async fn every_field_is_bounded() {
    let (service, _) = pod::embedded().await;
    let long = "é".repeat(60_000);
    let name = "lists/home/todos/milk";
    let todo = |etag: &str| pb::Todo {
        name: name.into(),
        etag: etag.into(),
        ..titled("x")
    };
    let list = |filter: &str, order: &str, page_token: &str| pb::ListTodosRequest {
        filter: filter.into(),
        order_by: order.into(),
        page_token: page_token.into(),
        ..page_of("lists/home")
    };
    let label = format!("labels:\"{}\"", "é".repeat(65));
    for (filter, order, token) in [
        (long.as_str(), "", ""),
        (label.as_str(), "", ""),
        ("", long.as_str(), ""),
        ("", "", long.as_str()),
        ("labels:\"\"", "", ""),
    ] {
        let reply = call(&service, "ListTodos", &list(filter, order, token)).await;
        assert_eq!(reply.code(), Code::InvalidArgument);
    }
    let update = pb::UpdateTodoRequest {
        todo: Some(todo(&long)),
        ..Default::default()
    };
    assert_eq!(
        call(&service, "UpdateTodo", &update).await.code(),
        Code::InvalidArgument
    );
    let delete = pb::DeleteTodoRequest {
        name: name.into(),
        etag: long.clone(),
        allow_missing: true,
    };
    assert_eq!(
        call(&service, "DeleteTodo", &delete).await.code(),
        Code::InvalidArgument
    );
    for token in [long.clone(), " ".repeat(100_000)] {
        let read = pb::GetTodoRequest {
            name: name.into(),
            consistency: with_token(&token),
        };
        let reply = call(&service, "GetTodo", &read).await;
        let (_, reason, metadata) = refused(Err::<(), _>(reply.status.expect("a status")));
        assert_eq!(reason, "TOKEN_INVALID");
        assert_eq!(metadata["field"], "consistency.at_least_as_fresh");
    }
}

/// A page token with other contents, and a checksum that fits.
fn forged(token: &str, edit: impl FnOnce(&mut Vec<u8>)) -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let mut raw = URL_SAFE_NO_PAD.decode(token).expect("base64");
    raw.truncate(raw.len() - 8);
    edit(&mut raw);
    let sum = xxhash_rust::xxh3::xxh3_64(&raw);
    raw.extend(sum.to_be_bytes());
    URL_SAFE_NO_PAD.encode(raw)
}

/// Where a page begins is the caller's to say, in whatever words: any place is a page of the
/// list that the caller may read, or is refused.
async fn forged_page_tokens(mut client: Client) {
    const KEY: usize = 17;
    for n in 0..5 {
        create(&mut client, &format!("t{n}"), "x").await;
        let other = create_in(&mut client, "lists/other", &format!("o{n}"), titled("x")).await;
        other.expect("created");
    }
    for order in [
        "create_time desc",
        "create_time",
        "due_time",
        "priority desc",
    ] {
        let page = |page_token: String| pb::ListTodosRequest {
            page_size: 2,
            order_by: order.into(),
            page_token,
            ..page_of("lists/home")
        };
        let token = list(&mut client, page(String::new())).await.next_page_token;
        let values = [0, 1, 1 << 31, 1 << 53, i64::MAX as u64, 1 << 63, u64::MAX];
        let keys = (0..5).flat_map(|tag| values.map(|value: u64| (tag, value)));
        let mut tokens: Vec<_> = keys
            .map(|(tag, value)| {
                forged(&token, |raw| {
                    raw[KEY] = tag;
                    raw[KEY + 1..KEY + 9].copy_from_slice(&value.to_be_bytes());
                })
            })
            .collect();
        for name in [
            "lists/other/todos/o1",
            "lists/-/todos/-",
            "x",
            "",
            "lists/home",
        ] {
            tokens.push(forged(&token, |raw| {
                raw.truncate(KEY + 9);
                raw.extend(name.as_bytes());
            }));
        }
        for fresh_to in [0, 1, u64::MAX] {
            tokens.push(forged(&token, |raw| {
                raw[9..KEY].copy_from_slice(&u64::to_be_bytes(fresh_to));
            }));
        }
        let mut pages = 0;
        for token in tokens {
            match client.list_todos(page(token)).await {
                Ok(page) => {
                    let page = page.into_inner();
                    assert!(page.todos.len() <= 2);
                    for name in names(&page) {
                        assert!(name.starts_with("lists/home/todos/"), "{name}");
                    }
                    pages += 1;
                }
                Err(status) => {
                    let (code, reason, _) = refused(Err::<(), _>(status));
                    assert_eq!(code, Code::InvalidArgument, "{order}");
                    assert_eq!(reason, "PAGE_TOKEN_INVALID", "{order}");
                }
            }
        }
        assert!(pages > 3, "{order}: {pages}");
    }
}

#[tokio::test]
async fn forged_page_tokens_embedded() {
    let (_service, client) = pod::embedded().await;
    forged_page_tokens(client).await;
}

#[tokio::test]
async fn forged_page_tokens_mongodb() {
    let (_service, client) = real("forged_page_tokens").await;
    forged_page_tokens(client).await;
}
