//! The calls of the contract. Each parses its request, makes one call to the
//! cache and wraps the result.

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
    convert, deadline,
    encoded::{EncodedChange, EncodedTodo},
    page_token, reply,
    request_memory::RequestMemory,
    server::{
        BatchGetTodosResponse, CreateTodoResponse, GetTodoResponse, ListTodosResponse,
        UpdateTodoResponse, WatchTodosResponse, todo_service_server::TodoService,
        watch_todos_response::Event,
    },
    status,
    transport::Call,
};
use crate::{
    budget::{self, Count, Part, Reservation, WATCH_BYTES},
    cache::{
        Answer, Cache, ReadOptions, TodoPage, WatchEvent, WatchMessage, WatchRequest, WriteOptions,
    },
    error::{Error, Unavailable},
    model::{OriginId, PageQuery, ReadInfo, RequestId, TodoName},
    pb,
};

/// The service. The cache is set once the origin is reached.
pub struct Todos {
    cache: Arc<OnceLock<Arc<Cache>>>,
}

impl Todos {
    /// A service that answers `UNAVAILABLE` until the cache is set.
    #[must_use]
    pub fn new(cache: Arc<OnceLock<Arc<Cache>>>) -> Self {
        Self { cache }
    }

    fn cache(&self) -> Result<&Arc<Cache>, Error> {
        self.cache
            .get()
            .ok_or_else(|| Unavailable::NotConnected.into())
    }
}

/// Decoded requests of fewer bytes are part of what every call is charged.
const SMALL_REQUEST_BYTES: usize = 4 << 10;

/// Who calls, and until when the caller waits.
struct Caller {
    deadline: Option<Instant>,
    call: Option<Arc<Call>>,
}

impl Caller {
    /// Whose share the call takes of what all callers use.
    fn identity(&self) -> Option<Arc<budget::Caller>> {
        self.call.as_ref().map(|call| Arc::clone(call.caller()))
    }

    fn read_options(
        &self,
        consistency: Option<pb::Consistency>,
        origin: OriginId,
    ) -> Result<ReadOptions, Error> {
        let options = convert::read_options(consistency, self.deadline, origin)?;
        Ok(ReadOptions {
            caller: self.identity(),
            ..options
        })
    }

    fn write_options(&self, request_id: Option<RequestId>) -> WriteOptions {
        WriteOptions {
            request_id,
            deadline: self.deadline,
            caller: self.identity(),
        }
    }
}

/// The caller and the message, which is charged to its call.
fn split<T: RequestMemory>(request: Request<T>) -> Result<(Caller, T), Error> {
    let (metadata, mut extensions, message): (MetadataMap, _, T) = request.into_parts();
    let call = extensions.remove::<Arc<Call>>();
    let bytes = message.memory();
    if bytes > SMALL_REQUEST_BYTES
        && let Some(call) = &call
    {
        call.charge_decoded(bytes as u64)?;
    }
    let deadline = deadline::of(&metadata);
    Ok((Caller { deadline, call }, message))
}

/// What a name in the filter of a watch takes beside its text.
const WATCHED_NAME_BYTES: usize = 64;

/// What an open watch takes of the shares of its caller.
fn reserve_watch(call: &Call, watch: &WatchRequest) -> Result<Vec<Reservation>, Error> {
    let mut held = vec![
        call.reserve(Count::OpenWatches)?,
        call.reserve_bytes(Part::Watches, WATCH_BYTES)?,
    ];
    if watch.list.is_none() {
        held.push(call.reserve(Count::AllListWatches)?);
    }
    if !watch.names.is_empty() {
        let names = watch.names.iter();
        let bytes: usize = names
            .map(|name| name.as_str().len() + WATCHED_NAME_BYTES)
            .sum();
        held.push(call.reserve_bytes(Part::WatchNames, bytes as u64)?);
    }
    Ok(held)
}

fn read_info(read: &ReadInfo) -> Option<pb::ReadInfo> {
    Some(pb::ReadInfo {
        token: read.token.encode(),
        source: status::source(read.source).into(),
        staleness_bound: Some(to_duration(read.staleness_bound)),
        stale: read.stale,
    })
}

/// A bound rounded up to the microsecond.
fn to_duration(d: Duration) -> prost_types::Duration {
    let micros = d.as_nanos().div_ceil(1000);
    prost_types::Duration {
        seconds: i64::try_from(micros / 1_000_000).unwrap_or(i64::MAX),
        nanos: i32::try_from(micros % 1_000_000).unwrap_or(0) * 1000,
    }
}

fn to_strings(names: &[TodoName]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn encoded(todos: Vec<Bytes>) -> Vec<EncodedTodo> {
    todos.into_iter().map(EncodedTodo::from).collect()
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
        let (caller, request) = split(request)?;
        let name = convert::todo_name("name", &request.name).map_err(Error::from)?;
        let cache = self.cache()?;
        let options = caller.read_options(request.consistency, cache.origin_id())?;
        let answer = cache.get(&name, &options).await?;
        let todo = EncodedTodo::from(answer.body);
        reply::check_todo(&todo)?;
        Ok(Response::new(GetTodoResponse {
            read: read_info(&answer.read),
            todo: Some(todo),
        }))
    }

    async fn batch_get_todos(
        &self,
        request: Request<pb::BatchGetTodosRequest>,
    ) -> Result<Response<BatchGetTodosResponse>, Status> {
        let (caller, request) = split(request)?;
        let names = convert::names(&request.names)?;
        let cache = self.cache()?;
        let options = caller.read_options(request.consistency, cache.origin_id())?;
        let answer = cache.get_many(&names, &options).await?;
        let mut batch = BatchGetTodosResponse {
            todos: encoded(answer.body.todos),
            missing: to_strings(&answer.body.missing),
            read: read_info(&answer.read),
            unreadable: to_strings(&answer.body.unreadable),
        };
        reply::remove_oversized(&mut batch.todos, &mut batch.unreadable);
        reply::check_batch(&batch)?;
        Ok(reply::list_response(batch))
    }

    async fn list_todos(
        &self,
        request: Request<pb::ListTodosRequest>,
    ) -> Result<Response<ListTodosResponse>, Status> {
        let (caller, request) = split(request)?;
        let (query, carried) = convert::page_query(&request)?;
        let cache = self.cache()?;
        let options = caller.read_options(request.consistency, cache.origin_id())?;
        let mut query = Arc::new(query);
        loop {
            let page = page_reply(&query, cache.list(&query, carried, &options).await?);
            match reply::fitting_names(&page) {
                None => return Ok(reply::list_response(page)),
                // The position after the last todo shown is known to the origin
                // only: read a shorter page, which ends there.
                Some(fitting) => {
                    let size = fitting.min(query.size - 1).max(1);
                    Arc::make_mut(&mut query).size = size;
                }
            }
        }
    }

    async fn create_todo(
        &self,
        request: Request<pb::CreateTodoRequest>,
    ) -> Result<Response<CreateTodoResponse>, Status> {
        let (caller, request) = split(request)?;
        let (write, request_id) = convert::create(request, now_ms())?;
        let options = caller.write_options(request_id);
        let done = self.cache()?.write(write, options).await?;
        Ok(Response::new(CreateTodoResponse {
            todo: reply::sendable_todo(done.todo),
            token: done.token.encode(),
        }))
    }

    async fn update_todo(
        &self,
        request: Request<pb::UpdateTodoRequest>,
    ) -> Result<Response<UpdateTodoResponse>, Status> {
        let (caller, request) = split(request)?;
        let (write, request_id) = convert::update(request)?;
        let options = caller.write_options(request_id);
        let done = self.cache()?.write(write, options).await?;
        Ok(Response::new(UpdateTodoResponse {
            todo: reply::sendable_todo(done.todo),
            token: done.token.encode(),
        }))
    }

    async fn delete_todo(
        &self,
        request: Request<pb::DeleteTodoRequest>,
    ) -> Result<Response<pb::DeleteTodoResponse>, Status> {
        let (caller, request) = split(request)?;
        let write = convert::delete(request)?;
        let options = caller.write_options(None);
        let done = self.cache()?.write(write, options).await?;
        Ok(Response::new(pb::DeleteTodoResponse {
            token: done.token.encode(),
        }))
    }

    type WatchTodosStream = Pin<Box<dyn Stream<Item = Result<WatchTodosResponse, Status>> + Send>>;

    async fn watch_todos(
        &self,
        request: Request<pb::WatchTodosRequest>,
    ) -> Result<Response<Self::WatchTodosStream>, Status> {
        let (caller, request) = split(request)?;
        let cache = self.cache()?;
        let mut watch = convert::watch(&request, cache.origin_id())?;
        let mut held = Vec::new();
        if let Some(call) = &caller.call {
            held = reserve_watch(call, &watch)?;
            watch.closing = call.closing().clone();
            watch.caller = caller.identity();
        }
        let messages = cache.watch(watch, caller.deadline).await?;
        // The cache ends a stream only when the process or the connection closes,
        // after a last progress message.
        let end = futures::stream::once(async { Err(Status::from(Error::Draining)) });
        let replies = messages
            .map(move |message| {
                let _held = &held;
                Ok(watch_reply(message))
            })
            .chain(end);
        Ok(Response::new(Box::pin(replies)))
    }
}

fn page_reply(query: &PageQuery, answer: Answer<TodoPage>) -> ListTodosResponse {
    let Answer { body, read } = answer;
    let next = body
        .next
        .map(|next| page_token::encode(query, &next, read.token.fresh_to));
    let mut page = ListTodosResponse {
        todos: encoded(body.todos),
        next_page_token: next.unwrap_or_default(),
        read: read_info(&read),
        unreadable: to_strings(&body.unreadable),
    };
    reply::remove_oversized(&mut page.todos, &mut page.unreadable);
    page
}

fn watch_reply(message: WatchMessage) -> WatchTodosResponse {
    let event = match message.event {
        WatchEvent::Change { change, todo } => {
            let todo = todo.and_then(reply::sendable_todo);
            Event::Change(EncodedChange::new(change, todo))
        }
        WatchEvent::Progress { staleness_bound } => Event::Progress(pb::WatchProgress {
            staleness_bound: staleness_bound.map(to_duration),
        }),
        WatchEvent::Reset { reason } => Event::Reset(pb::WatchReset {
            reason: reason.to_string(),
        }),
    };
    WatchTodosResponse {
        token: message.token.encode(),
        event: Some(event),
    }
}
