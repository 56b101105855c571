//! The only place that knows tonic and protobuf's services.

mod convert;
mod deadline;
pub mod encoded;
pub(crate) mod filter;
pub mod health;
mod method;
pub(crate) mod page_token;
mod reflection;
mod reply;
mod request_body;
mod rpc_layer;
mod service;
mod status;
pub mod transport;

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures::TryStreamExt as _;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;
use tonic::{
    body::Body,
    codec::CompressionEncoding::{Gzip, Zstd},
    transport::{Server, server::TcpIncoming},
};

use tower::Layer as _;

use self::{
    health::HealthState,
    server::todo_service_server::TodoServiceServer,
    service::Todos,
    transport::{CoalescedWrites, Tls, WebLayer},
};
use tonic_health::pb::health_server::{Health, HealthServer};

use crate::{cache::Cache, config::AllowedOrigins, telemetry::Metrics};

/// The generated client.
pub mod client {
    #![expect(clippy::allow_attributes_without_reason, reason = "generated")]
    include!(concat!(env!("OUT_DIR"), "/client/todo.v1.rs"));
}

mod server {
    #![expect(
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        reason = "generated"
    )]
    include!(concat!(env!("OUT_DIR"), "/server/todo.v1.rs"));
}

/// Calls at once on one connection: a client that wants more opens another.
const MAX_STREAMS: u32 = 1000;
/// Headers of one request.
const MAX_HEADER_BYTES: u32 = 16 << 10;
/// A connection whose peer does not answer a ping for so long is closed.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the server needs.
pub struct Parts {
    /// The service; set once the origin is reached.
    pub cache: Arc<OnceLock<Arc<Cache>>>,
    /// What health tells.
    pub health: watch::Receiver<HealthState>,
    /// Where calls are counted.
    pub metrics: Arc<Metrics>,
    /// TLS; `None`: without.
    pub tls: Option<Tls>,
    /// Pages that may call by grpc-web; `None`: grpc-web is off.
    pub web: Option<AllowedOrigins>,
    /// No new connections and calls; those under way are finished.
    pub shutdown: CancellationToken,
}

/// The calls of the contract without a transport: for the guard, which counts
/// their instructions.
pub fn calls(
    cache: Arc<OnceLock<Arc<Cache>>>,
    metrics: Arc<Metrics>,
) -> impl tower::Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + Clone
{
    rpc_layer::RpcLayer::new(metrics).layer(TodoServiceServer::new(Todos::new(cache)))
}

/// Serves until `shutdown`, and then until the last call is finished.
///
/// # Errors
/// What the transport says of itself.
pub async fn serve(
    listener: TcpListener,
    parts: Parts,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let Parts {
        cache,
        health,
        metrics,
        tls,
        web,
        shutdown,
    } = parts;
    let web = WebLayer::new(web.as_ref())?;
    let todos = TodoServiceServer::new(Todos::new(cache))
        .max_decoding_message_size(method::MAX_REQUEST_BYTES)
        .accept_compressed(Gzip)
        .accept_compressed(Zstd)
        .send_compressed(Gzip)
        .send_compressed(Zstd);
    let descriptors = Arc::new(reflection::descriptors()?);
    let router = Server::builder()
        .max_concurrent_streams(Some(MAX_STREAMS))
        .http2_max_header_list_size(Some(MAX_HEADER_BYTES))
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .accept_http1(web.is_on())
        .layer(web)
        .layer(rpc_layer::RpcLayer::new(Arc::clone(&metrics)))
        .add_service(todos)
        .add_service(health_service(health, shutdown.clone()))
        .add_service(
            reflection::v1::service(Arc::clone(&descriptors), shutdown.clone())
                .max_decoding_message_size(method::MAX_REFLECTION_REQUEST_BYTES),
        )
        .add_service(
            reflection::v1alpha::service(descriptors, shutdown.clone())
                .max_decoding_message_size(method::MAX_REFLECTION_REQUEST_BYTES),
        );
    let until = shutdown.clone().cancelled_owned();
    match tls {
        None => {
            let incoming = plain(listener).map_ok(CoalescedWrites::new);
            router.serve_with_incoming_shutdown(incoming, until).await?;
        }
        Some(tls) => {
            let incoming = tls
                .incoming(listener, metrics, shutdown)
                .map_ok(CoalescedWrites::new);
            router.serve_with_incoming_shutdown(incoming, until).await?;
        }
    }
    Ok(())
}

fn health_service(
    health: watch::Receiver<HealthState>,
    shutdown: CancellationToken,
) -> HealthServer<impl Health> {
    health::service(health, shutdown).max_decoding_message_size(method::MAX_HEALTH_REQUEST_BYTES)
}

fn plain(listener: TcpListener) -> TcpIncoming {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

/// Serves health and nothing else, for as long as the process lives: probes
/// need an answer during the drain, too. Its streams end with `shutdown`.
///
/// # Errors
/// What the transport says of itself.
pub async fn serve_health(
    listener: TcpListener,
    health: watch::Receiver<HealthState>,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    Server::builder()
        .max_concurrent_streams(Some(MAX_STREAMS))
        .http2_max_header_list_size(Some(MAX_HEADER_BYTES))
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .layer(rpc_layer::RpcLayer::new(metrics))
        .add_service(health_service(health, shutdown))
        .serve_with_incoming(plain(listener))
        .await
}
