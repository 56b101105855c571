//! The page as it is served: its files, its rules, and who may call from where.
//! `tests/ui` has it in a browser.

use std::fs;

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::{
    client::*,
    support::{Tidemark, folder},
};

struct Reply {
    status: u16,
    headers: http::HeaderMap,
    body: bytes::Bytes,
}

/// One request over HTTP/1.1, on a connection of its own.
async fn send(service: &Tidemark, request: http::request::Builder, body: &str) -> Reply {
    let address = service.address.trim_start_matches("http://");
    let stream = TcpStream::connect(address).await.expect("connected");
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.expect("HTTP/1.1");
    tokio::spawn(connection);
    let request = request.body(Full::new(bytes::Bytes::from(body.to_owned())));
    let response = sender.send_request(request.expect("a request")).await;
    let (head, body) = response.expect("a response").into_parts();
    Reply {
        status: head.status.as_u16(),
        headers: head.headers,
        body: body.collect().await.expect("a body").to_bytes(),
    }
}

fn get_file(path: &str, host: &str) -> http::request::Builder {
    Request::get(path).header("host", host)
}

async fn serving(more: &[&str]) -> Tidemark {
    let dir = folder("data").display().to_string();
    let mut args = vec!["--data-dir", &dir];
    args.extend(more);
    ready(Tidemark::start(&args)).await.0
}

#[tokio::test]
async fn its_files_and_rules() {
    let service = serving(&[]).await;
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/ui/page.js", "text/javascript; charset=utf-8"),
        ("/ui/page.css", "text/css; charset=utf-8"),
        ("/ui/icon.svg", "image/svg+xml"),
    ] {
        let reply = send(&service, get_file(path, "localhost"), "").await;
        assert_eq!(reply.status, 200, "{path}");
        assert_eq!(reply.headers["content-type"], kind);
        assert_eq!(reply.headers["x-content-type-options"], "nosniff");
        let policy = reply.headers["content-security-policy"]
            .to_str()
            .expect("text");
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self';"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
        let head = Request::head(path).header("host", "localhost");
        let head = send(&service, head, "").await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert!(!reply.body.is_empty());
    }
    for path in [
        "/ui",
        "/ui/",
        "/ui/../Cargo.toml",
        "/index.html",
        "/ui/page.js/x",
    ] {
        assert_eq!(
            send(&service, get_file(path, "localhost"), "").await.status,
            405,
            "{path}"
        );
    }
    for settings in [["--ui", "off"], ["--listen", "0.0.0.0:0"]] {
        let closed = serving(&settings).await;
        let reply = send(&closed, get_file("/", "localhost"), "").await;
        assert_eq!(reply.status, 405, "{settings:?}");
    }
}

#[tokio::test]
async fn its_state_is_for_callers() {
    let service = serving(&[]).await;
    let reply = send(&service, get_file("/ui/status", "127.0.0.1:1"), "").await;
    let state: Value = serde_json::from_slice(&reply.body).expect("JSON");
    assert_eq!(state["ready"], true);
    assert_eq!(state["breaker"], "none");
    assert!(state["reads"]["near"].is_u64() && state["frontierLagSeconds"].is_number());
    // Another name that leads here: DNS rebinding.
    let reply = send(&service, get_file("/ui/status", "evil.example:50051"), "").await;
    assert_eq!(reply.status, 403);
    let keys = folder("keys").join("keys");
    fs::write(&keys, "# nobody\n").expect("written");
    let keys = keys.display().to_string();
    let guarded = serving(&["--auth", "keys", "--keys-file", &keys, "--admin", "root"]).await;
    let reply = send(&guarded, get_file("/ui/status", "localhost"), "").await;
    let refusal: Value = serde_json::from_slice(&reply.body).expect("JSON");
    assert_eq!(
        (reply.status, &refusal["code"]),
        (401, &json!("unauthenticated"))
    );
    assert_eq!(
        send(&guarded, get_file("/", "localhost"), "").await.status,
        200
    );
    let call = Request::post("/todo.v1.TodoService/ListTodos")
        .header("host", "localhost")
        .header("content-type", "application/json");
    let reply = send(&guarded, call, r#"{"parent":"lists/home"}"#).await;
    let refusal: Value = serde_json::from_slice(&reply.body).expect("JSON");
    assert_eq!(
        (reply.status, &refusal["code"]),
        (401, &json!("unauthenticated"))
    );
}

#[tokio::test]
async fn it_may_call_from_its_own_address_only() {
    let service = serving(&[]).await;
    let call = |host: &str, origin: &str| {
        Request::post("/todo.v1.TodoService/ListTodos")
            .header("host", host)
            .header("origin", origin)
            .header("content-type", "application/json")
    };
    let body = r#"{"parent":"lists/home"}"#;
    for (host, origin, status) in [
        ("127.0.0.1:50051", "http://127.0.0.1:50051", StatusCode::OK),
        ("localhost:8080", "http://localhost:8080", StatusCode::OK),
        ("[::1]:1", "https://[::1]:1", StatusCode::OK),
        (
            "127.0.0.1:50051",
            "http://127.0.0.1:8080",
            StatusCode::FORBIDDEN,
        ),
        (
            "127.0.0.1:50051",
            "https://evil.example",
            StatusCode::FORBIDDEN,
        ),
        ("evil.example", "http://evil.example", StatusCode::FORBIDDEN),
        ("127.0.0.1:50051", "null", StatusCode::FORBIDDEN),
    ] {
        let reply = send(&service, call(host, origin), body).await;
        assert_eq!(reply.status, status.as_u16(), "{host} {origin}");
        let grpc_web = call(host, origin).header("x-grpc-web", "1");
        let mut grpc_web = grpc_web;
        let headers = grpc_web.headers_mut().expect("a request");
        let kind = "application/grpc-web+proto".parse().expect("a value");
        headers.insert("content-type", kind);
        let reply = send(&service, grpc_web, "\0\0\0\0\0").await;
        assert_eq!(reply.status, status.as_u16(), "grpc-web {host} {origin}");
    }
    // A name is allowed by a setting.
    let named = serving(&["--cors-allow-origins", "https://todos.example"]).await;
    let reply = send(&named, call("todos.example", "https://todos.example"), body).await;
    assert_eq!(reply.status, 200);
    let reply = send(&named, get_file("/ui/status", "todos.example"), "").await;
    assert_eq!(reply.status, 200);
}
