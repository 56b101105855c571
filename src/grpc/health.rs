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
    fn status(&self, service: HealthService) -> ServingStatus {
        let serving = match service {
            HealthService::Readiness => self.ready,
            HealthService::Liveness => true,
            HealthService::Startup => self.started,
            HealthService::Origin => self.origin,
            HealthService::Shared => self.shared,
            HealthService::Feed => self.feed,
            HealthService::Unknown => return ServingStatus::ServiceUnknown,
        };
        if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        }
    }
}

/// What a request asks about. A watch keeps it instead of the text, which may be long.
#[derive(Clone, Copy)]
enum HealthService {
    Readiness,
    Liveness,
    Startup,
    Origin,
    Shared,
    Feed,
    Unknown,
}

impl HealthService {
    fn of(name: &str) -> Self {
        match name {
            "" | "todo.v1.TodoService" | "readiness" => Self::Readiness,
            "liveness" => Self::Liveness,
            "startup" => Self::Startup,
            "origin" => Self::Origin,
            "shared" => Self::Shared,
            "feed" => Self::Feed,
            _ => Self::Unknown,
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
        match self.state.borrow().status(HealthService::of(service)) {
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
        let service = HealthService::of(&request.into_inner().service);
        let mut last = None;
        let changes = WatchStream::new(self.state.clone()).filter_map(move |state| {
            let status = state.status(service);
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
