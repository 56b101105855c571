//! Requests below gRPC: any headers, any body, sent frame by frame.

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{net::TcpStream, sync::mpsc};
use tonic::{Code, Status};

use crate::support::Tidemark;

pub const TODOS: &str = "/todo.v1.TodoService/";

/// Sends the rest of a request; dropped, the request ends.
pub type Rest = mpsc::UnboundedSender<Bytes>;

/// What came back.
pub struct Reply {
    pub http: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// From the trailers, or from the headers if there is nothing else.
    pub status: Option<Status>,
}

/// One message as it is sent, not compressed.
pub fn frame(message: &impl Message) -> Bytes {
    announced(message.encoded_len(), &message.encode_to_vec())
}

/// A message's head with this length, and these bytes.
pub fn announced(length: usize, bytes: &[u8]) -> Bytes {
    let mut frame = BytesMut::from(&[0_u8][..]);
    frame.extend_from_slice(&u32::try_from(length).expect("a length").to_be_bytes());
    frame.extend_from_slice(bytes);
    frame.freeze()
}

pub fn post(path: &str) -> http::request::Builder {
    Request::builder()
        .method(Method::POST)
        .uri(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

/// One call on an HTTP/2 connection of its own: these bytes, then whatever is
/// sent through the second channel end.
pub async fn open(
    service: &Tidemark,
    request: http::request::Builder,
    first: Bytes,
) -> (
    Rest,
    impl Future<Output = hyper::Result<http::Response<Incoming>>>,
) {
    let (rest, frames) = mpsc::unbounded_channel();
    rest.send(first).expect("open");
    let frames = tokio_stream::wrappers::UnboundedReceiverStream::new(frames)
        .map(|bytes| Ok::<_, std::convert::Infallible>(Frame::data(bytes)));
    let request = request.body(StreamBody::new(frames)).expect("a request");
    let address = service.address.trim_start_matches("http://");
    let stream = TcpStream::connect(address).await.expect("connected");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("an HTTP/2 connection");
    tokio::spawn(connection);
    (rest, async move { sender.send_request(request).await })
}

/// The whole reply.
pub async fn collect(response: http::Response<Incoming>) -> Reply {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a body");
    let trailers = body.trailers().cloned().unwrap_or_default();
    let status =
        Status::from_header_map(&trailers).or_else(|| Status::from_header_map(&parts.headers));
    Reply {
        http: parts.status,
        headers: parts.headers,
        body: body.to_bytes(),
        status,
    }
}

/// Sends one request and ends it.
pub async fn send(service: &Tidemark, request: http::request::Builder, body: Bytes) -> Reply {
    let (rest, response) = open(service, request, body).await;
    drop(rest);
    collect(response.await.expect("a response")).await
}

/// Calls a method of the todo service with one message.
pub async fn call(service: &Tidemark, method: &str, message: &impl Message) -> Reply {
    send(service, post(&format!("{TODOS}{method}")), frame(message)).await
}

impl Reply {
    pub fn code(&self) -> Code {
        self.status.as_ref().map_or(Code::Ok, Status::code)
    }

    /// The size of the headers, as HTTP/2 and the C-core clients count it.
    pub fn header_bytes(&self) -> usize {
        let count = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            name.as_str().len() + value.len() + 32
        };
        self.headers.iter().map(count).sum()
    }
}
