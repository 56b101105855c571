//! The shared tier in Redis: one server, a cluster, or a master that sentinels
//! name. fred is used in this folder only.
//!
//! Whatever Redis does, reads continue: an answer that takes more than some
//! milliseconds is a miss, and after a few of those in a row a node is not asked
//! until a probe succeeds.
//!
//! - `topology` finds the nodes and their slots, again and again;
//! - `node` keeps the connections to one node open and judges reads and writes
//!   apart;
//! - `batcher` lets requests share commands;
//! - `error` sorts errors, counts and logs them.
//!
//! Each node is on its own: a dead or hanging one costs its own keys only.

mod batcher;
mod connection;
mod error;
mod mac;
mod node;
mod topology;
mod url;

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use fred::types::cluster::ClusterRouting;
use futures::future::join_all;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use self::{
    connection::ConnectionSettings,
    error::ErrorLog,
    mac::{MacKeyFile, MacKeys},
    node::{Direction, EnqueueError, GET_TIMEOUT, Node, RunningNode},
    topology::{Finder, SlotRange},
    url::{Deployment, RedisUrl},
};
pub use self::{
    mac::MacKeyError,
    node::{Memory, NodeCheck},
    url::{SCHEMES, UrlError, check_url},
};
use super::shared::{Shared, SharedKey};
use crate::{
    backoff::jittered,
    budget::Budgets,
    telemetry::{Kind, Metrics},
    tls::{ClientFiles, TlsError},
};

/// Time between two looks at the slot map: while all nodes answer, and while
/// one does not.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);
const REFRESH_INTERVAL_DOWN: Duration = Duration::from_secs(1);
/// Shortest time between two looks, however much gives reason for one.
const MIN_REFRESH_PAUSE: Duration = Duration::from_millis(250);
/// Time between two looks whether all nodes answer at the start.
const READY_POLL: Duration = Duration::from_millis(5);
/// Up to this part of an entry's lifetime is cut off at random, so that entries
/// written together do not expire together.
const LIFETIME_JITTER_PART: u64 = 10;

/// Why the tier cannot be built. It never fails for want of a server: it connects
/// in the background.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is not valid.
    #[error("redis-url: {0}")]
    Url(#[from] UrlError),
    /// The TLS files cannot be used.
    #[error("redis-tls-ca, redis-tls-cert, redis-tls-key: {0}")]
    Tls(#[source] TlsError),
    /// The key for hashes of entries cannot be used.
    #[error("{0}")]
    MacKey(#[from] MacKeyError),
}

/// What the tier needs besides its URL.
#[derive(Clone)]
pub struct RedisOptions {
    /// Trust and identity for `rediss` URLs.
    pub tls: ClientFiles,
    /// A file of 32 to 4096 secret bytes, which is read again when it changes.
    /// Entries carry a keyed hash, and others are misses. `None`: no hash.
    pub mac_key_file: Option<PathBuf>,
    /// Bounds on the bytes of what waits for Redis.
    pub budgets: Arc<Budgets>,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            tls: ClientFiles::default(),
            mac_key_file: None,
            budgets: Budgets::unlimited(256),
        }
    }
}

/// The shared tier in Redis.
pub struct RedisTier {
    context: Arc<Context>,
    routes: Arc<RwLock<Vec<Route>>>,
    mac_key: Option<Arc<MacKeyFile>>,
    _follow: AbortOnDropHandle<()>,
    _follow_key: Option<AbortOnDropHandle<()>>,
}

/// What all nodes share.
struct Context {
    settings: ConnectionSettings,
    /// Keys are spread over slots, and a command is for keys of one slot.
    clustered: bool,
    metrics: Arc<Metrics>,
    errors: ErrorLog,
    budgets: Arc<Budgets>,
    /// The slot map should be looked at.
    refresh: Notify,
    /// A node was not what the slot map says.
    doubt: AtomicBool,
    /// Nodes in the slot map, and of those the ones that answer reads.
    known: AtomicI64,
    readable: AtomicI64,
}

/// A range of slots and the node that holds it.
struct Route {
    first: u16,
    last: u16,
    running: Arc<RunningNode>,
}

impl Context {
    /// Asks for a new slot map. `doubt`: a node was not what the last one says.
    fn refresh(&self, doubt: bool) {
        if doubt {
            self.doubt.store(true, Ordering::Relaxed);
        }
        self.refresh.notify_one();
    }

    /// Counts a node that became usable in this direction, or ceased to be.
    fn count_usable(&self, direction: Direction, usable: bool) {
        let change = if usable { 1 } else { -1 };
        let kind = match direction {
            Direction::Write => "writes",
            Direction::Read => {
                let readable = self.readable.fetch_add(change, Ordering::Relaxed) + change;
                self.metrics
                    .shared_breaker_open
                    .set(i64::from(readable == 0));
                "reads"
            }
        };
        let nodes = &self.metrics.shared_nodes;
        nodes.get_or_create(&Kind { kind }).inc_by(change);
    }

    fn set_known(&self, known: usize) {
        let known = i64::try_from(known).unwrap_or(i64::MAX);
        self.known.store(known, Ordering::Relaxed);
        let nodes = &self.metrics.shared_nodes;
        nodes.get_or_create(&Kind { kind: "known" }).set(known);
    }

    fn all_readable(&self) -> bool {
        let known = self.known.load(Ordering::Relaxed);
        known > 0 && self.readable.load(Ordering::Relaxed) >= known
    }
}

impl RedisTier {
    /// [`RedisTier::connect_with`] default options.
    ///
    /// # Errors
    /// The URL is not valid.
    pub fn connect(url: &str, metrics: Arc<Metrics>) -> Result<Self, ConnectError> {
        Self::connect_with(url, RedisOptions::default(), metrics)
    }

    /// A tier that connects in the background. It is down until it has, and
    /// whenever Redis is. To be called in a runtime.
    ///
    /// # Errors
    /// The URL, the TLS files or the key file are not valid.
    pub fn connect_with(
        url: &str,
        options: RedisOptions,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ConnectError> {
        let url = RedisUrl::parse(url)?;
        let mac_key = options.mac_key_file.as_deref().map(MacKeyFile::load);
        let mac_key = mac_key.transpose()?.map(Arc::new);
        let settings = ConnectionSettings {
            tls: match url.tls {
                true => Some(options.tls.config().map_err(ConnectError::Tls)?.into()),
                false => None,
            },
            tls_name: url
                .servers
                .iter()
                .find(|server| !server.is_ip())
                .map(|s| s.host.clone()),
            credentials: url.credentials.clone(),
            // A cluster has one database only.
            database: url
                .database
                .filter(|_| url.deployment != Deployment::Cluster),
        };
        metrics.shared_breaker_open.set(1);
        let context = Arc::new(Context {
            clustered: url.deployment == Deployment::Cluster,
            errors: ErrorLog::new(Arc::clone(&metrics), url.secrets()),
            metrics,
            budgets: options.budgets,
            refresh: Notify::new(),
            doubt: AtomicBool::new(false),
            known: AtomicI64::new(0),
            readable: AtomicI64::new(0),
            settings,
        });
        let routes = Arc::new(RwLock::new(Vec::new()));
        let finder = Finder::new(&url, &context.settings);
        let follow = follow_slots(finder, Arc::clone(&context), Arc::clone(&routes));
        let follow_key = mac_key.as_ref().map(|file| {
            let follow = Arc::clone(file).follow(Arc::clone(&context.metrics));
            AbortOnDropHandle::new(tokio::spawn(follow))
        });
        Ok(Self {
            context,
            routes,
            mac_key,
            _follow: AbortOnDropHandle::new(tokio::spawn(follow)),
            _follow_key: follow_key,
        })
    }

    /// Waits until all nodes answer reads, but no longer than `limit`. Returns
    /// whether they do.
    pub async fn wait_ready(&self, limit: Duration) -> bool {
        let ready = async {
            while !self.context.all_readable() {
                sleep(READY_POLL).await;
            }
        };
        timeout(limit, ready).await.is_ok()
    }

    /// What each node allows, tried now.
    pub async fn check(&self) -> Vec<NodeCheck> {
        let nodes: BTreeMap<String, Arc<Node>> = {
            let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
            let nodes = routes.iter().map(|route| Arc::clone(&route.running.node));
            nodes.map(|node| (node.address.to_string(), node)).collect()
        };
        join_all(nodes.values().map(|node| node.check())).await
    }

    /// The node of a key, if one is known.
    fn node_of<T>(&self, key: &str, ask: impl FnOnce(&Arc<RunningNode>) -> T) -> Option<T> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        if !self.context.clustered {
            return routes.first().map(|route| ask(&route.running));
        }
        let slot = ClusterRouting::hash_key(key.as_bytes());
        let at = routes.partition_point(|route| route.last < slot);
        let route = routes.get(at).filter(|route| route.first <= slot)?;
        Some(ask(&route.running))
    }

    /// A read of one key, in a batch with others.
    async fn get_one(&self, key: String) -> Option<Bytes> {
        match self.node_of(&key, |running| running.enqueue_get(key.clone()))? {
            Ok(answer) => timeout(GET_TIMEOUT, answer).await.ok()?.ok()?,
            Err(EnqueueError::Down) => None,
            Err(EnqueueError::Full) => {
                // Redis is not to blame, so the breaker stays as it is.
                let failures = &self.context.metrics.shared_failures;
                failures.get_or_create(&Kind { kind: "get" }).inc();
                None
            }
        }
    }

    /// A read of several keys: a command for each slot, all sent at once.
    async fn get_several(&self, keys: &[SharedKey], texts: &[String]) -> Vec<Option<Bytes>> {
        // All keys of a list are in one slot.
        let mut slots: HashMap<&str, Vec<usize>> = HashMap::new();
        for (at, key) in keys.iter().enumerate() {
            let slot = if self.context.clustered {
                key.list.as_str()
            } else {
                ""
            };
            slots.entry(slot).or_default().push(at);
        }
        let slots: Vec<Vec<usize>> = slots.into_values().collect();
        let asked = slots.iter().map(|places| {
            let node = self.node_of(&texts[places[0]], |running| Arc::clone(&running.node));
            let keys = places.iter().map(|at| texts[*at].clone()).collect();
            async move { node?.get_slot(keys).await }
        });
        let answers = join_all(asked).await;
        let mut found = vec![None; keys.len()];
        for (places, values) in slots.iter().zip(answers) {
            for (at, value) in places.iter().zip(values.into_iter().flatten()) {
                found[*at] = value;
            }
        }
        found
    }

    /// The value without its keyed hash.
    fn open(&self, keys: &MacKeys, key: &str, value: &Bytes) -> Option<Bytes> {
        let opened = keys.open(key, value);
        if opened.is_none() {
            let rejected = &self.context.metrics.shared_rejected;
            rejected.get_or_create(&Kind { kind: "mac" }).inc();
        }
        opened
    }
}

/// All keys of a list are in one slot.
fn text(key: &SharedKey) -> String {
    format!("tidemark:{{{}}}:{}", key.list, key.key)
}

/// Keeps the routes up to date with the slot map.
async fn follow_slots(mut finder: Finder, context: Arc<Context>, routes: Arc<RwLock<Vec<Route>>>) {
    let mut last: Vec<SlotRange> = Vec::new();
    loop {
        let doubt = context.doubt.swap(false, Ordering::Relaxed);
        match finder.find(&last, doubt).await {
            Ok(ranges) if ranges == last => {}
            Ok(ranges) => {
                set_routes(&ranges, &context, &routes);
                last = ranges;
            }
            Err((server, error)) => {
                context.errors.record(&server, "discover", &error, true);
            }
        }
        sleep(jittered(MIN_REFRESH_PAUSE)).await;
        let interval = if context.all_readable() {
            REFRESH_INTERVAL
        } else {
            REFRESH_INTERVAL_DOWN
        };
        // A notification that nobody needs any more costs one look.
        let _ = timeout(jittered(interval), context.refresh.notified()).await;
    }
}

/// Nodes that stay keep their connections. Those that are gone end with what
/// waits for them.
fn set_routes(ranges: &[SlotRange], context: &Arc<Context>, routes: &RwLock<Vec<Route>>) {
    let mut routes = routes.write().unwrap_or_else(PoisonError::into_inner);
    let mut nodes: HashMap<_, _> = routes
        .iter()
        .map(|route| {
            (
                route.running.node.address.clone(),
                Arc::clone(&route.running),
            )
        })
        .collect();
    let mut slots: HashMap<_, Vec<(u16, u16)>> = HashMap::new();
    let mut new = Vec::with_capacity(ranges.len());
    for range in ranges {
        let running = nodes.entry(range.master.clone()).or_insert_with(|| {
            Arc::new(RunningNode::start(
                range.master.clone(),
                Arc::clone(context),
            ))
        });
        slots
            .entry(&range.master)
            .or_default()
            .push((range.first, range.last));
        new.push(Route {
            first: range.first,
            last: range.last,
            running: Arc::clone(running),
        });
    }
    *routes = new;
    context.set_known(slots.len());
    if context.clustered {
        for (address, slots) in slots {
            if let Some(running) = nodes.get(address) {
                running.node.set_slots(&slots);
            }
        }
    }
}

#[async_trait]
impl Shared for RedisTier {
    async fn get(&self, keys: &[SharedKey]) -> Vec<Option<Bytes>> {
        if !self.is_up() {
            return vec![None; keys.len()];
        }
        let texts: Vec<_> = keys.iter().map(text).collect();
        let mut found = match texts.as_slice() {
            [key] => vec![self.get_one(key.clone()).await],
            texts => self.get_several(keys, texts).await,
        };
        if let Some(file) = &self.mac_key {
            let keys = file.keys();
            for (value, key) in found.iter_mut().zip(&texts) {
                *value = value.take().and_then(|value| self.open(&keys, key, &value));
            }
        }
        found
    }

    fn put(&self, entries: Vec<(SharedKey, Bytes)>, lifetime: Duration) {
        let keys = self.mac_key.as_ref().map(|file| file.keys());
        for (key, value) in entries {
            let key = text(&key);
            let value = match &keys {
                Some(keys) => keys.seal(&key, &value),
                None => value,
            };
            let most =
                u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX) / LIFETIME_JITTER_PART;
            let cut = Duration::from_millis(rand::random_range(0..=most));
            let lifetime = lifetime.saturating_sub(cut);
            let queued = self.node_of(&key.clone(), |running| {
                running.enqueue_put(key, value, lifetime).is_ok()
            });
            if queued != Some(true) {
                self.context.metrics.shared_dropped.inc();
            }
        }
    }

    async fn lease(&self, key: &SharedKey, ttl: Duration) -> bool {
        let key = format!("{}:lease", text(key));
        let node: Option<Arc<Node>> = self.node_of(&key, |running| Arc::clone(&running.node));
        match node {
            Some(node) => node.lease(key, ttl).await,
            None => true,
        }
    }

    fn is_up(&self) -> bool {
        self.context.readable.load(Ordering::Relaxed) > 0
    }
}
