//! The online verifier: a sample of the cached answers is compared, off the
//! way of their requests, with the origin at the very time that they were said
//! to be fresh to. So the service itself counts how often it keeps its word.
//!
//! What it buys: faults that no test has thought of are found in the field,
//! told with both versions, and dropped. What it costs: a multiplication and a
//! comparison for each cached answer, and for a sampled one a read at the
//! origin, of which there are at most some hundreds a second.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use prometheus_client::metrics::counter::Counter;
use prost::Message;
use tokio::{
    sync::{Mutex, mpsc},
    time::{sleep, timeout},
};

use super::{
    Cache, Fatal,
    load::Wanted,
    part::{Key, Part},
};
use crate::{
    coherence::LoadRequirement,
    error::{Error, Source},
    model::{OriginTime, Stamped, Value},
    origin::OriginError,
    pb,
    telemetry::{Kind, Metrics},
    tier::record,
};

/// Samples that may wait: at most some 16 MB where todos are as large as they
/// can be. What finds no place is undecided: no request ever waits.
const MAX_WAITING: usize = 256;
/// Pause between two comparisons: at most 500 reads a second, about 3 % of a
/// core at 50 to 60 us each.
const PAUSE: Duration = Duration::from_millis(2);
/// Time for one read at the origin, as for a load.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a wrong entry is dropped, and the pause after which it is looked
/// for: a write to the shared tier takes a few milliseconds, and a reader may
/// bring the entry back from there meanwhile.
const DROP_TRIES: u32 = 10;
const DROP_PAUSE: Duration = Duration::from_millis(50);
/// Characters of a version in the log: most of any todo.
const MAX_SHOWN_CHARS: usize = 4096;
/// An odd number near 2^64 divided by the golden ratio: its multiples lie
/// evenly in all of `u64`, whatever rhythm the reads have.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// Which answers are sampled, and those that wait for their verdict.
pub(super) struct Verifier {
    /// An answer whose spread number is not above this is sampled; `None`: no
    /// answer is.
    sampled_up_to: Option<u64>,
    queue: mpsc::Sender<Claim>,
    waiting: Mutex<mpsc::Receiver<Claim>>,
    consistent: Counter,
    inconsistent: Counter,
    undecided: Counter,
}

/// What an answer said: at `fresh_to`, the origin's state of `key` was `value`.
struct Claim {
    key: Key,
    value: Value,
    fresh_to: OriginTime,
    source: Source,
}

/// Whether it was true.
enum Verdict {
    Consistent,
    /// What it was instead; `None`: the origin had not even reached that time.
    Inconsistent(Option<Value>),
    /// Why nobody can say.
    Undecided(String),
}

impl Verifier {
    pub(super) fn new(one_in: u64, metrics: &Metrics) -> Self {
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        let counter = |kind| metrics.verified.get_or_create(&Kind { kind }).clone();
        Self {
            sampled_up_to: u64::MAX.checked_div(one_in),
            queue,
            waiting: Mutex::new(waiting),
            consistent: counter("consistent"),
            inconsistent: counter("inconsistent"),
            undecided: counter("undecided"),
        }
    }

    fn samples(&self, nth: u64) -> bool {
        self.sampled_up_to
            .is_some_and(|most| nth.wrapping_mul(SPREAD) <= most)
    }

    /// Never waits.
    fn offer(&self, claim: Claim) {
        if self.queue.try_send(claim).is_err() {
            self.undecided.inc();
        }
    }
}

impl Cache {
    /// Samples the nth answer of its tier, if it is one of those. On the way
    /// of the request.
    #[inline]
    pub(super) fn sample(&self, nth: u64, part: &Part) {
        if self.verifier.samples(nth) && part.source != Source::Origin {
            let (key, value) = (part.key.clone(), part.value.clone());
            self.verifier.offer(Claim {
                key,
                value,
                fresh_to: part.hit.fresh_to,
                source: part.source,
            });
        }
    }

    /// Verifies one sample after the other, for as long as the process lives.
    pub(super) async fn verify(self: Arc<Self>) -> Fatal {
        let mut waiting = self.verifier.waiting.lock().await;
        while let Some(claim) = waiting.recv().await {
            if AssertUnwindSafe(self.verify_one(&claim))
                .catch_unwind()
                .await
                .is_err()
            {
                self.metrics
                    .task_panics
                    .get_or_create(&Kind { kind: "verify" })
                    .inc();
                self.verifier.undecided.inc();
            }
            sleep(PAUSE).await;
        }
        Fatal("the verifier's queue is closed".into())
    }

    async fn verify_one(self: &Arc<Self>, claim: &Claim) {
        match self.verdict(claim).await {
            Verdict::Consistent => drop(self.verifier.consistent.inc()),
            Verdict::Undecided(why) => {
                self.verifier.undecided.inc();
                tracing::debug!(key = %claim.key, %why, "a sampled answer cannot be verified");
            }
            Verdict::Inconsistent(right) => {
                self.verifier.inconsistent.inc();
                tracing::error!(
                    key = %claim.key,
                    source = ?claim.source,
                    fresh_to = %claim.fresh_to,
                    answered = shown(&claim.value),
                    database = right.as_ref().map_or("has not reached that time".into(), shown),
                    "a cached answer was not what the database had at the time it was said to be fresh to"
                );
                if let Err(problem) = self.drop_entry(claim).await {
                    tracing::error!(key = %claim.key, %problem, "a wrong entry may still be in a cache");
                }
            }
        }
    }

    async fn verdict(&self, claim: &Claim) -> Verdict {
        for _ in 0..2 {
            match self.state_at(&claim.key, claim.fresh_to).await {
                Ok(right) if right == claim.value => return Verdict::Consistent,
                Ok(right) => return Verdict::Inconsistent(Some(right)),
                Err(OriginError::Unavailable(why)) => return Verdict::Undecided(why.to_string()),
                Err(OriginError::Ahead(_)) => {}
            }
            // An honest time is below that of every heartbeat begun after it
            // was heard of; then the origin is asked once more.
            match self.refuse_future(claim.fresh_to, None).await {
                Ok(true) => return Verdict::Inconsistent(None),
                Ok(false) => {}
                Err(why) => return Verdict::Undecided(why.to_string()),
            }
        }
        Verdict::Undecided("the database says that it has not reached the time".into())
    }

    async fn state_at(&self, key: &Key, at: OriginTime) -> Result<Value, OriginError> {
        let read = async {
            match key {
                Key::Todo(name) => self.origin.todo_at(name, at, READ_TIMEOUT).await,
                Key::Page(query) => {
                    let page = self.origin.page_at(query, at, READ_TIMEOUT).await?;
                    Ok(Value::Page(Arc::new(page)))
                }
            }
        };
        let late = |_| OriginError::unavailable(format!("no answer within {READ_TIMEOUT:?}"));
        timeout(READ_TIMEOUT, read).await.map_err(late)?
    }

    /// Sees to it that no reader of this replica gets the wrong value again,
    /// and that the shared tier has a right one in its place.
    async fn drop_entry(self: &Arc<Self>, claim: &Claim) -> Result<(), Error> {
        let mut problem = self.unavailable("it comes back each time that it is dropped".into());
        for _ in 0..DROP_TRIES {
            match self.replace_entry(claim).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => problem = error,
            }
            sleep(DROP_PAUSE).await;
        }
        Err(problem)
    }

    /// Whether a moment later it was gone.
    async fn replace_entry(self: &Arc<Self>, claim: &Claim) -> Result<bool, Error> {
        self.forget_near(&claim.key);
        let now = self.heart.begun_since(self.clock.now()).await;
        let now = now.map_err(|problem| self.unavailable(problem.to_string()))?;
        let from_the_future = claim.fresh_to >= now;
        if !from_the_future {
            // As for a change at this time: whatever copy of the entry comes
            // back is below its fence.
            match &claim.key {
                Key::Todo(name) => self.coherence.raise_todo(name.as_str(), now),
                Key::Page(query) => self.coherence.raise_list(query.list.as_str(), now),
            }
        }
        // A load puts what it finds into both caches; near, though, the larger
        // stamp wins, and a reader may bring the entry back from shared.
        let required = LoadRequirement {
            after: now,
            grace: None,
        };
        let wanted = Wanted {
            key: claim.key.clone(),
            required,
            leased: None,
        };
        let loaded = self.loaded(vec![wanted]).await?;
        sleep(DROP_PAUSE).await;
        let held = self.held(&claim.key).await;
        Ok(!loaded.iter().any(|(right, _)| {
            let wrong_value =
                |held: &Stamped| held.value == claim.value && held.value != right.value;
            let wrong_stamp = |held: &Stamped| from_the_future && held.as_of >= claim.fresh_to;
            held.iter()
                .any(|held| wrong_value(held) || wrong_stamp(held))
        }))
    }

    fn forget_near(&self, key: &Key) {
        match key {
            Key::Todo(name) => self.near.remove_todo(name.as_str()),
            Key::Page(query) => self.near.remove_page(query),
        }
    }

    /// What the caches have for a key.
    async fn held(&self, key: &Key) -> Vec<Stamped> {
        let near = match key {
            Key::Todo(name) => self.near.todo(name.as_str()),
            Key::Page(query) => self.near.page(query).map(|(stamped, _)| stamped),
        };
        let Some(shared) = &self.shared else {
            return near.into_iter().collect();
        };
        let scope = self.origin.entry_scope();
        let entries = shared.get(&[key.shared(scope)]).await;
        let entries = entries.into_iter().flatten();
        let decoded = entries.filter_map(|raw| record::decode(scope, &key.to_string(), &raw).ok());
        near.into_iter().chain(decoded).collect()
    }
}

/// A value for people; of a todo its etag first, as it tells any two apart.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::Todo(raw) => match pb::Todo::decode(raw.clone()) {
            Ok(todo) => format!("etag {} {todo:?}", todo.etag),
            Err(problem) => format!("no todo, {problem}: {raw:?}"),
        },
        other => format!("{other:?}"),
    };
    text.chars().take(MAX_SHOWN_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TodoName;

    fn sampled(one_in: u64, reads: u64) -> usize {
        let verifier = Verifier::new(one_in, &Metrics::default());
        (0..reads).filter(|nth| verifier.samples(*nth)).count()
    }

    #[test]
    fn one_in_so_many_is_sampled() {
        assert_eq!(sampled(0, 100_000), 0);
        assert_eq!(sampled(1, 100_000), 100_000);
        for one_in in [2, 10, 1000] {
            let (found, wanted) = (
                sampled(one_in, 1_000_000),
                usize::try_from(1_000_000 / one_in).expect("small"),
            );
            assert!(
                found.abs_diff(wanted) <= wanted / 50 + 1,
                "{found} of {wanted} for one in {one_in}"
            );
        }
    }

    /// Reads that go round a thousand keys in the same order again and again:
    /// every key has its turn.
    #[test]
    fn a_rhythm_of_the_reads_does_not_hide_keys() {
        let verifier = Verifier::new(1000, &Metrics::default());
        let keys: std::collections::HashSet<_> = (0..20_000_000_u64)
            .filter(|nth| verifier.samples(*nth))
            .map(|nth| nth % 1000)
            .collect();
        assert_eq!(keys.len(), 1000);
    }

    #[test]
    fn a_full_queue_delays_nobody_and_is_counted() {
        let metrics = Metrics::default();
        let verifier = Verifier::new(1, &metrics);
        let key = Key::Todo(TodoName::parse("lists/home/todos/1").expect("a name"));
        for _ in 0..MAX_WAITING + 7 {
            let (key, value) = (key.clone(), Value::Absent);
            verifier.offer(Claim {
                key,
                value,
                fresh_to: OriginTime(1),
                source: Source::Near,
            });
        }
        assert_eq!(
            metrics
                .verified
                .get_or_create(&Kind { kind: "undecided" })
                .get(),
            7
        );
    }
}
