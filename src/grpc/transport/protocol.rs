//! Which HTTP requests are gRPC. A web page can send any other content type to
//! any server without asking it first, so nothing else is executed.

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
};
use tonic::body::Body;

/// The HTTP status to refuse a request with that is not gRPC: 405 for another
/// method than POST, 415 for another content type. `None` for gRPC.
pub fn refuse<B>(request: &Request<B>) -> Option<StatusCode> {
    if request.method() != Method::POST {
        return Some(StatusCode::METHOD_NOT_ALLOWED);
    }
    (!is_grpc(request.headers())).then_some(StatusCode::UNSUPPORTED_MEDIA_TYPE)
}

/// A response with this status and without a body.
pub fn refusal(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = status;
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let allow = HeaderValue::from_static("POST");
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

/// The one content type of a request; `None` if there is none, or several.
fn content_type(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.as_bytes())
}

/// Native gRPC with protobuf messages, with or without parameters.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(value) = content_type(headers) else {
        return false;
    };
    let Some(rest) = value.strip_prefix(b"application/grpc") else {
        return false;
    };
    let rest = rest.strip_prefix(b"+proto").unwrap_or(rest);
    rest.is_empty() || rest[0] == b';'
}

/// grpc-web, binary or as text.
pub fn is_grpc_web(headers: &HeaderMap) -> bool {
    matches!(
        content_type(headers),
        Some(
            b"application/grpc-web"
                | b"application/grpc-web+proto"
                | b"application/grpc-web-text"
                | b"application/grpc-web-text+proto"
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(method: Method, types: &[&str]) -> Option<u16> {
        let mut request = Request::builder().method(method);
        for value in types {
            request = request.header(CONTENT_TYPE, *value);
        }
        let request = request.body(()).expect("a request");
        refuse(&request).map(|status| status.as_u16())
    }

    #[test]
    fn only_grpc_by_post() {
        for right in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc; charset=utf-8",
        ] {
            assert_eq!(status(Method::POST, &[right]), None, "{right}");
            assert_eq!(status(Method::PUT, &[right]), Some(405), "{right}");
        }
        for wrong in [
            "",
            "text/plain",
            "text/plain; application/grpc",
            "application/grpcx",
            "application/grpc+json",
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/x-www-form-urlencoded",
        ] {
            assert_eq!(status(Method::POST, &[wrong]), Some(415), "{wrong}");
        }
        assert_eq!(status(Method::POST, &[]), Some(415));
        let both = ["text/plain", "application/grpc"];
        assert_eq!(status(Method::POST, &both), Some(415));
    }
}
