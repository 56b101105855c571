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
