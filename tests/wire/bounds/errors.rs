//! Every error fits into what clients accept as headers, whatever was sent.

use tidemark::pb;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::raw::{Reply, TODOS, call, frame, post, send};
use crate::{client::*, pod, support::Tidemark};

/// 8 KiB: the C-core clients (Python, Ruby, C++) drop more at random.
fn assert_fits(reply: &Reply, what: &str) {
    let bytes = reply.header_bytes();
    assert!(bytes <= 8192, "{what}: {bytes} bytes of headers");
    let status = reply.status.as_ref().expect("a status");
    assert!(
        status.message().len() <= 2048,
        "{what}: {}",
        status.message()
    );
    assert!(!status.message().is_empty(), "{what}");
}

/// Texts that grow on the way: percent-encoded, escaped, of many bytes.
fn hostile() -> Vec<String> {
    [
        "x",
        "é",
        "\u{10FFFF}",
        "\u{1F600}",
        "\"",
        "\\",
        "\n",
        "\u{7f}",
        " ",
        "%",
        "\u{202e}",
    ]
    .map(|part| part.repeat(20_000 / part.len()))
    .to_vec()
}

async fn invalid(service: &Tidemark, method: &str, message: &impl prost::Message, what: &str) {
    let reply = call(service, method, message).await;
    assert_eq!(reply.code(), Code::InvalidArgument, "{method} {what}");
    assert_fits(&reply, &format!("{method} {what}"));
}

#[tokio::test]
async fn errors_of_every_call_fit() {
    let (service, _) = pod::embedded().await;
    for text in hostile() {
        let what = &text[..text.ceil_char_boundary(1)];
        let todo = || pb::Todo {
            name: text.clone(),
            title: String::new(),
            notes: text.clone(),
            state: -1,
            priority: i32::MAX,
            labels: vec![text.clone(); 3],
            due_time: Some(prost_types::Timestamp {
                seconds: i64::MIN,
                nanos: -1,
            }),
            etag: text.clone(),
            ..Default::default()
        };
        let read = pb::GetTodoRequest {
            name: text.clone(),
            consistency: None,
        };
        invalid(&service, "GetTodo", &read, what).await;
        let read = pb::GetTodoRequest {
            name: "lists/a/todos/b".into(),
            consistency: with_token(&text),
        };
        invalid(&service, "GetTodo", &read, what).await;
        let batch = pb::BatchGetTodosRequest {
            names: vec![text.clone(); 10],
            consistency: None,
        };
        invalid(&service, "BatchGetTodos", &batch, what).await;
        for field in 0..4 {
            let at = |n: usize| {
                if n == field {
                    text.clone()
                } else {
                    String::new()
                }
            };
            let list = pb::ListTodosRequest {
                parent: if field == 0 {
                    text.clone()
                } else {
                    "lists/a".into()
                },
                filter: at(1),
                order_by: at(2),
                page_token: at(3),
                ..Default::default()
            };
            // Spaces alone are a valid filter, but not one of this length.
            invalid(&service, "ListTodos", &list, &format!("{what} {field}")).await;
        }
        let create = pb::CreateTodoRequest {
            parent: text.clone(),
            todo: Some(todo()),
            todo_id: text.clone(),
            request_id: text.clone(),
        };
        invalid(&service, "CreateTodo", &create, what).await;
        let update = pb::UpdateTodoRequest {
            todo: Some(pb::Todo {
                name: "lists/a/todos/b".into(),
                ..todo()
            }),
            update_mask: Some(prost_types::FieldMask {
                paths: vec![text.clone(); 8],
            }),
            allow_missing: true,
            request_id: String::new(),
        };
        invalid(&service, "UpdateTodo", &update, what).await;
        let delete = pb::DeleteTodoRequest {
            name: text.clone(),
            etag: text.clone(),
            allow_missing: true,
        };
        invalid(&service, "DeleteTodo", &delete, what).await;
        let watch = pb::WatchTodosRequest {
            parent: text.clone(),
            names: vec![text.clone(); 5],
            ..Default::default()
        };
        invalid(&service, "WatchTodos", &watch, what).await;
    }
}

#[tokio::test]
async fn a_thousand_wrong_names_are_counted() {
    let (service, _) = pod::embedded().await;
    for name in ["x".repeat(200), "\u{1F600}".repeat(50), "é \"%".repeat(40)] {
        for _ in 0..10 {
            let batch = pb::BatchGetTodosRequest {
                names: vec![name.clone(); 1000],
                consistency: None,
            };
            let reply = call(&service, "BatchGetTodos", &batch).await;
            assert_eq!(reply.code(), Code::InvalidArgument);
            assert_fits(&reply, &name);
            let status = reply.status.expect("a status");
            assert!(
                status.message().ends_with("and 997 more"),
                "{}",
                status.message()
            );
            let details = status.get_error_details();
            let violations = &details
                .bad_request()
                .expect("a BadRequest")
                .field_violations;
            assert!((1..=10).contains(&violations.len()));
            assert_eq!(violations[0].field, "names[0]");
        }
    }
}

#[tokio::test]
async fn errors_of_health_and_of_the_framework_fit() {
    let (service, _) = pod::embedded().await;
    for part in ["x", "é", "\u{10FFFF}", "\"", " "] {
        let unknown = tonic_health::pb::HealthCheckRequest {
            service: part.repeat(4000 / part.len()),
        };
        let path = "/grpc.health.v1.Health/Check";
        let reply = send(&service, post(path), frame(&unknown)).await;
        assert_eq!(reply.code(), Code::NotFound);
        assert_fits(&reply, part);
    }
    let read = pb::GetTodoRequest {
        name: "lists/a/todos/b".into(),
        consistency: None,
    };
    let request = post(&format!("{TODOS}GetTodo")).header("grpc-encoding", "%<>".repeat(4000));
    let reply = send(&service, request, frame(&read)).await;
    assert_eq!(reply.code(), Code::Unimplemented);
    assert_fits(&reply, "an unknown compression");
}
