//! Calls of the service as the tests make them: each with a deadline, each
//! answer with what it says of itself.

use std::{
    error::Error as _,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tidemark::{
    grpc::client::todo_service_client::TodoServiceClient,
    model::Token,
    pb::{self, consistency::Requirement},
};
use tokio::time::timeout;
use tonic::{
    Code, Request, Response, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};
use tonic_types::StatusExt;

use crate::history::{Fate, Shown};

pub type Client = TodoServiceClient<InterceptedService<Channel, Key>>;

/// The key of a caller.
#[derive(Clone, Copy)]
pub struct Key(pub &'static str);

/// Of an administrator, who does all that concerns no rights.
pub const ADMIN: Key = Key("tmk_administrator-of-the-fault-tests");
/// Of the guest, whose right is granted and withdrawn.
pub const GUEST: Key = Key("tmk_guest-of-the-fault-tests");

impl Interceptor for Key {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let value = format!("Bearer {}", self.0).parse().expect("ASCII");
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }
}

/// Time for a read: longer than any that works takes on a busy machine.
pub const READ_DEADLINE: Duration = Duration::from_secs(4);
/// Time for a write: longer than an election.
pub const WRITE_DEADLINE: Duration = Duration::from_secs(15);
/// The client's own limit comes a little after the deadline.
const SLACK: Duration = Duration::from_millis(500);

/// A client that connects when it has to, and again after a restart.
pub fn client(address: &str, key: Key) -> Client {
    let channel = Channel::from_shared(address.to_owned()).expect("an address");
    let channel = channel
        .connect_timeout(Duration::from_secs(1))
        .connect_lazy();
    TodoServiceClient::with_interceptor(channel, key)
}

/// Why a call was not answered.
#[derive(Clone, Debug)]
#[expect(
    dead_code,
    reason = "the text is for people, who read it in a violation"
)]
pub struct Failed {
    pub code: Code,
    text: String,
    /// The reason in its `ErrorInfo`; empty: not by the service.
    pub reason: String,
    pub token: Option<String>,
    /// The client did not send it.
    pub never_sent: bool,
}

/// Calls that were not sent because their connection had reached its age.
pub static NEVER_SENT: AtomicU64 = AtomicU64::new(0);

/// Whether the call met the end of its connection's life. hyper then fails what it has
/// not sent yet, and does not repeat it as other clients do (hyperium/hyper#2500).
fn never_sent(status: &Status) -> bool {
    let mut error = status.source();
    while let Some(cause) = error {
        if let Some(h2) = cause.downcast_ref::<h2::Error>() {
            return h2.is_go_away() && h2.is_remote() && h2.reason() == Some(h2::Reason::NO_ERROR);
        }
        let hyper = cause.downcast_ref::<hyper::Error>();
        if hyper.is_some_and(hyper::Error::is_canceled) {
            return true;
        }
        error = cause.source();
    }
    false
}

impl Failed {
    fn of(status: &Status) -> Self {
        let never_sent = never_sent(status);
        NEVER_SENT.fetch_add(u64::from(never_sent), Ordering::Relaxed);
        let details = status.get_error_details();
        let info = details.error_info();
        Self {
            code: status.code(),
            reason: info.map(|info| info.reason.clone()).unwrap_or_default(),
            text: status.message().to_owned(),
            token: info.and_then(|info| info.metadata.get("token").cloned()),
            never_sent,
        }
    }

    /// For the table.
    pub fn kind(&self) -> String {
        if self.reason.is_empty() {
            format!("client: {:?}", self.code)
        } else {
            self.reason.clone()
        }
    }

    /// What became of a write that was answered so.
    pub fn fate(&self) -> Fate {
        let refused = matches!(
            self.reason.as_str(),
            "ORIGIN_UNAVAILABLE"
                | "DRAINING"
                | "OVERLOADED"
                | "ETAG_MISMATCH"
                | "TODO_NOT_FOUND"
                | "TODO_ALREADY_EXISTS"
                | "FIELD_INVALID"
        );
        if refused {
            Fate::Refused
        } else {
            Fate::Unknown
        }
    }
}

/// What an answer says of itself.
#[derive(Clone, Debug)]
pub struct Facts {
    pub token: String,
    pub bound: Duration,
    pub stale: bool,
}

impl Facts {
    pub fn fresh_to(&self) -> u64 {
        Token::decode(&self.token).expect("a token").fresh_to.0
    }

    fn of(read: Option<pb::ReadInfo>) -> Self {
        let read = read.expect("a ReadInfo");
        let bound = read.staleness_bound.expect("a bound");
        let bound = Duration::new(bound.seconds.unsigned_abs(), bound.nanos.unsigned_abs());
        Self {
            token: read.token,
            bound,
            stale: read.stale,
        }
    }
}

/// The time of a write's token.
pub fn time_of(token: &str) -> u64 {
    Token::decode(token).expect("a token").seen.0
}

pub fn consistency(requirement: Requirement) -> Option<pb::Consistency> {
    Some(pb::Consistency {
        requirement: Some(requirement),
    })
}

async fn call<Q, A>(
    limit: Duration,
    message: Q,
    call: impl AsyncFnOnce(Request<Q>) -> Result<Response<A>, Status>,
) -> Result<A, Status> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    match timeout(limit + SLACK, call(request)).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("nothing came back in time")),
    }
}

/// A todo as a reader sees it.
pub struct Got {
    pub shown: Shown,
    pub etag: String,
    pub facts: Facts,
}

pub async fn get(
    client: &mut Client,
    name: &str,
    how: Option<pb::Consistency>,
) -> Result<Got, Failed> {
    let request = pb::GetTodoRequest {
        name: name.into(),
        consistency: how,
    };
    match call(READ_DEADLINE, request, async |request| {
        client.get_todo(request).await
    })
    .await
    {
        Ok(reply) => {
            let todo = reply.todo.expect("a todo");
            Ok(Got {
                shown: Shown::title(&todo.title),
                etag: todo.etag,
                facts: Facts::of(reply.read),
            })
        }
        Err(status) => absent(&status).ok_or_else(|| Failed::of(&status)),
    }
}

/// NOT_FOUND is an answer.
fn absent(status: &Status) -> Option<Got> {
    let details = status.get_error_details();
    let info = details
        .error_info()
        .filter(|info| info.reason == "TODO_NOT_FOUND")?;
    let bound = info.metadata.get("staleness_bound_ms")?.parse().ok()?;
    let facts = Facts {
        token: info.metadata.get("token")?.clone(),
        bound: Duration::from_millis(bound),
        stale: info
            .metadata
            .get("stale")
            .is_some_and(|stale| stale == "true"),
    };
    Some(Got {
        shown: Shown::Absent,
        etag: String::new(),
        facts,
    })
}

/// Names with what is shown of each.
pub type Rows = Vec<(String, Shown)>;

pub async fn batch(
    client: &mut Client,
    names: Vec<String>,
    how: Option<pb::Consistency>,
) -> Result<(Rows, Facts), Failed> {
    let request = pb::BatchGetTodosRequest {
        names,
        consistency: how,
    };
    let reply = call(READ_DEADLINE, request, async |request| {
        client.batch_get_todos(request).await
    })
    .await;
    let reply = reply.map_err(|status| Failed::of(&status))?;
    let mut rows = rows(reply.todos);
    rows.extend(reply.missing.into_iter().map(|name| (name, Shown::Absent)));
    Ok((rows, Facts::of(reply.read)))
}

fn rows(todos: Vec<pb::Todo>) -> Rows {
    todos
        .into_iter()
        .map(|todo| (todo.name, Shown::title(&todo.title)))
        .collect()
}

pub struct Page {
    pub rows: Rows,
    pub next: String,
    pub facts: Facts,
}

pub async fn page(
    client: &mut Client,
    parent: &str,
    page_token: String,
    page_size: i32,
    how: Option<pb::Consistency>,
) -> Result<Page, Failed> {
    let request = pb::ListTodosRequest {
        parent: parent.into(),
        page_token,
        page_size,
        consistency: how,
        ..Default::default()
    };
    let reply = call(READ_DEADLINE, request, async |request| {
        client.list_todos(request).await
    })
    .await;
    let reply = reply.map_err(|status| Failed::of(&status))?;
    Ok(Page {
        rows: rows(reply.todos),
        next: reply.next_page_token,
        facts: Facts::of(reply.read),
    })
}

pub async fn create(
    client: &mut Client,
    name: &str,
    title: String,
    request_id: String,
) -> Result<String, Failed> {
    let (parent, todo_id) = name.split_once("/todos/").expect("a name");
    let request = pb::CreateTodoRequest {
        parent: parent.into(),
        todo: Some(pb::Todo {
            title,
            ..Default::default()
        }),
        todo_id: todo_id.into(),
        request_id,
    };
    let reply = call(WRITE_DEADLINE, request, async |request| {
        client.create_todo(request).await
    })
    .await;
    reply
        .map(|reply| reply.token)
        .map_err(|status| Failed::of(&status))
}

pub async fn update(
    client: &mut Client,
    name: &str,
    title: String,
    etag: String,
    request_id: String,
) -> Result<String, Failed> {
    let todo = pb::Todo {
        name: name.into(),
        title,
        etag,
        ..Default::default()
    };
    let request = pb::UpdateTodoRequest {
        todo: Some(todo),
        request_id,
        ..Default::default()
    };
    let reply = call(WRITE_DEADLINE, request, async |request| {
        client.update_todo(request).await
    })
    .await;
    reply
        .map(|reply| reply.token)
        .map_err(|status| Failed::of(&status))
}

pub async fn delete(client: &mut Client, name: &str, etag: String) -> Result<String, Failed> {
    let request = pb::DeleteTodoRequest {
        name: name.into(),
        etag,
        ..Default::default()
    };
    let reply = call(WRITE_DEADLINE, request, async |request| {
        client.delete_todo(request).await
    })
    .await;
    reply
        .map(|reply| reply.token)
        .map_err(|status| Failed::of(&status))
}

pub async fn create_list(client: &mut Client, name: &str) -> Result<(), Failed> {
    let request = pb::CreateTodoListRequest {
        todo_list: Some(pb::TodoList::default()),
        todo_list_id: name.trim_start_matches("lists/").into(),
        ..Default::default()
    };
    let reply = call(WRITE_DEADLINE, request, async |request| {
        client.create_todo_list(request).await
    })
    .await;
    reply.map(drop).map_err(|status| Failed::of(&status))
}

/// The etag of a list as it is.
pub async fn list_etag(client: &mut Client, name: &str) -> Result<String, Failed> {
    let request = pb::GetTodoListRequest {
        name: name.into(),
        consistency: consistency(Requirement::FullyConsistent(true)),
    };
    let reply = call(READ_DEADLINE, request, async |request| {
        client.get_todo_list(request).await
    })
    .await;
    let reply = reply.map_err(|status| Failed::of(&status))?;
    Ok(reply.todo_list.expect("a list").etag)
}

/// Replaces the members of a list, if it has the etag in the message.
pub async fn share(client: &mut Client, list: pb::TodoList) -> Result<(), Failed> {
    let paths = vec!["members".to_owned()];
    let request = pb::UpdateTodoListRequest {
        todo_list: Some(list),
        update_mask: Some(prost_types::FieldMask { paths }),
    };
    let reply = call(WRITE_DEADLINE, request, async |request| {
        client.update_todo_list(request).await
    })
    .await;
    reply.map(drop).map_err(|status| Failed::of(&status))
}

/// A watch of a list with its todos, after a token or from now on.
pub fn watch_request(list: &str, after: Option<String>) -> pb::WatchTodosRequest {
    pb::WatchTodosRequest {
        parent: list.into(),
        include_todo: true,
        start: after.map(pb::watch_todos_request::Start::After),
        progress_interval: Some(prost_types::Duration {
            seconds: 1,
            nanos: 0,
        }),
        ..Default::default()
    }
}
