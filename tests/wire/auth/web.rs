//! Calls from pages in a browser pass the same check.

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use tokio::net::TcpStream;

use super::*;

const PAGE: &str = "https://todos.example";

async fn send(service: &Tidemark, request: Request<Full<Bytes>>) -> Response<Incoming> {
    let address = service.address.trim_start_matches("http://");
    let stream = TcpStream::connect(address).await.expect("connected");
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.expect("HTTP/1.1");
    tokio::spawn(connection);
    sender.send_request(request).await.expect("a response")
}

/// The status of a call by grpc-web with these values of the header.
async fn call(service: &Tidemark, values: &[&str]) -> String {
    let message = a_page().encode_to_vec();
    let mut body = vec![0];
    body.extend(u32::try_from(message.len()).expect("short").to_be_bytes());
    body.extend(message);
    let mut request = Request::post("/todo.v1.TodoService/ListTodos")
        .header("host", "todos.example")
        .header("origin", PAGE)
        .header("content-type", "application/grpc-web+proto");
    for value in values {
        request = request.header("authorization", *value);
    }
    let request = request.body(Full::new(body.into())).expect("a request");
    let response = send(service, request).await;
    if let Some(status) = response.headers().get("grpc-status") {
        return status.to_str().expect("ASCII").to_owned();
    }
    let body = response.into_body().collect().await.expect("a body");
    let text = String::from_utf8_lossy(&body.to_bytes()).replace(' ', "");
    let at = text.find("grpc-status:").expect("a status") + "grpc-status:".len();
    text[at..]
        .chars()
        .take_while(char::is_ascii_digit)
        .collect()
}

/// The HTTP status of a call in JSON with these values of the header. A challenge comes
/// with 401, and with nothing else.
async fn call_in_json(service: &Tidemark, values: &[&str]) -> u16 {
    let mut request = Request::post("/todo.v1.TodoService/ListTodos")
        .header("host", "todos.example")
        .header("content-type", "application/json");
    for value in values {
        request = request.header("authorization", *value);
    }
    let body = Full::new(Bytes::from_static(b"{\"parent\": \"lists/home\"}"));
    let request = request.body(body).expect("a request");
    let response = send(service, request).await;
    let status = response.status().as_u16();
    let challenge = response.headers().get("www-authenticate");
    let wanted = (status == 401).then_some("Bearer");
    assert_eq!(challenge.and_then(|c| c.to_str().ok()), wanted, "{status}");
    status
}

#[tokio::test]
async fn calls_in_json_need_a_credential() {
    let files = Folder::new();
    let (service, _, key) = serving_a_key(&files, &[]).await;
    let bearer = format!("Bearer {key}");
    assert_eq!(call_in_json(&service, &[&bearer]).await, 200);
    assert_eq!(call_in_json(&service, &[]).await, 401);
    assert_eq!(call_in_json(&service, &["Bearer tmk_x"]).await, 401);
    assert_eq!(call_in_json(&service, &[&bearer, &bearer]).await, 401);
}

#[tokio::test]
async fn pages_need_a_credential_and_their_preflights_do_not() {
    let files = Folder::new();
    let (service, _, key) = serving_a_key(&files, &["--cors-allow-origins", PAGE]).await;
    let bearer = format!("Bearer {key}");
    const UNAUTHENTICATED: &str = "16";
    assert_eq!(call(&service, &[&bearer]).await, "0");
    assert_eq!(call(&service, &[]).await, UNAUTHENTICATED);
    assert_eq!(call(&service, &["Bearer tmk_x"]).await, UNAUTHENTICATED);
    assert_eq!(call(&service, &[&bearer, &bearer]).await, UNAUTHENTICATED);

    let preflight = Request::builder()
        .method(Method::OPTIONS)
        .uri("/todo.v1.TodoService/ListTodos")
        .header("host", "todos.example")
        .header("origin", PAGE)
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "authorization,content-type,x-grpc-web",
        )
        .body(Full::default())
        .expect("a request");
    let response = send(&service, preflight).await;
    assert!(response.status().is_success(), "{response:?}");
    let allowed = response.headers()["access-control-allow-headers"].to_str();
    assert!(allowed.expect("ASCII").contains("authorization"));
}
