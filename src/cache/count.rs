//! Counts what was read and from where, and samples it for the verifier.

use prometheus_client::metrics::counter::Counter;

use super::{Cache, part::Part};
use crate::{
    error::Source,
    model::Value,
    telemetry::{Metrics, ReadLabels},
};

/// The counters of reads, looked up once: a read that near answers costs less
/// than looking them up.
pub(super) struct ReadCounters([Counter; Self::COUNT]);

impl ReadCounters {
    const COUNT: usize = 6;

    pub(super) fn new(metrics: &Metrics) -> Self {
        let labels =
            ["todo", "page"].map(|kind| ["near", "shared", "origin"].map(|tier| (kind, tier)));
        let mut labels = labels.as_flattened().iter();
        Self(std::array::from_fn(|_| {
            let (kind, tier) = labels.next().copied().unwrap_or_default();
            metrics
                .reads
                .get_or_create(&ReadLabels { kind, tier })
                .clone()
        }))
    }

    /// The counter of such a part.
    fn at(value: &Value, source: Source) -> usize {
        let tier = match source {
            Source::Near => 0,
            Source::Shared => 1,
            Source::Origin => 2,
        };
        if matches!(value, Value::Page(_)) {
            3 + tier
        } else {
            tier
        }
    }

    /// Adds to each; returns what each was before.
    fn add(&self, counts: &[u64; Self::COUNT]) -> [u64; Self::COUNT] {
        std::array::from_fn(|at| match counts[at] {
            0 => 0,
            count => self.0[at].inc_by(count),
        })
    }
}

impl Cache {
    /// Each counter is added to once an answer: all cores share it.
    pub(super) fn count_reads(&self, parts: &[Part], stale: bool) {
        let mut counts = [0; ReadCounters::COUNT];
        for part in parts {
            counts[ReadCounters::at(&part.value, part.source)] += 1;
        }
        let mut nth = self.read_counters.add(&counts);
        for part in parts {
            let nth = &mut nth[ReadCounters::at(&part.value, part.source)];
            self.sample(*nth, part);
            *nth += 1;
        }
        if stale {
            self.metrics.stale_answers.inc();
        }
    }
}
