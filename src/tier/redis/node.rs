//! One server that holds keys: its connections, its breakers, and the task that
//! watches over both.

mod breaker;
mod check;
mod supervise;

use std::{
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fred::{
    clients::{Client, WithOptions},
    prelude::{ClientLike, Expiration, KeysInterface, SetOptions, Value},
};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

use self::breaker::Breaker;
pub use self::check::{Memory, NodeCheck};
use super::{
    Context,
    batcher::{MAX_WAITING_GETS, MAX_WAITING_PUTS, PendingGet, PendingPut, run_gets, run_puts},
    connection::{Connection, options},
    error::{ErrorKind, RedisError},
    url::Address,
};
use crate::{budget::Part, telemetry::Kind};

/// How long a read waits for an answer: ten times what a healthy server takes.
pub(super) const GET_TIMEOUT: Duration = Duration::from_millis(20);
/// How long a batch of writes may take. Nobody waits for it.
const PUT_TIMEOUT: Duration = Duration::from_millis(500);
/// Key of probes where any key will do.
const PROBE_KEY: &str = "tidemark:{probe}";

/// The direction of a command. Each has its own connection, so that no read
/// waits behind a batch of entries, and its own breaker, as a full or read-only
/// server still answers reads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Read,
    Write,
}

struct Connections {
    reads: Connection,
    writes: Connection,
}

/// A server and its health.
pub(super) struct Node {
    pub(super) address: Address,
    context: Arc<Context>,
    connections: RwLock<Option<Connections>>,
    reads: Breaker,
    writes: Breaker,
    /// The connections should be reopened.
    reconnect: Notify,
    /// A key in a slot of this node: only such a key shows whether it accepts
    /// writes.
    probe_key: Mutex<String>,
    /// An outage was logged, or the node is new: its next answer is logged too.
    announce: AtomicBool,
}

/// A node with its queues and tasks, which end when this is dropped.
pub(super) struct RunningNode {
    pub(super) node: Arc<Node>,
    gets: mpsc::Sender<PendingGet>,
    puts: mpsc::Sender<PendingPut>,
    _tasks: [AbortOnDropHandle<()>; 3],
}

/// Why a request cannot wait for its batch.
pub(super) enum EnqueueError {
    /// The node does not answer at present.
    Down,
    /// Too many wait already.
    Full,
}

impl RunningNode {
    pub(super) fn start(address: Address, context: Arc<Context>) -> Self {
        let node = Arc::new(Node {
            address,
            context,
            connections: RwLock::new(None),
            reads: Breaker::new(),
            writes: Breaker::new(),
            reconnect: Notify::new(),
            probe_key: Mutex::new(PROBE_KEY.to_owned()),
            announce: AtomicBool::new(true),
        });
        let (gets, waiting_gets) = mpsc::channel(MAX_WAITING_GETS);
        let (puts, waiting_puts) = mpsc::channel(MAX_WAITING_PUTS);
        let tasks = [
            tokio::spawn(run_gets(Arc::clone(&node), waiting_gets)),
            tokio::spawn(run_puts(Arc::clone(&node), waiting_puts)),
            tokio::spawn(Arc::clone(&node).supervise()),
        ];
        Self {
            node,
            gets,
            puts,
            _tasks: tasks.map(AbortOnDropHandle::new),
        }
    }

    /// Lets a read wait for the next batch.
    pub(super) fn enqueue_get(
        &self,
        key: String,
    ) -> Result<oneshot::Receiver<Option<Bytes>>, EnqueueError> {
        if !self.node.is_readable() {
            return Err(EnqueueError::Down);
        }
        let budget = self.node.context.budgets.of(Part::RedisReads);
        let bytes = budget.try_reserve(key.len() as u64);
        let (found, answer) = oneshot::channel();
        let get = PendingGet {
            key,
            found,
            _bytes: bytes.ok_or(EnqueueError::Full)?,
        };
        self.gets.try_send(get).map_err(|_| EnqueueError::Full)?;
        Ok(answer)
    }

    /// Lets an entry wait for the next batch.
    pub(super) fn enqueue_put(
        &self,
        key: String,
        value: Bytes,
        lifetime: Duration,
    ) -> Result<(), EnqueueError> {
        if self.node.writes.is_open() {
            return Err(EnqueueError::Down);
        }
        let budget = self.node.context.budgets.of(Part::RedisQueue);
        let bytes = budget.try_reserve((key.len() + value.len()) as u64);
        let put = PendingPut {
            key,
            value,
            lifetime,
            _bytes: bytes.ok_or(EnqueueError::Full)?,
        };
        self.puts.try_send(put).map_err(|_| EnqueueError::Full)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.set_open(Direction::Read, true);
        self.set_open(Direction::Write, true);
    }
}

impl Node {
    pub(super) fn is_readable(&self) -> bool {
        !self.reads.is_open()
    }

    /// Uses a probe key in one of these slots of a cluster.
    pub(super) fn set_slots(&self, slots: &[(u16, u16)]) {
        use fred::types::cluster::ClusterRouting;

        let is_ours = |key: &String| {
            let slot = ClusterRouting::hash_key(key.as_bytes());
            slots
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&slot))
        };
        let mut key = self
            .probe_key
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !is_ours(&key) {
            // Hashes are spread evenly: a node with one slot of 16384 is found
            // within a multiple of that.
            let keys = (0..1_000_000).map(|n| format!("tidemark:{{probe-{n}}}"));
            if let Some(found) = keys.into_iter().find(is_ours) {
                *key = found;
            }
        }
    }

    fn breaker(&self, direction: Direction) -> &Breaker {
        match direction {
            Direction::Read => &self.reads,
            Direction::Write => &self.writes,
        }
    }

    fn client(&self, direction: Direction, limit: Duration) -> Option<WithOptions<Client>> {
        let connections = self
            .connections
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let connections = connections.as_ref()?;
        let connection = match direction {
            Direction::Read => &connections.reads,
            Direction::Write => &connections.writes,
        };
        Some(connection.client().with_options(&options(limit)))
    }

    /// The entries of keys, in their order; `None` if the node does not answer in
    /// time.
    pub(super) async fn get(&self, keys: Vec<String>) -> Option<Vec<Option<Bytes>>> {
        if keys.is_empty() || self.reads.is_open() {
            return None;
        }
        if !self.context.clustered || keys.len() == 1 {
            return self.get_slot(keys).await;
        }
        let client = self.client(Direction::Read, GET_TIMEOUT)?;
        let (found, error) = within(GET_TIMEOUT, get_pipelined(&client, keys))
            .await
            .unwrap_or_else(|error| (None, Some(error)));
        match error {
            Some(error) if found.is_none() || error.kind.is_redirection() => {
                self.record_failure(Direction::Read, "get", &error);
            }
            _ => self.reads.succeeded(),
        }
        found
    }

    /// The same for keys in one slot, by one command.
    pub(super) async fn get_slot(&self, keys: Vec<String>) -> Option<Vec<Option<Bytes>>> {
        if self.reads.is_open() {
            return None;
        }
        let client = self.client(Direction::Read, GET_TIMEOUT)?;
        match within(GET_TIMEOUT, get_together(&client, keys)).await {
            Ok(found) => {
                self.reads.succeeded();
                Some(found)
            }
            Err(error) => {
                self.record_failure(Direction::Read, "get", &error);
                None
            }
        }
    }

    /// Writes entries in one pipeline. What fails is lost.
    pub(super) async fn put(&self, batch: Vec<PendingPut>) {
        let client = self.client(Direction::Write, PUT_TIMEOUT);
        let Some(client) = client.filter(|_| !self.writes.is_open()) else {
            self.context
                .metrics
                .shared_dropped
                .inc_by(batch.len() as u64);
            return;
        };
        let pipeline = client.pipeline();
        let written = async {
            for put in batch {
                let expiry = Some(Expiration::PX(millis(put.lifetime)));
                let () = pipeline
                    .set(put.key, put.value, expiry, None, false)
                    .await?;
            }
            let answers = pipeline.try_all::<Value>().await.into_iter();
            let errors = answers.filter_map(Result::err).map(RedisError::from);
            // One that is not about a moving slot says more.
            Ok(errors.reduce(|one, other| match one.kind.is_redirection() {
                true => other,
                false => one,
            }))
        };
        match within(PUT_TIMEOUT, written).await {
            Ok(None) => self.writes.succeeded(),
            Ok(Some(error)) | Err(error) => {
                self.record_failure(Direction::Write, "put", &error);
            }
        }
    }

    /// Takes a lease: `SET NX`, by the connection of reads, as its caller waits.
    /// `true` unless another replica has it.
    pub(super) async fn lease(&self, key: String, ttl: Duration) -> bool {
        if self.reads.is_open() || self.writes.is_open() {
            return true;
        }
        let Some(client) = self.client(Direction::Read, GET_TIMEOUT) else {
            return true;
        };
        let expiry = Some(Expiration::PX(millis(ttl)));
        let set = client.set::<Option<String>, _, _>(key, "1", expiry, Some(SetOptions::NX), false);
        match within(GET_TIMEOUT, set).await {
            Ok(set) => set.is_some(),
            Err(error) => {
                let direction = match error.kind {
                    ErrorKind::Timeout | ErrorKind::Connection => Direction::Read,
                    _ => Direction::Write,
                };
                self.record_failure(direction, "lease", &error);
                true
            }
        }
    }

    /// Counts a failure, opens the breaker after several in a row, and asks for
    /// what may help: a new slot map, new connections.
    fn record_failure(&self, direction: Direction, operation: &'static str, error: &RedisError) {
        let metrics = &self.context.metrics;
        if self.context.clustered && error.kind.is_redirection() {
            // The node is healthy; the key is a miss.
            self.context
                .errors
                .record(&self.address, operation, error, false);
            if error.kind == ErrorKind::Moved {
                self.context.refresh(true);
            }
            return;
        }
        metrics
            .shared_failures
            .get_or_create(&Kind { kind: operation })
            .inc();
        let opens = self.breaker(direction).failed();
        // A single slow answer is not worth a line.
        let log = opens || error.kind != ErrorKind::Timeout;
        self.log(operation, error, log);
        if error.kind == ErrorKind::ReadOnly {
            self.context.refresh(true);
            self.reconnect.notify_one();
        }
        if opens {
            self.set_open(direction, true);
        }
    }

    fn log(&self, operation: &'static str, error: &RedisError, log: bool) {
        if self
            .context
            .errors
            .record(&self.address, operation, error, log)
        {
            self.announce.store(true, Ordering::Relaxed);
        }
    }

    fn set_open(&self, direction: Direction, open: bool) {
        if !self.breaker(direction).set_open(open) {
            return;
        }
        self.context.count_usable(direction, !open);
        if !open && direction == Direction::Read && self.announce.swap(false, Ordering::Relaxed) {
            tracing::info!(server = %self.address, "Redis answers");
        }
    }
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, fred::error::Error>>,
) -> Result<T, RedisError> {
    match timeout(limit, work).await {
        Ok(done) => done.map_err(RedisError::from),
        Err(_) => Err(RedisError::timeout(limit)),
    }
}

/// Keys of one slot, or of a Redis that is not a cluster: one command.
async fn get_together(
    client: &WithOptions<Client>,
    keys: Vec<String>,
) -> Result<Vec<Option<Bytes>>, fred::error::Error> {
    if let [key] = keys.as_slice() {
        let found = client.get::<Option<Bytes>, _>(key.as_str()).await?;
        return Ok(vec![copied(found)]);
    }
    let count = keys.len();
    let found = client.mget::<Vec<Option<Bytes>>, _>(keys).await?;
    let mut found: Vec<_> = found.into_iter().map(copied).collect();
    found.resize(count, None);
    Ok(found)
}

/// Keys of several slots: a command for each, in one pipeline. A key that has no
/// answer is a miss. Returns `None` if no key has one, and an error if there was
/// one.
async fn get_pipelined(
    client: &WithOptions<Client>,
    keys: Vec<String>,
) -> Result<(Option<Vec<Option<Bytes>>>, Option<RedisError>), fred::error::Error> {
    let count = keys.len();
    let pipeline = client.pipeline();
    for key in keys {
        let () = pipeline.get(key).await?;
    }
    let (mut found, mut answered, mut error) = (Vec::with_capacity(count), false, None);
    for answer in pipeline.try_all::<Option<Bytes>>().await {
        match answer {
            Ok(value) => {
                answered = true;
                found.push(copied(value));
            }
            Err(failed) => {
                error.get_or_insert(failed);
                found.push(None);
            }
        }
    }
    found.resize(count, None);
    Ok((answered.then_some(found), error.map(RedisError::from)))
}

/// fred's values are slices of a whole read buffer: keeping one would keep all.
fn copied(value: Option<Bytes>) -> Option<Bytes> {
    value.map(|value| Bytes::copy_from_slice(&value))
}

fn millis(d: Duration) -> i64 {
    i64::try_from(d.as_millis()).unwrap_or(i64::MAX).max(1)
}
