//! The calls: parse, one call of the cache, wrap.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::time::Instant;
use tonic::{Request, Response, Status, metadata::MetadataMap};

use super::{
    convert, deadline, page_token,
    reply::{self, BatchGetTodosResponse, GetTodoResponse, ListTodosResponse, WatchTodosResponse},
    server::todo_service_server::TodoService,
    status,
    told::Told,
};
use crate::{
    cache::{Cache, WatchEvent, WatchMessage},
    error::{Error, FieldProblem, ReadInfo},
    model::TodoName,
    pb,
};

/// When a caller should try again while this replica waits for its database.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The service. The cache is set once the origin is reached.
pub struct Todos {
    cache: Arc<OnceLock<Arc<Cache>>>,
    told: Arc<Told>,
}

impl Todos {
    /// A service that answers `UNAVAILABLE` until the cache is set.
    #[must_use]
    pub fn new(cache: Arc<OnceLock<Arc<Cache>>>) -> Self {
        Self {
            cache,
            told: Arc::default(),
        }
    }

    fn cache(&self) -> Result<&Arc<Cache>, Error> {
        self.cache.get().ok_or_else(|| Error::OriginUnavailable {
            problem: "this replica is starting and has not reached it yet".into(),
            retry_after: RETRY_AFTER,
        })
    }
}

fn parts<T>(request: Request<T>) -> (Option<Instant>, T) {
    let (metadata, _, message): (MetadataMap, _, T) = request.into_parts();
    (deadline::of(&metadata), message)
}

fn read_info(read: &ReadInfo) -> Option<pb::ReadInfo> {
    Some(pb::ReadInfo {
        token: read.token.encode(),
        source: status::source(read.source).into(),
        staleness_bound: Some(duration(read.staleness_bound)),
        stale: read.stale,
    })
}

/// A bound rounded up to the microsecond.
fn duration(d: Duration) -> prost_types::Duration {
    let micros = d.as_nanos().div_ceil(1000);
    prost_types::Duration {
        seconds: i64::try_from(micros / 1_000_000).unwrap_or(i64::MAX),
        nanos: i32::try_from(micros % 1_000_000).unwrap_or(0) * 1000,
    }
}

fn texts(names: &[TodoName]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// The todo in a reply to a write; none, if the write was repeated under its
/// request id and the todo was deleted since. It is encoded already, and
/// encoded again here: writes are few, and their replies plain messages.
fn written(todo: Bytes) -> Result<Option<pb::Todo>, Status> {
    if todo.is_empty() {
        return Ok(None);
    }
    prost::Message::decode(todo)
        .map(Some)
        .map_err(|e| Status::internal(format!("a stored todo is damaged: {e}")))
}

fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[tonic::async_trait]
impl TodoService for Todos {
    async fn get_todo(
        &self,
        request: Request<pb::GetTodoRequest>,
    ) -> Result<Response<GetTodoResponse>, Status> {
        let (deadline, request) = parts(request);
        let name = convert::todo_name("name", &request.name).map_err(Error::from)?;
        let cache = self.cache()?;
        let want = convert::want(request.consistency, deadline, cache.origin_id())?;
        let answer = cache.get(&name, &want).await?;
        Ok(Response::new(GetTodoResponse {
            read: read_info(&answer.read),
            todo: answer.body,
        }))
    }

    async fn batch_get_todos(
        &self,
        request: Request<pb::BatchGetTodosRequest>,
    ) -> Result<Response<BatchGetTodosResponse>, Status> {
        let (deadline, request) = parts(request);
        let names = convert::names(&request.names)?;
        let cache = self.cache()?;
        let want = convert::want(request.consistency, deadline, cache.origin_id())?;
        let answer = cache.get_many(&names, &want).await?;
        Ok(Response::new(BatchGetTodosResponse {
            todos: answer.body.todos,
            missing: texts(&answer.body.missing),
            read: read_info(&answer.read),
            unreadable: texts(&answer.body.unreadable),
        }))
    }

    async fn list_todos(
        &self,
        request: Request<pb::ListTodosRequest>,
    ) -> Result<Response<ListTodosResponse>, Status> {
        let (deadline, request) = parts(request);
        let (query, carried) = convert::page_query(&request)?;
        let cache = self.cache()?;
        let want = convert::want(request.consistency, deadline, cache.origin_id())?;
        let answer = cache.list(&query, carried, &want).await?;
        let fresh_to = answer.read.token.fresh_to;
        let next = answer
            .body
            .next
            .map(|next| page_token::encode(&query, &next, fresh_to));
        Ok(Response::new(ListTodosResponse {
            todos: answer.body.todos,
            next_page_token: next.unwrap_or_default(),
            read: read_info(&answer.read),
            unreadable: texts(&answer.body.unreadable),
        }))
    }

    async fn create_todo(
        &self,
        request: Request<pb::CreateTodoRequest>,
    ) -> Result<Response<pb::CreateTodoResponse>, Status> {
        let (deadline, request) = parts(request);
        let (write, request_id) = convert::create(request, now_ms())?;
        let done = self.cache()?.write(write, request_id, deadline).await?;
        Ok(Response::new(pb::CreateTodoResponse {
            todo: written(done.todo)?,
            token: done.token.encode(),
        }))
    }

    async fn update_todo(
        &self,
        request: Request<pb::UpdateTodoRequest>,
    ) -> Result<Response<pb::UpdateTodoResponse>, Status> {
        let (deadline, request) = parts(request);
        let (write, request_id) = convert::update(request)?;
        let done = self.cache()?.write(write, request_id, deadline).await?;
        Ok(Response::new(pb::UpdateTodoResponse {
            todo: written(done.todo)?,
            token: done.token.encode(),
        }))
    }

    async fn delete_todo(
        &self,
        request: Request<pb::DeleteTodoRequest>,
    ) -> Result<Response<pb::DeleteTodoResponse>, Status> {
        let (deadline, request) = parts(request);
        let write = convert::delete(request)?;
        let done = self.cache()?.write(write, None, deadline).await?;
        Ok(Response::new(pb::DeleteTodoResponse {
            token: done.token.encode(),
        }))
    }

    type WatchTodosStream = Pin<Box<dyn Stream<Item = Result<WatchTodosResponse, Status>> + Send>>;

    async fn watch_todos(
        &self,
        request: Request<pb::WatchTodosRequest>,
    ) -> Result<Response<Self::WatchTodosStream>, Status> {
        let (deadline, request) = parts(request);
        let cache = self.cache()?;
        let watch = convert::watch(&request, cache.origin_id())?;
        if let (Some(after), Some(pb::watch_todos_request::Start::After(text))) =
            (watch.after, &request.start)
            && cache.refuse_future(after.max(watch.seen), deadline).await?
        {
            let problem =
                "is ahead of the database; present only tokens that this service gave".into();
            return Err(Error::TokenInvalid {
                value: crate::error::shorten(text),
                problem,
            }
            .into());
        }
        let messages = cache.watch(watch)?;
        // The cache ends a stream only when it shuts down, after a last
        // progress message.
        let end = futures::stream::once(async { Err(Status::from(Error::Draining)) });
        let told = Arc::clone(&self.told);
        Ok(Response::new(Box::pin(
            messages
                .map(move |message| Ok(watch_message(message, &told)))
                .chain(end),
        )))
    }
}

fn watch_message(message: WatchMessage, told: &Told) -> WatchTodosResponse {
    let event = match message.event {
        WatchEvent::Change { change, todo } => {
            reply::WatchEvent::Change(told.encoded(&change, todo.unwrap_or_default()))
        }
        WatchEvent::Progress { staleness_bound } => {
            reply::WatchEvent::Progress(pb::WatchProgress {
                staleness_bound: staleness_bound.map(duration),
            })
        }
        WatchEvent::Reset { reason } => reply::WatchEvent::Reset(pb::WatchReset {
            reason: reason.to_string(),
        }),
    };
    WatchTodosResponse {
        token: message.token.encode(),
        event: Some(event),
    }
}

/// So that a wrong name is one error type for all calls.
impl From<FieldProblem> for Status {
    fn from(problem: FieldProblem) -> Self {
        Error::from(problem).into()
    }
}
