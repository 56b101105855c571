//! grpc-web: calls from pages in a browser, over HTTP/1.1 or HTTP/2, on the
//! same port as all others.
//!
//! Only requests that are no plain gRPC take the way through translation and
//! CORS. All others go straight on: with grpc-web switched off a native call
//! costs nothing more than a look at an `Option`, with grpc-web on a look at
//! its content type. (As layers round everything the two would box the body of
//! each native request and of its response once more.)

use std::{
    task::{Context, Poll},
    time::Duration,
};

use futures::future::Either;
use http::{
    HeaderName, HeaderValue, Method, Request, Response, Version,
    header::{CONTENT_TYPE, InvalidHeaderValue},
};
use tonic::body::Body;
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::{Layer, Service};
use tower_http::cors::{AllowHeaders, AllowOrigin, Cors, CorsLayer};

use crate::config::AllowedOrigins;

/// What a page may read of an answer: the status of a call that failed before
/// it had a body stands in the headers.
const EXPOSED: [HeaderName; 3] = [
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status-details-bin"),
];
/// How long a browser may remember the answer to a preflight: the longest that
/// Chromium takes.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(2 * 3600);

/// Puts a [`Web`] round a service; without CORS rules grpc-web is off.
#[derive(Clone)]
pub struct WebLayer(Option<CorsLayer>);

impl WebLayer {
    /// grpc-web for pages of these origins; `None`: off.
    ///
    /// # Errors
    /// An origin that cannot stand in a header.
    pub fn new(origins: Option<&AllowedOrigins>) -> Result<Self, InvalidHeaderValue> {
        let Some(origins) = origins else {
            return Ok(Self(None));
        };
        let allowed = match origins {
            AllowedOrigins::Any => AllowOrigin::any(),
            AllowedOrigins::These(origins) => {
                let values = origins.iter().map(|origin| HeaderValue::from_str(origin));
                AllowOrigin::list(values.collect::<Result<Vec<_>, _>>()?)
            }
        };
        let cors = CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods([Method::POST])
            // A call may carry metadata of any name.
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers(EXPOSED)
            .max_age(PREFLIGHT_MAX_AGE);
        Ok(Self(Some(cors)))
    }

    /// Whether calls over HTTP/1.1 may come.
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }
}

impl<S> Layer<S> for WebLayer {
    type Service = Web<S>;

    fn layer(&self, inner: S) -> Web<S> {
        Web {
            inner,
            cors: self.0.clone(),
        }
    }
}

/// A service that also takes grpc-web calls.
#[derive(Clone)]
pub struct Web<S> {
    inner: S,
    cors: Option<CorsLayer>,
}

impl<S> Service<Request<Body>> for Web<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, <Cors<GrpcWebService<S>> as Service<Request<Body>>>::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Some(cors) = &self.cors else {
            return Either::Left(self.inner.call(request));
        };
        if is_native(&request) {
            return Either::Left(self.inner.call(request));
        }
        // The one that is ready does the work, its copy is asked next time.
        let copy = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, copy);
        Either::Right(cors.layer(GrpcWebLayer::new().layer(ready)).call(request))
    }
}

/// gRPC over HTTP/2: neither a grpc-web call nor a preflight.
fn is_native<B>(request: &Request<B>) -> bool {
    let web = |kind: &HeaderValue| kind.as_bytes().starts_with(b"application/grpc-web");
    request.version() == Version::HTTP_2
        && request.method() == Method::POST
        && !request.headers().get(CONTENT_TYPE).is_some_and(web)
}
