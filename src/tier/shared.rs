//! The shared tier as the service sees it. It may lose, keep or bring back
//! anything it was ever given.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

/// A key of the shared tier.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SharedKey {
    /// The list's name: all keys of one list lie in one hash slot.
    pub list: String,
    /// The whole key without the list's tag: the todo's name or the page's
    /// query, and the entry scope.
    pub key: String,
}

/// A shared cache. One conformance suite (`tests/conformance/shared.rs`) runs
/// on every implementation.
#[async_trait]
pub trait Shared: Send + Sync + 'static {
    /// The entries of these keys, in their order; `None` where there is none,
    /// where the tier did not answer in its own short time, or where it is
    /// known to be down. Never an error: a read goes on without it.
    async fn get(&self, keys: &[SharedKey]) -> Vec<Option<Bytes>>;

    /// Stores entries for `lifetime` (the implementation adds its jitter).
    /// Returns at once; the work is done off the caller's path by a bounded
    /// queue. What does not fit into the queue is dropped and counted: losing an entry
    /// costs a load, never an answer.
    fn put(&self, entries: Vec<(SharedKey, Bytes)>, lifetime: Duration);

    /// Tries to be the one replica that loads `key` now, for at most `ttl`.
    /// `true` if this call got it, and also if the tier can't be asked.
    async fn lease(&self, key: &SharedKey, ttl: Duration) -> bool;

    /// Whether the tier answers at present: for health and metrics.
    fn is_up(&self) -> bool;
}

/// Most entries of the reference: for tests and simulation.
const MAX_ENTRIES: usize = 100_000;

/// The reference: a shared tier in memory, for tests and simulation. Its clock
/// is tokio's, which a test can pause.
#[derive(Default)]
pub struct MemoryShared {
    entries: std::sync::Mutex<std::collections::HashMap<SharedKey, (Bytes, tokio::time::Instant)>>,
}

impl MemoryShared {
    fn entries(
        &self,
    ) -> std::sync::MutexGuard<
        '_,
        std::collections::HashMap<SharedKey, (Bytes, tokio::time::Instant)>,
    > {
        self.entries
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Loses everything, as after a flush.
    pub fn flush(&self) {
        self.entries().clear();
    }

    /// All that it holds.
    pub fn dump(&self) -> Vec<(SharedKey, Bytes)> {
        self.entries()
            .iter()
            .map(|(key, (value, _))| (key.clone(), value.clone()))
            .collect()
    }
}

#[async_trait]
impl Shared for MemoryShared {
    async fn get(&self, keys: &[SharedKey]) -> Vec<Option<Bytes>> {
        let now = tokio::time::Instant::now();
        let entries = self.entries();
        let live = |key| {
            entries
                .get(key)
                .filter(|(_, ends)| *ends > now)
                .map(|(value, _)| value.clone())
        };
        keys.iter().map(live).collect()
    }

    fn put(&self, new: Vec<(SharedKey, Bytes)>, lifetime: Duration) {
        let now = tokio::time::Instant::now();
        let mut entries = self.entries();
        if entries.len() + new.len() > MAX_ENTRIES {
            entries.retain(|_, (_, ends)| *ends > now);
        }
        for (key, value) in new {
            if entries.len() < MAX_ENTRIES || entries.contains_key(&key) {
                entries.insert(key, (value, now + lifetime));
            }
        }
    }

    async fn lease(&self, key: &SharedKey, ttl: Duration) -> bool {
        let now = tokio::time::Instant::now();
        let key = SharedKey {
            list: key.list.clone(),
            key: format!("{}:lease", key.key),
        };
        let mut entries = self.entries();
        let free = entries.get(&key).is_none_or(|(_, ends)| *ends <= now);
        if free {
            entries.insert(key, (Bytes::new(), now + ttl));
        }
        free
    }

    fn is_up(&self) -> bool {
        true
    }
}
