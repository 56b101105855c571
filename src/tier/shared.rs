//! The interface of the shared cache, and an in-memory implementation for tests.
//!
//! A shared cache is not trusted: it may lose entries, keep them too long, or
//! return old ones. Readers check the stamp of what they get.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

/// A key of the shared tier.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SharedKey {
    /// Name of the list. All keys of a list share a hash slot.
    pub list: String,
    /// The key within the cache: todo name or page query, and the entry scope.
    pub key: String,
}

/// A shared cache. One conformance suite (`tests/conformance/shared.rs`) runs
/// on every implementation.
#[async_trait]
pub trait Shared: Send + Sync + 'static {
    /// Returns the entries of `keys`, in their order. `None` is a miss: no entry,
    /// no answer within the implementation's timeout (milliseconds), or a server
    /// that is known to be down. Never an error: reads continue without the tier.
    async fn get(&self, keys: &[SharedKey]) -> Vec<Option<Bytes>>;

    /// Queues entries to be stored for `lifetime` (the implementation adds jitter)
    /// and returns at once. The queue is bounded; entries that do not fit are
    /// dropped and counted. A lost entry costs a load later.
    fn put(&self, entries: Vec<(SharedKey, Bytes)>, lifetime: Duration);

    /// Tries to acquire the load lease of `key` for at most `ttl`. Returns `true`
    /// if acquired, and also if the tier cannot be asked.
    async fn lease(&self, key: &SharedKey, ttl: Duration) -> bool;

    /// Whether at least part of the tier answers reads now. For health and metrics.
    fn is_up(&self) -> bool;
}

/// Maximum number of entries in [`MemoryShared`].
const MAX_ENTRIES: usize = 100_000;

/// An in-memory shared tier for tests and simulation. It uses tokio's clock,
/// which tests can pause.
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

    /// Removes all entries, like `FLUSHALL`.
    pub fn flush(&self) {
        self.entries().clear();
    }

    /// All entries, expired ones included.
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
