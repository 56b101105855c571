//! Calls from browser pages: which pages may call, and grpc-web, over HTTP/1.1 or
//! HTTP/2, on the same port as native gRPC.
//!
//! A native call pays for the check of its content type only. As plain layers
//! around the service, the translation and the CORS rules would box the bodies of
//! each native request and response once more.

use std::{
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::Either;
use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{
        ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, InvalidHeaderValue, ORIGIN,
    },
};
use tonic::{Status, body::Body};
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::{Layer, Service};
use tower_http::cors::{AllowHeaders, AllowOrigin, Cors, CorsLayer};

use super::{super::json, protocol};
use crate::{config::AllowedOrigins, error::shorten};

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

/// Longest list of headers that a preflight may ask for, in bytes: the response repeats it, and
/// has less than 8 KiB of headers. Browsers name those that the page's script sets, some dozens of
/// bytes each.
const MAX_ASKED_HEADERS_BYTES: usize = 4 << 10;

/// Wraps a service in [`Web`]; without CORS rules no page of another origin may
/// call, and grpc-web is off.
#[derive(Clone)]
pub struct WebLayer(Option<Arc<Rules>>);

/// Which origins may call, and the CORS headers of their responses.
struct Rules {
    origins: AllowedOrigins,
    /// Our own page may call, too.
    own_page: bool,
    cors: CorsLayer,
}

impl WebLayer {
    /// Calls from pages of these origins, and from our own page if it is served.
    ///
    /// # Errors
    /// An origin that is not a valid header value.
    pub fn new(
        origins: Option<&AllowedOrigins>,
        own_page: bool,
    ) -> Result<Self, InvalidHeaderValue> {
        let none = AllowedOrigins::These(Vec::new());
        let origins = match origins {
            Some(origins) => origins,
            None if own_page => &none,
            None => return Ok(Self(None)),
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
            own_page,
            cors,
        }))))
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

/// A service that also accepts calls from pages.
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
        Either<
            <Cors<GrpcWebService<S>> as Service<Request<Body>>>::Future,
            <Cors<S> as Service<Request<Body>>>::Future,
        >,
    >;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let kind = classify(&request, self.rules.as_deref());
        let (is_web, rules) = match (kind, &self.rules) {
            (Kind::Refused(response), _) => {
                return Either::Left(Either::Right(ready(Ok(*response))));
            }
            (Kind::GrpcWeb, Some(rules)) => (true, rules),
            (Kind::Json, Some(rules)) => (false, rules),
            _ => return Either::Left(Either::Left(self.inner.call(request))),
        };
        // `poll_ready` was called on `self.inner`, not on its clone: use that one.
        let copy = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, copy);
        Either::Right(if is_web {
            let service = rules.cors.layer(GrpcWebLayer::new().layer(inner));
            Either::Left({ service }.call(request))
        } else {
            Either::Right(rules.cors.layer(inner).call(request))
        })
    }
}

/// How a request is served.
enum Kind {
    /// By the service itself, which refuses what is not a call.
    Direct,
    /// Through CORS and the translation of grpc-web.
    GrpcWeb,
    /// Through CORS.
    Json,
    Refused(Box<Response<Body>>),
}

fn classify<B>(request: &Request<B>, rules: Option<&Rules>) -> Kind {
    let headers = request.headers();
    if request.method() == Method::POST && protocol::is_grpc(headers) {
        // Native gRPC needs HTTP/2: HTTP/1.1 has no place for its status.
        return if request.version() == Version::HTTP_2 {
            Kind::Direct
        } else {
            let refusal = protocol::refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE);
            Kind::Refused(Box::new(refusal))
        };
    }
    let stranger = headers
        .get_all(ORIGIN)
        .iter()
        .find(|origin| !rules.is_some_and(|rules| rules.allows(request, origin)));
    if protocol::is_json(request) {
        return match stranger {
            None => Kind::Json,
            Some(origin) => Kind::Refused(Box::new(refuse_page(origin))),
        };
    }
    if rules.is_none() {
        return Kind::Direct;
    }
    let is_preflight = request.method() == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    if is_preflight {
        let asked = headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
        if asked.is_some_and(|asked| asked.len() > MAX_ASKED_HEADERS_BYTES) {
            let refusal = protocol::refusal(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
            return Kind::Refused(Box::new(refusal));
        }
        return Kind::GrpcWeb;
    }
    if request.method() != Method::POST || !protocol::is_grpc_web(headers) {
        return Kind::Direct;
    }
    match stranger {
        None => Kind::GrpcWeb,
        Some(_) => Kind::Refused(Box::new(protocol::refusal(StatusCode::FORBIDDEN))),
    }
}

fn refuse_page(origin: &HeaderValue) -> Response<Body> {
    let origin = shorten(&String::from_utf8_lossy(origin.as_bytes()));
    json::respond_error(&Status::permission_denied(format!(
        "pages of {origin:?} may not call this server: see its setting cors-allow-origins"
    )))
}

impl Rules {
    fn allows<B>(&self, request: &Request<B>, origin: &HeaderValue) -> bool {
        let is_listed = match &self.origins {
            AllowedOrigins::Any => true,
            AllowedOrigins::These(origins) => origins.iter().any(|allowed| origin == allowed),
        };
        is_listed || (self.own_page && is_own_page(request, origin))
    }
}

/// Whether the page is from the address that the request was sent to. Of names
/// nothing is known: a stranger's name may lead to this address, too.
fn is_own_page<B>(request: &Request<B>, origin: &HeaderValue) -> bool {
    let page = origin.to_str().ok().and_then(|origin| {
        let plain = origin.strip_prefix("http://");
        plain.or_else(|| origin.strip_prefix("https://"))
    });
    let sent_to = protocol::authority(request);
    page.is_some() && page == sent_to && page.is_some_and(protocol::is_address)
}
