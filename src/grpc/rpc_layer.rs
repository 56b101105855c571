//! Wraps every call: checks that the request is gRPC, and who sends it, bounds
//! its body, opens its span, counts it, and gives the framework's errors the form
//! and the size that the contract states.

use std::{
    future::ready,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use prometheus_client::metrics::histogram::Histogram;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};
use tracing::{Instrument, Span, field::Empty};

use super::{
    access::{Access, Admitted},
    audited::AuditedCall,
    method::{LABELS, Method},
    request_body::RequestBody,
    status,
    transport::{Call, protocol},
};
use crate::{
    auth::Caller,
    error::{CallerProblem, Error},
    telemetry::{self, Kind, Metrics, RpcLabels},
};

/// Wraps a service in an [`RpcService`].
#[derive(Clone)]
pub struct RpcLayer {
    latencies: Arc<Latencies>,
    access: Access,
}

impl RpcLayer {
    /// A layer that counts calls in `metrics` and admits those of `access`.
    pub fn new(metrics: Arc<Metrics>, access: Access) -> Self {
        let latencies = Arc::new(Latencies {
            metrics,
            histograms: Default::default(),
        });
        Self { latencies, access }
    }
}

impl<S> Layer<S> for RpcLayer {
    type Service = RpcService<S>;

    fn layer(&self, inner: S) -> RpcService<S> {
        RpcService {
            inner,
            latencies: Arc::clone(&self.latencies),
            access: self.access.clone(),
        }
    }
}

/// A service whose calls are gRPC, bounded, traced and counted.
#[derive(Clone)]
pub struct RpcService<S> {
    inner: S,
    latencies: Arc<Latencies>,
    access: Access,
}

/// Status codes of gRPC: `Ok` to `Unauthenticated`.
const CODES: usize = Code::Unauthenticated as usize + 1;

/// The latency histograms by method and code. Each is looked up by its labels
/// once: a lookup costs more than an observation.
struct Latencies {
    metrics: Arc<Metrics>,
    histograms: [[OnceLock<Histogram>; CODES]; LABELS.len()],
}

impl Latencies {
    fn record(&self, method: Method, code: Code, began: Instant) {
        let histogram = self.histograms[method.label][code as usize].get_or_init(|| {
            let labels = RpcLabels {
                call: method.name(),
                code: code_name(code),
            };
            self.metrics.rpc.0.get_or_create(&labels).clone()
        });
        histogram.observe(began.elapsed().as_secs_f64());
    }

    fn record_panic(&self, method: Method) {
        let kind = Kind { kind: "call" };
        self.metrics.task_panics.get_or_create(&kind).inc();
        tracing::error!(call = method.name(), "a call ended in a panic");
    }
}

/// A call under way. It is counted when it ends; dropped before that, it was
/// cancelled.
struct ActiveCall {
    latencies: Arc<Latencies>,
    method: Method,
    began: Instant,
    span: Span,
    /// `None`: there is no audit log.
    audited: Option<AuditedCall>,
    ended: bool,
}

impl ActiveCall {
    /// The call ends with this code, and these headers or trailers.
    fn end(&mut self, code: Code, headers: Option<&HeaderMap>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.span.record("rpc.grpc.status_code", code as i32);
        if is_server_error(code) {
            self.span.record("otel.status_code", "ERROR");
        }
        self.latencies.record(self.method, code, self.began);
        if let Some(audited) = &self.audited {
            audited.end(self.method, (code, code_name(code)), headers, &self.span);
        }
    }
}

impl Drop for ActiveCall {
    fn drop(&mut self) {
        self.end(Code::Cancelled, None);
    }
}

impl<S> Service<Request<Body>> for RpcService<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if let Some(status) = protocol::refuse(&request) {
            return Box::pin(ready(Ok(protocol::refusal(status))));
        }
        let (service, began) = (self.clone(), Instant::now());
        let span = span(&request);
        // A disabled span is not entered at each poll.
        if span.is_disabled() {
            Box::pin(service.answer(request, began, span))
        } else {
            let entered = span.clone();
            Box::pin(service.answer(request, began, span).instrument(entered))
        }
    }
}

impl<S> RpcService<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    /// All work on a call. It runs in a task of the call, and not of its connection, which
    /// has other calls.
    async fn answer(
        mut self,
        mut request: Request<Body>,
        began: Instant,
        span: Span,
    ) -> Result<Response<Body>, S::Error> {
        let method = Method::of(request.uri().path());
        let mut active = ActiveCall {
            latencies: self.latencies,
            method,
            began,
            span,
            audited: self
                .access
                .audit
                .as_ref()
                .map(|audit| AuditedCall::begin(audit, &request)),
            ended: false,
        };
        let call = request.extensions().get::<Arc<Call>>().cloned();
        let admitted = self.access.admit(&mut request).await;
        let caller = request.extensions().get::<Caller>();
        if let (Some(audited), Some(caller)) = (&mut active.audited, caller) {
            audited.identify(caller);
        }
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(error) => {
                let response = Status::from(error).into_http();
                active.end(code_of(response.headers()), Some(response.headers()));
                return Ok(response);
            }
        };
        if !method.compresses_replies {
            request.headers_mut().remove("grpc-accept-encoding");
        }
        let request = request.map(|body| Body::new(RequestBody::new(body, method, call)));
        let answer = self.inner.call(request);
        let response = if let Ok(response) = AssertUnwindSafe(answer).catch_unwind().await {
            status::bound_refusal(response?, method.max_request_bytes)
        } else {
            active.latencies.record_panic(method);
            status::internal().into_http()
        };
        let code = code_of(response.headers());
        if code == Code::Ok && method.streams_replies {
            let unknown = admitted.map(Admitted::until_unknown);
            return Ok(response.map(|body| Body::new(StreamBody::new(body, active, unknown))));
        }
        active.end(code, Some(response.headers()));
        Ok(response)
    }
}

/// The body of a streaming response. Its call ends with its trailers, when the
/// caller disconnects, or when its credential is revoked.
struct StreamBody {
    body: Body,
    active: ActiveCall,
    /// `None`: the caller needs not be known.
    unknown: Option<BoxFuture<'static, CallerProblem>>,
}

impl StreamBody {
    fn new(
        body: Body,
        active: ActiveCall,
        unknown: Option<BoxFuture<'static, CallerProblem>>,
    ) -> Self {
        Self {
            body,
            active,
            unknown,
        }
    }

    /// Ends the stream with this error.
    fn end(&mut self, problem: CallerProblem) -> Frame<Bytes> {
        self.body = Body::empty();
        self.unknown = None;
        let trailers = status::trailers(Error::CallerUnknown(problem).into());
        self.active.end(code_of(&trailers), Some(&trailers));
        Frame::trailers(trailers)
    }
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(unknown) = &mut self.unknown
            && let Poll::Ready(problem) = unknown.poll_unpin(cx)
        {
            return Poll::Ready(Some(Ok(self.end(problem))));
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.active.end(code_of(trailers), Some(trailers));
                }
            }
            Poll::Ready(Some(Err(error))) => self.active.end(error.code(), None),
            Poll::Ready(None) => self.active.end(Code::Ok, None),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The span of a call, a child of the caller's if the request carries one.
fn span(request: &Request<Body>) -> Span {
    let span = tracing::info_span!(
        "rpc",
        otel.name = Empty,
        otel.kind = "server",
        rpc.system = "grpc",
        rpc.service = Empty,
        rpc.method = Empty,
        rpc.grpc.status_code = Empty,
        otel.status_code = Empty,
    );
    if !span.is_disabled() {
        let path = request.uri().path().trim_start_matches('/');
        let (service, method) = path.split_once('/').unwrap_or((path, ""));
        span.record("otel.name", format!("{service}/{method}"));
        span.record("rpc.service", service);
        span.record("rpc.method", method);
        telemetry::continue_trace(&span, request.headers());
    }
    span
}

/// Whether the OpenTelemetry conventions count the code as an error of the
/// server. The other codes describe what the caller did.
const fn is_server_error(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

fn code_of(headers: &HeaderMap) -> Code {
    headers
        .get("grpc-status")
        .map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()))
}

const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
