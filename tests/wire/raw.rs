//! A peer that speaks HTTP/2 frame by frame, and does what no client library
//! does: for tests of attacks and of broken clients.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    client::{Builder, ResponseFuture, SendRequest},
};
use prost::Message;
use tokio::{
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
};

use crate::support::{Tidemark, eventually};

/// The address of the attackers: another caller than the other tests are.
pub const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

pub fn address(service: &Tidemark) -> SocketAddr {
    let address = service.address.trim_start_matches("http://");
    address.parse().expect("an address")
}

/// A TCP connection from this address of the loopback.
pub async fn tcp(service: &Tidemark, from: Ipv4Addr) -> std::io::Result<TcpStream> {
    tcp_to(address(service), from, None).await
}

/// The same to another port, with this size of the receive buffer.
pub async fn tcp_to(
    address: SocketAddr,
    from: Ipv4Addr,
    buffer: Option<u32>,
) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(bytes) = buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.bind((from, 0).into())?;
    socket.connect(address).await
}

/// An HTTP/2 connection.
pub struct Peer {
    send: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Peer {
    /// Connects with settings of its own.
    pub async fn connect(service: &Tidemark, from: Ipv4Addr, builder: &Builder) -> Self {
        let stream = tcp(service, from).await.expect("connected");
        Self::over(stream, builder).await.expect("HTTP/2")
    }

    /// HTTP/2 on this connection.
    pub async fn over(stream: TcpStream, builder: &Builder) -> Result<Self, h2::Error> {
        let (send, connection) = builder.handshake(stream).await?;
        let connection = tokio::spawn(connection);
        let send = send.ready().await?;
        Ok(Self { send, connection })
    }

    /// Begins a call: its head is sent.
    pub async fn begin(
        &mut self,
        method: &str,
        encoding: Option<&str>,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut request = http::Request::post(format!("http://tidemark/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(encoding) = encoding {
            request = request.header("grpc-encoding", encoding);
        }
        self.begin_with(request, false).await
    }

    /// Sends the head of any request; `end`: it has no body.
    pub async fn begin_with(
        &mut self,
        request: http::request::Builder,
        end: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        futures::future::poll_fn(|cx| self.send.poll_ready(cx)).await?;
        let request = request.body(()).expect("a request");
        self.send.send_request(request, end)
    }

    /// Sends a whole call.
    pub async fn call(
        &mut self,
        method: &str,
        message: &impl Message,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let (response, mut stream) = self.begin(method, None).await?;
        stream.send_data(framed(&message.encode_to_vec(), false), true)?;
        Ok((response, stream))
    }

    /// Why the connection ended.
    pub async fn end(&mut self, limit: Duration) -> Result<(), h2::Error> {
        let ended = tokio::time::timeout(limit, &mut self.connection).await;
        ended.expect("it ended in time").expect("no panic")
    }

    /// Whether it still lives.
    pub fn is_alive(&self) -> bool {
        !self.connection.is_finished()
    }
}

/// What a client sends first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// HEADERS of HTTP/2 for a call, in the plainest form of HPACK.
pub fn head(stream: u32, path: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "tidemark"),
        (":path", path),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("below 127"));
            block.extend(text.as_bytes());
        }
    }
    frame(1, 4, stream, &block)
}

/// One frame of HTTP/2.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A message of gRPC.
pub fn framed(message: &[u8], compressed: bool) -> Bytes {
    let length = u32::try_from(message.len()).expect("short");
    let mut bytes = vec![u8::from(compressed)];
    bytes.extend(length.to_be_bytes());
    bytes.extend(message);
    bytes.into()
}

/// The status of a response: of its head, or of its trailers after all data.
pub async fn status(response: ResponseFuture) -> Result<i32, h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    if let Some(status) = head.headers.get("grpc-status") {
        return Ok(code(status));
    }
    while let Some(data) = body.data().await {
        let length = data?.len();
        body.flow_control().release_capacity(length)?;
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    Ok(trailers.get("grpc-status").map_or(-1, code))
}

fn code(value: &http::HeaderValue) -> i32 {
    value
        .to_str()
        .ok()
        .and_then(|code| code.parse().ok())
        .unwrap_or(-1)
}

/// Waits until the service has the begin of a request that is not there in full.
pub async fn request_begun(service: &Tidemark) {
    eventually("a request", Duration::from_secs(60), async || {
        let used = service.metric("tidemark_budget_used_bytes{kind=\"unfinished requests\"}");
        (used > 0).then_some(())
    })
    .await;
}

/// The next piece of a stream.
pub async fn next(body: &mut RecvStream, limit: Duration) -> Option<Result<Bytes, h2::Error>> {
    let data = tokio::time::timeout(limit, body.data())
        .await
        .expect("in time")?;
    Some(data.inspect(|bytes| {
        // Fails only when the stream has ended.
        let _ = body.flow_control().release_capacity(bytes.len());
    }))
}
