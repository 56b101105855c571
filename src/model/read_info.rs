//! What a response states about its freshness.

use std::time::Duration;

use super::Token;

/// Which tier a value came from; of several values, the farthest tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The cache in the process.
    Near,
    /// The cache in Redis.
    Shared,
    /// The database of record.
    Origin,
}

/// How fresh a response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadInfo {
    /// To present to the next read or to a watch.
    pub token: Token,
    /// Where the response came from.
    pub source: Source,
    /// No write acknowledged longer ago than this is missing.
    pub staleness_bound: Duration,
    /// The origin could not be asked, and the server is set to answer anyway.
    pub stale: bool,
}
