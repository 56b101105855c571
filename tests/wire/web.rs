//! grpc-web as a page in a browser sends it: frames made by hand, over plain
//! HTTP/1.1.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use prost::Message;
use tidemark::pb::{self, todo_change::Kind, watch_todos_response::Event};
use tokio::net::TcpStream;

use crate::{
    client::*,
    support::{Tidemark, folder},
};

const PAGE: &str = "https://todos.example";

async fn serving(origins: &str) -> (Tidemark, Client) {
    let dir = folder("data").display().to_string();
    ready(Tidemark::start(&[
        "--data-dir",
        &dir,
        "--cors-allow-origins",
        origins,
    ]))
    .await
}

/// One request on a connection of its own.
async fn send(
    service: &Tidemark,
    request: Request<Full<Bytes>>,
) -> hyper::Result<Response<Incoming>> {
    let address = service.address.trim_start_matches("http://");
    let stream = TcpStream::connect(address).await.expect("connected");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    sender.send_request(request).await
}

fn call(method: &str, kind: &str, body: Bytes) -> Request<Full<Bytes>> {
    let request = Request::post(format!("/todo.v1.TodoService/{method}"))
        .header("host", "todos.example")
        .header("origin", PAGE)
        .header("content-type", kind)
        .header("accept", kind)
        .header("x-grpc-web", "1");
    request.body(Full::new(body)).expect("a request")
}

/// Flag, length, message.
fn frame(message: &impl Message) -> Bytes {
    let message = message.encode_to_vec();
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).expect("short").to_be_bytes());
    frame.extend(message);
    frame.into()
}

/// Takes a whole frame from the front.
fn take(bytes: &mut BytesMut) -> Option<(u8, Bytes)> {
    let length: [u8; 4] = bytes.get(1..5)?.try_into().ok()?;
    let end = 5 + usize::try_from(u32::from_be_bytes(length)).ok()?;
    if bytes.len() < end {
        return None;
    }
    let frame = bytes.split_to(end).freeze();
    Some((frame[0], frame.slice(5..)))
}

const TRAILERS: u8 = 0x80;

async fn whole(response: Response<Incoming>) -> (HeaderMap, BytesMut) {
    assert_eq!(response.status(), StatusCode::OK);
    let headers = response.headers().clone();
    let body = response
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    (headers, BytesMut::from(&body[..]))
}

fn read_milk() -> Bytes {
    frame(&pb::GetTodoRequest {
        name: "lists/home/todos/milk".into(),
        consistency: strong(),
    })
}

#[tokio::test]
async fn a_page_calls_over_http_1() {
    let (service, mut client) = serving(PAGE).await;
    create(&mut client, "milk", "Buy milk").await;
    let response = send(
        &service,
        call("GetTodo", "application/grpc-web+proto", read_milk()),
    )
    .await;
    let (headers, mut body) = whole(response.expect("an answer")).await;
    assert_eq!(headers["content-type"], "application/grpc-web+proto");
    assert_eq!(headers["access-control-allow-origin"], PAGE);
    let (flag, message) = take(&mut body).expect("a message");
    let reply = pb::GetTodoResponse::decode(message).expect("a reply");
    assert_eq!(
        (flag, reply.todo.expect("a todo").title.as_str()),
        (0, "Buy milk")
    );
    let (flag, trailers) = take(&mut body).expect("trailers");
    let trailers = String::from_utf8_lossy(&trailers).replace(' ', "");
    assert!(
        flag == TRAILERS && trailers.contains("grpc-status:0"),
        "{trailers}"
    );
    assert!(body.is_empty());
}

#[tokio::test]
async fn base64_bodies_are_taken_too() {
    let (service, mut client) = serving("*").await;
    create(&mut client, "milk", "Buy milk").await;
    let body = STANDARD.encode(read_milk());
    let response = send(
        &service,
        call("GetTodo", "application/grpc-web-text", body.into()),
    )
    .await;
    let (headers, body) = whole(response.expect("an answer")).await;
    assert_eq!(headers["access-control-allow-origin"], "*");
    // Each piece is encoded by itself, with its own padding.
    let text = String::from_utf8(body.to_vec()).expect("text");
    let first = text
        .split_inclusive('=')
        .next()
        .expect("some")
        .trim_end_matches('=');
    let decoded = base64::engine::general_purpose::STANDARD_NO_PAD
        .decode(first)
        .expect("base64");
    let (_, message) = take(&mut BytesMut::from(&decoded[..])).expect("a message");
    assert_eq!(
        pb::GetTodoResponse::decode(message)
            .expect("a reply")
            .todo
            .expect("a todo")
            .title,
        "Buy milk"
    );
}

#[tokio::test]
async fn a_page_can_read_why_a_call_failed() {
    let (service, _client) = serving(PAGE).await;
    let response = send(
        &service,
        call("GetTodo", "application/grpc-web+proto", read_milk()),
    )
    .await;
    let (headers, _) = whole(response.expect("an answer")).await;
    assert_eq!(headers["grpc-status"], "5");
    assert!(headers.contains_key("grpc-status-details-bin"));
    let exposed = headers["access-control-expose-headers"]
        .to_str()
        .expect("text");
    for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
        assert!(
            exposed.split(',').any(|one| one == name),
            "{name} is not in {exposed}"
        );
    }
    // Bytes that are no message are the caller's fault here too.
    let garbage = Bytes::from_static(b"\0\0\0\0\x02\xff\xff");
    let response = send(
        &service,
        call("GetTodo", "application/grpc-web+proto", garbage),
    )
    .await;
    assert_eq!(
        whole(response.expect("an answer")).await.0["grpc-status"],
        "3"
    );
}

#[tokio::test]
async fn a_page_watches() {
    let (service, mut client) = serving(PAGE).await;
    let request = frame(&pb::WatchTodosRequest {
        parent: "lists/home".into(),
        ..Default::default()
    });
    let response = send(
        &service,
        call("WatchTodos", "application/grpc-web+proto", request),
    )
    .await;
    let mut body = response.expect("an answer").into_body();
    let mut bytes = BytesMut::new();
    let mut next = async || loop {
        if let Some(frame) = take(&mut bytes) {
            return frame;
        }
        let piece = tokio::time::timeout(Duration::from_secs(60), body.frame())
            .await
            .expect("in time");
        bytes.extend(
            piece
                .expect("more")
                .expect("well")
                .into_data()
                .expect("data"),
        );
    };
    let (_, first) = next().await;
    let first = pb::WatchTodosResponse::decode(first).expect("a message");
    assert!(matches!(first.event, Some(Event::Progress(_))), "{first:?}");
    create(&mut client, "milk", "Buy milk").await;
    let change = loop {
        let (_, message) = next().await;
        let message = pb::WatchTodosResponse::decode(message).expect("a message");
        match message.event.expect("an event") {
            Event::Progress(_) => {}
            Event::Change(change) => break change,
            other @ Event::Reset(_) => panic!("{other:?}"),
        }
    };
    assert_eq!(
        (change.kind(), change.name.as_str()),
        (Kind::Created, "lists/home/todos/milk")
    );
    service.terminate();
    let trailers = loop {
        let (flag, message) = next().await;
        if flag == TRAILERS {
            break String::from_utf8_lossy(&message).replace(' ', "");
        }
    };
    assert!(trailers.contains("grpc-status:14"), "{trailers}");
    assert_eq!(service.exit_code(Duration::from_secs(60)).await, Some(0));
}

fn preflight(origin: &str) -> Request<Full<Bytes>> {
    let request = Request::builder()
        .method(Method::OPTIONS)
        .uri("/todo.v1.TodoService/GetTodo")
        .header("host", "todos.example")
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "content-type,grpc-timeout,x-grpc-web,x-user-agent",
        );
    request.body(Full::default()).expect("a request")
}

#[tokio::test]
async fn preflights_are_answered_for_the_pages_allowed() {
    let (service, _client) = serving(&format!("https://other.example,{PAGE}")).await;
    let (headers, _) = whole(send(&service, preflight(PAGE)).await.expect("an answer")).await;
    assert_eq!(headers["access-control-allow-origin"], PAGE);
    assert_eq!(headers["access-control-allow-methods"], "POST");
    assert!(
        headers["access-control-allow-headers"]
            .to_str()
            .expect("text")
            .contains("x-grpc-web")
    );
    assert!(headers.contains_key("access-control-max-age"));
    let (headers, _) = whole(
        send(&service, preflight("https://evil.example"))
            .await
            .expect("an answer"),
    )
    .await;
    assert!(
        !headers.contains_key("access-control-allow-origin"),
        "{headers:?}"
    );
    // What is neither grpc-web nor a preflight is told so.
    let plain = Request::get("/todos")
        .header("host", "x")
        .body(Full::default())
        .expect("a request");
    assert_eq!(
        send(&service, plain).await.expect("an answer").status(),
        StatusCode::METHOD_NOT_ALLOWED
    );
}

/// What a preflight asks for is repeated, and the headers of a response are below 8 KiB.
#[tokio::test]
async fn preflights_that_ask_for_too_much_are_refused() {
    let (service, _client) = serving("*").await;
    for (bytes, status) in [
        (4 << 10, StatusCode::OK),
        ((4 << 10) + 1, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        (12 << 10, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
    ] {
        let mut request = preflight(PAGE);
        let asked = "x".repeat(bytes).parse().expect("a value");
        let headers = request.headers_mut();
        headers.insert("access-control-request-headers", asked);
        let response = send(&service, request).await.expect("an answer");
        assert_eq!(response.status(), status, "{bytes} bytes");
        let headers = response.headers().iter();
        let size: usize = headers
            .map(|(name, it)| name.as_str().len() + it.len())
            .sum();
        assert!(size < 8 << 10, "{size} bytes of headers");
    }
}

#[tokio::test]
async fn without_pages_there_is_no_grpc_web() {
    let dir = folder("data").display().to_string();
    let (service, _client) = ready(Tidemark::start(&["--data-dir", &dir, "--ui", "off"])).await;
    let reply = send(&service, preflight(PAGE)).await.expect("an answer");
    assert_eq!(reply.status(), StatusCode::METHOD_NOT_ALLOWED);
    let request = call("GetTodo", "application/grpc-web+proto", read_milk());
    let reply = send(&service, request).await.expect("an answer");
    assert_eq!(reply.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}
