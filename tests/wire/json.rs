//! Calls in JSON, as programs and shells make them: the Connect protocol's unary
//! calls over HTTP/1.1 and HTTP/2, with curl and with bytes made by hand.

mod bounds;
mod errors;

use std::{process::Command, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tidemark::pb;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    client::*,
    raw::request_begun,
    support::{Tidemark, eventually, folder, free_port},
    tls::{Authority, Files, ready_by_tls, serve, trusting},
};

const TODOS: &str = "/todo.v1.TodoService/";

/// A response that is here in full.
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Reply {
    fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json");
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The body of a call that went well.
    fn done(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{:?}", self.body);
        self.json()
    }

    /// Status, code, reason, text and the metadata of the error's details.
    fn failed(&self) -> (u16, String, String, String, Value) {
        let body = self.json();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let details = body["details"].as_array().cloned().unwrap_or_default();
        let info = details
            .iter()
            .find(|detail| detail["type"] == "google.rpc.ErrorInfo")
            .map(|detail| detail["debug"].clone())
            .unwrap_or_default();
        (
            self.status.as_u16(),
            text(&body["code"]),
            text(&info["reason"]),
            text(&body["message"]),
            info["metadata"].clone(),
        )
    }
}

/// A connection of HTTP/1.1.
async fn connection(service: &Tidemark) -> SendRequest<Full<Bytes>> {
    let address = service.address.trim_start_matches("http://");
    let stream = TcpStream::connect(address).await.expect("connected");
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.expect("HTTP/1.1");
    tokio::spawn(connection);
    sender
}

async fn send(sender: &mut SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> Reply {
    sender.ready().await.expect("open");
    let response = sender.send_request(request).await.expect("a response");
    let (head, body) = response.into_parts();
    Reply {
        status: head.status,
        headers: head.headers,
        body: body.collect().await.expect("a body").to_bytes(),
    }
}

fn request(method: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = Request::post(format!("{TODOS}{method}"))
        .header("host", "todos.example")
        .header("content-type", "application/json");
    request.body(Full::new(body.into())).expect("a request")
}

async fn call(service: &Tidemark, method: &str, body: &Value) -> Reply {
    send(
        &mut connection(service).await,
        request(method, body.to_string()),
    )
    .await
}

/// Sends bytes and reads until the peer closes.
async fn raw(service: &Tidemark, bytes: &[u8]) -> String {
    let address = service.address.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(bytes).await.expect("sent");
    let mut text = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut text));
    // A peer that closes with our bytes unread resets the connection.
    let _ = read.await.expect("closed in time");
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn every_unary_call() {
    let (service, mut client) = embedded().await;
    let mut open = connection(&service).await;
    let mut ask = async |method: &str, body: Value| {
        send(&mut open, request(method, body.to_string()))
            .await
            .done()
    };
    let todo = json!({
        "title": "Buy \"milk\" \u{e9}\u{1f95b}\n",
        "priority": "PRIORITY_HIGH",
        "labels": ["home", "a b"],
        "dueTime": "2026-12-24T18:00:00.5+01:00",
    });
    let created = ask(
        "CreateTodo",
        json!({"parent": "lists/home", "todoId": "milk", "todo": todo}),
    )
    .await;
    assert!(
        created["token"]
            .as_str()
            .is_some_and(|token| !token.is_empty())
    );
    let milk = &created["todo"];
    assert_eq!(milk["title"], todo["title"]);
    assert_eq!(milk["priority"], "PRIORITY_HIGH");
    assert_eq!(milk["state"], "STATE_ACTIVE");
    assert_eq!(milk["labels"], todo["labels"]);
    assert_eq!(milk["dueTime"], "2026-12-24T17:00:00.500Z");
    // Fields with their default value are left out.
    assert!(
        milk.get("notes").is_none() && milk.get("completeTime").is_none(),
        "{milk}"
    );

    let name = json!("lists/home/todos/milk");
    // Names as in the proto file are taken too, and enums by number.
    let updated = ask(
        "UpdateTodo",
        json!({
            "todo": {"name": name, "state": 2, "notes": "x", "due_time": null},
            "updateMask": "state,dueTime",
            "allow_missing": false,
        }),
    )
    .await;
    assert_eq!(updated["todo"]["state"], "STATE_COMPLETED");
    assert!(updated["todo"].get("dueTime").is_none() && updated["todo"].get("notes").is_none());
    let got = ask(
        "GetTodo",
        json!({"name": name, "consistency": {"atLeastAsFresh": updated["token"]}}),
    )
    .await;
    assert_eq!(got["todo"], updated["todo"]);
    let bound = got["read"]["stalenessBound"].as_str().expect("a duration");
    assert!(bound.ends_with('s'), "{bound}");
    assert!(
        got["read"]["source"]
            .as_str()
            .is_some_and(|source| source.starts_with("SOURCE_"))
    );
    assert!(got["read"].get("stale").is_none());

    let batch = ask(
        "BatchGetTodos",
        json!({"names": [name, "lists/home/todos/none"], "consistency": {"fullyConsistent": true}}),
    )
    .await;
    assert_eq!(batch["todos"][0]["name"], name);
    assert_eq!(batch["missing"], json!(["lists/home/todos/none"]));
    let page = ask(
        "ListTodos",
        json!({"parent": "lists/home", "pageSize": "10"}),
    )
    .await;
    assert_eq!(page["todos"], json!([got["todo"]]));
    let deleted = ask(
        "DeleteTodo",
        json!({"name": name, "etag": got["todo"]["etag"]}),
    )
    .await;
    assert!(deleted["token"].is_string());
    let again = get(&mut client, "lists/home/todos/milk", strong()).await;
    assert_eq!(refused(again).1, "TODO_NOT_FOUND");
}

#[tokio::test]
async fn the_json_is_that_of_the_message() {
    let (service, mut client) = embedded().await;
    create(&mut client, "milk", "Buy milk").await;
    let todo = client
        .get_todo(pb::GetTodoRequest {
            name: "lists/home/todos/milk".into(),
            consistency: strong(),
        })
        .await
        .expect("there")
        .into_inner()
        .todo
        .expect("a todo");
    let body = json!({
        "name": "lists/home/todos/milk",
        "consistency": {"fullyConsistent": true},
    });
    let reply = call(&service, "GetTodo", &body).await.done();
    let time = |time: Option<prost_types::Timestamp>| time.expect("set").to_string();
    assert_eq!(
        reply["todo"],
        json!({
            "name": todo.name,
            "title": todo.title,
            "state": "STATE_ACTIVE",
            "priority": "PRIORITY_NORMAL",
            "createTime": time(todo.create_time),
            "updateTime": time(todo.update_time),
            "etag": todo.etag,
        })
    );
    // All fields of a message, an empty message, and null for each of them.
    let page = call(&service, "ListTodos", &json!({"parent": "lists/none"})).await;
    assert_eq!(page.done().get("todos"), None);
    let nulls = json!({"name": "lists/home/todos/milk", "consistency": null});
    call(&service, "GetTodo", &nulls).await.done();
}

#[tokio::test]
async fn each_method_of_the_contract_is_there() {
    let (service, _client) = embedded().await;
    let pool = prost_reflect::DescriptorPool::decode(pb::DESCRIPTORS).expect("descriptors");
    let service_descriptor = pool
        .get_service_by_name("todo.v1.TodoService")
        .expect("the service");
    let mut unary = 0;
    for method in service_descriptor.methods() {
        let (status, code, _, text, _) = match call(&service, method.name(), &json!({})).await {
            // An empty request is a valid one.
            reply if reply.status == StatusCode::OK => {
                unary += 1;
                continue;
            }
            reply => reply.failed(),
        };
        if method.is_server_streaming() {
            assert_eq!((status, code.as_str()), (501, "unimplemented"));
            assert!(text.contains("streaming"), "{text}");
        } else {
            unary += 1;
            assert_eq!((status, code.as_str()), (400, "invalid_argument"), "{text}");
        }
    }
    assert!(unary >= 6, "{unary} methods");
    // The health service, too.
    let request = Request::post("/grpc.health.v1.Health/Check")
        .header("host", "x")
        .header("content-type", "application/json");
    let request = request.body(Full::from(r#"{"service":"readiness"}"#));
    let request = request.expect("a request");
    let reply = send(&mut connection(&service).await, request).await;
    assert_eq!(reply.done()["status"], "SERVING");
}

/// Runs curl; its output, and the HTTP version and status on the last line.
fn curl(args: &[&str]) -> (String, String) {
    let mut command = Command::new("curl");
    command.args([
        "-sS",
        "--max-time",
        "120",
        "-w",
        "\n%{http_version} %{http_code}",
    ]);
    let output = command.args(args).output().expect("curl is installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "curl {args:?}: {errors}");
    let text = String::from_utf8(output.stdout).expect("text");
    let (body, last) = text.rsplit_once('\n').expect("a last line");
    (body.to_owned(), last.to_owned())
}

#[tokio::test]
async fn curl_plain_and_with_tls() {
    let (service, mut client) = embedded().await;
    create(&mut client, "milk", "Buy milk").await;
    let json_type = "content-type: application/json";
    let body = r#"{"name":"lists/home/todos/milk"}"#;
    let url = format!("{}{TODOS}GetTodo", service.address);
    for (flag, version) in [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")] {
        let (reply, last) = curl(&[flag, "-H", json_type, "-d", body, &url]);
        let reply: Value = serde_json::from_str(&reply).expect("JSON");
        assert_eq!(reply["todo"]["title"], "Buy milk");
        assert_eq!(last, format!("{version} 200"));
    }
    // What curl sends by itself is a form, which any page can send.
    let (_, last) = curl(&["-d", body, &url]);
    assert_eq!(last, "1.1 415");

    let ours = Authority::new("ours");
    let files = Files::new(&ours.sign());
    let authority = files.write("ca.pem", &ours.pem());
    let service = serve(&files, &[]);
    let mut client = ready_by_tls(&service, &trusting(&ours)).await;
    create(&mut client, "milk", "Buy milk").await;
    let address = service.address.replace("127.0.0.1", "localhost");
    let url = format!("{address}{TODOS}GetTodo");
    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let args = [
            "--cacert", &authority, flag, "-H", json_type, "-d", body, &url,
        ];
        let (reply, last) = curl(&args);
        assert!(reply.contains("Buy milk"), "{reply}");
        assert_eq!(last, format!("{version} 200"));
    }
}

fn probe(method: Method, path: &str) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(path);
    let request = request.header("host", "x").body(Full::default());
    request.expect("a request")
}

#[tokio::test]
async fn probes_say_what_health_says() {
    let (service, _client) = embedded().await;
    let mut open = connection(&service).await;
    for path in ["/healthz", "/readyz"] {
        let reply = send(&mut open, probe(Method::GET, path)).await;
        assert_eq!(reply.done(), json!({"status": "SERVING"}), "{path}");
        let reply = send(&mut open, probe(Method::HEAD, path)).await;
        assert_eq!(
            (reply.status.as_u16(), reply.body.len()),
            (200, 0),
            "{path}"
        );
        let reply = send(&mut open, probe(Method::POST, path)).await;
        assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert_eq!(reply.headers["allow"], "GET, HEAD");
    }
    // A replica that never reaches its database, on both ports.
    let health = format!("127.0.0.1:{}", free_port());
    let uri = format!("mongodb://127.0.0.1:{}/x?replicaSet=none", free_port());
    let args = ["--mongodb-uri", &uri, "--health-listen", &health];
    let service = Tidemark::start(&args);
    for address in [service.address.clone(), format!("http://{health}")] {
        let (reply, last) = curl(&[&format!("{address}/readyz")]);
        let reply: Value = serde_json::from_str(&reply).expect("JSON");
        assert_eq!(
            (reply["status"].as_str(), &*last),
            (Some("NOT_SERVING"), "1.1 503")
        );
        let reason = reply["reason"].as_str().expect("a reason");
        assert!(reason.contains("database"), "{reason}");
        let (_, last) = curl(&[&format!("{address}/healthz")]);
        assert_eq!(last, "1.1 200");
    }
}

#[tokio::test]
async fn readiness_ends_with_the_drain() {
    let health = format!("127.0.0.1:{}", free_port());
    let dir = folder("data").display().to_string();
    let args = ["--data-dir", &dir, "--health-listen", &health];
    let (service, _client) = ready(Tidemark::start(&args)).await;
    // A call whose body never ends keeps the drain going.
    let address = service.address.trim_start_matches("http://");
    let mut slow = TcpStream::connect(address).await.expect("connected");
    let head = "POST /todo.v1.TodoService/GetTodo HTTP/1.1\r\nHost: x\r\n\
        Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    slow.write_all(head.as_bytes()).await.expect("sent");
    request_begun(&service).await;
    service.terminate();
    let url = format!("http://{health}/readyz");
    let mut said = String::new();
    eventually("not ready any more", Duration::from_secs(60), async || {
        let output = Command::new("curl").args(["-s", &url]).output().ok()?;
        said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.contains("shutting down").then_some(())
    })
    .await;
    let mut reply = String::new();
    slow.read_to_string(&mut reply).await.expect("a reply");
    assert!(
        reply.contains("503") && reply.contains("DRAINING"),
        "{reply}"
    );
    assert_eq!(service.exit_code(Duration::from_secs(60)).await, Some(0));
}

#[tokio::test]
async fn calls_are_counted_as_those_of_grpc() {
    let (service, _client) = embedded().await;
    let body = json!({"name": "lists/home/todos/none"});
    call(&service, "GetTodo", &body).await;
    call(&service, "GetTodo", &json!({"nmae": 1})).await;
    for code in ["NOT_FOUND", "INVALID_ARGUMENT"] {
        let metric =
            format!("tidemark_rpc_duration_seconds_count{{call=\"GetTodo\",code=\"{code}\"}}");
        assert_eq!(service.metric(&metric), 1, "{code}");
    }
}
