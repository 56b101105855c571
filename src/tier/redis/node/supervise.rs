//! The task that keeps a node's connections open, and its breakers as they should be.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use fred::{
    clients::{Client, WithOptions},
    prelude::{ClientLike, Expiration, KeysInterface, SetOptions, Value},
};
use tokio::time::{Instant, sleep};

use super::{
    super::{
        connection::{Connection, options},
        error::{ErrorKind, RedisError},
    },
    Connections, Direction, Node, within,
};
use crate::backoff::Backoff;

/// Time between two looks at a node, and how long a probe waits for an answer.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);
const PROBE_TIMEOUT: Duration = Duration::from_millis(200);
/// Looks without an answered read after which the connection is probed: an idle
/// connection may be dead without either end knowing.
const IDLE_READ_LOOKS: u32 = 5;
/// Looks between two probes of writes while writes are refused, and while there
/// are none.
const REFUSED_WRITE_LOOKS: u32 = 5;
const IDLE_WRITE_LOOKS: u32 = 25;
/// How long probes may fail before the connections are reopened.
const RECONNECT_AFTER: Duration = Duration::from_secs(2);
/// Pauses between tries to connect. With connecting and the election of a new
/// master the longest stays well below the 10 s within which the tier must be in
/// use again.
const CONNECT_PAUSE: Duration = Duration::from_millis(50);
const MAX_CONNECT_PAUSE: Duration = Duration::from_secs(2);
/// How long a node must have been healthy for the back-off to begin again.
const HEALTHY_AFTER: Duration = Duration::from_secs(5);

impl Node {
    /// Keeps connections open for as long as the node is in use.
    pub(super) async fn supervise(self: Arc<Self>) {
        let mut backoff = Backoff::new(CONNECT_PAUSE, MAX_CONNECT_PAUSE);
        loop {
            match self.connect().await {
                Ok(connections) => {
                    self.install(connections);
                    if Box::pin(self.watch()).await >= HEALTHY_AFTER {
                        backoff.reset();
                    }
                }
                Err(error) => self.log("connect", &error, true),
            }
            self.context.refresh(false);
            backoff.wait().await;
        }
    }

    /// Opens both connections and waits for a first answer, as a server that
    /// expects TLS accepts a connection and then closes it.
    async fn connect(&self) -> Result<Connections, RedisError> {
        let settings = &self.context.settings;
        let (reads, writes) = tokio::try_join!(
            Connection::open(settings, &self.address),
            Connection::open(settings, &self.address),
        )?;
        let probe = self.probe_read(reads.client().with_options(&options(PROBE_TIMEOUT)));
        match probe.await {
            Err(error) if matches!(error.kind, ErrorKind::Connection | ErrorKind::Timeout) => {
                Err(error)
            }
            _ => Ok(Connections { reads, writes }),
        }
    }

    /// The connections in use so far serve until these are there.
    fn install(&self, connections: Connections) {
        let mut installed = self
            .connections
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *installed = Some(connections);
    }

    /// Probes the connections until they should be reopened. Returns how long
    /// the node was healthy.
    async fn watch(&self) -> Duration {
        let mut healthy_since = None;
        let (mut reads, mut writes) = (Probes::new(self), Probes::new(self));
        loop {
            let (read, write) = tokio::join!(
                reads.look(Direction::Read, IDLE_READ_LOOKS, 1),
                writes.look(Direction::Write, IDLE_WRITE_LOOKS, REFUSED_WRITE_LOOKS),
            );
            if read && write {
                healthy_since.get_or_insert_with(Instant::now);
            }
            if reads.have_failed_too_long() || writes.have_failed_too_long() {
                break;
            }
            tokio::select! {
                () = sleep(WATCH_INTERVAL) => {}
                () = self.reconnect.notified() => break,
                error = self.closed() => {
                    self.log("connection", &error, true);
                    self.set_open(Direction::Read, true);
                    self.set_open(Direction::Write, true);
                    break;
                }
            }
        }
        healthy_since.map_or(Duration::ZERO, |since: Instant| since.elapsed())
    }

    /// Waits until one of the connections is closed.
    async fn closed(&self) -> RedisError {
        let [reads, writes] = {
            let connections = self
                .connections
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            match connections.as_ref() {
                Some(both) => [both.reads.closed(), both.writes.closed()],
                None => return RedisError::new(ErrorKind::Connection, "not connected"),
            }
        };
        tokio::select! {
            error = reads => error,
            error = writes => error,
        }
    }

    async fn probe(&self, direction: Direction) -> Result<(), RedisError> {
        let Some(client) = self.client(direction, PROBE_TIMEOUT) else {
            return Err(RedisError::new(ErrorKind::Connection, "not connected"));
        };
        match direction {
            Direction::Read => self.probe_read(client).await,
            Direction::Write => self.probe_write(client).await,
        }
    }

    fn probe_key(&self) -> String {
        let key = self
            .probe_key
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        key.clone()
    }

    pub(super) async fn probe_read(&self, client: WithOptions<Client>) -> Result<(), RedisError> {
        let got = client.get::<Value, _>(self.probe_key());
        within(PROBE_TIMEOUT, got).await.map(drop)
    }

    /// `XX`: nothing is ever stored, but the server checks rights, memory and role.
    pub(super) async fn probe_write(&self, client: WithOptions<Client>) -> Result<(), RedisError> {
        let expiry = Some(Expiration::PX(1));
        let set =
            client.set::<Value, _, _>(self.probe_key(), "1", expiry, Some(SetOptions::XX), false);
        within(PROBE_TIMEOUT, set).await.map(drop)
    }
}

/// The probes of one direction since the connections were opened.
struct Probes<'a> {
    node: &'a Node,
    looks: u32,
    successes: u64,
    failing: Option<(Instant, ErrorKind)>,
}

impl<'a> Probes<'a> {
    const fn new(node: &'a Node) -> Self {
        Self {
            node,
            looks: u32::MAX,
            successes: 0,
            failing: None,
        }
    }

    /// Probes if the breaker is open or nothing was answered for a while, and sets
    /// the breaker accordingly. Returns whether the direction is usable.
    async fn look(&mut self, direction: Direction, idle_looks: u32, refused_looks: u32) -> bool {
        let (node, breaker) = (self.node, self.node.breaker(direction));
        let successes = breaker.successes.load(Ordering::Relaxed);
        self.looks = self.looks.saturating_add(1);
        let wait = if breaker.is_open() {
            refused_looks
        } else if successes == self.successes {
            idle_looks
        } else {
            self.successes = successes;
            self.looks = 0;
            self.failing = None;
            return true;
        };
        if self.looks < wait {
            return !breaker.is_open();
        }
        self.looks = 0;
        match node.probe(direction).await {
            Ok(()) => {
                self.failing = None;
                node.set_open(direction, false);
            }
            // Its slot is moving. The node answers.
            Err(error) if node.context.clustered && error.kind.is_redirection() => {
                self.failing = None;
                node.set_open(direction, false);
                node.context.refresh(error.kind == ErrorKind::Moved);
            }
            Err(error) => {
                node.log("probe", &error, true);
                node.set_open(direction, true);
                if error.kind == ErrorKind::ReadOnly {
                    node.context.refresh(true);
                    node.reconnect.notify_one();
                }
                let (since, _) = self.failing.unwrap_or((Instant::now(), error.kind));
                self.failing = Some((since, error.kind));
            }
        }
        !breaker.is_open()
    }

    /// Whether new connections may help: not if the server refuses for want of
    /// memory or rights.
    fn have_failed_too_long(&self) -> bool {
        self.failing.is_some_and(|(since, kind)| {
            since.elapsed() >= RECONNECT_AFTER
                && !matches!(kind, ErrorKind::OutOfMemory | ErrorKind::NoPermission)
        })
    }
}
