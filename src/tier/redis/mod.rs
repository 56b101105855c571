//! The shared tier in Redis: standalone, cluster or sentinel. All of fred stays
//! in this folder.
//!
//! Whatever Redis does, a read goes on: an answer that takes longer than a few
//! milliseconds is not waited for, and after a few of those in a row Redis is
//! not asked at all until a probe off the way of requests finds it well.

mod lanes;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use fred::{
    clients::{Client, Pool},
    prelude::{Builder, ClientLike, Config, Expiration, KeysInterface, Options, SetOptions, Value},
    types::RespVersion,
    types::config::{ReconnectPolicy, TlsConfig, TlsHostMapping, UnresponsiveConfig},
};
use futures::future::join_all;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::lanes::{Get, Lanes, NoLane};
use super::shared::{Shared, SharedKey};
use crate::{
    telemetry::{Kind, Metrics},
    tls::ClientFiles,
};

/// What a URL may begin with: one node, a cluster, or what sentinels point at,
/// plain or by TLS.
pub const SCHEMES: [&str; 6] = [
    "redis",
    "rediss",
    "redis-cluster",
    "rediss-cluster",
    "redis-sentinel",
    "rediss-sentinel",
];
/// Clients in the pool, each with a connection to every node: one for reads and
/// one for writes. Commands are pipelined: more connections bring nothing.
const CLIENTS: usize = 2;
/// How long a read waits for Redis: ten times what it takes when it is well.
const GET_TIMEOUT: Duration = Duration::from_millis(20);
/// How long a batch of writes may take; nobody waits for it.
const PUT_TIMEOUT: Duration = Duration::from_millis(500);
/// Failures in a row after which Redis is not asked any more.
const BREAKER_FAILURES: u32 = 5;
/// How often a probe looks whether Redis is well again, and how long it waits.
const PROBE_INTERVAL: Duration = Duration::from_millis(200);
const PROBE_TIMEOUT: Duration = Duration::from_millis(200);
/// Pause between batches of writes, for entries to gather in: nobody waits for
/// one but those who look for what another replica loads, for some milliseconds.
const PUT_PAUSE: Duration = Duration::from_millis(2);
/// Entries that may wait to be written, and their bytes.
const MAX_QUEUED: usize = 8192;
const MAX_QUEUED_BYTES: usize = 32 << 20;
/// Entries of one batch of writes.
const BATCH: usize = 256;
/// The lifetime of an entry is cut by up to this part of it, so that what was
/// written together does not end together.
const JITTER_PART: u64 = 10;

/// The shared tier in Redis.
pub struct RedisTier {
    inner: Arc<Inner>,
    queue: mpsc::Sender<Put>,
    lanes: Arc<Lanes>,
    _tasks: DropGuard,
}

struct Inner {
    pool: Pool,
    /// The client of the pool that reads: one, as more of what waits then goes
    /// out, and comes back, together.
    reads: Client,
    /// The one that writes, so that no read waits behind a batch of entries.
    writes: Client,
    /// A command is of one slot.
    clustered: bool,
    metrics: Arc<Metrics>,
    /// Redis is not asked.
    open: AtomicBool,
    failures: AtomicU32,
    queued_bytes: AtomicUsize,
}

struct Put {
    key: String,
    value: Bytes,
    lifetime: Duration,
}

impl RedisTier {
    /// [`RedisTier::connect_with`] what this machine trusts.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub fn connect(url: &str, metrics: Arc<Metrics>) -> Result<Self, String> {
        Self::connect_with(url, &ClientFiles::default(), metrics)
    }

    /// A tier that connects in the background: it is down until it has, and
    /// whenever Redis is.
    ///
    /// # Errors
    /// What is wrong with the URL, or with the files of TLS.
    pub fn connect_with(
        url: &str,
        tls: &ClientFiles,
        metrics: Arc<Metrics>,
    ) -> Result<Self, String> {
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        if !SCHEMES.contains(&scheme) {
            return Err(format!(
                "{scheme:?} is no way to Redis; a URL begins with one of {}",
                SCHEMES.join(", ")
            ));
        }
        let mut config = config_of(url, tls)?;
        config.version = RespVersion::RESP3;
        config.fail_fast = false;
        let clustered = config.server.is_clustered();
        let pool = Builder::from_config(config)
            .with_connection_config(|connection| {
                connection.connection_timeout = Duration::from_millis(500);
                connection.internal_command_timeout = Duration::from_millis(500);
                connection.max_command_attempts = 1;
                connection.max_redirections = 5;
                connection.max_command_buffer_len = 10_000;
                connection.unresponsive = UnresponsiveConfig {
                    max_timeout: Some(Duration::from_secs(1)),
                    interval: Duration::from_millis(200),
                };
            })
            .with_performance_config(|performance| {
                performance.default_command_timeout = PUT_TIMEOUT;
            })
            .set_policy(ReconnectPolicy::new_exponential(0, 50, 500, 2))
            .build_pool(CLIENTS)
            .map_err(|e| e.to_string())?;
        let _connections = pool.connect();
        metrics.shared_breaker_open.set(1);
        let inner = Arc::new(Inner {
            reads: pool.next().clone(),
            writes: pool.next().clone(),
            pool,
            clustered,
            metrics,
            open: AtomicBool::new(true),
            failures: AtomicU32::new(0),
            queued_bytes: AtomicUsize::new(0),
        });
        let (queue, waiting) = mpsc::channel(MAX_QUEUED);
        let stop = CancellationToken::new();
        let lanes = Arc::new(if clustered {
            Lanes::default()
        } else {
            Lanes::single(&inner)
        });
        let (prober, routes, writer) = (Arc::clone(&inner), Arc::clone(&lanes), Arc::clone(&inner));
        tokio::spawn(
            stop.clone()
                .run_until_cancelled_owned(async move { prober.probe(&routes).await }),
        );
        let stopped = stop.clone();
        tokio::spawn(async move {
            stopped
                .run_until_cancelled(writer.write_queued(waiting))
                .await;
            // Nobody is left to tell.
            let _ = writer.pool.quit().await;
        });
        Ok(Self {
            inner,
            queue,
            lanes,
            _tasks: stop.drop_guard(),
        })
    }
}

/// A URL as settings. TLS is set up here, and not by the URL's scheme: that
/// way would take the authorities of this machine only, and fail where one of
/// them is broken.
fn config_of(url: &str, tls: &ClientFiles) -> Result<Config, String> {
    let Some(rest) = url.strip_prefix("rediss") else {
        return Config::from_url(url).map_err(|e| e.to_string());
    };
    let mut config = Config::from_url(&format!("redis{rest}")).map_err(|e| e.to_string())?;
    // The nodes of a cluster tell their addresses: their certificates will
    // rather have the name that the URL has.
    let by_name = config
        .server
        .hosts()
        .iter()
        .any(|host| host.host.parse::<IpAddr>().is_err());
    config.tls = Some(TlsConfig {
        connector: tls.config()?.into(),
        hostnames: if by_name {
            TlsHostMapping::DefaultHost
        } else {
            TlsHostMapping::None
        },
    });
    Ok(config)
}

/// Commands fail at once while there is no connection.
fn options(limit: Duration) -> Options {
    Options {
        timeout: Some(limit),
        max_attempts: Some(1),
        fail_fast: true,
        ..Options::default()
    }
}

/// All keys of a list lie in one slot.
fn text(key: &SharedKey) -> String {
    format!("tidemark:{{{}}}:{}", key.list, key.key)
}

impl Inner {
    /// Notes how a call went, and opens the breaker when too many in a row did
    /// not go well.
    fn went(&self, kind: &'static str, well: bool) {
        if well {
            self.failures.store(0, Ordering::Relaxed);
            return;
        }
        self.metrics
            .shared_failures
            .get_or_create(&Kind { kind })
            .inc();
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= BREAKER_FAILURES
            && !self.open.swap(true, Ordering::Relaxed)
        {
            self.metrics.shared_breaker_open.set(1);
            tracing::warn!("Redis does not answer in time; reads go on without it");
        }
    }

    /// Closes the breaker when Redis is well again, and looks where the slots of
    /// a cluster are.
    async fn probe(self: Arc<Self>, lanes: &Lanes) {
        loop {
            sleep(PROBE_INTERVAL).await;
            if self.clustered {
                lanes.follow_slots(&self);
            }
            if self.open.load(Ordering::Relaxed) && self.is_well().await {
                self.failures.store(0, Ordering::Relaxed);
                self.open.store(false, Ordering::Relaxed);
                self.metrics.shared_breaker_open.set(0);
                tracing::info!("Redis answers");
            }
        }
    }

    /// Whether every client of the pool gets an answer.
    async fn is_well(&self) -> bool {
        let ask = |client: &Client| {
            let client = client.with_options(&options(PROBE_TIMEOUT));
            async move {
                client
                    .get::<Option<Bytes>, _>("tidemark:{probe}")
                    .await
                    .is_ok()
            }
        };
        let answers = join_all(self.pool.clients().iter().map(ask));
        timeout(PROBE_TIMEOUT, answers)
            .await
            .is_ok_and(|answers| answers.into_iter().all(|well| well))
    }

    /// The entries of keys in one slot, in their order; `None` if Redis does not
    /// give them in time.
    async fn get_slot(&self, keys: Vec<String>) -> Option<Vec<Option<Bytes>>> {
        let count = keys.len();
        let found = timeout(GET_TIMEOUT, self.one_get(keys)).await.ok()?.ok()?;
        (found.len() == count).then(|| found.into_iter().map(copied).collect())
    }

    async fn one_get(&self, keys: Vec<String>) -> Result<Vec<Option<Bytes>>, fred::error::Error> {
        let client = self.reads.with_options(&options(GET_TIMEOUT));
        if keys.len() == 1 {
            return Ok(vec![
                client.get::<Option<Bytes>, _>(keys[0].as_str()).await?,
            ]);
        }
        client.mget::<Vec<Option<Bytes>>, _>(keys).await
    }

    /// Asks for the keys of many readers, all of one node, at once.
    async fn get_together(&self, mut readers: Vec<Get>) {
        // Those that went away need no answer.
        readers.retain(|get| !get.found.is_closed());
        // The breaker may have opened while they waited.
        if readers.is_empty() || self.open.load(Ordering::Relaxed) {
            return;
        }
        let keys = readers
            .iter_mut()
            .map(|get| std::mem::take(&mut get.key))
            .collect();
        let found = if self.clustered {
            self.get_slots(keys).await
        } else {
            self.get_slot(keys).await
        };
        self.went("get", found.is_some());
        for (get, value) in readers.into_iter().zip(found.into_iter().flatten()) {
            let _ = get.found.send(value);
        }
    }

    /// The entries of keys in several slots: a command for each, sent and
    /// answered together.
    async fn get_slots(&self, keys: Vec<String>) -> Option<Vec<Option<Bytes>>> {
        let count = keys.len();
        let pipeline = self.reads.with_options(&options(GET_TIMEOUT)).pipeline();
        for key in keys {
            let () = pipeline.get(key).await.ok()?;
        }
        let found = timeout(GET_TIMEOUT, pipeline.try_all::<Option<Bytes>>())
            .await
            .ok()?;
        (found.len() == count && found.iter().any(Result::is_ok)).then(|| {
            found
                .into_iter()
                .map(|value| copied(value.ok().flatten()))
                .collect()
        })
    }

    /// One pipeline: Redis answers once for all of them.
    async fn put_all(&self, batch: &mut Vec<Put>) -> Result<(), fred::error::Error> {
        let pipeline = self.writes.with_options(&options(PUT_TIMEOUT)).pipeline();
        for put in batch.drain(..) {
            let expiry = Some(Expiration::PX(millis(put.lifetime)));
            let () = pipeline
                .set(put.key, put.value, expiry, None, false)
                .await?;
        }
        pipeline.all::<Value>().await.map(drop)
    }

    async fn write_queued(&self, mut waiting: mpsc::Receiver<Put>) {
        let mut batch = Vec::with_capacity(BATCH);
        while waiting.recv_many(&mut batch, BATCH).await > 0 {
            let bytes: usize = batch.iter().map(|put| put.value.len()).sum();
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            if self.open.load(Ordering::Relaxed) {
                self.metrics.shared_dropped.inc_by(batch.len() as u64);
                batch.clear();
                continue;
            }
            let done = timeout(PUT_TIMEOUT, self.put_all(&mut batch)).await;
            self.went("put", matches!(done, Ok(Ok(()))));
            sleep(PUT_PAUSE).await;
        }
    }
}

/// Each value is a slice of a whole read buffer.
fn copied(value: Option<Bytes>) -> Option<Bytes> {
    value.map(|value| Bytes::copy_from_slice(&value))
}

fn millis(d: Duration) -> i64 {
    i64::try_from(d.as_millis()).unwrap_or(i64::MAX).max(1)
}

#[async_trait]
impl Shared for RedisTier {
    async fn get(&self, keys: &[SharedKey]) -> Vec<Option<Bytes>> {
        let (inner, none) = (&self.inner, || vec![None; keys.len()]);
        if !self.is_up() {
            return none();
        }
        if let [key] = keys {
            match self.lanes.wait(text(key)) {
                Ok(answer) => {
                    return vec![
                        timeout(GET_TIMEOUT, answer)
                            .await
                            .ok()
                            .and_then(Result::ok)
                            .flatten(),
                    ];
                }
                Err(NoLane::Full) => {
                    // Redis is not to blame, so no breaker.
                    inner
                        .metrics
                        .shared_failures
                        .get_or_create(&Kind { kind: "get" })
                        .inc();
                    return none();
                }
                Err(NoLane::Unknown) => {}
            }
        }
        // One command for each slot: a list is one, and so is all of a Redis
        // that is no cluster.
        let mut slots: HashMap<&str, Vec<usize>> = HashMap::new();
        for (at, key) in keys.iter().enumerate() {
            let slot = if inner.clustered {
                key.list.as_str()
            } else {
                ""
            };
            slots.entry(slot).or_default().push(at);
        }
        let slots: Vec<Vec<usize>> = slots.into_values().collect();
        let asked = slots
            .iter()
            .map(|places| inner.get_slot(places.iter().map(|at| text(&keys[*at])).collect()));
        let answers = join_all(asked).await;
        inner.went("get", answers.iter().all(Option::is_some));
        let mut found = none();
        for (places, values) in slots.iter().zip(answers) {
            for (at, value) in places.iter().zip(values.into_iter().flatten()) {
                found[*at] = value;
            }
        }
        found
    }

    fn put(&self, entries: Vec<(SharedKey, Bytes)>, lifetime: Duration) {
        let inner = &self.inner;
        for (key, value) in entries {
            let bytes = value.len();
            let full = inner.queued_bytes.load(Ordering::Relaxed) + bytes > MAX_QUEUED_BYTES;
            let most = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX) / JITTER_PART;
            let lifetime =
                lifetime.saturating_sub(Duration::from_millis(rand::random_range(0..=most)));
            inner.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
            let put = Put {
                key: text(&key),
                value,
                lifetime,
            };
            if full || self.queue.try_send(put).is_err() {
                inner.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
                inner.metrics.shared_dropped.inc();
            }
        }
    }

    async fn lease(&self, key: &SharedKey, ttl: Duration) -> bool {
        if self.inner.open.load(Ordering::Relaxed) {
            return true;
        }
        let client = self.inner.reads.with_options(&options(GET_TIMEOUT));
        let (key, expiry) = (
            format!("{}:lease", text(key)),
            Some(Expiration::PX(millis(ttl))),
        );
        let set = client.set::<Option<String>, _, _>(key, "1", expiry, Some(SetOptions::NX), false);
        let set = timeout(GET_TIMEOUT, set).await;
        self.inner.went("lease", matches!(set, Ok(Ok(_))));
        !matches!(set, Ok(Ok(None)))
    }

    fn is_up(&self) -> bool {
        !self.inner.open.load(Ordering::Relaxed)
    }
}
