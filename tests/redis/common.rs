//! What all of these tests need: a tier, its log, and entries in it.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use tidemark::{
    telemetry::{Kind, Metrics},
    tier::{
        redis::{RedisOptions, RedisTier},
        shared::{Shared, SharedKey},
    },
};
use tracing_subscriber::fmt::MakeWriter;

use crate::support::eventually;

/// Lifetime of entries, longer than any test.
pub const LONG: Duration = Duration::from_secs(600);
/// Within this the tier must be in use again once its servers are right: 10 s, and three
/// times that on a busy machine.
pub const RECOVERY: Duration = Duration::from_secs(30);

/// A tier and its metrics.
pub struct Tier {
    pub tier: RedisTier,
    pub metrics: Arc<Metrics>,
}

impl Tier {
    pub fn start(url: &str) -> Self {
        Self::start_with(url, RedisOptions::default())
    }

    pub fn start_with(url: &str, options: RedisOptions) -> Self {
        let metrics = Arc::new(Metrics::default());
        let tier = RedisTier::connect_with(url, options, Arc::clone(&metrics));
        Self {
            tier: tier.unwrap_or_else(|error| panic!("{url}: {error}")),
            metrics,
        }
    }

    /// Starts it and waits until all nodes answer.
    pub async fn ready(url: &str) -> Self {
        let tier = Self::start(url);
        assert!(
            tier.tier.wait_ready(RECOVERY).await,
            "{url} does not answer"
        );
        tier
    }

    pub async fn get(&self, key: &SharedKey) -> Option<Bytes> {
        self.tier.get(std::slice::from_ref(key)).await.remove(0)
    }

    pub fn put(&self, key: &SharedKey) {
        let value = Bytes::from(key.key.clone());
        self.tier.put(vec![(key.clone(), value)], LONG);
    }

    /// Writes each of these keys until it was read once.
    pub async fn store(&self, keys: &[SharedKey], limit: Duration) {
        let mut missing = keys.to_vec();
        eventually("all entries in Redis", limit, async || {
            let mut left = Vec::new();
            for key in missing.drain(..) {
                if self.get(&key).await.is_none() {
                    self.put(&key);
                    left.push(key);
                }
            }
            missing = left;
            missing.is_empty().then_some(())
        })
        .await;
    }

    /// Waits until so many of these keys were hits, each at some time: on a busy machine
    /// one answer of many takes longer than a read waits.
    pub async fn has(&self, keys: &[SharedKey], count: usize) {
        let mut missing = keys.to_vec();
        let what = format!("{count} hits of {} keys", keys.len());
        eventually(&what, RECOVERY, async || {
            let mut left = Vec::new();
            for key in missing.drain(..) {
                if self.hits(std::slice::from_ref(&key)).await == 0 {
                    left.push(key);
                }
            }
            missing = left;
            (keys.len() - missing.len() == count).then_some(())
        })
        .await;
    }

    /// The same by reads of all keys together.
    pub async fn has_together(&self, keys: &[SharedKey], count: usize) {
        let mut found = vec![false; keys.len()];
        let what = format!("{count} hits of {} keys together", keys.len());
        eventually(&what, RECOVERY, async || {
            let values = self.tier.get(keys).await;
            assert_eq!(values.len(), keys.len());
            for ((key, value), found) in keys.iter().zip(values).zip(&mut found) {
                if let Some(value) = value {
                    assert_eq!(value, key.key, "the value of another key");
                    *found = true;
                }
            }
            (found.iter().filter(|found| **found).count() == count).then_some(())
        })
        .await;
    }

    /// Waits until so many nodes answer reads, and accept writes.
    pub async fn uses(&self, reads: i64, writes: i64) {
        let what = format!("{reads} nodes for reads and {writes} for writes");
        eventually(&what, RECOVERY, async || {
            let now = (self.nodes("reads"), self.nodes("writes"));
            (now == (reads, writes)).then_some(())
        })
        .await;
    }

    /// Waits until the tier is in use, or is not.
    pub async fn becomes_up(&self, up: bool) {
        let what = if up {
            "the tier"
        } else {
            "a tier that is down"
        };
        eventually(what, RECOVERY, async || {
            (self.tier.is_up() == up).then_some(())
        })
        .await;
    }

    /// Waits for more than so many errors of this kind.
    pub async fn errors_above(&self, kind: &'static str, count: u64) {
        let what = format!("more than {count} errors {kind}");
        eventually(&what, RECOVERY, async || {
            (self.errors(kind) > count).then_some(())
        })
        .await;
    }

    /// How many of these keys are hits. A value of another key is a failure.
    pub async fn hits(&self, keys: &[SharedKey]) -> usize {
        let mut hits = 0;
        for key in keys {
            if let Some(value) = self.get(key).await {
                assert_eq!(value, key.key, "the value of another key");
                hits += 1;
            }
        }
        hits
    }

    /// Errors of this kind so far.
    pub fn errors(&self, kind: &'static str) -> u64 {
        self.metrics
            .shared_errors
            .get_or_create(&Kind { kind })
            .get()
    }

    /// Nodes of this kind: known, reads, writes.
    pub fn nodes(&self, kind: &'static str) -> i64 {
        self.metrics
            .shared_nodes
            .get_or_create(&Kind { kind })
            .get()
    }
}

pub fn key(n: usize) -> SharedKey {
    SharedKey {
        list: format!("lists/{n}"),
        key: format!("todos/{n}"),
    }
}

/// Keys of as many lists, spread over all slots.
pub fn keys(count: usize) -> Vec<SharedKey> {
    (0..count).map(key).collect()
}

/// The key as it is in Redis.
pub fn raw(key: &SharedKey) -> String {
    format!("tidemark:{{{}}}:{}", key.list, key.key)
}

/// The log of this thread, at INFO and above, until dropped. A test's runtime has
/// one thread.
pub struct Log {
    lines: Lines,
    _guard: tracing::subscriber::DefaultGuard,
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("the log").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Log {
    pub fn start() -> Self {
        let lines = Lines::default();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(lines.clone())
            .with_ansi(false)
            .with_max_level(tracing::Level::INFO)
            .finish();
        Self {
            lines,
            _guard: tracing::subscriber::set_default(subscriber),
        }
    }

    pub fn text(&self) -> String {
        let bytes = self.lines.0.lock().expect("the log").clone();
        String::from_utf8(bytes).expect("text")
    }

    pub fn warnings(&self) -> Vec<String> {
        let text = self.text();
        let warnings = text.lines().filter(|line| line.contains(" WARN "));
        warnings.map(ToOwned::to_owned).collect()
    }

    /// The warnings but for those of answers that were late: on a busy machine a healthy
    /// server gives them reason.
    pub fn warnings_of_faults(&self) -> Vec<String> {
        let mut warnings = self.warnings();
        warnings.retain(|line| !line.contains("kind=\"timeout\""));
        warnings
    }

    /// Waits for a warning with these words.
    pub async fn warned(&self, words: &str) {
        let found = async || {
            let warnings = self.warnings();
            warnings
                .iter()
                .any(|line| line.contains(words))
                .then_some(())
        };
        if tokio::time::timeout(RECOVERY, eventually("", RECOVERY * 2, found))
            .await
            .is_err()
        {
            panic!("no warning with {words:?} in\n{}", self.text());
        }
    }
}
