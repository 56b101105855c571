//! One address before servers that change: a TCP proxy whose new connections go
//! to another server, and whose old ones lose every byte without being closed.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU16, AtomicU64, Ordering},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};

use crate::support::free_port;

pub struct Proxy {
    pub port: u16,
    state: Arc<State>,
}

struct State {
    target: AtomicU16,
    /// Connections opened in an earlier period lose their bytes.
    period: AtomicU64,
}

/// A thread of its own: the tests have a thread for all of theirs.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime")
    })
}

impl Proxy {
    pub fn before(target: u16) -> Self {
        let port = free_port();
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).expect("free");
        listener.set_nonblocking(true).expect("not blocking");
        let state = Arc::new(State {
            target: AtomicU16::new(target),
            period: AtomicU64::new(0),
        });
        let shared = Arc::clone(&state);
        runtime().spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, Arc::clone(&shared)));
            }
        });
        Self { port, state }
    }

    /// New connections go to another port.
    pub fn point_at(&self, target: u16) {
        self.state.target.store(target, Ordering::SeqCst);
    }

    /// The connections that are open now lose every byte from now on.
    pub fn swallow(&self) {
        self.state.period.fetch_add(1, Ordering::SeqCst);
    }
}

async fn forward(client: TcpStream, state: Arc<State>) {
    let target = state.target.load(Ordering::SeqCst);
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let period = state.period.load(Ordering::SeqCst);
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = pump(from_client, to_server, &state, period) => {}
        () = pump(from_server, to_client, &state, period) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    state: &State,
    period: u64,
) {
    let mut chunk = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut chunk).await {
        let is_open = state.period.load(Ordering::SeqCst) == period;
        if is_open && to.write_all(&chunk[..read]).await.is_err() {
            return;
        }
    }
}
