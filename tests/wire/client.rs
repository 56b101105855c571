//! A client for the tests.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use tidemark::{
    grpc::client::todo_service_client::TodoServiceClient,
    pb::{self, consistency::Requirement},
};
use tokio::time::sleep;
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt;

use crate::support::{Tidemark, eventually, folder, mongo, redis_cluster};

pub type Client = TodoServiceClient<Channel>;

/// A service with the embedded store, ready.
pub async fn embedded() -> (Tidemark, Client) {
    let dir = folder("data").display().to_string();
    ready(Tidemark::start(&["--data-dir", &dir])).await
}

/// A service with MongoDB and Redis Cluster, ready.
pub async fn real(database: &str) -> (Tidemark, Client) {
    real_with(database, &[]).await
}

/// The same with more arguments.
pub async fn real_with(database: &str, more: &[&str]) -> (Tidemark, Client) {
    let (uri, url) = (mongo().uri(database), redis_cluster().url());
    let mut args = vec!["--mongodb-uri", &uri, "--redis-url", &url];
    args.extend(more);
    ready(Tidemark::start(&args)).await
}

pub async fn connect(service: &Tidemark) -> Client {
    let channel = Channel::from_shared(service.address.clone()).expect("an address");
    TodoServiceClient::new(channel.connect().await.expect("connected"))
}

pub async fn health(service: &Tidemark, name: &str) -> Result<i32, Status> {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let channel = Channel::from_shared(service.address.clone()).expect("an address");
    let mut client = HealthClient::new(channel.connect().await.expect("connected"));
    let request = HealthCheckRequest {
        service: name.into(),
    };
    Ok(client.check(request).await?.into_inner().status)
}

/// SERVING in the health protocol.
pub const SERVING: i32 = 1;

pub async fn ready(service: Tidemark) -> (Tidemark, Client) {
    eventually("readiness", Duration::from_secs(180), async || {
        health(&service, "readiness")
            .await
            .is_ok_and(|status| status == SERVING)
            .then_some(())
    })
    .await;
    let client = connect(&service).await;
    (service, client)
}

pub fn titled(title: &str) -> pb::Todo {
    pb::Todo {
        title: title.into(),
        ..pb::Todo::default()
    }
}

pub async fn create(client: &mut Client, id: &str, title: &str) -> pb::CreateTodoResponse {
    create_in(client, "lists/home", id, titled(title))
        .await
        .expect("created")
}

pub async fn create_in(
    client: &mut Client,
    parent: &str,
    id: &str,
    todo: pb::Todo,
) -> Result<pb::CreateTodoResponse, Status> {
    let request = pb::CreateTodoRequest {
        parent: parent.into(),
        todo: Some(todo),
        todo_id: id.into(),
        request_id: String::new(),
    };
    client
        .create_todo(request)
        .await
        .map(tonic::Response::into_inner)
}

pub async fn retitle(client: &mut Client, name: &str, title: &str) -> pb::UpdateTodoResponse {
    let todo = pb::Todo {
        name: name.into(),
        ..titled(title)
    };
    let request = pb::UpdateTodoRequest {
        todo: Some(todo),
        ..Default::default()
    };
    client
        .update_todo(request)
        .await
        .expect("updated")
        .into_inner()
}

pub fn consistency(requirement: Requirement) -> Option<pb::Consistency> {
    Some(pb::Consistency {
        requirement: Some(requirement),
    })
}

pub fn strong() -> Option<pb::Consistency> {
    consistency(Requirement::FullyConsistent(true))
}

pub fn with_token(token: &str) -> Option<pb::Consistency> {
    consistency(Requirement::AtLeastAsFresh(token.into()))
}

/// Longest wait for a database that has no CPU.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pauses between reads that are repeated.
const PAUSE: Duration = Duration::from_millis(20);

/// Whether a read that was begun at this time is repeated: the database did not answer it
/// in time. A machine that gives it no CPU for two seconds makes that an outage, whose
/// error asks for another try. Tests of what is said of an outage make their calls once.
pub fn asks_for_another_try<T>(reply: &Result<T, Status>, began: Instant) -> bool {
    let Err(status) = reply else { return false };
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.as_str());
    let asks = status.code() == Code::Unavailable && reason == Some("ORIGIN_UNAVAILABLE");
    if asks {
        eprintln!("repeated: {status}");
    }
    asks && began.elapsed() < PATIENCE
}

/// Reads a todo, again while the database does not answer.
pub async fn get(
    client: &mut Client,
    name: &str,
    consistency: Option<pb::Consistency>,
) -> Result<pb::GetTodoResponse, Status> {
    let began = Instant::now();
    loop {
        let reply = get_once(client, name, consistency.clone()).await;
        if !asks_for_another_try(&reply, began) {
            return reply;
        }
        sleep(PAUSE).await;
    }
}

/// Reads a todo.
pub async fn get_once(
    client: &mut Client,
    name: &str,
    consistency: Option<pb::Consistency>,
) -> Result<pb::GetTodoResponse, Status> {
    let request = pb::GetTodoRequest {
        name: name.into(),
        consistency,
    };
    client
        .get_todo(request)
        .await
        .map(tonic::Response::into_inner)
}

/// The title that a read with this consistency shows.
pub async fn title(
    client: &mut Client,
    name: &str,
    consistency: Option<pb::Consistency>,
) -> String {
    let reply = get(client, name, consistency).await.expect("found");
    reply.todo.expect("a todo").title
}

pub async fn list(client: &mut Client, request: pb::ListTodosRequest) -> pb::ListTodosResponse {
    let began = Instant::now();
    loop {
        let reply = client.list_todos(request.clone()).await;
        if !asks_for_another_try(&reply, began) {
            return reply.expect("listed").into_inner();
        }
        sleep(PAUSE).await;
    }
}

pub fn page_of(parent: &str) -> pb::ListTodosRequest {
    pb::ListTodosRequest {
        parent: parent.into(),
        ..Default::default()
    }
}

pub fn names(reply: &pb::ListTodosResponse) -> Vec<String> {
    reply.todos.iter().map(|todo| todo.name.clone()).collect()
}

/// Code, reason and metadata of an error; every one of ours has an `ErrorInfo`.
pub fn refused<T: std::fmt::Debug>(
    result: Result<T, Status>,
) -> (Code, String, HashMap<String, String>) {
    let status = result.expect_err("refused");
    let details = status.get_error_details();
    let info = details
        .error_info()
        .unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "todo.v1");
    (status.code(), info.reason.clone(), info.metadata.clone())
}
