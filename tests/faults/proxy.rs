//! A TCP proxy that can hold bytes back: before every mongod and every Redis
//! node, so that everybody's way to them can be made slow or dead. Whose
//! connection it is, is told by the application's name that the client sends
//! in its first message.

use std::{
    net::TcpListener as StdListener,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Runtime,
    sync::watch,
    time::sleep,
};

/// Bytes passed on at once.
const CHUNK: usize = 64 << 10;

/// What happens to bytes on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Each piece is held for so long.
    Slow(Duration),
    /// Nothing goes through; connections stay open, new ones are taken.
    Stall,
}

/// The ways of one party to all nodes of a kind.
#[derive(Clone)]
pub struct Way {
    /// In the first message of its connections; empty: in every one's.
    mark: String,
    mode: watch::Sender<Mode>,
}

impl Way {
    pub fn new(mark: &str) -> Self {
        Self {
            mark: mark.into(),
            mode: watch::Sender::new(Mode::Pass),
        }
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    fn takes(&self, first: &[u8]) -> bool {
        first
            .windows(self.mark.len().max(1))
            .any(|part| self.mark.is_empty() || part == self.mark.as_bytes())
    }
}

/// The proxies have threads of their own: what the tests do must not slow them.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("proxy")
            .enable_all()
            .build()
            .expect("a runtime")
    })
}

/// Starts a proxy before a port of this machine; its own port.
pub fn before(target: u16, ways: Vec<Way>) -> u16 {
    before_movable(Arc::new(AtomicU16::new(target)), ways)
}

/// The same, whose new connections go to where the port points then.
pub fn before_movable(target: Arc<AtomicU16>, ways: Vec<Way>) -> u16 {
    let port = crate::support::free_port();
    let listener = StdListener::bind(("127.0.0.1", port)).expect("the port is free");
    listener.set_nonblocking(true).expect("not blocking");
    let ways = Arc::new(ways);
    runtime().spawn(async move {
        let listener = TcpListener::from_std(listener).expect("a listener");
        loop {
            let Ok((client, _)) = listener.accept().await else {
                continue;
            };
            let target = target.load(Ordering::Relaxed);
            tokio::spawn(connection(client, target, Arc::clone(&ways)));
        }
    });
    port
}

async fn connection(client: TcpStream, target: u16, ways: Arc<Vec<Way>>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let mut first = vec![0; CHUNK];
    let Ok(read) = from_client.read(&mut first).await else {
        return;
    };
    let way = ways.iter().find(|way| way.takes(&first[..read]));
    let mode = way.map_or_else(|| watch::Sender::new(Mode::Pass), |way| way.mode.clone());
    if !passed(&mut mode.subscribe(), &first[..read], &mut to_server).await {
        return;
    }
    // One end closed is both closed: nobody here speaks half-closed.
    tokio::select! {
        () = pump(from_client, to_server, mode.subscribe()) => {}
        () = pump(from_server, to_client, mode.subscribe()) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut mode: watch::Receiver<Mode>) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(read) = from.read(&mut chunk).await {
        if read == 0 || !passed(&mut mode, &chunk[..read], &mut to).await {
            return;
        }
    }
}

/// Hands bytes on, as the way allows.
async fn passed(mode: &mut watch::Receiver<Mode>, bytes: &[u8], to: &mut OwnedWriteHalf) -> bool {
    let now = *mode.borrow();
    if let Mode::Slow(by) = now {
        sleep(by).await;
    }
    if mode.wait_for(|mode| *mode != Mode::Stall).await.is_err() {
        return false;
    }
    to.write_all(bytes).await.is_ok()
}
