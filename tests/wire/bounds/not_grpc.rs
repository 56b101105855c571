//! What a page in a browser can send to any server without asking it first: over TLS
//! and in plain text, over HTTP/2 and HTTP/1.1, with grpc-web and without.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Version};
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tidemark::pb;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

use super::raw::{TODOS, frame};
use crate::{
    client::*,
    pod::Pod,
    support::{Tidemark, folder},
    tls::{Authority, Files},
};

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Connects, over TLS if there is an authority to trust.
async fn connect(
    service: &Tidemark,
    trusted: Option<&Authority>,
    protocol: &[u8],
) -> std::io::Result<Box<dyn Io>> {
    let address = service.address.split("://").last().expect("an address");
    let stream = TcpStream::connect(address).await?;
    let Some(authority) = trusted else {
        return Ok(Box::new(stream));
    };
    let mut roots = RootCertStore::empty();
    let pem = authority.pem();
    let root = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
    roots.add(root).expect("a root");
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream);
    Ok(Box::new(stream.await?))
}

/// The HTTP status of one request; `None`: the connection was refused.
async fn send(
    service: &Tidemark,
    trusted: Option<&Authority>,
    version: Version,
    request: http::request::Builder,
    body: Bytes,
) -> Option<u16> {
    let request = request.body(Full::new(body)).expect("a request");
    let is_h2 = version == Version::HTTP_2;
    let protocol: &[u8] = if is_h2 { b"h2" } else { b"http/1.1" };
    let io = TokioIo::new(connect(service, trusted, protocol).await.ok()?);
    let response = if is_h2 {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.ok()?;
        tokio::spawn(connection);
        sender.send_request(request).await
    } else {
        let (mut sender, connection) = http1::handshake(io).await.ok()?;
        tokio::spawn(connection);
        sender.send_request(request).await
    };
    response.ok().map(|response| response.status().as_u16())
}

#[tokio::test]
async fn only_grpc_writes_whatever_the_connection() {
    let ours = Authority::new("ours");
    let files = Files::new(&ours.sign());
    let (cert, key) = (files.path("cert.pem"), files.path("key.pem"));
    for tls in [false, true] {
        for web in [false, true] {
            let dir = folder("data").display().to_string();
            let side = "127.0.0.1:0";
            let mut args = vec!["--data-dir", &dir, "--health-listen", side];
            if tls {
                args.extend(["--tls-cert", &cert, "--tls-key", &key]);
            }
            if web {
                args.extend(["--cors-allow-origins", "https://todos.example"]);
            }
            let service = Pod::start(&args);
            let trusted = tls.then_some(&ours);
            try_all(&service, trusted, web).await;
        }
    }
}

async fn try_all(service: &Tidemark, trusted: Option<&Authority>, web: bool) {
    let create = frame(&pb::CreateTodoRequest {
        parent: "lists/home".into(),
        todo: Some(titled("x")),
        todo_id: "forged".into(),
        request_id: String::new(),
    });
    let request = |method: Method, path: &str, kind: &str| {
        Request::builder()
            .method(method)
            .uri(format!("http://localhost{path}"))
            .header("host", "localhost")
            .header("origin", "https://evil.example")
            .header("content-type", kind)
    };
    let path = format!("{TODOS}CreateTodo");
    for version in [Version::HTTP_2, Version::HTTP_11] {
        let kinds = [
            ("text/plain", 415),
            ("application/x-www-form-urlencoded", 415),
            ("multipart/form-data; boundary=x", 415),
            ("text/plain; application/grpc", 415),
        ];
        for (kind, status) in kinds {
            let forged = request(Method::POST, &path, kind);
            let got = send(service, trusted, version, forged, create.clone()).await;
            let context = format!("{version:?} {kind} web {web} tls {}", trusted.is_some());
            assert_eq!(got, Some(status), "{context}");
        }
        for method in [Method::PUT, Method::GET, Method::DELETE, Method::PATCH] {
            let forged = request(method.clone(), &path, "application/grpc");
            let got = send(service, trusted, version, forged, create.clone()).await;
            assert_eq!(got, Some(405), "{version:?} {method}");
        }
        for path in ["/grpc.health.v1.Health/Check", "/no.such.Service/Call", "/"] {
            let forged = request(Method::POST, path, "text/plain");
            let got = send(service, trusted, version, forged, create.clone()).await;
            assert_eq!(got, Some(415), "{version:?} {path}");
        }
    }
    // HTTP/1.1 has no place for the status of native gRPC.
    let native = request(Method::POST, &path, "application/grpc");
    let got = send(service, trusted, Version::HTTP_11, native, create.clone()).await;
    assert_eq!(got, Some(415));
    // Nothing of it was written, and the same over gRPC is.
    let writes = service.metrics_text();
    let done = "tidemark_writes_total{kind=\"done\"}";
    let line = writes.lines().find(|line| line.starts_with(done));
    assert!(line.is_none_or(|line| line.ends_with(" 0")), "{line:?}");
    let honest = Request::builder()
        .method(Method::POST)
        .uri(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let got = send(service, trusted, Version::HTTP_2, honest, create).await;
    assert_eq!(got, Some(200));
}
