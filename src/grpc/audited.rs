//! Which calls stand in the audit log: writes, and refusals of callers.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request};
use tonic::{Code, Status, body::Body};
use tonic_types::StatusExt as _;
use tracing::Span;

use super::{method::Method, transport::Call};
use crate::{
    audit::{Audit, Entry},
    auth::Caller,
    telemetry,
};

/// A call under way, while there is an audit log.
pub struct AuditedCall {
    audit: Arc<Audit>,
    call: Option<Arc<Call>>,
    caller: Option<Caller>,
    traceparent: Option<HeaderValue>,
}

impl AuditedCall {
    /// The call of this request.
    pub fn begin(audit: &Arc<Audit>, request: &Request<Body>) -> Self {
        Self {
            audit: Arc::clone(audit),
            call: request.extensions().get::<Arc<Call>>().cloned(),
            caller: None,
            traceparent: request.headers().get("traceparent").cloned(),
        }
    }

    /// The caller is known.
    pub fn identify(&mut self, caller: &Caller) {
        self.caller = Some(caller.clone());
    }

    /// The call ended with this code, and these headers or trailers.
    pub fn end(
        &self,
        method: Method,
        (code, name): (Code, &'static str),
        headers: Option<&HeaderMap>,
        span: &Span,
    ) {
        let is_refusal = matches!(code, Code::Unauthenticated | Code::PermissionDenied);
        if !method.writes && !is_refusal {
            return;
        }
        let status = headers.and_then(Status::from_header_map);
        let details = status.map(|status| status.get_error_details());
        let error = details.as_ref().and_then(|details| details.error_info());
        let trace_id = telemetry::trace_id_of(span).or_else(|| self.sent_trace_id());
        self.audit.record(Entry {
            call: method.name(),
            caller: self.caller.as_ref(),
            peer: self.call.as_ref().and_then(|call| call.peer()),
            code: name,
            error: error.map(|info| (info.reason.as_str(), &info.metadata)),
            record: self.call.as_ref().map(|call| call.record()),
            trace_id,
        });
    }

    /// The trace that the caller named, if spans are not exported here.
    fn sent_trace_id(&self) -> Option<String> {
        let text = self.traceparent.as_ref()?.to_str().ok()?;
        let id = text.split('-').nth(1)?;
        let is_id = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
        is_id.then(|| id.to_owned())
    }
}
