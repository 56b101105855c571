//! grpc-web: calls from browser pages, over HTTP/1.1 or HTTP/2, on the same
//! port as native gRPC.
//!
//! Only requests that are not native gRPC pass through the translation and the
//! CORS rules. With grpc-web off, a native call pays for the check of an
//! `Option`; with grpc-web on, for the check of its content type. As plain
//! layers around the service, both would box the bodies of each native request
//! and response once more.

use std::{
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::Either;
use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{ACCESS_CONTROL_REQUEST_METHOD, InvalidHeaderValue, ORIGIN},
};
use tonic::body::Body;
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::{Layer, Service};
use tower_http::cors::{AllowHeaders, AllowOrigin, Cors, CorsLayer};

use super::protocol;
use crate::config::AllowedOrigins;

/// Response headers that a page may read: a call that fails before its body
/// starts has its status in the headers.
const EXPOSED: [HeaderName; 3] = [
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status-details-bin"),
];
/// How long a browser may cache the response to a preflight: the most that
/// Chromium accepts.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(2 * 3600);

/// Wraps a service in [`Web`]; without CORS rules grpc-web is off.
#[derive(Clone)]
pub struct WebLayer(Option<Arc<Rules>>);

/// Which pages may call, and what they are told about it.
struct Rules {
    origins: AllowedOrigins,
    cors: CorsLayer,
}

impl WebLayer {
    /// grpc-web for pages of these origins; `None`: off.
    ///
    /// # Errors
    /// An origin that is not a valid header value.
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
        Ok(Self(Some(Arc::new(Rules {
            origins: origins.clone(),
            cors,
        }))))
    }

    /// Whether HTTP/1.1 must be accepted, too.
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }
}

impl<S> Layer<S> for WebLayer {
    type Service = Web<S>;

    fn layer(&self, inner: S) -> Web<S> {
        Web {
            inner,
            rules: self.0.clone(),
        }
    }
}

/// A service that also accepts grpc-web calls.
#[derive(Clone)]
pub struct Web<S> {
    inner: S,
    rules: Option<Arc<Rules>>,
}

impl<S> Service<Request<Body>> for Web<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<
        Either<S::Future, Ready<Result<Response<Body>, S::Error>>>,
        <Cors<GrpcWebService<S>> as Service<Request<Body>>>::Future,
    >;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Some(rules) = &self.rules else {
            return Either::Left(Either::Left(self.inner.call(request)));
        };
        match rules.classify(&request) {
            Kind::Direct => Either::Left(Either::Left(self.inner.call(request))),
            Kind::Refused(status) => {
                Either::Left(Either::Right(ready(Ok(protocol::refusal(status)))))
            }
            Kind::Translated => {
                // `poll_ready` was called on `self.inner`, not on its clone: use that one.
                let copy = self.inner.clone();
                let inner = std::mem::replace(&mut self.inner, copy);
                let service = rules.cors.layer(GrpcWebLayer::new().layer(inner));
                Either::Right({ service }.call(request))
            }
        }
    }
}

/// How a request is served when grpc-web is on.
enum Kind {
    /// By the service itself, which refuses what is not gRPC.
    Direct,
    /// Through CORS and the translation of grpc-web.
    Translated,
    Refused(StatusCode),
}

impl Rules {
    fn classify<B>(&self, request: &Request<B>) -> Kind {
        let headers = request.headers();
        let is_preflight = request.method() == Method::OPTIONS
            && headers.contains_key(ORIGIN)
            && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if is_preflight {
            return Kind::Translated;
        }
        if request.method() != Method::POST {
            return Kind::Direct;
        }
        if protocol::is_grpc_web(headers) {
            let allowed = headers
                .get_all(ORIGIN)
                .iter()
                .all(|origin| self.allows(origin));
            return if allowed {
                Kind::Translated
            } else {
                Kind::Refused(StatusCode::FORBIDDEN)
            };
        }
        // Native gRPC needs HTTP/2: HTTP/1.1 has no place for its status.
        if request.version() != Version::HTTP_2 && protocol::is_grpc(headers) {
            return Kind::Refused(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        Kind::Direct
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        match &self.origins {
            AllowedOrigins::Any => true,
            AllowedOrigins::These(origins) => origins.iter().any(|allowed| origin == allowed),
        }
    }
}
