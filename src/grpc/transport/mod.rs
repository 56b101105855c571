//! Connections: accepting them, TLS, HTTP, the budgets of calls, calls from
//! pages, write coalescing, and the codec of messages. Nothing here knows the calls of
//! the service.
//!
//! tonic's own server is not used: it cannot bound connections, give them an
//! age with jitter, drop those that do not move at a shutdown, or set all limits
//! of h2. Its services and its router are, under hyper.

mod accept;
mod codec;
mod connection;
mod handshake;
mod metering;
mod pressure;
pub(super) mod protocol;
mod table;
mod tls;
mod web;
mod write_coalescing;

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Request, Response};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::body::Body;

use self::{
    accept::{Accept, Connections},
    connection::ConnectionServer,
    metering::MeteredService,
};
pub use self::{
    accept::{Limits, SpareFiles, bind},
    metering::{BodyProblem, Call},
    tls::Tls,
};
pub(super) use self::{codec::SizedBufferCodec, web::WebLayer};
use crate::{budget::Budgets, telemetry::Metrics, turns::Turns};

/// Work on calls in one round of the runtime, in microseconds for each core: so much longer
/// does a call wait that needs no turn.
const ROUND_MICROS: usize = 250;

/// A port and what it serves by.
pub struct Port {
    /// What it is for, in log lines.
    pub name: &'static str,
    /// The port.
    pub listener: TcpListener,
    /// Most connections.
    pub limits: Limits,
    /// TLS; `None`: without.
    pub tls: Option<Tls>,
    /// Age at which a connection is closed gracefully; `None`: at none.
    pub max_age: Option<Duration>,
    /// Descriptors in reserve, for a port that answers whatever is used up;
    /// `None`: a port for callers.
    pub spare: Option<Arc<SpareFiles>>,
}

impl Port {
    /// Serves until `shutdown`, and then until the last connection has ended.
    pub async fn serve<S>(
        self,
        service: S,
        budgets: Arc<Budgets>,
        metrics: Arc<Metrics>,
        shutdown: CancellationToken,
    ) where
        S: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        let tls = self
            .tls
            .map(|tls| tls.follow(Arc::clone(&metrics), &shutdown));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let turns = Arc::new(Turns::new(ROUND_MICROS * cores));
        // Ends with this function, when there are no calls any more. If it ended before,
        // calls would go on without turns.
        let mut background = JoinSet::new();
        background.spawn({
            let turns = Arc::clone(&turns);
            async move { turns.give().await }
        });
        let server = Arc::new(ConnectionServer::new(
            tls,
            self.max_age,
            self.spare.is_some(),
            turns,
            Arc::clone(&budgets),
            Arc::clone(&metrics),
            shutdown.clone(),
        ));
        let limit = budgets.plan().limit().filter(|_| self.spare.is_none());
        let connections = Connections::new(self.limits, Arc::clone(&budgets), metrics);
        if let Some(limit) = limit {
            let connections = Arc::clone(&connections);
            background.spawn(async move { pressure::relieve(&connections, &budgets, limit).await });
        }
        let accept = Accept {
            port: self.name,
            connections,
            spare: self.spare,
            shutdown,
        };
        let tracker = TaskTracker::new();
        accept
            .run(self.listener, &tracker, |stream, slot| {
                let (server, service) = (Arc::clone(&server), service.clone());
                async move {
                    let metered = |connection| MeteredService::new(service, connection);
                    server.serve(stream, slot, metered).await;
                }
            })
            .await;
        tracker.close();
        tracker.wait().await;
    }
}
