//! The gRPC services. No other module depends on tonic's server.

mod access;
mod audited;
mod caller;
mod convert;
mod convert_lists;
mod deadline;
pub mod encoded;
pub(crate) mod filter;
pub mod health;
pub(crate) mod json;
mod method;
pub(crate) mod page_token;
mod reflection;
mod reply;
mod request_body;
mod request_memory;
mod rpc_layer;
mod service;
mod status;
pub mod transport;
mod ui;

pub use access::Access;

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{
    body::Body,
    codec::CompressionEncoding::{Gzip, Zstd},
    service::Routes,
};
use tower::Layer as _;

use self::{
    health::HealthState,
    json::JsonLayer,
    server::todo_service_server::TodoServiceServer,
    service::Todos,
    transport::{Port, WebLayer},
    ui::Ui,
};
use tonic_health::pb::health_server::{Health, HealthServer};

use crate::{
    budget::Budgets,
    cache::Cache,
    config::{AllowedOrigins, Reflection},
    telemetry::Metrics,
};

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

/// The parts that the gRPC server is built from.
pub struct Parts {
    /// Where it listens.
    pub port: Port,
    /// The service; set once the origin is reached.
    pub cache: Arc<OnceLock<Arc<Cache>>>,
    /// The state that health checks report.
    pub health: watch::Receiver<HealthState>,
    /// Bounds on the memory of calls.
    pub budgets: Arc<Budgets>,
    /// Where calls are counted.
    pub metrics: Arc<Metrics>,
    /// Authentication and audit log.
    pub access: Access,
    /// Origins whose pages may call; `None`: only this service's own page.
    pub web: Option<AllowedOrigins>,
    /// The page is served.
    pub ui: bool,
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
    rpc_layer::RpcLayer::new(metrics, Access::default())
        .layer(TodoServiceServer::new(Todos::new(cache)))
}

/// Serves until `shutdown`, and then until the last connection has ended.
///
/// # Errors
/// An origin of `web` that is not a valid header value.
pub async fn serve(parts: Parts) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let Parts {
        port,
        cache,
        health,
        budgets,
        metrics,
        access,
        web,
        ui,
        shutdown,
    } = parts;
    let page = ui.then(|| Ui {
        metrics: Arc::clone(&metrics),
        access: access.clone(),
        origins: web.clone(),
    });
    let web = WebLayer::new(web.as_ref(), ui)?;
    let json = JsonLayer::new(health.clone(), page);
    let todos = TodoServiceServer::new(Todos::new(cache))
        .max_decoding_message_size(method::MAX_REQUEST_BYTES)
        .accept_compressed(Gzip)
        .accept_compressed(Zstd)
        .send_compressed(Gzip)
        .send_compressed(Zstd);
    let mut routes = Routes::new(todos).add_service(health_service(health, shutdown.clone()));
    if access.reflection != Reflection::Off {
        let descriptors = Arc::new(reflection::descriptors()?);
        routes = routes
            .add_service(
                reflection::v1::service(Arc::clone(&descriptors), shutdown.clone())
                    .max_decoding_message_size(method::MAX_REFLECTION_REQUEST_BYTES),
            )
            .add_service(
                reflection::v1alpha::service(descriptors, shutdown.clone())
                    .max_decoding_message_size(method::MAX_REFLECTION_REQUEST_BYTES),
            );
    }
    let routes = routes.prepare();
    let audit = access.audit.clone();
    let rpc = rpc_layer::RpcLayer::new(Arc::clone(&metrics), access).layer(routes);
    let service = web.layer(json.layer(rpc));
    port.serve(service, budgets, metrics, shutdown).await;
    if let Some(audit) = audit {
        audit.drain().await;
    }
    Ok(())
}

fn health_service(
    health: watch::Receiver<HealthState>,
    shutdown: CancellationToken,
) -> HealthServer<impl Health> {
    health::service(health, shutdown).max_decoding_message_size(method::MAX_HEALTH_REQUEST_BYTES)
}

/// Serves health and nothing else, for as long as the process lives: probes
/// need an answer during the drain, too. Its streams end with `shutdown`.
pub async fn serve_health(
    port: Port,
    health: watch::Receiver<HealthState>,
    budgets: Arc<Budgets>,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) {
    let json = JsonLayer::new(health.clone(), None);
    let routes = Routes::new(health_service(health, shutdown)).prepare();
    let rpc = rpc_layer::RpcLayer::new(Arc::clone(&metrics), Access::default());
    let service = json.layer(rpc.layer(routes));
    let never = CancellationToken::new();
    port.serve(service, budgets, metrics, never).await;
}

/// Serves metrics, for as long as the process lives.
pub async fn serve_metrics(
    port: Port,
    router: axum::Router,
    budgets: Arc<Budgets>,
    metrics: Arc<Metrics>,
) {
    let never = CancellationToken::new();
    let service = Routes::from(router);
    port.serve(service, budgets, metrics, never).await;
}
