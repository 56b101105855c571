//! Loading ahead: a todo that is read all the time is loaded before its change
//! is applied, so that no reader waits for the load.
//!
//! Until the feed's change raises the fence, the old value is right: it is
//! fresh to a frontier below the change. So the change is held back for the
//! time of one load, with what follows it in the feed, and after it near has
//! the new value. In the same way the reply to a write is held back: until
//! then it is not acknowledged.
//!
//! What it buys: readers of a hot key do not see its changes in their
//! latencies. What it costs: a byte for each stripe; a load of a todo whose
//! readers have just gone, at most one for every [`HOT`] reads; and up to
//! [`PATIENCE`] more until the frontier moves, or the writer has its reply.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use tokio::time::timeout;
use xxhash_rust::xxh3::xxh3_64;

use super::{Cache, load::Wanted, part::Key};
use crate::{
    coherence::LoadRequirement,
    model::{OriginTime, TodoName},
    origin::{FeedEvent, FeedItem},
};

/// Stripes in which reads are counted: 256 KiB. Todos that share one are taken
/// to be read as often as both: an extra load, never a wrong answer.
const STRIPES: usize = 1 << 18;
/// Reads from near since the last change that make a todo worth a load which
/// nobody has asked for: that load is then one for so many reads at most.
const HOT: u8 = 16;
/// Todos loaded ahead of one batch of the feed: where more of them change at
/// once somebody changes everything, and the feed must not wait for that.
const MOST: usize = 16;
/// How long a batch is held back at most: many times what a load takes where
/// all is well, and less than a strong read waits for the frontier.
const PATIENCE: Duration = Duration::from_millis(20);

/// How often todos were answered from near since they changed, up to [`HOT`].
pub(super) struct Reads {
    stripes: Box<[AtomicU8]>,
}

impl Default for Reads {
    fn default() -> Self {
        Self {
            stripes: (0..STRIPES).map(|_| AtomicU8::new(0)).collect(),
        }
    }
}

impl Reads {
    fn stripe(&self, name: &str) -> &AtomicU8 {
        let hash = usize::try_from(xxh3_64(name.as_bytes()) >> 1).unwrap_or(0);
        &self.stripes[hash % STRIPES]
    }

    /// Counts one. Written only until the todo is hot, so that the readers of
    /// a hot one share its cache line; a count that two of them make at the
    /// same moment may be lost.
    pub(super) fn count(&self, name: &str) {
        let stripe = self.stripe(name);
        let reads = stripe.load(Ordering::Relaxed);
        if reads < HOT {
            stripe.store(reads + 1, Ordering::Relaxed);
        }
    }

    /// Begins to count anew; whether the todo was hot.
    fn was_hot(&self, name: &str) -> bool {
        let stripe = self.stripe(name);
        stripe.load(Ordering::Relaxed) > 0 && stripe.swap(0, Ordering::Relaxed) == HOT
    }
}

impl Cache {
    /// Loads the hot todos among the changes of a batch that is not applied
    /// yet, and waits a little for them.
    pub(super) async fn load_ahead(self: &Arc<Self>, batch: &[FeedItem]) {
        // The last change of each todo comes first, and takes the count.
        let changes = batch.iter().rev().filter_map(|item| match &item.event {
            FeedEvent::Change(change) => Some(change),
            _ => None,
        });
        let hot = changes.filter(|change| self.is_worth_it(&change.name, change.time));
        let wanted: Vec<_> = hot
            .map(|hot| ahead_of(&hot.name, hot.time, Some(hot.time)))
            .collect();
        if !wanted.is_empty() && wanted.len() <= MOST {
            self.wait_a_little(wanted).await;
        }
    }

    /// The same for a write of this replica that nobody has been told of yet.
    /// No other replica knows of it, so there is no lease to ask for.
    pub(super) async fn load_own_ahead(self: &Arc<Self>, name: &TodoName, time: OriginTime) {
        if self.is_worth_it(name, time) {
            self.wait_a_little(vec![ahead_of(name, time, None)]).await;
        }
    }

    /// It is kept, and hot; or it is being loaded: a write of this replica and
    /// its change in the feed come one after the other, and the first of them
    /// takes the count.
    fn is_worth_it(&self, name: &TodoName, time: OriginTime) -> bool {
        let hot = self.reads.was_hot(name.as_str());
        let overtaken = self
            .near
            .todo_as_of(name.as_str())
            .is_some_and(|as_of| as_of < time);
        overtaken && (hot || self.loads.state().flights.has(&Key::Todo(name.clone())))
    }

    /// What is not here in time, or fails, is loaded by its readers.
    async fn wait_a_little(self: &Arc<Self>, wanted: Vec<Wanted>) {
        let _ = timeout(PATIENCE, self.loaded(wanted)).await;
    }
}

fn ahead_of(name: &TodoName, time: OriginTime, leased: Option<OriginTime>) -> Wanted {
    let required = LoadRequirement {
        after: time,
        grace: None,
    };
    Wanted {
        key: Key::Todo(name.clone()),
        required,
        leased,
    }
}
