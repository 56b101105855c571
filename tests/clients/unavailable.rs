//! A server that answers every call of the service with UNAVAILABLE, and writes
//! down who asked. It knows no health: clients take it for healthy then.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use http::{Request, Response};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{
    Status,
    body::Body,
    server::NamedService,
    transport::{Server, server::TcpIncoming},
};
use tower::Service;

/// The server, as long as it is kept.
pub struct Unavailable {
    pub address: String,
    asked: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Unavailable {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address").to_string();
        let asked = Arc::default();
        let calls = Calls {
            asked: Arc::clone(&asked),
        };
        let serving = tokio::spawn(async move {
            let incoming = TcpIncoming::from(listener);
            Server::builder()
                .add_service(calls)
                .serve_with_incoming(incoming)
                .await
                .expect("served");
        });
        Self {
            address,
            asked,
            serving,
        }
    }

    /// The paths that were asked for.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("the paths").clone()
    }
}

impl Drop for Unavailable {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[derive(Clone)]
struct Calls {
    asked: Arc<Mutex<Vec<String>>>,
}

impl NamedService for Calls {
    const NAME: &'static str = "todo.v1.TodoService";
}

impl Service<Request<Body>> for Calls {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.asked
            .lock()
            .expect("the paths")
            .push(request.uri().path().to_owned());
        ready(Ok(Status::unavailable("not here").into_http()))
    }
}
