//! The baselines. `limit`: a tonic server that answers one prebuilt todo with
//! ordinary generated code: what the framework costs. `plain`: a simple
//! cache-aside service: tonic, fred and mongodb, a TTL, no near cache.

use std::{pin::Pin, time::Duration};

use bytes::{Buf, BufMut, Bytes};
use fred::{
    prelude::{ClientLike as _, Config, Expiration, KeysInterface as _},
    types::config::ReconnectPolicy,
};
use futures::Stream;
use mongodb::{
    Collection,
    bson::{DateTime, doc},
    options::ReadConcern,
};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType},
};
use serde::Deserialize;
use tidemark::pb;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

use server::todo_service_server::{TodoService, TodoServiceServer};

mod server {
    #![expect(
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        reason = "generated"
    )]
    include!(concat!(env!("OUT_DIR"), "/baseline/todo.v1.rs"));
}

/// A reply that is encoded already.
#[derive(Clone, Debug, Default)]
pub struct Raw(Bytes);

impl Message for Raw {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put(self.0.clone());
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        prost::encoding::skip_field(wire_type, tag, buf, context)
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

type Unused = Pin<Box<dyn Stream<Item = Result<pb::WatchTodosResponse, Status>> + Send>>;

fn not_here<T>() -> Result<T, Status> {
    Err(Status::unimplemented("not a call of this baseline"))
}

/// Answers what it was given.
struct Limit {
    get: pb::GetTodoResponse,
    get_encoded: Raw,
    page: Raw,
}

/// Reads through Redis.
struct Plain {
    redis: fred::clients::Pool,
    todos: Collection<Row>,
    majority: Collection<Row>,
}

/// A todo as it lies in MongoDB.
#[derive(Deserialize)]
struct Row {
    #[serde(rename = "_id")]
    id: String,
    title: String,
    #[serde(default)]
    notes: String,
    state: String,
    priority: String,
    #[serde(default)]
    labels: Vec<String>,
    due_time: Option<DateTime>,
    create_time: Option<DateTime>,
    update_time: Option<DateTime>,
}

/// How long `plain` answers from Redis: Tidemark's replay window.
const TTL_SECONDS: i64 = 600;

impl Plain {
    async fn get(&self, name: &str) -> Result<Option<pb::Todo>, Status> {
        let failed = |e: &dyn std::fmt::Display| Status::unavailable(e.to_string());
        let cached: Option<Bytes> = self.redis.get(name).await.map_err(|e| failed(&e))?;
        if let Some(raw) = cached {
            return pb::Todo::decode(raw)
                .map(Some)
                .map_err(|e| Status::internal(e.to_string()));
        }
        let row = self
            .todos
            .find_one(doc! { "_id": name })
            .await
            .map_err(|e| failed(&e))?;
        let Some(todo) = row.map(todo) else {
            return Ok(None);
        };
        let raw = Bytes::from(todo.encode_to_vec());
        let ttl = Some(Expiration::EX(TTL_SECONDS));
        self.redis
            .set::<(), _, _>(name, raw, ttl, None, false)
            .await
            .map_err(|e| failed(&e))?;
        Ok(Some(todo))
    }

    async fn strong(&self, name: &str) -> Result<Option<pb::Todo>, Status> {
        let row = self.majority.find_one(doc! { "_id": name }).await;
        row.map(|row| row.map(todo))
            .map_err(|e| Status::unavailable(e.to_string()))
    }
}

fn todo(row: Row) -> pb::Todo {
    let time = |t: Option<DateTime>| {
        let ms = t?.timestamp_millis();
        let nanos = i32::try_from(ms.rem_euclid(1000)).unwrap_or(0) * 1_000_000;
        Some(prost_types::Timestamp {
            seconds: ms.div_euclid(1000),
            nanos,
        })
    };
    let state = pb::todo::State::from_str_name(&format!("STATE_{}", row.state));
    let priority = pb::todo::Priority::from_str_name(&format!("PRIORITY_{}", row.priority));
    let etag = row
        .update_time
        .map_or(0, DateTime::timestamp_millis)
        .to_string();
    pb::Todo {
        name: row.id,
        title: row.title,
        notes: row.notes,
        state: state.unwrap_or_default().into(),
        priority: priority.unwrap_or_default().into(),
        labels: row.labels,
        due_time: time(row.due_time),
        create_time: time(row.create_time),
        update_time: time(row.update_time),
        complete_time: None,
        etag,
    }
}

/// The service with these calls, and none but reads.
macro_rules! reads {
    ($server:ty { $($calls:tt)* }) => {
        #[tonic::async_trait]
        impl TodoService for $server {
        $($calls)*

        type WatchTodosStream = Unused;

        async fn create_todo(
            &self,
            _: Request<pb::CreateTodoRequest>,
        ) -> Result<Response<pb::CreateTodoResponse>, Status> {
            not_here()
        }

        async fn update_todo(
            &self,
            _: Request<pb::UpdateTodoRequest>,
        ) -> Result<Response<pb::UpdateTodoResponse>, Status> {
            not_here()
        }

        async fn delete_todo(
            &self,
            _: Request<pb::DeleteTodoRequest>,
        ) -> Result<Response<pb::DeleteTodoResponse>, Status> {
            not_here()
        }

        async fn watch_todos(
            &self,
            _: Request<pb::WatchTodosRequest>,
        ) -> Result<Response<Self::WatchTodosStream>, Status> {
            not_here()
        }

        async fn get_todo_list(
            &self,
            _: Request<pb::GetTodoListRequest>,
        ) -> Result<Response<pb::GetTodoListResponse>, Status> {
            not_here()
        }

        async fn list_todo_lists(
            &self,
            _: Request<pb::ListTodoListsRequest>,
        ) -> Result<Response<pb::ListTodoListsResponse>, Status> {
            not_here()
        }

        async fn create_todo_list(
            &self,
            _: Request<pb::CreateTodoListRequest>,
        ) -> Result<Response<pb::CreateTodoListResponse>, Status> {
            not_here()
        }

        async fn update_todo_list(
            &self,
            _: Request<pb::UpdateTodoListRequest>,
        ) -> Result<Response<pb::UpdateTodoListResponse>, Status> {
            not_here()
        }

        async fn delete_todo_list(
            &self,
            _: Request<pb::DeleteTodoListRequest>,
        ) -> Result<Response<pb::DeleteTodoListResponse>, Status> {
            not_here()
        }
        }
    };
}

reads! { Limit {
    async fn get_todo(
        &self,
        _: Request<pb::GetTodoRequest>,
    ) -> Result<Response<pb::GetTodoResponse>, Status> {
        Ok(Response::new(self.get.clone()))
    }

    /// `limit` for a todo whose reply lies there encoded: a request for one
    /// name reads like a GetTodo on the wire.
    async fn batch_get_todos(
        &self,
        _: Request<pb::BatchGetTodosRequest>,
    ) -> Result<Response<Raw>, Status> {
        Ok(Response::new(self.get_encoded.clone()))
    }

    async fn list_todos(&self, _: Request<pb::ListTodosRequest>) -> Result<Response<Raw>, Status> {
        Ok(Response::new(self.page.clone()))
    }

}}

reads! { Plain {
    async fn get_todo(
        &self,
        request: Request<pb::GetTodoRequest>,
    ) -> Result<Response<pb::GetTodoResponse>, Status> {
        let request = request.into_inner();
        let todo = if request.consistency.is_some() {
            self.strong(&request.name).await?
        } else {
            self.get(&request.name).await?
        };
        let todo = todo.ok_or_else(|| Status::not_found(request.name))?;
        Ok(Response::new(pb::GetTodoResponse { todo: Some(todo), read: None }))
    }

    async fn batch_get_todos(
        &self,
        _: Request<pb::BatchGetTodosRequest>,
    ) -> Result<Response<Raw>, Status> {
        not_here()
    }

    async fn list_todos(&self, _: Request<pb::ListTodosRequest>) -> Result<Response<Raw>, Status> {
        not_here()
    }

}}

async fn serve(service: impl TodoService) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    // As `tidemark serve` says it, for the same reader.
    println!(
        "tidemark listens on http://{}\nmetrics are off",
        listener.local_addr().expect("an address")
    );
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let served = tonic::transport::Server::builder()
        .add_service(TodoServiceServer::new(service))
        .serve_with_incoming(incoming)
        .await;
    served.expect("served");
}

/// `limit`: the reply to GetTodo and the page, both from files.
pub async fn limit(get: &str, page: &str) {
    let read = |file: &str| Bytes::from(std::fs::read(file).expect("a reply"));
    let get_encoded = read(get);
    let get = pb::GetTodoResponse::decode(get_encoded.clone()).expect("a GetTodoResponse");
    serve(Limit {
        get,
        get_encoded: Raw(get_encoded),
        page: Raw(read(page)),
    })
    .await;
}

/// `plain`: Redis, and the database of a MongoDB.
pub async fn plain(redis_url: &str, mongodb_uri: &str) {
    let config = Config::from_url(redis_url).expect("a URL");
    let mut builder = fred::prelude::Builder::from_config(config);
    builder.set_policy(ReconnectPolicy::new_exponential(0, 50, 500, 2));
    builder.with_performance_config(|p| p.default_command_timeout = Duration::from_secs(1));
    let redis = builder.build_pool(2).expect("a pool");
    redis.init().await.expect("Redis");
    let mut options = mongodb::options::ClientOptions::parse(mongodb_uri)
        .await
        .expect("a URI");
    // As many connections as Tidemark may use.
    options.max_pool_size = Some(256);
    let database = options.default_database.clone().expect("a database");
    let database = mongodb::Client::with_options(options)
        .expect("a client")
        .database(&database);
    let todos = database.collection("todos");
    let majority = mongodb::options::CollectionOptions::builder()
        .read_concern(ReadConcern::majority())
        .build();
    let majority = database.collection_with_options("todos", majority);
    serve(Plain {
        redis,
        todos,
        majority,
    })
    .await;
}
