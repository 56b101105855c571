//! The settings: parsed once and whole.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// What `tidemark serve` runs with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where gRPC is served.
    pub listen: SocketAddr,
    /// Where metrics are served; `None`: nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// The MongoDB origin; `None`: the embedded store in `data_dir`.
    pub mongodb_uri: Option<Secret>,
    /// The shared tier; `None`: without one.
    pub redis_url: Option<Secret>,
    /// Where the embedded store lies.
    pub data_dir: PathBuf,
    /// Most bytes of the near tier.
    pub near_capacity: u64,
    /// No unmarked answer misses a write acknowledged longer ago.
    pub staleness_limit: Duration,
    /// Time from one heartbeat to the next.
    pub heartbeat_interval: Duration,
    /// How much of the feed is replayed at start, and how long shared entries live.
    pub replay_window: Duration,
    /// How long an overtaken page may still be answered.
    pub list_grace: Duration,
    /// Part of the key of every shared entry: another number, another cache.
    pub cache_epoch: u64,
    /// How old an answer may be when the origin cannot be asked; `None`: not at all.
    pub stale_if_error: Option<Duration>,
    /// Most time from SIGTERM to the end.
    pub drain_timeout: Duration,
    /// Most loads at the origin at once.
    pub max_origin_loads: usize,
}

/// A value with a password in it: never printed.
#[derive(Clone)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}
