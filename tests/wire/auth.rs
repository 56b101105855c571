//! Who calls: API keys, tokens and certificates, right and wrong in each way,
//! against the real service.

mod audit;
mod client;
mod floods;
mod issuer;
mod keys;
mod mtls;
mod off;
mod tokens;
mod web;

use std::{fs, path::PathBuf, time::Duration};

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use tidemark::pb;
use tokio_stream::StreamExt as _;
use tonic::{Code, Request, Status, metadata::MetadataMap};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};
use tonic_types::StatusExt as _;

use crate::{
    client::*,
    support::{Tidemark, eventually, folder},
};

/// Files of a service, replaced whole, as a careful person does it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        Self(folder("auth"))
    }

    fn write(&self, name: &str, text: &str) -> String {
        let (new, place) = (self.0.join("new"), self.0.join(name));
        fs::write(&new, text).expect("written");
        fs::rename(&new, &place).expect("moved");
        place.display().to_string()
    }
}

/// A service with the embedded store and these arguments, ready: health is open
/// to everyone.
async fn serving(args: &[&str]) -> (Tidemark, Client) {
    let dir = folder("data").display().to_string();
    let all = [&["--data-dir", &dir], args].concat();
    ready(Tidemark::start(&all)).await
}

/// The same with one key, which is also the administrator's: the service, a client and
/// the key.
async fn serving_a_key(files: &Folder, more: &[&str]) -> (Tidemark, Client, String) {
    let (key, line) = keys::new_key("user:ada");
    let keys = files.write("keys", &line);
    let auth = ["--auth", "keys", "--keys-file", &keys];
    let all = [&auth[..], &["--admin", "user:ada"], more].concat();
    let (service, client) = serving(&all).await;
    (service, client, key)
}

const ISSUER: &str = "https://issuer.example";

/// Arguments for callers with API keys or tokens, by these two files.
const fn keys_and_tokens<'a>(keys: &'a str, jwks: &'a str) -> [&'a str; 10] {
    [
        "--auth",
        "keys,jwt",
        "--keys-file",
        keys,
        "--jwt-jwks-file",
        jwks,
        "--jwt-issuer",
        ISSUER,
        "--jwt-audience",
        "tidemark",
    ]
}

/// A request with these values of the header `authorization`.
fn carrying<T>(message: T, values: &[&[u8]]) -> Request<T> {
    let mut headers = HeaderMap::new();
    for value in values {
        let value = HeaderValue::from_bytes(value).expect("a header");
        headers.append(AUTHORIZATION, value);
    }
    let mut request = Request::new(message);
    *request.metadata_mut() = MetadataMap::from_headers(headers);
    request
}

fn a_page() -> pb::ListTodosRequest {
    page_of("lists/home")
}

/// Why the caller of a reply is not known, or that it is.
fn known<T>(reply: Result<T, Status>) -> Result<(), String> {
    let Err(status) = reply else { return Ok(()) };
    let details = status.get_error_details();
    let Some(info) = details.error_info() else {
        // Not of the service: the connection failed.
        return Err(status.to_string());
    };
    if status.code() != Code::Unauthenticated {
        return Ok(());
    }
    assert_eq!(
        (info.reason.as_str(), info.domain.as_str()),
        ("CALLER_UNKNOWN", "todo.v1")
    );
    assert_eq!(info.metadata.len(), 1, "{info:?}");
    Err(info.metadata["why"].clone())
}

/// What the service says of these values of the header.
async fn judged(client: &mut Client, values: &[&[u8]]) -> Result<(), String> {
    known(client.list_todos(carrying(a_page(), values)).await)
}

async fn judged_bearer(client: &mut Client, credential: &str) -> Result<(), String> {
    judged(client, &[format!("Bearer {credential}").as_bytes()]).await
}

fn why(why: &str) -> Result<(), String> {
    Err(why.to_owned())
}

/// Asks for the services by reflection.
async fn reflect(service: &Tidemark, credential: Option<&str>) -> Result<(), Status> {
    let channel = tonic::transport::Channel::from_shared(service.address.clone());
    let channel = channel.expect("an address").connect().await;
    let mut client = ServerReflectionClient::new(channel.expect("connected"));
    let question = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let header = credential.map(|credential| format!("Bearer {credential}"));
    let values: Vec<_> = header.iter().map(String::as_bytes).collect();
    let questions = tokio_stream::iter([question]);
    let replies = client.server_reflection_info(carrying(questions, &values));
    let reply = replies.await?.into_inner().next().await;
    reply.expect("a reply").map(drop)
}

/// A watch with this credential, after its first message. Its caller owns the list.
async fn watch(client: &mut Client, credential: &str) -> tonic::Streaming<pb::WatchTodosResponse> {
    let list = pb::CreateTodoListRequest {
        todo_list_id: "home".into(),
        ..Default::default()
    };
    let bearer = format!("Bearer {credential}");
    let made = client.create_todo_list(carrying(list, &[bearer.as_bytes()]));
    if let Err(status) = made.await {
        assert_eq!(status.code(), Code::AlreadyExists, "{status}");
    }
    let request = pb::WatchTodosRequest {
        parent: "lists/home".into(),
        ..Default::default()
    };
    let header = format!("Bearer {credential}");
    let stream = client
        .watch_todos(carrying(request, &[header.as_bytes()]))
        .await;
    let mut stream = stream.expect("a stream").into_inner();
    stream.next().await.expect("a message").expect("no error");
    stream
}

/// How a stream ends.
async fn end_of(mut stream: tonic::Streaming<pb::WatchTodosResponse>) -> Result<(), String> {
    let ended = async {
        loop {
            match stream.next().await {
                Some(Ok(_)) => {}
                Some(Err(status)) => return known::<()>(Err(status)),
                None => return Ok(()),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ended)
        .await
        .expect("the stream ends")
}

/// Waits for another count of reloads of this kind.
async fn reloaded(service: &Tidemark, kind: &str, before: u64) {
    let name = format!("tidemark_auth_reloads_total{{kind=\"{kind}\"}}");
    eventually("a reload", Duration::from_secs(60), async || {
        (service.metric(&name) > before).then_some(())
    })
    .await;
}
