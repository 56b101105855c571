//! Verifies one in N cached values against the origin, in the background. So the
//! service itself counts how often served values were correct.
//!
//! A value was served as the state of its key at `fresh_to`. The verifier loads the
//! key, waits until the frontier has reached the stamp of the load, and compares: if
//! the key's fence still is not above `fresh_to`, no change lies between the two,
//! and the values must be equal. A key that changed meanwhile is undecided.
//!
//! A wrong value is logged with both versions and invalidated. The cost is a
//! multiplication and a comparison for each cached value, and at most
//! `1 / PAUSE` loads a second.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt as _;
use prometheus_client::metrics::counter::Counter;
use prost::Message as _;
use tokio::{
    sync::{Mutex, mpsc},
    time::{sleep, timeout},
};

use crate::{
    coherence::LoadRequirement,
    error::Error,
    loader::{Charge, LoadRequest, Loader},
    model::{Key, KeyRef, OriginTime, Source, Value},
    pb,
    telemetry::{Kind, Metrics},
    tier::Tiers,
    tracker::{Fatal, OriginTracker},
};

/// Samples that may wait: at most about 16 MB with the largest todos. A sample that
/// finds no place counts as undecided; no request waits.
const MAX_WAITING: usize = 256;
/// Pause between two comparisons: at most 500 loads a second, about 3 % of a core.
const PAUSE: Duration = Duration::from_millis(2);
/// Longest wait for the frontier to reach the stamp of the load.
const FRONTIER_WAIT: Duration = Duration::from_secs(2);
/// Most characters of a value in the log: longer than most todos.
const MAX_LOGGED_CHARS: usize = 4096;
/// An odd number near 2^64 divided by the golden ratio: its multiples are spread
/// evenly over `u64`, regardless of the pattern of the reads.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// Takes samples and verifies them.
pub struct Verifier {
    /// A value whose spread number is at most this is sampled; `None`: no value is.
    sampled_up_to: Option<u64>,
    queue: mpsc::Sender<Claim>,
    waiting: Mutex<mpsc::Receiver<Claim>>,
    tracker: Arc<OriginTracker>,
    tiers: Arc<Tiers>,
    loader: Arc<Loader>,
    consistent: Counter,
    inconsistent: Counter,
    undecided: Counter,
    panics: Counter,
}

/// What a response stated: at `fresh_to` the state of `key` was `value`.
struct Claim {
    key: Key,
    value: Value,
    fresh_to: OriginTime,
    source: Source,
}

/// The result of a verification.
enum Verdict {
    Consistent,
    /// What the origin has instead.
    Inconsistent(Value),
    Undecided(Undecided),
}

/// Why a value cannot be verified.
#[derive(Debug, thiserror::Error)]
enum Undecided {
    #[error("another replica is loading the key")]
    LoadedElsewhere,
    #[error("{0}")]
    Load(#[source] Error),
    #[error("the feed has not reached the time of the load")]
    FeedBehind,
    #[error("the key changed after it was served")]
    Changed,
}

impl Verifier {
    /// Verifies one in `one_in` values; 0: none.
    #[must_use]
    pub fn new(
        one_in: u64,
        tracker: Arc<OriginTracker>,
        tiers: Arc<Tiers>,
        loader: Arc<Loader>,
        metrics: &Metrics,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        let counter = |kind| metrics.verified.get_or_create(&Kind { kind }).clone();
        let panics = metrics.task_panics.get_or_create(&Kind { kind: "verify" });
        Self {
            sampled_up_to: sampled_up_to(one_in),
            queue,
            waiting: Mutex::new(waiting),
            tracker,
            tiers,
            loader,
            consistent: counter("consistent"),
            inconsistent: counter("inconsistent"),
            undecided: counter("undecided"),
            panics: panics.clone(),
        }
    }

    /// Queues the value with this number, if it is one of the sampled ones. Never
    /// waits.
    #[inline]
    pub fn sample(
        &self,
        number: u64,
        key: KeyRef<'_>,
        value: &Value,
        fresh_to: OriginTime,
        source: Source,
    ) {
        if !is_sampled(self.sampled_up_to, number) {
            return;
        }
        let claim = Claim {
            key: key.to_key(),
            value: value.clone(),
            fresh_to,
            source,
        };
        if self.queue.try_send(claim).is_err() {
            self.undecided.inc();
        }
    }

    /// Verifies one sample after the other, for as long as the process lives.
    pub async fn run(&self) -> Fatal {
        let mut waiting = self.waiting.lock().await;
        while let Some(claim) = waiting.recv().await {
            let verified = AssertUnwindSafe(self.verify(&claim)).catch_unwind();
            if verified.await.is_err() {
                self.panics.inc();
                self.undecided.inc();
            }
            sleep(PAUSE).await;
        }
        Fatal::TaskEnded("that verifies samples")
    }

    async fn verify(&self, claim: &Claim) {
        match self.decide(claim).await {
            Verdict::Consistent => drop(self.consistent.inc()),
            Verdict::Undecided(why) => {
                self.undecided.inc();
                tracing::debug!(key = %claim.key, %why, "a sampled value cannot be verified");
            }
            Verdict::Inconsistent(right) => {
                self.inconsistent.inc();
                tracing::error!(
                    key = %claim.key,
                    source = ?claim.source,
                    fresh_to = %claim.fresh_to,
                    served = describe(&claim.value),
                    database = describe(&right),
                    "a cached value differs from the database although no change came in between"
                );
                self.invalidate(claim).await;
            }
        }
    }

    async fn decide(&self, claim: &Claim) -> Verdict {
        let request = LoadRequest {
            key: claim.key.clone(),
            requirement: LoadRequirement {
                after: claim.fresh_to.max(self.tracker.newest_known()),
                grace: None,
            },
            lease: None,
            past_near: true,
        };
        let loaded = self.loader.load(vec![request], Charge::default()).await;
        let (as_of, value) = match loaded.map(|mut loaded| loaded.pop()) {
            Ok(Some((stamped, Source::Origin))) => (stamped.as_of, stamped.value),
            Ok(_) => return Verdict::Undecided(Undecided::LoadedElsewhere),
            Err(error) => return Verdict::Undecided(Undecided::Load(error)),
        };
        let reached = self.tracker.wait_for_frontier(as_of);
        if timeout(FRONTIER_WAIT, reached).await.is_err() {
            return Verdict::Undecided(Undecided::FeedBehind);
        }
        if self.tracker.watermarks.view(claim.key.as_ref()).min_as_of > claim.fresh_to {
            return Verdict::Undecided(Undecided::Changed);
        }
        if value == claim.value {
            Verdict::Consistent
        } else {
            Verdict::Inconsistent(value)
        }
    }

    /// Invalidates every copy of a wrong value, as a change of its key would: the
    /// fence is raised to a heartbeat begun now.
    async fn invalidate(&self, claim: &Claim) {
        let key = claim.key.as_ref();
        self.tiers.near.remove(key);
        let now = self.tracker.heartbeat_now().await;
        self.tracker.watermarks.raise_key(key, now);
    }
}

fn sampled_up_to(one_in: u64) -> Option<u64> {
    u64::MAX.checked_div(one_in)
}

fn is_sampled(up_to: Option<u64>, number: u64) -> bool {
    up_to.is_some_and(|most| number.wrapping_mul(SPREAD) <= most)
}

/// A value for the log. Of a todo the etag first, since it differs whenever the
/// todos do.
fn describe(value: &Value) -> String {
    let text = match value {
        Value::Todo(raw) => match pb::Todo::decode(raw.clone()) {
            Ok(todo) => format!("etag {} {todo:?}", todo.etag),
            Err(problem) => format!("not a todo, {problem}: {raw:?}"),
        },
        other => format!("{other:?}"),
    };
    text.chars().take(MAX_LOGGED_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled(one_in: u64, reads: u64) -> usize {
        let up_to = sampled_up_to(one_in);
        (0..reads)
            .filter(|number| is_sampled(up_to, *number))
            .count()
    }

    #[test]
    fn one_in_so_many_is_sampled() {
        assert_eq!(sampled(0, 100_000), 0);
        assert_eq!(sampled(1, 100_000), 100_000);
        for one_in in [2, 10, 1000] {
            let found = sampled(one_in, 1_000_000);
            let wanted = usize::try_from(1_000_000 / one_in).expect("small");
            assert!(
                found.abs_diff(wanted) <= wanted / 50 + 1,
                "{found} of {wanted} for one in {one_in}"
            );
        }
    }

    /// Reads that visit a thousand keys in the same order again and again: every
    /// key has its turn.
    #[test]
    fn a_rhythm_of_the_reads_does_not_hide_keys() {
        let up_to = sampled_up_to(1000);
        let keys: std::collections::HashSet<_> = (0..20_000_000_u64)
            .filter(|number| is_sampled(up_to, *number))
            .map(|number| number % 1000)
            .collect();
        assert_eq!(keys.len(), 1000);
    }
}
