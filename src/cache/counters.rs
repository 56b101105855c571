//! The counters of reads.

use prometheus_client::metrics::counter::Counter;

use crate::{
    model::{Source, Value},
    telemetry::{Metrics, ReadLabels},
};

/// The counters by kind and tier, looked up once: a near hit costs less than the
/// lookup.
pub(super) struct ReadCounters([Counter; Self::COUNT]);

impl ReadCounters {
    pub(super) const COUNT: usize = 6;

    pub(super) fn new(metrics: &Metrics) -> Self {
        let labels =
            ["todo", "page"].map(|kind| ["near", "shared", "origin"].map(|tier| (kind, tier)));
        let labels = labels.as_flattened();
        Self(std::array::from_fn(|index| {
            let (kind, tier) = labels[index];
            metrics
                .reads
                .get_or_create(&ReadLabels { kind, tier })
                .clone()
        }))
    }

    /// The index of a part's counter.
    pub(super) const fn index(value: &Value, source: Source) -> usize {
        let tier = match source {
            Source::Near => 0,
            Source::Shared => 1,
            Source::Origin => 2,
        };
        match value {
            Value::Page(_) | Value::Lists(_) => 3 + tier,
            Value::Todo(_) | Value::List(_) | Value::Absent | Value::Unreadable(_) => tier,
        }
    }

    /// Adds to one; returns what it was before.
    pub(super) fn add(&self, index: usize, count: u64) -> u64 {
        self.0[index].inc_by(count)
    }
}
