//! `/healthz` and `/readyz`, for probes that speak plain HTTP.

use http::{HeaderValue, Method, Request, Response, StatusCode, header::ALLOW};
use serde_json::json;
use tonic::body::Body;

use crate::grpc::health::HealthState;

const LIVENESS: &str = "/healthz";
const READINESS: &str = "/readyz";

/// Whether requests of this path are probes, which are answered whatever is
/// used up.
pub fn is_probe(path: &str) -> bool {
    matches!(path, LIVENESS | READINESS)
}

/// The response to a probe; `None`: the request is not one.
pub fn respond<B>(request: &Request<B>, health: HealthState) -> Option<Response<Body>> {
    let path = request.uri().path();
    if !is_probe(path) {
        return None;
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = Response::new(Body::default());
        *refusal.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        let allow = HeaderValue::from_static("GET, HEAD");
        refusal.headers_mut().insert(ALLOW, allow);
        return Some(refusal);
    }
    let reason = if path == READINESS {
        unready(health)
    } else {
        None
    };
    let (status, body) = match reason {
        None => (StatusCode::OK, json!({"status": "SERVING"})),
        Some(reason) => (
            StatusCode::SERVICE_UNAVAILABLE,
            json!({"status": "NOT_SERVING", "reason": reason}),
        ),
    };
    Some(super::response(status, body.to_string().into_bytes()))
}

/// Why the replica is not ready; `None`: it is.
const fn unready(state: HealthState) -> Option<&'static str> {
    if state.ready {
        return None;
    }
    Some(if !state.started {
        "the replica has not caught up with the database yet"
    } else if !state.origin {
        "the database does not acknowledge heartbeats"
    } else if !state.feed {
        "the change feed is behind the staleness limit"
    } else {
        "the replica is shutting down, or was out of touch with the database until now"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_has_a_reason() {
        let ready = HealthState {
            ready: true,
            started: true,
            origin: true,
            shared: true,
            feed: true,
        };
        assert_eq!(unready(ready), None);
        let drained = HealthState {
            ready: false,
            ..ready
        };
        assert!(unready(drained).is_some_and(|reason| reason.contains("shutting down")));
        let cut_off = HealthState {
            ready: false,
            origin: false,
            ..ready
        };
        assert!(unready(cut_off).is_some_and(|reason| reason.contains("heartbeats")));
        assert!(unready(HealthState::default()).is_some_and(|reason| reason.contains("caught up")));
    }
}
