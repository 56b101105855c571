//! The arms of `Consistency`, each as a time that an answer must reach.

use std::time::Duration;

use crate::model::OriginTime;

/// How fresh a caller wants an answer to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    /// From the nearest cache, within the staleness limit.
    MinimizeLatency,
    /// No write acknowledged longer ago is missing.
    MaxStaleness(Duration),
    /// Not older than the answer whose token says it has `seen` this.
    AtLeastAsFresh(OriginTime),
    /// Every write acknowledged before the read began is in it.
    FullyConsistent,
    /// Within the staleness limit, from caches, or not at all.
    CachedOnly,
}
