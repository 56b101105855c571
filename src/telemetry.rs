//! Traces and metrics. Every metric's name stands here, once.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// One label `kind`: what was read, or which bound, reason or outcome it was.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Kind {
    /// The label's value.
    pub kind: &'static str,
}

/// Labels of a read that was answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReadLabels {
    /// `todo` or `page`.
    pub kind: &'static str,
    /// `near`, `shared` or `origin`.
    pub tier: &'static str,
}

/// Labels of a finished call.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RpcLabels {
    /// The method, such as `GetTodo`.
    pub call: &'static str,
    /// The status code, such as `OK` or `NOT_FOUND`.
    pub code: &'static str,
}

/// A gauge of a number with a fraction.
pub type FloatGauge = Gauge<f64, AtomicU64>;
/// A gauge of a whole number.
pub type IntGauge = Gauge<i64, AtomicI64>;

/// Histogram buckets in seconds: 50 us to 13 s, each twice the one before.
fn latency() -> Histogram {
    Histogram::new(prometheus_client::metrics::histogram::exponential_buckets(0.000_05, 2.0, 19))
}

/// Latencies of calls.
#[derive(Clone, Debug)]
pub struct RpcLatencies(pub Family<RpcLabels, Histogram>);

impl Default for RpcLatencies {
    fn default() -> Self {
        Self(Family::new_with_constructor(latency))
    }
}

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident : $kind:ty = $name:literal $(, $unit:expr)? ;)+) => {
        /// Every metric of the process. Cheap to clone handles inside; one
        /// instance for the process (or for a test).
        #[derive(Debug, Default)]
        pub struct Metrics {
            $($(#[doc = $help])+ pub $field: $kind,)+
            /// Finished calls with their latency, by call and code; a stream counts when it ends
            pub rpc: RpcLatencies,
        }

        impl Metrics {
            /// Registers all of them.
            fn register(&self, registry: &mut Registry) {
                registry.register_with_unit("rpc_duration", "Finished calls with their latency, by call and code; a stream counts when it ends", Unit::Seconds, self.rpc.0.clone());
                $( metrics!(@one registry, $name, concat!($($help),+), self.$field.clone() $(, $unit)?); )+
            }
        }
    };
    (@one $registry:ident, $name:literal, $help:expr, $metric:expr) => {
        $registry.register($name, $help.trim(), $metric);
    };
    (@one $registry:ident, $name:literal, $help:expr, $metric:expr, $unit:expr) => {
        $registry.register_with_unit($name, $help.trim(), $unit, $metric);
    };
}

metrics! {
    /// Reads answered, by kind (todo, page) and by the tier that had the value
    reads: Family<ReadLabels, Counter> = "reads";
    /// Loads begun at the origin, by kind (todos, page)
    origin_loads: Family<Kind, Counter> = "origin_loads";
    /// Keys asked of the origin in those loads
    origin_load_keys: Counter = "origin_load_keys";
    /// Loads that failed
    origin_load_failures: Counter = "origin_load_failures";
    /// Readers that joined a load which another had begun
    joined_loads: Counter = "joined_loads";
    /// Requests refused because a bound was reached, by bound
    overloaded: Family<Kind, Counter> = "overloaded";
    /// Answers marked stale because the origin could not be asked
    stale_answers: Counter = "stale_answers";
    /// Time from the newest acknowledged heartbeat back to the frontier, by the origin's clock
    frontier_lag: FloatGauge = "frontier_lag", Unit::Seconds;
    /// No write acknowledged longer ago is missing from what the caches answer
    staleness_bound: FloatGauge = "staleness_bound", Unit::Seconds;
    /// Heartbeats, by kind (acknowledged, failed)
    heartbeats: Family<Kind, Counter> = "heartbeats";
    /// Changes applied from the feed
    feed_changes: Counter = "feed_changes";
    /// Times that the feed was opened again, by kind (broken, hung, lost)
    feed_reopened: Family<Kind, Counter> = "feed_reopened";
    /// Times that the floor was raised by something no stripe could be pinned to
    resets: Counter = "resets";
    /// Open watches
    watchers: IntGauge = "watchers";
    /// Changes sent to watchers
    watch_changes: Counter = "watch_changes";
    /// Resets sent to watchers, by kind (overflow, forgotten, origin)
    watch_resets: Family<Kind, Counter> = "watch_resets";
    /// Bytes held by the near tier
    near_bytes: IntGauge = "near", Unit::Bytes;
    /// Entries held by the near tier
    near_entries: IntGauge = "near_entries";
    /// 1 while the breaker keeps reads away from the shared tier
    shared_breaker_open: IntGauge = "shared_breaker_open";
    /// Calls of the shared tier that failed or took too long, by kind (get, put, lease)
    shared_failures: Family<Kind, Counter> = "shared_failures";
    /// Entries not written to the shared tier because its queue was full
    shared_dropped: Counter = "shared_dropped";
    /// Shared entries that were not what was asked for, by reason
    shared_rejected: Family<Kind, Counter> = "shared_rejected";
    /// Writes, by kind of outcome
    writes: Family<Kind, Counter> = "writes";
    /// Panics of tasks, by task
    task_panics: Family<Kind, Counter> = "task_panics";
}

impl Metrics {
    /// All metrics in a registry of their own, each name with the prefix
    /// `tidemark_`.
    #[must_use]
    pub fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("tidemark");
        self.register(&mut registry);
        registry
    }
}
