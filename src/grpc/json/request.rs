//! A call in JSON as a native gRPC request.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Version,
    header::{
        ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE,
        EXPECT, TRANSFER_ENCODING,
    },
};
use http_body::{Body as _, Frame};
use prost_reflect::MethodDescriptor;
use tonic::{Status, body::Body};

use super::{DESCRIPTORS, lane::Lane, transcode};
use crate::{
    error::{Error, FieldProblem, shorten},
    grpc::{method::Method, request_body::Received, status, transport::Call},
};

const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("connect-protocol-version");
const TIMEOUT: HeaderName = HeaderName::from_static("connect-timeout-ms");
/// Digits of a timeout: more than a hundred days.
const MAX_TIMEOUT_DIGITS: usize = 10;
/// The largest number in a timeout of gRPC.
const MAX_GRPC_TIMEOUT: u64 = 99_999_999;
/// What describes the JSON and not the call.
const HOP_HEADERS: [HeaderName; 7] = [
    ACCEPT,
    ACCEPT_ENCODING,
    CONNECTION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    EXPECT,
    TRANSFER_ENCODING,
];

/// The same call in native gRPC, and its method. The body is read and
/// translated when the RPC layer asks for it.
///
/// # Errors
/// The call cannot be made in JSON, or its head is wrong.
pub fn translate(
    mut request: Request<Body>,
    lane: &Arc<Lane>,
) -> Result<(Request<Body>, MethodDescriptor), Status> {
    let path = request.uri().path();
    let method = find(path)?;
    let limit = Method::of(path).max_request_bytes;
    let headers = request.headers();
    check_head(headers, limit)?;
    let timeout = grpc_timeout(headers)?;
    let headers = request.headers_mut();
    clean(headers);
    let grpc = HeaderValue::from_static("application/grpc");
    headers.insert(CONTENT_TYPE, grpc);
    if let Some(timeout) = timeout {
        headers.insert("grpc-timeout", timeout);
    }
    *request.version_mut() = Version::HTTP_2;
    let call = request.extensions().get::<Arc<Call>>().cloned();
    let request = request.map(|inner| {
        Body::new(JsonBody {
            inner,
            received: Received::default(),
            limit,
            method: method.clone(),
            call,
            lane: Arc::clone(lane),
            translating: None,
            ended: false,
        })
    });
    Ok((request, method))
}

/// The unary method with this path.
fn find(path: &str) -> Result<MethodDescriptor, Status> {
    let unknown = || {
        let path = shorten(path);
        Status::unimplemented(format!(
            "there is no method {path:?}: expected /package.Service/Method, such as /todo.v1.TodoService/GetTodo"
        ))
    };
    let (service, name) = path
        .strip_prefix('/')
        .and_then(|path| path.split_once('/'))
        .ok_or_else(unknown)?;
    let service = DESCRIPTORS
        .get_service_by_name(service)
        .ok_or_else(unknown)?;
    let method = service.methods().find(|method| method.name() == name);
    let method = method.ok_or_else(unknown)?;
    if method.is_client_streaming() || method.is_server_streaming() {
        return Err(Status::unimplemented(format!(
            "{name} is a streaming call, and JSON is for unary calls: call it by gRPC or grpc-web"
        )));
    }
    Ok(method)
}

fn check_head(headers: &HeaderMap, limit: usize) -> Result<(), Status> {
    if let Some(version) = headers.get(PROTOCOL_VERSION)
        && version != "1"
    {
        return Err(wrong_header(&PROTOCOL_VERSION, version, "expected 1"));
    }
    if let Some(encoding) = headers.get(CONTENT_ENCODING)
        && encoding != "identity"
    {
        let shown = shorten(&String::from_utf8_lossy(encoding.as_bytes()));
        return Err(Status::unimplemented(format!(
            "content-encoding {shown:?} is not supported: send JSON as it is (identity)"
        )));
    }
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse::<u64>().ok());
    if length.is_some_and(|length| length > limit as u64) {
        return Err(status::request_too_large(limit));
    }
    Ok(())
}

fn wrong_header(name: &HeaderName, value: &HeaderValue, problem: &str) -> Status {
    let value = String::from_utf8_lossy(value.as_bytes());
    let problem = format!("is not valid: {problem}");
    Error::from(FieldProblem::new(name.as_str(), value, problem)).into()
}

/// The timeout in the form of gRPC.
fn grpc_timeout(headers: &HeaderMap) -> Result<Option<HeaderValue>, Status> {
    let Some(value) = headers.get(TIMEOUT) else {
        return Ok(None);
    };
    let wrong = || {
        wrong_header(
            &TIMEOUT,
            value,
            "expected milliseconds, of at most 10 digits",
        )
    };
    let digits = value.as_bytes();
    if digits.len() > MAX_TIMEOUT_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return Err(wrong());
    }
    let millis = value.to_str().ok().and_then(|digits| digits.parse().ok());
    let millis: u64 = millis.ok_or_else(wrong)?;
    let text = if millis <= MAX_GRPC_TIMEOUT {
        format!("{millis}m")
    } else {
        format!("{}S", millis / 1000)
    };
    HeaderValue::from_str(&text).map(Some).map_err(|_| wrong())
}

/// Removes the headers that are not metadata of the call.
fn clean(headers: &mut HeaderMap) {
    for name in HOP_HEADERS {
        headers.remove(name);
    }
    let reserved = |name: &&HeaderName| {
        let name = name.as_str();
        name.starts_with("connect-") || name.starts_with("grpc-")
    };
    let reserved: Vec<_> = headers.keys().filter(reserved).cloned().collect();
    for name in reserved {
        headers.remove(name);
    }
}

/// The body of a request in JSON, as one message of gRPC.
struct JsonBody {
    inner: Body,
    received: Received,
    /// Most bytes of JSON.
    limit: usize,
    method: MethodDescriptor,
    call: Option<Arc<Call>>,
    lane: Arc<Lane>,
    /// A large body that is here.
    translating: Option<BoxFuture<'static, Result<Bytes, Status>>>,
    ended: bool,
}

impl JsonBody {
    /// The message, once the whole body is here.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
        if self.translating.is_none() {
            let json = ready!(self.poll_whole(cx))?;
            let input = self.method.input();
            if json.len() <= transcode::SMALL_BYTES {
                let call = self.call.as_deref();
                return Poll::Ready(transcode::from_json(&json, &input, call));
            }
            let (lane, call) = (Arc::clone(&self.lane), self.call.clone());
            self.translating = Some(Box::pin(async move {
                let work = move |call: Option<&Call>| transcode::from_json(&json, &input, call);
                lane.run(call, work).await
            }));
        }
        match &mut self.translating {
            Some(translating) => translating.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    /// The whole body, once it is here.
    fn poll_whole(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
        loop {
            match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                None => return Poll::Ready(Ok(self.received.take())),
                Some(Err(error)) => return Poll::Ready(Err(error)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if self.received.as_slice().len() + data.len() > self.limit => {
                        return Poll::Ready(Err(status::request_too_large(self.limit)));
                    }
                    Ok(data) => self.received.push(data),
                    // Trailers of a request mean nothing to the service.
                    Err(_) => return Poll::Ready(Ok(self.received.take())),
                },
            }
        }
    }
}

impl http_body::Body for JsonBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let message = ready!(self.poll_message(cx));
        self.ended = true;
        Poll::Ready(Some(message.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout(value: &'static str) -> Option<String> {
        let headers = HeaderMap::from_iter([(TIMEOUT, HeaderValue::from_static(value))]);
        let timeout = grpc_timeout(&headers).ok()??;
        Some(timeout.to_str().expect("text").to_owned())
    }

    #[test]
    fn timeouts_are_those_of_grpc() {
        assert_eq!(timeout("250").as_deref(), Some("250m"));
        assert_eq!(timeout("0").as_deref(), Some("0m"));
        assert_eq!(timeout("99999999").as_deref(), Some("99999999m"));
        assert_eq!(timeout("9999999999").as_deref(), Some("9999999S"));
        for wrong in ["", "-1", "1.5", "5s", "10000000000", "+5", " 5"] {
            assert_eq!(timeout(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn headers_of_the_call_stay_and_those_of_json_go() {
        let mut headers = HeaderMap::new();
        for name in ["authorization", "traceparent", "x-any-bin"] {
            headers.insert(name, HeaderValue::from_static("x"));
        }
        let kept = headers.clone();
        for name in [
            "grpc-encoding",
            "grpc-timeout",
            "connect-timeout-ms",
            "content-length",
        ] {
            headers.insert(name, HeaderValue::from_static("1"));
        }
        clean(&mut headers);
        assert_eq!(headers, kept);
    }

    #[test]
    fn only_unary_methods_that_exist() {
        assert!(find("/todo.v1.TodoService/GetTodo").is_ok());
        assert!(find("/grpc.health.v1.Health/Check").is_ok());
        for wrong in [
            "/todo.v1.TodoService/WatchTodos",
            "/todo.v1.TodoService/GetTodo/",
            "/todo.v1.TodoService/",
            "//todo.v1.TodoService/GetTodo",
            "/todo.v1.TodoService",
            "/",
            "*",
        ] {
            let status = find(wrong).expect_err(wrong);
            assert_eq!(status.code(), tonic::Code::Unimplemented, "{wrong}");
        }
    }
}
