//! Which HTTP requests are calls: gRPC, grpc-web, or JSON. A web page cannot send
//! these content types to a server of another origin without asking it first, so
//! nothing else is executed.

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, HOST},
    uri::Authority,
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
    let headers = response.headers_mut();
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("POST"));
    }
    if status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        let types = HeaderValue::from_static("application/grpc, application/json");
        headers.insert("accept-post", types);
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

/// Whether a request is a call: gRPC, grpc-web or JSON. Others are pages, probes, preflights,
/// and what is refused.
pub fn is_call<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let is_post = request.method() == Method::POST;
    is_post && (is_grpc(headers) || is_grpc_web(headers) || is_json(request))
}

/// A call in JSON: POST, and `application/json` with UTF-8 or no charset.
pub fn is_json<B>(request: &Request<B>) -> bool {
    let Some(value) = content_type(request.headers()) else {
        return false;
    };
    let Some((kind, rest)) = value.split_at_checked(JSON.len()) else {
        return false;
    };
    kind.eq_ignore_ascii_case(JSON)
        && request.method() == Method::POST
        && (rest.is_empty() || is_utf8_charset(rest))
}

const JSON: &[u8] = b"application/json";

/// The parameter of a content type, from its semicolon on.
fn is_utf8_charset(parameter: &[u8]) -> bool {
    let Some(rest) = parameter.trim_ascii_start().strip_prefix(b";") else {
        return false;
    };
    let parameter = rest.trim_ascii().to_ascii_lowercase();
    let Some(charset) = parameter.strip_prefix(b"charset=") else {
        return parameter.is_empty();
    };
    matches!(charset, b"utf-8" | b"utf8" | b"\"utf-8\"" | b"\"utf8\"")
}

/// Host and port that a request was sent to.
pub fn authority<B>(request: &Request<B>) -> Option<&str> {
    let of_uri = request.uri().authority().map(Authority::as_str);
    of_uri.or_else(|| request.headers().get(HOST)?.to_str().ok())
}

/// Whether the host is an IP address or `localhost`: names that nobody else can
/// give to this server.
pub fn is_address(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<Authority>() else {
        return false;
    };
    let host = authority.host().trim_matches(['[', ']']);
    host == "localhost" || host.ends_with(".localhost") || host.parse::<IpAddr>().is_ok()
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

    #[test]
    fn addresses_are_not_names() {
        for address in [
            "127.0.0.1:50051",
            "[::1]:8080",
            "localhost",
            "10.0.0.7",
            "a.localhost:1",
        ] {
            assert!(is_address(address), "{address}");
        }
        for name in [
            "todos.example:50051",
            "localhost.evil.example",
            "",
            "127.0.0.1.evil.example",
        ] {
            assert!(!is_address(name), "{name}");
        }
    }

    #[test]
    fn only_json_in_utf_8() {
        let is = |method: Method, value: &str| {
            let request = Request::builder().method(method);
            let request = request.header(CONTENT_TYPE, value).body(());
            is_json(&request.expect("a request"))
        };
        for right in [
            "application/json",
            "Application/JSON",
            "application/json;charset=utf-8",
            "application/json; charset=UTF-8",
            "application/json ; charset=\"utf-8\"",
            "application/json;",
        ] {
            assert!(is(Method::POST, right), "{right}");
            assert!(!is(Method::GET, right), "{right}");
        }
        for wrong in [
            "",
            "text/json",
            "application/jsonx",
            "application/json+x",
            "application/json; charset=latin1",
            "application/json; profile=x",
            "application/connect+json",
            "application/proto",
        ] {
            assert!(!is(Method::POST, wrong), "{wrong}");
        }
    }
}
