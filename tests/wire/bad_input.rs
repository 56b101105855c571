//! Bad input: a clear error each, and no panic.

use mongodb::bson::{Bson, doc};
use tidemark::pb::{self, consistency::Requirement};
use tonic::{Code, Request};

use crate::{client::*, support::mongo};

fn is_field_invalid<T: std::fmt::Debug>(result: Result<T, tonic::Status>, field: &str) {
    let (code, reason, metadata) = refused(result);
    assert_eq!(
        (code, reason.as_str()),
        (Code::InvalidArgument, "FIELD_INVALID")
    );
    assert_eq!(metadata["field"], field);
}

#[tokio::test]
async fn each_wrong_field_is_named() {
    let (_service, mut client) = embedded().await;
    for name in [
        "",
        "milk",
        "lists/a",
        "lists//todos/b",
        "lists/a/todos/b/c",
        "lists/a/todos/-b",
        "lists/ä/todos/b",
    ] {
        is_field_invalid(get(&mut client, name, None).await, "name");
    }
    let long = "x".repeat(64);
    is_field_invalid(
        get(&mut client, &format!("lists/a/todos/{long}"), None).await,
        "name",
    );
    let names = vec!["lists/a/todos/b".to_owned(); 1001];
    is_field_invalid(
        client
            .batch_get_todos(pb::BatchGetTodosRequest {
                names,
                consistency: None,
            })
            .await,
        "names",
    );
    let request = pb::ListTodosRequest {
        page_size: -1,
        ..page_of("lists/a")
    };
    is_field_invalid(client.list_todos(request).await, "page_size");
    is_field_invalid(client.list_todos(page_of("lists/-")).await, "parent");
    is_field_invalid(
        create_in(&mut client, "lists/a", "b", titled("")).await,
        "todo.title",
    );
    is_field_invalid(
        create_in(&mut client, "lists/a", "b/c", titled("x")).await,
        "todo_id",
    );
    let negative = consistency(Requirement::MaxStaleness(prost_types::Duration {
        seconds: -1,
        nanos: 0,
    }));
    is_field_invalid(
        get(&mut client, "lists/a/todos/b", negative).await,
        "consistency.max_staleness",
    );
    let request = pb::WatchTodosRequest {
        parent: "lists/a".into(),
        progress_interval: Some(prost_types::Duration {
            seconds: 0,
            nanos: 1,
        }),
        ..Default::default()
    };
    is_field_invalid(
        client.watch_todos(request).await.map(drop),
        "progress_interval",
    );

    let request = pb::ListTodosRequest {
        filter: "state = DONE".into(),
        ..page_of("lists/a")
    };
    let status = client.list_todos(request).await.expect_err("refused");
    assert!(status.message().contains("\"state = DONE\""), "{status}");
    let (code, reason, metadata) = refused::<()>(Err(status));
    assert_eq!(
        (code, reason.as_str(), metadata["position"].as_str()),
        (Code::InvalidArgument, "FILTER_INVALID", "8")
    );
    let request = pb::ListTodosRequest {
        page_token: "abc".into(),
        ..page_of("lists/a")
    };
    let (_, reason, metadata) = refused(client.list_todos(request).await);
    assert_eq!(
        (&*reason, &*metadata["value"]),
        ("PAGE_TOKEN_INVALID", "abc")
    );
}

/// Each value that the text of an error shows is in its metadata, too.
#[tokio::test]
async fn every_value_of_a_text_is_in_the_metadata() {
    let (_service, mut client) = embedded().await;
    let names = ["bad", "worse", "worst", "more"].map(String::from);
    let request = pb::BatchGetTodosRequest {
        names: names.to_vec(),
        consistency: None,
    };
    let status = client.batch_get_todos(request).await.expect_err("refused");
    let shown = names.iter().filter(|name| {
        let quoted = format!("{name:?}");
        status.message().contains(&quoted)
    });
    let shown: Vec<_> = shown.collect();
    assert!(shown.len() > 1, "{status}");
    let (_, _, metadata) = refused::<()>(Err(status));
    for name in shown {
        assert!(metadata.values().any(|value| value == name), "{name}");
    }
}

/// A program that forgot to make an id sends the nil UUID; no two of its requests are one.
#[tokio::test]
async fn the_nil_uuid_is_no_request_id() {
    let (_service, mut client) = embedded().await;
    let request = pb::CreateTodoRequest {
        parent: "lists/home".into(),
        todo: Some(titled("x")),
        todo_id: "a".into(),
        request_id: "00000000-0000-0000-0000-000000000000".into(),
    };
    is_field_invalid(client.create_todo(request).await, "request_id");
    assert_eq!(
        refused(get(&mut client, "lists/home/todos/a", None).await).1,
        "TODO_NOT_FOUND"
    );
}

#[tokio::test]
async fn tokens_that_are_damaged_foreign_or_from_the_future_are_refused() {
    let (_service, mut client) = embedded().await;
    let (_other_service, mut other) = embedded().await;
    let token = create(&mut client, "milk", "x").await.token;
    let name = "lists/home/todos/milk";
    for at in 0..token.len() {
        assert_eq!(
            refused(get(&mut client, name, with_token(&token[..at])).await).1,
            "TOKEN_INVALID"
        );
    }
    assert_eq!(
        refused(get(&mut other, name, with_token(&token)).await).1,
        "TOKEN_FOREIGN"
    );
    let mut future = tidemark::model::Token::decode(&token).expect("a token");
    future.seen.0 += 1 << 40;
    future.fresh_to = future.seen;
    let (code, reason, _) = refused(get(&mut client, name, with_token(&future.encode())).await);
    assert_eq!(
        (code, reason.as_str()),
        (Code::InvalidArgument, "TOKEN_INVALID")
    );
    let watch = pb::WatchTodosRequest {
        parent: "lists/home".into(),
        start: Some(pb::watch_todos_request::Start::After(future.encode())),
        ..Default::default()
    };
    assert_eq!(
        refused(client.watch_todos(watch).await.map(drop)).1,
        "TOKEN_INVALID"
    );
    get(&mut client, name, with_token(&format!("{token} {token}")))
        .await
        .expect("several are fine");
}

#[tokio::test]
async fn too_large_and_too_late() {
    let (service, mut client) = embedded().await;
    let large = titled(&"x".repeat(5 << 20));
    let (code, reason, _) = refused(create_in(&mut client, "lists/a", "b", large).await);
    assert_eq!(
        (code, reason.as_str()),
        (Code::ResourceExhausted, "MESSAGE_TOO_LARGE")
    );

    // A body that is no message.
    let body = [0, 0, 0, 0, 3, 0xff, 0xff, 0xff];
    let channel =
        tonic::transport::Channel::from_shared(service.address.clone()).expect("an address");
    let mut grpc = tonic::client::Grpc::new(channel.connect().await.expect("connected"));
    grpc.ready().await.expect("ready");
    let path = http::uri::PathAndQuery::from_static("/todo.v1.TodoService/GetTodo");
    let sent: Result<tonic::Response<Vec<u8>>, _> = grpc
        .unary(Request::new(body[5..].to_vec()), path, RawCodec)
        .await;
    let (code, reason, _) = refused(sent);
    assert_eq!(
        (code, reason.as_str()),
        (Code::InvalidArgument, "FIELD_INVALID")
    );
    create(&mut client, "still", "works").await;
}

/// Sends and takes bytes as they are.
#[derive(Default)]
struct RawCodec;

impl tonic::codec::Codec for RawCodec {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl tonic::codec::Encoder for RawCodec {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn encode(
        &mut self,
        item: Vec<u8>,
        to: &mut tonic::codec::EncodeBuf<'_>,
    ) -> Result<(), tonic::Status> {
        bytes::BufMut::put_slice(to, &item);
        Ok(())
    }
}

impl tonic::codec::Decoder for RawCodec {
    type Item = Vec<u8>;
    type Error = tonic::Status;

    fn decode(
        &mut self,
        from: &mut tonic::codec::DecodeBuf<'_>,
    ) -> Result<Option<Vec<u8>>, tonic::Status> {
        let mut raw = vec![0; bytes::Buf::remaining(from)];
        bytes::Buf::copy_to_slice(from, &mut raw);
        Ok(Some(raw))
    }
}

#[tokio::test]
async fn documents_of_the_wrong_type_are_named_and_never_a_crash() {
    let (_service, mut client) = real("wrong_types").await;
    let todos = mongo().todos("wrong_types").await;
    create_in(&mut client, "lists/bad", "good", titled("good"))
        .await
        .expect("created");
    let wrong: [(&str, Bson); 10] = [
        ("title", 5.into()),
        ("notes", true.into()),
        ("state", "DONE".into()),
        ("priority", 2.into()),
        ("labels", "x".into()),
        ("due_time", "soon".into()),
        (
            "create_time",
            Bson::Array(vec![mongodb::bson::DateTime::now().into()]),
        ),
        ("update_time", 5.into()),
        ("complete_time", "never".into()),
        ("parent", "lists/other".into()),
    ];
    for (field, value) in &wrong {
        let mut document =
            doc! { "_id": format!("lists/bad/todos/{field}"), "parent": "lists/bad", "title": "x" };
        document.insert(*field, value.clone());
        todos.insert_one(document).await.expect("planted");
    }
    todos
        .insert_one(doc! { "_id": "nonsense", "parent": "lists/bad" })
        .await
        .expect("planted");
    todos
        .insert_one(doc! { "_id": 7, "parent": "lists/bad" })
        .await
        .expect("planted");
    for (field, _) in &wrong {
        let read = get(&mut client, &format!("lists/bad/todos/{field}"), strong()).await;
        let (code, reason, metadata) = refused(read);
        assert_eq!(
            (code, reason.as_str()),
            (Code::DataLoss, "TODO_UNREADABLE"),
            "{field}"
        );
        assert_eq!(metadata["field"], *field);
    }
    for order in ["", "create_time", "due_time", "priority desc"] {
        let (mut found, mut unreadable, mut page_token) = (Vec::new(), Vec::new(), String::new());
        loop {
            let request = pb::ListTodosRequest {
                order_by: order.into(),
                page_size: 2,
                page_token,
                consistency: strong(),
                ..page_of("lists/bad")
            };
            let reply = list(&mut client, request).await;
            found.extend(names(&reply));
            unreadable.extend(reply.unreadable);
            page_token = reply.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        unreadable.sort();
        let mut wanted: Vec<_> = wrong
            .iter()
            .filter(|(field, _)| *field != "parent")
            .map(|(field, _)| format!("lists/bad/todos/{field}"))
            .collect();
        wanted.sort();
        assert_eq!(
            (found, unreadable),
            (vec!["lists/bad/todos/good".to_owned()], wanted),
            "{order}"
        );
    }
    let batch = pb::BatchGetTodosRequest {
        names: vec!["lists/bad/todos/title".into()],
        consistency: None,
    };
    assert_eq!(
        client
            .batch_get_todos(batch)
            .await
            .expect("read")
            .into_inner()
            .unreadable
            .len(),
        1
    );
    let todo = pb::Todo {
        name: "lists/bad/todos/notes".into(),
        ..titled("x")
    };
    let request = pb::UpdateTodoRequest {
        todo: Some(todo),
        ..Default::default()
    };
    assert_eq!(
        refused(client.update_todo(request).await).1,
        "TODO_UNREADABLE"
    );
}
