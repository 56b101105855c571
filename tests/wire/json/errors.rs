//! Errors in JSON: the same codes, texts and details as by gRPC, in Connect's
//! form.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use prost::Message as _;
use serde_json::{Value, json};
use tidemark::pb;
use tonic::Status;

use super::*;

/// The detail messages of an error, from their base64.
fn details(body: &Value) -> Vec<(String, Vec<u8>)> {
    let details = body["details"].as_array().expect("details");
    let detail = |detail: &Value| {
        let value = detail["value"].as_str().expect("text");
        let name = detail["type"].as_str().expect("text");
        (
            name.to_owned(),
            STANDARD_NO_PAD.decode(value).expect("base64"),
        )
    };
    details.iter().map(detail).collect()
}

/// The error in JSON is the same as the one by gRPC.
fn assert_same(reply: &Reply, status: &Status) {
    let body = reply.json();
    assert_eq!(body["message"], status.message());
    let details = details(&body);
    let of_grpc = tonic_types::pb::Status::decode(status.details()).expect("details");
    assert_eq!(details.len(), of_grpc.details.len());
    for ((name, value), detail) in details.iter().zip(&of_grpc.details) {
        assert_eq!(detail.type_url, format!("type.googleapis.com/{name}"));
        // Metadata is a map: its order may differ.
        if name == "google.rpc.ErrorInfo" {
            let decode = |value: &[u8]| tonic_types::pb::ErrorInfo::decode(value).expect("info");
            assert_eq!(decode(value), decode(&detail.value));
        } else {
            assert_eq!(*value, detail.value);
        }
    }
}

#[tokio::test]
async fn errors_are_those_of_grpc() {
    let (service, mut client) = embedded().await;
    create(&mut client, "milk", "Buy milk").await;
    let get = |name: &str| pb::GetTodoRequest {
        name: name.into(),
        consistency: None,
    };
    for (name, http_status, code) in [
        ("lists/home/todos/none", 404, "not_found"),
        ("nothing", 400, "invalid_argument"),
        ("lists/\u{1}\u{e9}", 400, "invalid_argument"),
    ] {
        let status = client.get_todo(get(name)).await.expect_err("refused");
        let reply = call(&service, "GetTodo", &json!({"name": name})).await;
        let (found, found_code, ..) = reply.failed();
        assert_eq!((found, found_code.as_str()), (http_status, code));
        if code == "invalid_argument" {
            assert_same(&reply, &status);
        }
    }
    let list = |edit: fn(&mut pb::ListTodosRequest)| {
        let mut request = page_of("lists/home");
        edit(&mut request);
        request
    };
    for (by_grpc, in_json, reason) in [
        (
            list(|it| it.filter = "title = \"x\" OR 1".into()),
            json!({"parent": "lists/home", "filter": "title = \"x\" OR 1"}),
            "FILTER_INVALID",
        ),
        (
            list(|it| it.page_token = "x".into()),
            json!({"parent": "lists/home", "pageToken": "x"}),
            "PAGE_TOKEN_INVALID",
        ),
        (
            list(|it| it.consistency = with_token("x")),
            json!({"parent": "lists/home", "consistency": {"atLeastAsFresh": "x"}}),
            "TOKEN_INVALID",
        ),
        (
            list(|it| it.page_size = -1),
            json!({"parent": "lists/home", "pageSize": -1}),
            "FIELD_INVALID",
        ),
    ] {
        let status = client.list_todos(by_grpc).await.expect_err("refused");
        let reply = call(&service, "ListTodos", &in_json).await;
        assert_eq!(reply.failed().2, reason);
        assert_eq!(reply.failed().0, 400);
        assert_same(&reply, &status);
    }
}

#[tokio::test]
async fn errors_of_writes_and_caches() {
    let (service, mut client) = embedded().await;
    create(&mut client, "milk", "Buy milk").await;
    let twice = json!({"parent": "lists/home", "todoId": "milk", "todo": {"title": "x"}});
    let (status, code, reason, text, metadata) =
        call(&service, "CreateTodo", &twice).await.failed();
    assert_eq!(
        (status, &*code, &*reason),
        (409, "already_exists", "TODO_ALREADY_EXISTS")
    );
    assert!(text.contains("lists/home/todos/milk"), "{text}");
    assert!(metadata["token"].is_string());
    let stale = json!({"todo": {"name": "lists/home/todos/milk", "title": "y", "etag": "x"}});
    let (status, code, reason, ..) = call(&service, "UpdateTodo", &stale).await.failed();
    assert_eq!(
        (status, &*code, &*reason),
        (409, "aborted", "ETAG_MISMATCH")
    );
    let cached = json!({"name": "lists/home/todos/none", "consistency": {"cachedOnly": true}});
    let (status, code, reason, ..) = call(&service, "GetTodo", &cached).await.failed();
    assert_eq!(
        (status, &*code, &*reason),
        (503, "unavailable", "CACHE_ONLY_MISS")
    );
}

#[tokio::test]
async fn the_timeout_is_the_deadline() {
    let (service, mut client) = embedded().await;
    create(&mut client, "milk", "Buy milk").await;
    let with = |timeout: &str| {
        let body = r#"{"name":"lists/home/todos/milk","consistency":{"fullyConsistent":true}}"#;
        let mut request = request("GetTodo", body);
        let timeout = timeout.parse().expect("a header");
        request.headers_mut().insert("connect-timeout-ms", timeout);
        request
    };
    let mut open = connection(&service).await;
    // A read that need not wait is answered whatever its deadline.
    let reply = eventually("a read that waits", Duration::from_secs(20), async || {
        let reply = send(&mut open, with("0")).await;
        (reply.status != StatusCode::OK).then_some(reply)
    })
    .await;
    let (status, code, reason, text, metadata) = reply.failed();
    assert_eq!(
        (status, &*code, &*reason),
        (504, "deadline_exceeded", "DEADLINE_EXCEEDED")
    );
    assert!(text.contains("deadline"), "{text}");
    assert!(metadata["tier"].is_string());
    // The caller's own grpc-timeout is not a header of this protocol.
    let mut ignored = with("60000");
    let zero = "0m".parse().expect("a header");
    ignored.headers_mut().insert("grpc-timeout", zero);
    send(&mut open, ignored).await.done();
    send(&mut open, with("9999999999")).await.done();
    for wrong in ["-1", "1s", "10000000000", ""] {
        let (status, _, reason, text, _) = send(&mut open, with(wrong)).await.failed();
        assert_eq!((status, &*reason), (400, "FIELD_INVALID"), "{wrong}");
        assert!(text.contains("connect-timeout-ms"), "{text}");
    }
}

#[tokio::test]
async fn versions_and_encodings() {
    let (service, mut client) = embedded().await;
    create(&mut client, "milk", "Buy milk").await;
    let mut open = connection(&service).await;
    let with = |name: &'static str, value: &'static str| {
        let mut request = request("GetTodo", r#"{"name":"lists/home/todos/milk"}"#);
        let value = value.parse().expect("a header");
        request.headers_mut().insert(name, value);
        request
    };
    for (name, value) in [
        ("connect-protocol-version", "1"),
        ("content-encoding", "identity"),
        ("accept-encoding", "gzip, br"),
        ("authorization", "Bearer x"),
        ("content-type", "application/json; charset=utf-8"),
    ] {
        send(&mut open, with(name, value)).await.done();
    }
    let version = send(&mut open, with("connect-protocol-version", "2")).await;
    let (status, _, reason, text, _) = version.failed();
    assert_eq!((status, &*reason), (400, "FIELD_INVALID"));
    assert!(text.contains("connect-protocol-version \"2\""), "{text}");
    let encoded = send(&mut open, with("content-encoding", "gzip")).await;
    let (status, code, _, text, _) = encoded.failed();
    assert_eq!((status, &*code), (501, "unimplemented"));
    assert!(text.contains("identity"), "{text}");
}

#[tokio::test]
async fn json_that_is_wrong_is_refused_with_its_place() {
    let (service, _client) = embedded().await;
    let mut open = connection(&service).await;
    let name = r#""name":"lists/home/todos/milk""#;
    let todo = |fields: &str| format!(r#"{{"todo":{{{name},{fields}}}}}"#);
    let cases: Vec<(&str, Vec<u8>, &str, &str)> = vec![
        ("GetTodo", b"".to_vec(), "request", "not JSON"),
        ("GetTodo", b"{".to_vec(), "request", "not JSON"),
        ("GetTodo", b"nmae".to_vec(), "request", "not JSON"),
        ("GetTodo", b"{'name': 1}".to_vec(), "request", "not JSON"),
        (
            "GetTodo",
            b"{\"name\": \"x\",}".to_vec(),
            "request",
            "not JSON",
        ),
        (
            "GetTodo",
            b"{\"name\": \"x\"} {}".to_vec(),
            "request",
            "not JSON",
        ),
        (
            "GetTodo",
            b"{\"name\": \"\xff\xfe\"}".to_vec(),
            "request",
            "not JSON",
        ),
        (
            "GetTodo",
            b"{\"name\": \"\\ud800\"}".to_vec(),
            "request",
            "not JSON",
        ),
        ("GetTodo", b"\xef\xbb\xbf{}".to_vec(), "request", "not JSON"),
        (
            "GetTodo",
            b"{\"name\": NaN}".to_vec(),
            "request",
            "not JSON",
        ),
        ("GetTodo", b"[]".to_vec(), "request", "not valid"),
        ("GetTodo", b"null".to_vec(), "request", "not valid"),
        ("GetTodo", b"\"x\"".to_vec(), "request", "not valid"),
        ("GetTodo", b"{\"name\": 5}".to_vec(), "name", "not valid"),
        (
            "GetTodo",
            b"{\"nmae\": \"x\"}".to_vec(),
            "nmae",
            "expected one of name, consistency",
        ),
        (
            "GetTodo",
            b"{\"name\": \"x\", \"name\": \"y\"}".to_vec(),
            "name",
            "twice",
        ),
        (
            "UpdateTodo",
            todo(r#""dueTime":null,"due_time":null"#).into(),
            "todo.due_time",
            "twice",
        ),
        (
            "UpdateTodo",
            todo(r#""dueTme":1"#).into(),
            "todo.dueTme",
            "not a field of todo.v1.Todo",
        ),
        (
            "UpdateTodo",
            todo(r#""dueTime":"tomorrow""#).into(),
            "todo.dueTime",
            "use a text such as \"2026-12-01T18:00:00Z\"",
        ),
        (
            "UpdateTodo",
            todo(r#""dueTime":1e9"#).into(),
            "todo.dueTime",
            "not valid",
        ),
        (
            "UpdateTodo",
            todo(r#""state":"DONE""#).into(),
            "todo.state",
            "'DONE'; use STATE_ACTIVE or STATE_COMPLETED",
        ),
        (
            "UpdateTodo",
            todo(r#""priority":true"#).into(),
            "todo.priority",
            "use PRIORITY_LOW, PRIORITY_NORMAL, PRIORITY_HIGH or PRIORITY_URGENT",
        ),
        (
            "CreateTodoList",
            br#"{"todoListId":"x","todoList":{"members":{"bob":"BOSS"}}}"#.to_vec(),
            "todoList.members.bob",
            "use ROLE_READER, ROLE_WRITER or ROLE_OWNER",
        ),
        (
            "UpdateTodo",
            todo(r#""labels":["a",1]"#).into(),
            "todo.labels[1]",
            "not valid",
        ),
        (
            "UpdateTodo",
            todo(r#""labels":"a""#).into(),
            "todo.labels",
            "not valid",
        ),
        (
            "UpdateTodo",
            br#"{"updateMask":"due_time"}"#.to_vec(),
            "updateMask",
            "not valid",
        ),
        (
            "UpdateTodo",
            br#"{"updateMask":{"paths":["title"]}}"#.to_vec(),
            "updateMask",
            "use a text of fields such as \"title,dueTime\"",
        ),
        (
            "ListTodos",
            br#"{"pageSize":99999999999}"#.to_vec(),
            "pageSize",
            "not valid",
        ),
        (
            "ListTodos",
            br#"{"pageSize":1.5}"#.to_vec(),
            "pageSize",
            "not valid",
        ),
        (
            "ListTodos",
            br#"{"pageSize":true}"#.to_vec(),
            "pageSize",
            "not valid",
        ),
        (
            "GetTodo",
            br#"{"consistency":{"cachedOnly":true,"fullyConsistent":true}}"#.to_vec(),
            "consistency",
            "multiple fields",
        ),
        (
            "GetTodo",
            br#"{"consistency":{"maxStaleness":"5"}}"#.to_vec(),
            "consistency.maxStaleness",
            "use a text of seconds such as \"5s\"",
        ),
    ];
    for (method, body, field, words) in cases {
        let shown = String::from_utf8_lossy(&body).into_owned();
        let reply = send(&mut open, request(method, body)).await;
        let (status, code, reason, text, metadata) = reply.failed();
        assert_eq!(
            (status, &*code, &*reason),
            (400, "invalid_argument", "FIELD_INVALID"),
            "{shown}: {text}"
        );
        assert_eq!(metadata["field"], field, "{shown}: {text}");
        assert!(
            text.starts_with(field) && text.contains(words),
            "{shown}: {text}"
        );
    }
}

#[tokio::test]
async fn what_is_not_a_call_in_json_is_refused() {
    let dir = folder("data").display().to_string();
    let (service, mut client) = ready(Tidemark::start(&["--data-dir", &dir, "--ui", "off"])).await;
    create(&mut client, "milk", "Buy milk").await;
    let mut open = connection(&service).await;
    let body = r#"{"name":"lists/home/todos/milk"}"#;
    for wrong in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/proto",
        "application/connect+json",
        "application/grpc",
        "application/grpc-web+proto",
        "application/json; charset=latin1",
        "application/jsonp",
        "multipart/form-data; boundary=x",
    ] {
        let mut request = request("GetTodo", body);
        let value = wrong.parse().expect("a header");
        request.headers_mut().insert("content-type", value);
        let reply = send(&mut open, request).await;
        assert_eq!(reply.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{wrong}");
        assert_eq!(
            reply.headers["accept-post"],
            "application/grpc, application/json"
        );
    }
    let mut both = request("GetTodo", body);
    let value = "text/plain".parse().expect("a header");
    both.headers_mut().append("content-type", value);
    let reply = send(&mut open, both).await;
    assert_eq!(reply.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    for method in [
        Method::GET,
        Method::HEAD,
        Method::PUT,
        Method::DELETE,
        Method::OPTIONS,
    ] {
        let mut request = request("GetTodo", body);
        *request.method_mut() = method.clone();
        let reply = send(&mut open, request).await;
        assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert_eq!(reply.headers["allow"], "POST");
    }
    for path in ["None", "GetTodo/", ""] {
        let (status, code, _, text, _) = send(&mut open, request(path, body)).await.failed();
        assert_eq!((status, &*code), (501, "unimplemented"), "{path}");
        assert!(text.contains("no method"), "{text}");
    }
}

#[tokio::test]
async fn pages_call_only_from_the_origins_allowed() {
    let dir = folder("closed").display().to_string();
    let (closed, _client) = ready(Tidemark::start(&["--data-dir", &dir, "--ui", "off"])).await;
    let dir = folder("data").display().to_string();
    let args = [
        "--data-dir",
        &dir,
        "--cors-allow-origins",
        "https://todos.example",
    ];
    let (service, mut client) = ready(Tidemark::start(&args)).await;
    create(&mut client, "milk", "Buy milk").await;
    let from = |origin: &'static str| {
        let mut request = request("GetTodo", r#"{"name":"lists/home/todos/milk"}"#);
        let value = origin.parse().expect("a header");
        request.headers_mut().insert("origin", value);
        request
    };
    let preflight = |origin: &'static str| {
        let mut request = from(origin);
        *request.method_mut() = Method::OPTIONS;
        let headers = request.headers_mut();
        for (name, value) in [
            ("access-control-request-method", "POST"),
            (
                "access-control-request-headers",
                "content-type,connect-protocol-version",
            ),
        ] {
            headers.insert(name, value.parse().expect("a header"));
        }
        request
    };
    let mut open = connection(&service).await;
    let reply = send(&mut open, preflight("https://todos.example")).await;
    assert_eq!(
        reply.headers["access-control-allow-origin"],
        "https://todos.example"
    );
    let allowed = reply.headers["access-control-allow-headers"]
        .to_str()
        .expect("text");
    assert!(allowed.contains("content-type"), "{allowed}");
    let reply = send(&mut open, from("https://todos.example")).await;
    assert_eq!(reply.done()["todo"]["title"], "Buy milk");
    assert_eq!(
        reply.headers["access-control-allow-origin"],
        "https://todos.example"
    );
    for stranger in ["https://evil.example", "null", "http://todos.example"] {
        let reply = send(&mut open, preflight(stranger)).await;
        assert!(
            !reply.headers.contains_key("access-control-allow-origin"),
            "{stranger}"
        );
        let (status, code, _, text, _) = send(&mut open, from(stranger)).await.failed();
        assert_eq!((status, &*code), (403, "permission_denied"), "{stranger}");
        assert!(text.contains("cors-allow-origins"), "{text}");
    }
    // No page may call when nobody allowed it.
    let mut open = connection(&closed).await;
    let reply = send(&mut open, preflight("https://todos.example")).await;
    assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED);
    let reply = send(&mut open, from("https://todos.example")).await;
    assert_eq!(reply.failed().0, 403);
}
