//! Wraps every call: its span, its metrics, and the errors of the framework in
//! the form that the contract states.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Instant,
};

use futures::{FutureExt, future::BoxFuture};
use http::{HeaderMap, Request, Response};
use prometheus_client::metrics::histogram::Histogram;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};
use tracing::{Instrument, Span, field::Empty};

use super::{MAX_REQUEST_BYTES, status};
use crate::telemetry::{self, Kind, Metrics, RpcLabels};

/// Wraps a service in an [`RpcService`].
#[derive(Clone)]
pub struct RpcLayer(Arc<Calls>);

impl RpcLayer {
    /// A layer that counts calls in `metrics`.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Calls {
            metrics,
            latencies: Default::default(),
        }))
    }
}

impl<S> Layer<S> for RpcLayer {
    type Service = RpcService<S>;

    fn layer(&self, inner: S) -> RpcService<S> {
        RpcService {
            inner,
            calls: Arc::clone(&self.0),
        }
    }
}

/// A service whose calls have a span, metrics, and statuses of the contract.
#[derive(Clone)]
pub struct RpcService<S> {
    inner: S,
    calls: Arc<Calls>,
}

/// The latency histograms by call and code. Each is looked up by its labels
/// once: a lookup costs more than an observation.
struct Calls {
    metrics: Arc<Metrics>,
    latencies: [[OnceLock<Histogram>; CODES]; CALLS.len()],
}

impl Calls {
    fn record(&self, call: usize, code: Code, began: Instant) {
        let latency = self.latencies[call][code as usize].get_or_init(|| {
            let labels = RpcLabels {
                call: CALLS[call],
                code: code_name(code),
            };
            self.metrics.rpc.0.get_or_create(&labels).clone()
        });
        latency.observe(began.elapsed().as_secs_f64());
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
        let (began, calls) = (Instant::now(), Arc::clone(&self.calls));
        let call = call_number(request.uri().path());
        let span = span(&request);
        let answer = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        let recorded = span.clone();
        let work = async move {
            let response = if let Ok(response) = answer.await {
                translate_refusal(response?)
            } else {
                calls
                    .metrics
                    .task_panics
                    .get_or_create(&Kind { kind: "call" })
                    .inc();
                tracing::error!(call = CALLS[call], "a call ended in a panic");
                status::internal().into_http()
            };
            let code = code_of(response.headers());
            recorded.record("rpc.grpc.status_code", code as i32);
            if is_server_error(code) {
                recorded.record("otel.status_code", "ERROR");
            }
            calls.record(call, code, began);
            Ok(response)
        };
        // A disabled span is not entered at each poll.
        if span.is_disabled() {
            Box::pin(work)
        } else {
            Box::pin(work.instrument(span))
        }
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

/// The calls of the contract; all others share the last label.
const CALLS: [&str; 8] = [
    "GetTodo",
    "BatchGetTodos",
    "ListTodos",
    "CreateTodo",
    "UpdateTodo",
    "DeleteTodo",
    "WatchTodos",
    "other",
];
/// Status codes of gRPC: `Ok` to `Unauthenticated`.
const CODES: usize = Code::Unauthenticated as usize + 1;

fn call_number(path: &str) -> usize {
    let method = path.strip_prefix("/todo.v1.TodoService/");
    let known = method.and_then(|method| CALLS.iter().position(|call| *call == method));
    known.unwrap_or(CALLS.len() - 1)
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

/// Gives a request that the framework refused the status of the contract.
fn translate_refusal(response: Response<Body>) -> Response<Body> {
    let code = code_of(response.headers());
    if !matches!(
        code,
        Code::OutOfRange | Code::Internal | Code::ResourceExhausted
    ) {
        return response;
    }
    let Some(status) = Status::from_header_map(response.headers()) else {
        return response;
    };
    let text = status.message();
    match code {
        Code::OutOfRange if status.details().is_empty() => {
            status::message_too_large(MAX_REQUEST_BYTES).into_http()
        }
        // Within the limit as sent, above it once decompressed.
        Code::ResourceExhausted if status.details().is_empty() && text.contains("decompress") => {
            status::message_too_large(MAX_REQUEST_BYTES).into_http()
        }
        Code::Internal
            if ["decode", "Protobuf", "compress"]
                .iter()
                .any(|word| text.contains(word)) =>
        {
            status::malformed(text).into_http()
        }
        _ => response,
    }
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
