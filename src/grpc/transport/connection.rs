//! One connection: from the handshake to its end.
//!
//! A connection is closed when its peer does not send the preface of HTTP/2 in
//! time, does not answer pings, or does not read its replies; when memory is short;
//! when it reaches its maximal age; when its address has most of too many
//! connections; and when the process shuts down. In the last three cases it
//! is closed gracefully: GOAWAY, then the calls under way end, streams with a
//! last message. What does not move any more is not waited for.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use hyper::{Request, Response, body::Incoming, service::Service};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tokio_util::sync::CancellationToken;

use super::{
    accept::Slot,
    handshake::HandshakeStream,
    metering::ReplyBody,
    table::{ConnectionState, Eviction},
    write_coalescing::CoalescedWrites,
};
use crate::{
    auth::{Certificate, ConnectionIdentity},
    budget::{Budgets, Caller, CallerKey, Part},
    telemetry::{Kind, Metrics},
    turns::{InTurns, Turns},
};

/// Time for a TLS handshake, and then for the preface of HTTP/2 or the head of
/// the first HTTP/1.1 request: a few round trips.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// CPU of a step of a handshake.
const HANDSHAKE_MICROS: usize = 200;
/// Calls at once on one connection: a client that wants more opens another.
const MAX_STREAMS: u32 = 1000;
/// Size of the headers of one request, as HTTP/2 counts it.
const MAX_HEADER_BYTES: u32 = 16 << 10;
/// Bytes of one request that may be here before the call has read them.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// The same for all requests of one connection: two of the largest.
const CONNECTION_WINDOW_BYTES: u32 = 512 << 10;
/// Bytes of one stream's messages that wait for the connection. Replies to
/// unary calls are handed over whole.
const SEND_BUFFER_BYTES: usize = 32 << 10;
/// Bytes of one connection that the kernel takes while they cannot be sent. Without a bound it
/// takes up to 4 MB, which count as memory of the pod; what was sent and is not acknowledged
/// has no part in it, so that a fast connection over a long way stays fast.
const UNSENT_BYTES: u32 = 32 << 10;
/// Calls that the peer cancelled before they were seen here. More on one
/// connection ends it. Cancelling is normal: twice as many as calls at once, for
/// a process that had no CPU for a moment. Each holds its headers.
const MAX_PENDING_RESETS: usize = 2048;
/// Streams that were reset because the peer broke the rules of HTTP/2, in the
/// life of one connection. More ends it (CVE-2025-8671 and RUSTSEC-2024-0003).
const MAX_ERROR_RESETS: usize = 1024;
/// Head of one request of HTTP/1.1 in bytes, and how much of a body is read at a time. A peer
/// that never ends its head holds as much, which is less than an HTTP/2 connection takes.
const HTTP1_BUFFER_BYTES: usize = 16 << 10;
/// How often a quiet connection is pinged, and how long the answer may take.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the replies of a connection are looked at.
const REPLIES_TICK: Duration = Duration::from_secs(5);
/// Replies wait on a connection and nothing was written to it for this long:
/// the peer does not read.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A reply is counted in the epoch in which it was made, so that the age of the
/// oldest one is known without a list of them. One that is older than all
/// epochs but one, 60 to 75 s, closes the connection: less than 70 KiB/s.
const EPOCH: Duration = Duration::from_secs(15);
const EPOCHS: usize = 8;
const MAX_REPLY_EPOCHS: usize = 5;
/// Memory of an error, in sizes of its long values on the wire: Huffman coding takes up
/// to three eighths of them, and each header takes some 100 bytes more.
const ERROR_FACTOR: u64 = 4;
/// An error has no room, and nothing was written for so long: the connection is closed. A
/// peer that is only slow reads something in that time.
const STUCK_MILLIS: u64 = 2000;
/// Spread of the maximal age, so that the connections of a rollout do not all
/// end at the same moment.
const AGE_JITTER: f64 = 0.1;
/// How often a connection that is closing is looked at.
const CLOSING_TICK: Duration = Duration::from_millis(50);
/// A closing connection without calls is closed after this time, whether its
/// peer answers the GOAWAY or not: calls that crossed it are here by then.
const CLOSING_IDLE: Duration = Duration::from_millis(300);
/// A closing connection is closed after this time in any case: longer than a
/// write takes at most.
const MAX_CLOSING: Duration = Duration::from_secs(60);

/// Why a connection is closed gracefully.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    Age,
    Drain,
    /// For a connection of another address.
    Share,
}

impl Closing {
    /// How long nothing may be written while only replies and streams are left.
    const fn stall_timeout(self) -> Duration {
        match self {
            Self::Age => Duration::from_secs(10),
            Self::Drain | Self::Share => Duration::from_secs(1),
        }
    }

    /// How long it takes at most.
    const fn timeout(self) -> Duration {
        match self {
            Self::Age | Self::Drain => MAX_CLOSING,
            // Its place is taken already.
            Self::Share => Duration::from_secs(1),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Drain => "drain",
            Self::Share => "limit",
        }
    }
}

/// What the calls of a connection share.
pub struct Connection {
    caller: Arc<Caller>,
    identity: Arc<ConnectionIdentity>,
    /// The principal of the last call, and what it uses: a lookup among all callers
    /// takes a lock that all connections share.
    identified: Mutex<Option<(Arc<str>, Arc<Caller>)>>,
    /// `None`: the system did not tell.
    peer: Option<SocketAddr>,
    turns: Arc<Turns>,
    budgets: Arc<Budgets>,
    metrics: Arc<Metrics>,
    /// Cancelled when the connection is about to close: streams end.
    closing: CancellationToken,
    /// Cancelled when the process shuts down.
    shutdown: CancellationToken,
    exempt: bool,
    started: Instant,
    /// Bytes read, and calls that are not finished.
    state: Arc<ConnectionState>,
    /// Calls whose handler works.
    handling: AtomicU32,
    /// Grows when a part of a reply is written.
    progress: AtomicU64,
    /// Replies that are not written yet, by the epoch in which they were made.
    replies: [AtomicU32; EPOCHS],
    /// Charged for errors that are not written yet.
    errors: AtomicU64,
    /// Since when a write waits for the peer: milliseconds of the connection's life, plus
    /// one; 0: none waits.
    stalled: AtomicU64,
    /// Cancelled when the peer does not read, and what waits for it has no room.
    given_up: CancellationToken,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let errors = self.budgets.of(Part::Errors);
        errors.sub(Some(&self.caller), self.errors.load(Relaxed));
    }
}

impl Connection {
    fn of(
        (caller, state): (Arc<Caller>, Arc<ConnectionState>),
        (peer, certificate): (Option<SocketAddr>, Certificate),
        turns: &Arc<Turns>,
        budgets: &Arc<Budgets>,
        metrics: &Arc<Metrics>,
        shutdown: &CancellationToken,
        exempt: bool,
    ) -> Self {
        Self {
            caller,
            identity: Arc::new(ConnectionIdentity::new(certificate)),
            identified: Mutex::default(),
            peer,
            turns: Arc::clone(turns),
            budgets: Arc::clone(budgets),
            metrics: Arc::clone(metrics),
            closing: CancellationToken::new(),
            shutdown: shutdown.clone(),
            exempt,
            started: Instant::now(),
            state,
            handling: AtomicU32::new(0),
            progress: AtomicU64::new(0),
            replies: [const { AtomicU32::new(0) }; EPOCHS],
            errors: AtomicU64::new(0),
            stalled: AtomicU64::new(0),
            given_up: CancellationToken::new(),
        }
    }

    /// A connection that nobody opened.
    #[cfg(test)]
    pub(super) fn for_tests() -> Arc<Self> {
        let budgets = Budgets::unlimited(256);
        let key = CallerKey::address([10, 0, 0, 1].into());
        Arc::new(Self::of(
            (budgets.callers().of(key), Arc::default()),
            (None, Certificate::None),
            &Arc::new(Turns::new(1)),
            &budgets,
            &Arc::default(),
            &CancellationToken::new(),
            false,
        ))
    }

    /// Whose connection it is.
    #[must_use]
    pub const fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// The other end.
    #[must_use]
    pub const fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Who calls, as far as the connection shows it.
    #[must_use]
    pub const fn identity(&self) -> &Arc<ConnectionIdentity> {
        &self.identity
    }

    /// The caller that is this principal.
    pub(super) fn caller_of(&self, principal: &Arc<str>) -> Arc<Caller> {
        let mut last = self
            .identified
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((known, caller)) = &*last
            && known == principal
        {
            return Arc::clone(caller);
        }
        let caller = self.budgets.callers().of(CallerKey::principal(principal));
        *last = Some((Arc::clone(principal), Arc::clone(&caller)));
        caller
    }

    /// Turns of the calls of all connections.
    pub(super) const fn turns(&self) -> &Arc<Turns> {
        &self.turns
    }

    /// The budgets of the process.
    #[must_use]
    pub const fn budgets(&self) -> &Arc<Budgets> {
        &self.budgets
    }

    /// Whether its calls are served even if budgets are used up.
    pub(super) const fn is_exempt(&self) -> bool {
        self.exempt
    }

    /// Cancelled when the connection is about to close, because of its age or
    /// because the process shuts down: streams on it should end.
    #[must_use]
    pub const fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    pub(super) const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    pub(super) const fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    pub(super) fn call_began(&self) {
        self.state.calls.fetch_add(1, Relaxed);
        self.handling.fetch_add(1, Relaxed);
    }

    pub(super) fn call_answered(&self) {
        self.handling.fetch_sub(1, Relaxed);
    }

    pub(super) fn call_ended(&self) {
        self.state.calls.fetch_sub(1, Relaxed);
    }

    /// The number of the epoch that it is now.
    fn epoch(&self) -> usize {
        let number = self.started.elapsed().as_secs() / EPOCH.as_secs();
        usize::try_from(number).unwrap_or_default()
    }

    /// A reply was made; returns its epoch for [`Connection::reply_ended`].
    pub(super) fn reply_began(&self) -> usize {
        let epoch = self.epoch() % EPOCHS;
        self.replies[epoch].fetch_add(1, Relaxed);
        epoch
    }

    pub(super) fn reply_ended(&self, epoch: usize) {
        self.replies[epoch].fetch_sub(1, Relaxed);
    }

    /// A part of a reply was written to the connection.
    pub(super) fn progressed(&self) {
        self.progress.fetch_add(1, Relaxed);
    }

    /// An error of at least so many bytes on the wire is about to be handed over.
    /// `false`: there is no room for it.
    pub(super) fn charge_error(&self, wire_bytes: u64) -> bool {
        let bytes = wire_bytes * ERROR_FACTOR;
        let errors = self.budgets.of(Part::Errors);
        let charged = errors.try_add(Some(&self.caller), bytes);
        if charged {
            self.errors.fetch_add(bytes, Relaxed);
        }
        charged
    }

    /// So many bytes were written. What was handed over first is written first, so
    /// errors are among them.
    pub(super) fn wrote(&self, bytes: usize) {
        self.stalled.store(0, Relaxed);
        if self.errors.load(Relaxed) == 0 {
            return;
        }
        self.progressed();
        let bytes = bytes as u64 * ERROR_FACTOR;
        let take = |errors: u64| Some(errors.saturating_sub(bytes));
        let Ok(before) = self.errors.fetch_update(Relaxed, Relaxed, take) else {
            return;
        };
        let errors = self.budgets.of(Part::Errors);
        errors.sub(Some(&self.caller), before.min(bytes));
    }

    /// A write waits for the peer.
    pub(super) fn stalled(&self) {
        let now = self.millis() + 1;
        // It may wait already, and then since that time.
        let _ = self.stalled.compare_exchange(0, now, Relaxed, Relaxed);
    }

    /// Whether a write waits for the peer now.
    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.load(Relaxed) > 0
    }

    /// Whether nothing could be written for so long that the peer does not read.
    pub(super) fn is_stuck(&self) -> bool {
        let since = self.stalled.load(Relaxed);
        since > 0 && self.millis() + 1 >= since + STUCK_MILLIS
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or_default()
    }

    /// Closes the connection at once: its peer does not read.
    pub(super) fn give_up(&self) {
        self.given_up.cancel();
    }

    pub(super) fn heard(&self, bytes: usize) {
        // Only the connection's own task writes it.
        let received = self.state.received.load(Relaxed);
        self.state.received.store(received + bytes as u64, Relaxed);
    }

    fn has_spoken(&self) -> bool {
        self.state.has_spoken()
    }

    fn waits_for_peer(&self) -> bool {
        self.errors.load(Relaxed) > 0
            || self.replies.iter().any(|replies| replies.load(Relaxed) > 0)
    }

    /// Whether a reply is older than [`MAX_REPLY_EPOCHS`].
    fn has_old_reply(&self) -> bool {
        let now = self.epoch();
        (MAX_REPLY_EPOCHS..EPOCHS)
            .filter_map(|age| now.checked_sub(age))
            .any(|epoch| self.replies[epoch % EPOCHS].load(Relaxed) > 0)
    }
}

/// Serves connections: what all of a port share.
pub struct ConnectionServer {
    http: auto::Builder<TokioExecutor>,
    tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    max_age: Option<Duration>,
    exempt: bool,
    turns: Arc<Turns>,
    budgets: Arc<Budgets>,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
}

impl ConnectionServer {
    /// `exempt`: calls are served even if budgets are used up.
    pub fn new(
        tls: Option<watch::Receiver<Arc<ServerConfig>>>,
        max_age: Option<Duration>,
        exempt: bool,
        turns: Arc<Turns>,
        budgets: Arc<Budgets>,
        metrics: Arc<Metrics>,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            http: http(),
            tls,
            max_age,
            exempt,
            turns,
            budgets,
            metrics,
            shutdown,
        }
    }

    /// Serves one connection until its end. `service` makes the service for it.
    pub async fn serve<S>(
        &self,
        stream: TcpStream,
        slot: Slot,
        service: impl FnOnce(Arc<Connection>) -> S,
    ) where
        S: Service<Request<Incoming>, Response = Response<ReplyBody>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        // Without it, the connection is only slower.
        let _ = stream.set_nodelay(true);
        bound_unsent(&stream);
        let peer = stream.peer_addr().ok();
        let connection = |certificate| {
            Arc::new(Connection::of(
                (Arc::clone(slot.caller()), Arc::clone(slot.state())),
                (peer, certificate),
                &self.turns,
                &self.budgets,
                &self.metrics,
                &self.shutdown,
                self.exempt,
            ))
        };
        self.metrics.connections.inc();
        let reason = match &self.tls {
            None => {
                let connection = connection(Certificate::None);
                let io = CoalescedWrites::new(stream, Arc::clone(&connection));
                let served = self.drive(io, &connection, &slot, service);
                served.await
            }
            Some(tls) => match self.handshake(tls, stream, &slot).await {
                Some(stream) => {
                    let chain = stream.get_ref().1.peer_certificates();
                    let connection = connection(Certificate::of(chain));
                    let io = CoalescedWrites::new(stream, Arc::clone(&connection));
                    let served = self.drive(io, &connection, &slot, service);
                    served.await
                }
                None => "silent",
            },
        };
        self.metrics.connections.dec();
        let closed = self
            .metrics
            .connections_closed
            .get_or_create(&Kind { kind: reason });
        closed.inc();
    }

    async fn handshake(
        &self,
        tls: &watch::Receiver<Arc<ServerConfig>>,
        stream: TcpStream,
        slot: &Slot,
    ) -> Option<tokio_rustls::server::TlsStream<HandshakeStream<TcpStream>>> {
        let acceptor = TlsAcceptor::from(Arc::clone(&tls.borrow()));
        // Always in turns: there is no other bound on what handshakes of one caller take.
        let ask = || self.turns.ask(Some(slot.caller()), HANDSHAKE_MICROS);
        let accepted = InTurns::new(ask, acceptor.accept(HandshakeStream::new(stream)));
        let accepted = timeout(HELLO_TIMEOUT, accepted);
        let (outcome, stream) = tokio::select! {
            accepted = accepted => match accepted {
                Ok(Ok(mut stream)) => {
                    stream.get_mut().0.end_handshake();
                    ("done", Some(stream))
                }
                Ok(Err(problem)) => {
                    tracing::debug!(%problem, "a TLS handshake failed");
                    ("failed", None)
                }
                Err(_) => ("slow", None),
            },
            _ = slot.evicted() => ("refused", None),
            () = self.shutdown.cancelled() => ("refused", None),
        };
        let handshakes = self
            .metrics
            .tls_handshakes
            .get_or_create(&Kind { kind: outcome });
        handshakes.inc();
        stream
    }

    /// Serves HTTP on the connection; returns why it ended.
    async fn drive<IO, S>(
        &self,
        io: IO,
        connection: &Arc<Connection>,
        slot: &Slot,
        service: impl FnOnce(Arc<Connection>) -> S,
    ) -> &'static str
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: Service<Request<Incoming>, Response = Response<ReplyBody>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let service = service(Arc::clone(connection));
        let mut http = Box::pin(self.http.serve_connection(TokioIo::new(io), service));
        let closing = tokio::select! {
            ended = &mut http => {
                if let Err(problem) = ended {
                    tracing::debug!(%problem, "a connection ended");
                }
                return "client";
            }
            reason = self.watch(connection, slot) => match reason {
                Ok(closing) => closing,
                Err(reason) => return reason,
            }
        };
        if !connection.has_spoken() {
            return closing.name();
        }
        connection.closing.cancel();
        http.as_mut().graceful_shutdown();
        tokio::select! {
            // However it ended: it was about to.
            _ = &mut http => {}
            () = stuck(connection, closing) => {}
            // Only for memory: the others ask for an end that is under way.
            Eviction::Memory = slot.evicted() => return "memory",
            () = connection.given_up.cancelled() => return "unread",
        }
        closing.name()
    }

    /// Returns when the connection must close: gracefully, or at once for the
    /// reason given as an error.
    async fn watch(&self, connection: &Connection, slot: &Slot) -> Result<Closing, &'static str> {
        let age = async {
            match self.max_age {
                Some(age) => sleep(jittered(age)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Ok(Closing::Drain),
            eviction = slot.evicted() => match eviction {
                Eviction::Share => Ok(Closing::Share),
                Eviction::Silent => Err("limit"),
                Eviction::Memory => Err("memory"),
            },
            () = connection.given_up.cancelled() => Err("unread"),
            reason = watch_peer(connection, slot) => Err(reason),
            () = age => Ok(Closing::Age),
        }
    }
}

/// The settings of HTTP/1.1 and HTTP/2. All that has a bound in h2 is set here, so that a new
/// version with other defaults changes nothing.
fn http() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_ERROR_RESETS)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HELLO_TIMEOUT)
        .max_buf_size(HTTP1_BUFFER_BYTES);
    builder
}

/// Bounds what the kernel keeps for a peer that does not read.
fn bound_unsent(stream: &TcpStream) {
    #[cfg(target_os = "linux")]
    // Fails only on a connection that has ended.
    let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES);
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, UNSENT_BYTES);
}

fn jittered(age: Duration) -> Duration {
    age.mul_f64(1.0 + AGE_JITTER * (2.0 * rand::random::<f64>() - 1.0))
}

/// Returns why the peer is given up: it says nothing, or reads nothing.
async fn watch_peer(connection: &Connection, slot: &Slot) -> &'static str {
    // In small steps at first, so that a connection that speaks cannot be
    // evicted any more.
    let hello = connection.started + HELLO_TIMEOUT;
    let mut step = Duration::from_millis(10);
    while !connection.has_spoken() {
        if Instant::now() >= hello {
            return "silent";
        }
        sleep_until((Instant::now() + step).min(hello)).await;
        step = (step * 2).min(Duration::from_millis(500));
    }
    slot.has_spoken();
    let (mut progress, mut since) = (0, Instant::now());
    loop {
        sleep(REPLIES_TICK).await;
        let now = connection.progress.load(Relaxed);
        if now != progress || !connection.waits_for_peer() {
            (progress, since) = (now, Instant::now());
        }
        if since.elapsed() >= UNREAD_TIMEOUT || connection.has_old_reply() {
            return "unread";
        }
    }
}

/// Returns when a closing connection need not be waited for: it has no calls
/// left, or only such whose peer does not read.
async fn stuck(connection: &Connection, closing: Closing) {
    let (mut progress, mut since) = (connection.progress.load(Relaxed), Instant::now());
    let (began, mut idle_since) = (since, None);
    while began.elapsed() < closing.timeout() {
        sleep(CLOSING_TICK).await;
        let now = connection.progress.load(Relaxed);
        if now != progress || connection.handling.load(Relaxed) > 0 {
            (progress, since) = (now, Instant::now());
        }
        if since.elapsed() >= closing.stall_timeout() {
            return;
        }
        if connection.state.calls.load(Relaxed) > 0 {
            idle_since = None;
        } else if idle_since.get_or_insert_with(Instant::now).elapsed() >= CLOSING_IDLE {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, net::Ipv4Addr};

    use hyper::service::service_fn;
    use tokio::{
        io::AsyncWriteExt as _,
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::{
        budget::CONNECTION_BYTES,
        grpc::transport::accept::{Connections, Limits},
    };

    /// The preface of HTTP/2, and settings without any.
    const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

    /// A connection whose age has come, with a call that does not end.
    #[tokio::test]
    async fn a_closing_connection_ends_at_once_when_memory_is_short() {
        let (budgets, metrics) = (Budgets::unlimited(256), Arc::<Metrics>::default());
        let limits = Limits {
            connections: 10,
            per_address: 10,
            bytes_each: CONNECTION_BYTES,
        };
        let all = Connections::new(limits, Arc::clone(&budgets), Arc::clone(&metrics));
        let server = ConnectionServer::new(
            None,
            Some(Duration::from_millis(50)),
            false,
            Arc::new(Turns::new(1)),
            budgets,
            metrics,
            CancellationToken::new(),
        );
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("bound");
        let address = listener.local_addr().expect("bound");
        let mut peer = TcpStream::connect(address).await.expect("connected");
        peer.write_all(HELLO).await.expect("written");
        let (stream, from) = listener.accept().await.expect("accepted");
        let (slot, _) = all.admit(from.ip()).expect("a place");
        let (sender, connection) = tokio::sync::oneshot::channel();
        let served = tokio::spawn(async move {
            let service = |connection: Arc<Connection>| {
                connection.call_began();
                drop(sender.send(connection));
                service_fn(|_| std::future::pending::<Result<_, Infallible>>())
            };
            server.serve(stream, slot, service).await;
        });
        let connection = connection.await.expect("a connection");
        let limit = Duration::from_secs(20);
        let closing = timeout(limit, connection.closing().cancelled()).await;
        closing.expect("its age has come");
        assert!(all.shed().is_some(), "it waits for its call");
        let ended = timeout(limit, served).await;
        ended.expect("at once").expect("no panic");
    }

    #[test]
    fn the_age_has_a_jitter_of_a_tenth() {
        for _ in 0..1000 {
            let age = jittered(Duration::from_secs(100)).as_secs();
            assert!((89..=110).contains(&age), "{age}");
        }
    }
}
