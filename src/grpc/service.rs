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
use tonic::{Request, Response, Status};

use super::{
    caller::{Caller, split},
    convert, convert_lists,
    encoded::{EncodedChange, EncodedTodo, SharedList},
    page_token, reply,
    server::{
        BatchGetTodosResponse, CreateTodoListResponse, CreateTodoResponse, GetTodoListResponse,
        GetTodoResponse, ListTodoListsResponse, ListTodosResponse, UpdateTodoListResponse,
        UpdateTodoResponse, WatchTodosResponse, todo_service_server::TodoService,
        watch_todos_response::Event,
    },
    status,
};
use crate::{
    budget::Reservation,
    cache::{
        Answer, Cache, MAX_RESPONSE_BYTES, Permission, TodoPage, Watch, WatchEvent, WatchMessage,
        Written,
    },
    error::{Error, Unavailable},
    model::{ListName, PageQuery, ReadInfo, RequestId, TodoName, Write},
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
        permission: Permission,
    ) -> Result<Written, Error> {
        if let (Err(_), Some(list)) = (&parsed, &list) {
            caller.audit_resource(list);
        }
        let cache = self.cache()?;
        let parsed = caller.permit(cache, parsed, || list, permission);
        let (write, request_id) = parsed.await?;
        caller.write(cache, write, request_id).await
    }
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
        let query = Arc::new(query);
        let page = page_reply(&query, cache.list(&query, carried, &options).await?);
        Ok(reply::list_response(page))
    }

    async fn create_todo(
        &self,
        request: Request<pb::CreateTodoRequest>,
    ) -> Result<Response<CreateTodoResponse>, Status> {
        let (caller, request) = split(request)?;
        let list = ListName::parse(&request.parent);
        let write = convert::create(request, now_ms());
        let done = self.write(&caller, write, list, Permission::CreateTodo);
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
        let done = self.write(&caller, write, list, Permission::UpdateTodo);
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
        let done = self.write(&caller, write, list, Permission::DeleteTodo);
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
        let held = caller.charge_watch(&mut watch)?;
        let (deadline, identity) = (caller.deadline, caller.identity.as_ref());
        let messages = cache.watch(watch, deadline, identity).await?;
        Ok(Response::new(Box::pin(watch_replies(messages, held))))
    }

    async fn get_todo_list(
        &self,
        request: Request<pb::GetTodoListRequest>,
    ) -> Result<Response<GetTodoListResponse>, Status> {
        let (caller, request) = split(request)?;
        let name = convert::list_name("name", &request.name).map_err(Error::from)?;
        let cache = self.cache()?;
        let options = caller.read_options(request.consistency, cache.origin_id());
        let options = caller.permit(cache, options, || Some(name.clone()), Permission::GetList);
        let answer = cache.get_list(&name, &options.await?).await?;
        Ok(Response::new(GetTodoListResponse {
            todo_list: Some(answer.body.into()),
            read: read_info(&answer.read),
        }))
    }

    async fn list_todo_lists(
        &self,
        request: Request<pb::ListTodoListsRequest>,
    ) -> Result<Response<ListTodoListsResponse>, Status> {
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
        Ok(reply::list_response(ListTodoListsResponse {
            todo_lists: body.lists.into_iter().map(SharedList::from).collect(),
            next_page_token: next.unwrap_or_default(),
            read: read_info(&read),
            unreadable: body.unreadable.iter().map(ToString::to_string).collect(),
        }))
    }

    async fn create_todo_list(
        &self,
        request: Request<pb::CreateTodoListRequest>,
    ) -> Result<Response<CreateTodoListResponse>, Status> {
        let (caller, request) = split(request)?;
        let identity = caller.identity.as_ref();
        let (write, request_id) = convert_lists::create_list(request, now_ms(), identity)?;
        let done = caller.write(self.cache()?, write, request_id).await?;
        Ok(Response::new(CreateTodoListResponse {
            todo_list: decoded_list(done.body),
            token: done.token.encode(),
        }))
    }

    async fn update_todo_list(
        &self,
        request: Request<pb::UpdateTodoListRequest>,
    ) -> Result<Response<UpdateTodoListResponse>, Status> {
        let (caller, request) = split(request)?;
        let list = request.todo_list.as_ref();
        let list = list.and_then(|list| ListName::parse(&list.name));
        let write = convert_lists::update_list(request).map(|write| (write, None));
        let done = self.write(&caller, write, list, Permission::UpdateList);
        let done = done.await?;
        Ok(Response::new(UpdateTodoListResponse {
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
        let done = self.write(&caller, write, list, Permission::DeleteList);
        let done = done.await?;
        Ok(Response::new(pb::DeleteTodoListResponse {
            token: done.token.encode(),
        }))
    }
}

/// What a page of lists takes beside its lists: token, next token.
const LISTS_PAGE_BYTES: usize = 4 << 10;

/// The list of a write's reply; `None` after a repetition whose list is gone.
fn decoded_list(body: Bytes) -> Option<SharedList> {
    let list = pb::TodoList::decode(body).ok();
    let list = list.filter(|list| !list.name.is_empty());
    list.map(|list| Arc::new(list).into())
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

/// The replies of a watch, up to its first error. `held`: its budgets.
fn watch_replies(
    messages: Watch,
    held: Vec<Reservation>,
) -> impl Stream<Item = Result<WatchTodosResponse, Status>> {
    // The cache ends a stream without an error only when the process or the
    // connection closes, after a last progress message.
    let end = futures::stream::once(async { Err(Error::Draining) });
    messages.chain(end).scan(false, move |ended, message| {
        let _held = &held;
        let reply = message.map(watch_reply).map_err(Status::from);
        let was_ended = std::mem::replace(ended, reply.is_err());
        std::future::ready((!was_ended).then_some(reply))
    })
}

fn watch_reply(message: WatchMessage) -> WatchTodosResponse {
    let event = match message.event {
        // The cache keeps these to itself: they say nothing new.
        WatchEvent::ListChanged(_) => Event::Progress(pb::WatchProgress::default()),
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
