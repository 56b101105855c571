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
/// Within this the tier must be in use again once its servers are right.
pub const RECOVERY: Duration = Duration::from_secs(10);

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

    /// Writes each of these keys until it can be read.
    pub async fn store(&self, keys: &[SharedKey], limit: Duration) {
        eventually("all entries in Redis", limit, async || {
            let mut missing = 0;
            for key in keys {
                if self.get(key).await.is_none() {
                    missing += 1;
                    self.put(key);
                }
            }
            (missing == 0).then_some(())
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

    /// Waits for a warning with these words.
    pub async fn warned(&self, words: &str) {
        let found = async || {
            let warnings = self.warnings();
            warnings
                .iter()
                .any(|line| line.contains(words))
                .then_some(())
        };
        let limit = Duration::from_secs(5);
        if tokio::time::timeout(limit, eventually("", limit * 2, found))
            .await
            .is_err()
        {
            panic!("no warning with {words:?} in\n{}", self.text());
        }
    }
}
