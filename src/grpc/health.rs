//! The gRPC health protocol (`grpc.health.v1`). Kubernetes probes `readiness`,
//! `liveness` and `startup`; the other names are for people and dashboards.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};

use super::transport::Call;
use crate::error::shorten;

/// What the health protocol reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HealthState {
    /// Can answer: caught up, not draining, and heard of the origin within the
    /// staleness limit (or stale answers are allowed). Never a matter of Redis.
    pub ready: bool,
    /// Was caught up once.
    pub started: bool,
    /// The origin acknowledges heartbeats.
    pub origin: bool,
    /// The shared tier answers, or there is none.
    pub shared: bool,
    /// The frontier is within the staleness limit.
    pub feed: bool,
}

impl HealthState {
    fn status(&self, service: &str) -> ServingStatus {
        let serving = match service {
            "" | "todo.v1.TodoService" | "readiness" => self.ready,
            "liveness" => true,
            "startup" => self.started,
            "origin" => self.origin,
            "shared" => self.shared,
            "feed" => self.feed,
            _ => return ServingStatus::ServiceUnknown,
        };
        if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        }
    }
}

struct Service {
    state: watch::Receiver<HealthState>,
    shutdown: CancellationToken,
}

/// The service. Its streams end at `shutdown`, or when their connection closes.
#[must_use]
pub fn service(
    state: watch::Receiver<HealthState>,
    shutdown: CancellationToken,
) -> HealthServer<impl Health> {
    HealthServer::new(Service { state, shutdown })
}

const fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status as i32,
    }
}

#[tonic::async_trait]
impl Health for Service {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = &request.get_ref().service;
        match self.state.borrow().status(service) {
            ServingStatus::ServiceUnknown => Err(Status::not_found(format!(
                "health of {:?} is not known: expected one of todo.v1.TodoService, readiness, liveness, startup, origin, shared, feed",
                shorten(service)
            ))),
            status => Ok(Response::new(response(status))),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let closing = request.extensions().get::<Arc<Call>>();
        let closing = closing.map(|call| call.closing().clone());
        let closing = closing.unwrap_or_default();
        let service = request.into_inner().service;
        let mut last = None;
        let changes = WatchStream::new(self.state.clone()).filter_map(move |state| {
            let status = state.status(&service);
            let changed = last.replace(status) != Some(status);
            futures::future::ready(changed.then(|| Ok(response(status))))
        });
        let shutdown = self.shutdown.clone();
        Ok(Response::new(Box::pin(changes.take_until(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = closing.cancelled() => {}
            }
        }))))
    }
}
