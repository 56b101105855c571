//! Calls in JSON: the unary calls of the [Connect protocol] with
//! `application/json`, on the port and the paths of gRPC.
//!
//! A request becomes a native gRPC request before the RPC layer, and the reply
//! becomes JSON after it. So each bound, budget, deadline, right and metric is
//! applied in one place, and to the same call. The methods come from the
//! descriptors that reflection serves: a new method needs nothing here.
//!
//! [Connect protocol]: https://connectrpc.com/docs/protocol

mod check;
mod error;
mod expected;
mod lane;
mod probes;
mod reply;
mod request;
pub(crate) mod transcode;

use std::{
    sync::{Arc, LazyLock},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::future::{BoxFuture, Either, Ready, ready};
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use prost_reflect::DescriptorPool;
use tokio::sync::watch;
use tonic::body::Body;
use tower::{Layer, Service};

use self::lane::Lane;
pub use self::{error::respond as respond_error, probes::is_probe, reply::WholeReply};
use super::{
    health::HealthState,
    reflection,
    transport::{Call, protocol},
    ui::Ui,
};

/// The services and messages that reflection serves.
pub(crate) static DESCRIPTORS: LazyLock<DescriptorPool> =
    LazyLock::new(|| reflection::descriptors().unwrap_or_default());

/// Wraps a service in a [`JsonService`].
#[derive(Clone)]
pub struct JsonLayer {
    health: watch::Receiver<HealthState>,
    ui: Option<Arc<Ui>>,
    lane: Arc<Lane>,
}

impl JsonLayer {
    /// `/readyz` answers with this state. `ui`: the page, if it is served.
    pub fn new(health: watch::Receiver<HealthState>, ui: Option<Ui>) -> Self {
        let ui = ui.map(Arc::new);
        let lane = Lane::new();
        Self { health, ui, lane }
    }
}

impl<S> Layer<S> for JsonLayer {
    type Service = JsonService<S>;

    fn layer(&self, inner: S) -> JsonService<S> {
        JsonService {
            inner,
            health: self.health.clone(),
            ui: self.ui.clone(),
            lane: Arc::clone(&self.lane),
        }
    }
}

/// A service of gRPC calls that also accepts unary calls in JSON, `/healthz`
/// and `/readyz`, and requests for the page.
#[derive(Clone)]
pub struct JsonService<S> {
    inner: S,
    health: watch::Receiver<HealthState>,
    ui: Option<Arc<Ui>>,
    lane: Arc<Lane>,
}

impl<S> JsonService<S> {
    /// The response to a request that is not a call; `None`: it may be one.
    fn respond(&self, request: &Request<Body>) -> Option<Response<Body>> {
        let health = *self.health.borrow();
        let response = match (probes::respond(request, health), &self.ui) {
            (None, Some(_)) => Ui::respond(request),
            (response, _) => response,
        }?;
        Some(without_body(request.method() == Method::HEAD, response))
    }
}

/// The response to HEAD has no body.
fn without_body(is_head: bool, mut response: Response<Body>) -> Response<Body> {
    if is_head {
        response.extensions_mut().remove::<WholeReply>();
    }
    response
}

impl<S> Service<Request<Body>> for JsonService<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<
        Either<S::Future, Ready<Result<Response<Body>, S::Error>>>,
        BoxFuture<'static, Result<Response<Body>, S::Error>>,
    >;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if let Some(ui) = self.ui.as_ref().filter(|_| Ui::is_status(&request)) {
            let (ui, health) = (Arc::clone(ui), *self.health.borrow());
            let is_head = request.method() == Method::HEAD;
            return Either::Right(Box::pin(async move {
                Ok(without_body(is_head, ui.status(request, health).await))
            }));
        }
        if !protocol::is_json(&request) {
            let is_call = request.method() == Method::POST;
            let response = (!is_call || is_probe(request.uri().path()))
                .then(|| self.respond(&request))
                .flatten();
            return Either::Left(match response {
                Some(response) => Either::Right(ready(Ok(response))),
                None => Either::Left(self.inner.call(request)),
            });
        }
        let call = request.extensions().get::<Arc<Call>>().cloned();
        match request::translate(request, &self.lane) {
            Err(status) => Either::Left(Either::Right(ready(Ok(error::respond(&status))))),
            Ok((request, method)) => {
                let (answer, lane) = (self.inner.call(request), Arc::clone(&self.lane));
                Either::Right(Box::pin(async move {
                    Ok(reply::translate(answer.await?, &method, call, &lane).await)
                }))
            }
        }
    }
}

/// A response in JSON that is complete.
fn response(status: StatusCode, json: Vec<u8>) -> Response<Body> {
    let mut response = whole(status, json.into());
    let json_type = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json_type);
    response
}

/// A response that is complete, without a content type.
pub fn whole(status: StatusCode, content: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = status;
    response.extensions_mut().insert(WholeReply(content));
    response
}
