//! The calls of the contract. Each parses its request, makes one call to the
//! cache and wraps the result.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use prost::Message as _;
use tokio::time::Instant;
use tonic::{Request, Response, Status, metadata::MetadataMap};

use super::{
    convert, convert_lists, deadline,
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
    auth,
    budget::{self, Count, Part, Reservation, WATCH_BYTES},
    cache::{
        Answer, Cache, MAX_RESPONSE_BYTES, Permission, ReadOptions, TodoPage, WatchEvent,
        WatchMessage, WatchRequest, WriteOptions, WritePermission, Written,
    },
    error::{Error, Unavailable},
    model::{ListName, OriginId, PageQuery, ReadInfo, RequestId, TodoName, Write},
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

    /// A write, once it is parsed and the caller may do it.
    async fn write(
        &self,
        caller: &Caller,
        parsed: Result<(Write, Option<RequestId>), Error>,
        list: Option<ListName>,
        permission: WritePermission,
    ) -> Result<Written, Error> {
        if let (Err(_), Some(list)) = (&parsed, &list) {
            caller.audit_resource(list);
        }
        let cache = self.cache()?;
        let parsed = caller.permit(cache, parsed, || list, Permission::Write(permission));
        let (write, request_id) = parsed.await?;
        caller.write(cache, write, request_id).await
    }
}

/// Decoded requests of fewer bytes are part of what every call is charged.
const SMALL_REQUEST_BYTES: usize = 4 << 10;

/// Who calls, and until when the caller waits.
struct Caller {
    deadline: Option<Instant>,
    call: Option<Arc<Call>>,
    /// `None`: authentication is off.
    identity: Option<auth::Caller>,
}

impl Caller {
    /// Whose share the call takes of what all callers use.
    fn share(&self) -> Option<Arc<budget::Caller>> {
        self.call.as_ref().map(|call| Arc::clone(call.caller()))
    }

    fn read_options(
        &self,
        consistency: Option<pb::Consistency>,
        origin: OriginId,
    ) -> Result<ReadOptions, Error> {
        let options = convert::read_options(consistency, self.deadline, origin)?;
        Ok(ReadOptions {
            caller: self.share(),
            identity: self.identity.clone(),
            ..options
        })
    }

    /// Writes, and tells the audit log of it.
    async fn write(
        &self,
        cache: &Arc<Cache>,
        write: Write,
        request_id: Option<RequestId>,
    ) -> Result<Written, Error> {
        self.audit_resource(write.name());
        let done = cache.write(write, self.write_options(request_id)).await?;
        if let Some(call) = &self.call {
            call.record().set_token(done.token.encode());
        }
        Ok(done)
    }

    fn audit_resource(&self, name: impl ToString) {
        if let Some(call) = &self.call {
            call.record().set_resource(&name.to_string());
        }
    }

    fn write_options(&self, request_id: Option<RequestId>) -> WriteOptions {
        let identity = self.identity.clone();
        WriteOptions {
            request_id: match &identity {
                Some(identity) => request_id.map(|id| id.of_caller(identity.principal())),
                None => request_id,
            },
            deadline: self.deadline,
            caller: self.share(),
            identity,
        }
    }

    /// What was parsed of a request. A caller without the right on its list learns that,
    /// and not what else is wrong with the request (AIP-211).
    async fn permit<T>(
        &self,
        cache: &Cache,
        parsed: Result<T, Error>,
        list: impl FnOnce() -> Option<ListName>,
        permission: Permission,
    ) -> Result<T, Error> {
        if let (Err(_), Some(_)) = (&parsed, &self.identity)
            && let Some(list) = list()
        {
            let options = self.read_options(None, cache.origin_id())?;
            Box::pin(cache.require_right(&list, permission, &options)).await?;
        }
        parsed
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
    let identity = extensions.remove::<auth::Caller>();
    Ok((
        Caller {
            deadline,
            call,
            identity,
        },
        message,
    ))
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
        let options = caller.read_options(request.consistency, cache.origin_id());
        let options = caller.permit(cache, options, || Some(name.list()), Permission::GetTodos);
        let answer = cache.get(&name, &options.await?).await?;
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
        let options = caller.read_options(request.consistency, cache.origin_id());
        let list = || names.first().map(TodoName::list);
        let options = caller.permit(cache, options, list, Permission::GetTodos);
        let answer = cache.get_many(&names, &options.await?).await?;
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
        let cache = self.cache()?;
        let parsed = convert::page_query(&request).and_then(|query| {
            let consistency = request.consistency.clone();
            Ok((query, caller.read_options(consistency, cache.origin_id())?))
        });
        let list = || ListName::parse(&request.parent);
        let parsed = caller.permit(cache, parsed, list, Permission::ListTodos);
        let ((query, carried), options) = parsed.await?;
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
        let list = ListName::parse(&request.parent);
        let write = convert::create(request, now_ms());
        let done = self.write(&caller, write, list, WritePermission::CreateTodo);
        let done = done.await?;
        Ok(Response::new(CreateTodoResponse {
            todo: reply::sendable_todo(done.body),
            token: done.token.encode(),
        }))
    }

    async fn update_todo(
        &self,
        request: Request<pb::UpdateTodoRequest>,
    ) -> Result<Response<UpdateTodoResponse>, Status> {
        let (caller, request) = split(request)?;
        let list = request.todo.as_ref();
        let list = list.and_then(|todo| Some(TodoName::parse(&todo.name)?.list()));
        let write = convert::update(request);
        let done = self.write(&caller, write, list, WritePermission::UpdateTodo);
        let done = done.await?;
        Ok(Response::new(UpdateTodoResponse {
            todo: reply::sendable_todo(done.body),
            token: done.token.encode(),
        }))
    }

    async fn delete_todo(
        &self,
        request: Request<pb::DeleteTodoRequest>,
    ) -> Result<Response<pb::DeleteTodoResponse>, Status> {
        let (caller, request) = split(request)?;
        let list = TodoName::parse(&request.name).map(|name| name.list());
        let write = convert::delete(request).map(|write| (write, None));
        let done = self.write(&caller, write, list, WritePermission::DeleteTodo);
        let done = done.await?;
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
        let watch = convert::watch(&request, cache.origin_id());
        let list = || ListName::parse(&request.parent);
        let watch = caller.permit(cache, watch, list, Permission::WatchTodos);
        let mut watch = watch.await?;
        let mut held = Vec::new();
        if let Some(call) = &caller.call {
            held = reserve_watch(call, &watch)?;
            watch.closing = call.closing().clone();
            watch.caller = caller.share();
        }
        let messages = cache
            .watch(watch, caller.deadline, caller.identity.as_ref())
            .await?;
        // The cache ends a stream without an error only when the process or the
        // connection closes, after a last progress message.
        let end = futures::stream::once(async { Err(Error::Draining) });
        let replies = messages.chain(end).scan(false, move |ended, message| {
            let _held = &held;
            let reply = message.map(watch_reply).map_err(Status::from);
            // Nothing follows the first error.
            let was_ended = std::mem::replace(ended, reply.is_err());
            std::future::ready((!was_ended).then_some(reply))
        });
        Ok(Response::new(Box::pin(replies)))
    }

    async fn get_todo_list(
        &self,
        request: Request<pb::GetTodoListRequest>,
    ) -> Result<Response<pb::GetTodoListResponse>, Status> {
        let (caller, request) = split(request)?;
        let name = convert::list_name("name", &request.name).map_err(Error::from)?;
        let cache = self.cache()?;
        let options = caller.read_options(request.consistency, cache.origin_id());
        let options = caller.permit(cache, options, || Some(name.clone()), Permission::GetList);
        let answer = cache.get_list(&name, &options.await?).await?;
        Ok(Response::new(pb::GetTodoListResponse {
            todo_list: Some(answer.body),
            read: read_info(&answer.read),
        }))
    }

    async fn list_todo_lists(
        &self,
        request: Request<pb::ListTodoListsRequest>,
    ) -> Result<Response<pb::ListTodoListsResponse>, Status> {
        let (caller, request) = split(request)?;
        let identity = caller.identity.as_ref();
        let (query, carried) = convert_lists::lists_query(&request, identity)?;
        let (query, cache) = (Arc::new(query), self.cache()?);
        let options = caller.read_options(request.consistency, cache.origin_id())?;
        let limit = MAX_RESPONSE_BYTES - LISTS_PAGE_BYTES;
        let Answer { body, read } = cache.list_lists(&query, carried, limit, &options).await?;
        let fresh_to = read.token.fresh_to;
        let next = body.next;
        let next = next.map(|next| page_token::encode_lists(&query, &next, fresh_to));
        Ok(reply::list_response(pb::ListTodoListsResponse {
            todo_lists: body.lists,
            next_page_token: next.unwrap_or_default(),
            read: read_info(&read),
            unreadable: body.unreadable.iter().map(ToString::to_string).collect(),
        }))
    }

    async fn create_todo_list(
        &self,
        request: Request<pb::CreateTodoListRequest>,
    ) -> Result<Response<pb::CreateTodoListResponse>, Status> {
        let (caller, request) = split(request)?;
        let identity = caller.identity.as_ref();
        let (write, request_id) = convert_lists::create_list(request, now_ms(), identity)?;
        let done = caller.write(self.cache()?, write, request_id).await?;
        Ok(Response::new(pb::CreateTodoListResponse {
            todo_list: decoded_list(done.body),
            token: done.token.encode(),
        }))
    }

    async fn update_todo_list(
        &self,
        request: Request<pb::UpdateTodoListRequest>,
    ) -> Result<Response<pb::UpdateTodoListResponse>, Status> {
        let (caller, request) = split(request)?;
        let list = request.todo_list.as_ref();
        let list = list.and_then(|list| ListName::parse(&list.name));
        let write = convert_lists::update_list(request).map(|write| (write, None));
        let done = self.write(&caller, write, list, WritePermission::UpdateList);
        let done = done.await?;
        Ok(Response::new(pb::UpdateTodoListResponse {
            todo_list: decoded_list(done.body),
            token: done.token.encode(),
        }))
    }

    async fn delete_todo_list(
        &self,
        request: Request<pb::DeleteTodoListRequest>,
    ) -> Result<Response<pb::DeleteTodoListResponse>, Status> {
        let (caller, request) = split(request)?;
        let list = ListName::parse(&request.name);
        let write = convert_lists::delete_list(request).map(|write| (write, None));
        let done = self.write(&caller, write, list, WritePermission::DeleteList);
        let done = done.await?;
        Ok(Response::new(pb::DeleteTodoListResponse {
            token: done.token.encode(),
        }))
    }
}

/// What a page of lists takes beside its lists: token, next token.
const LISTS_PAGE_BYTES: usize = 4 << 10;

/// The list of a write's reply; `None` after a repetition whose list is gone.
fn decoded_list(body: Bytes) -> Option<pb::TodoList> {
    let list = pb::TodoList::decode(body).ok();
    list.filter(|list| !list.name.is_empty())
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
        // The cache keeps these to itself: they say nothing new.
        WatchEvent::ListChanged => Event::Progress(pb::WatchProgress::default()),
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
