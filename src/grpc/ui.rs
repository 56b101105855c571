//! The page: lists and todos live, and a summary of what the caches do. It is
//! built from `ui/` by `ui/build`, and calls the service by grpc-web from its own
//! origin.

use std::sync::Arc;

use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use serde_json::{Value, json};
use tonic::{Status, body::Body};

use super::{access::Access, health::HealthState, json, transport::protocol};
use crate::{
    config::AllowedOrigins,
    telemetry::{Kind, Metrics, ReadLabels},
};

/// Nothing but what this server serves, and nothing inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'; require-trusted-types-for 'script'";
const STATUS: &str = "/ui/status";
/// Path, content type and content.
const FILES: [(&str, &str, &[u8]); 4] = [
    (
        "/",
        "text/html; charset=utf-8",
        include_bytes!("ui/index.html"),
    ),
    (
        "/ui/page.css",
        "text/css; charset=utf-8",
        include_bytes!("ui/page.css"),
    ),
    (
        "/ui/page.js",
        "text/javascript; charset=utf-8",
        include_bytes!("ui/page.js"),
    ),
    (
        "/ui/icon.svg",
        "image/svg+xml",
        include_bytes!("ui/icon.svg"),
    ),
];

/// The page, and what it shows of the process.
pub struct Ui {
    /// What is shown.
    pub metrics: Arc<Metrics>,
    /// Who may see it.
    pub access: Access,
    /// Pages of other names that may call.
    pub origins: Option<AllowedOrigins>,
}

impl Ui {
    /// Whether the request is for the summary.
    pub fn is_status(request: &Request<Body>) -> bool {
        matches!(*request.method(), Method::GET | Method::HEAD) && request.uri().path() == STATUS
    }

    /// The response to a request for a file of the page; `None`: it is for something else.
    pub fn respond(request: &Request<Body>) -> Option<Response<Body>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return None;
        }
        let path = request.uri().path();
        let (_, kind, content) = FILES.iter().find(|(file, ..)| *file == path)?;
        let mut response = json::whole(StatusCode::OK, (*content).into());
        let headers = response.headers_mut();
        for (name, value) in [
            (CONTENT_TYPE, *kind),
            (CONTENT_SECURITY_POLICY, POLICY),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (REFERRER_POLICY, "no-referrer"),
            // A new version of the service has a new page.
            (CACHE_CONTROL, "no-cache"),
            (
                HeaderName::from_static("cross-origin-opener-policy"),
                "same-origin",
            ),
            (
                HeaderName::from_static("cross-origin-resource-policy"),
                "same-origin",
            ),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        Some(response)
    }

    /// The summary, for callers of the service.
    pub async fn status(&self, mut request: Request<Body>, health: HealthState) -> Response<Body> {
        // A page of a name that somebody else gave to this address would have the
        // same origin (DNS rebinding).
        if !self.is_expected_name(&request) {
            return json::respond_error(&Status::permission_denied(
                "this name of the server is not known to it: see its setting cors-allow-origins",
            ));
        }
        if let Err(error) = self.access.admit(&mut request).await {
            return json::respond_error(&Status::from(error));
        }
        let text = summary(&self.metrics, health).to_string();
        let mut response = json::whole(StatusCode::OK, text.into());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    fn is_expected_name(&self, request: &Request<Body>) -> bool {
        let Some(name) = protocol::authority(request) else {
            return false;
        };
        protocol::is_address(name)
            || match &self.origins {
                None => false,
                Some(AllowedOrigins::Any) => true,
                Some(AllowedOrigins::These(origins)) => origins
                    .iter()
                    .filter_map(|origin| origin.split_once("://"))
                    .any(|(_, allowed)| allowed == name),
            }
    }
}

/// What `tidemark status` shows, as numbers since the start of the process.
fn summary(metrics: &Metrics, health: HealthState) -> Value {
    let reads = |tier| -> u64 {
        let of = |kind| {
            metrics
                .reads
                .get_or_create(&ReadLabels { kind, tier })
                .get()
        };
        of("todo") + of("page")
    };
    let nodes = metrics
        .shared_nodes
        .get_or_create(&Kind { kind: "known" })
        .get();
    let shared = match (nodes, metrics.shared_breaker_open.get()) {
        (0, _) => "none",
        (_, 0) => "closed",
        _ => "open",
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "ready": health.ready,
        "origin": health.origin,
        "reads": {"near": reads("near"), "shared": reads("shared"), "origin": reads("origin")},
        "frontierLagSeconds": metrics.frontier_lag.get(),
        "stalenessBoundSeconds": metrics.staleness_bound.get(),
        "watchers": metrics.watchers.get(),
        "breaker": shared,
        "nearEntries": metrics.near_entries.get(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the page and its files may take, in bytes.
    const MAX_BYTES: usize = 150_000;

    #[test]
    fn the_page_is_small_and_asks_for_nothing_else() {
        let bytes: usize = FILES.iter().map(|(_, _, content)| content.len()).sum();
        assert!(bytes < MAX_BYTES, "{bytes} bytes");
        let html = String::from_utf8_lossy(FILES[0].2);
        for attribute in ["src=\"", "href=\""] {
            for value in html.split(attribute).skip(1) {
                let value = value.split('"').next().expect("an end");
                assert!(FILES.iter().any(|(path, ..)| *path == value), "{value}");
            }
        }
        assert!(!html.contains("style=") && !html.contains("onclick"));
    }
}
