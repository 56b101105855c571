//! Refresh-ahead: a todo that is read all the time is loaded before its change is
//! applied, so that its readers do not wait for the load.
//!
//! Until the fence is raised the old value is right: it is fresh to a frontier below
//! the change. So the change, and what follows it in the feed, is held back for one
//! load; a writer's reply likewise, since the write is not acknowledged before it.
//!
//! Measured (docs/adr/0020-refresh-ahead.md): the p99 of a hot key is 1.5 times a
//! quiet key's instead of 3.7 times. Cost: 256 KiB of counters, a store for each of the
//! first [`HOT`] near hits after a change, and up to [`PATIENCE`] until the frontier
//! moves.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use tokio::time::timeout;
use xxhash_rust::xxh3::xxh3_64;

use super::{Charge, LoadRequest, Loader};
use crate::{
    coherence::LoadRequirement,
    model::{Key, OriginTime, TodoName},
    origin::{FeedEvent, FeedItem},
};

/// Stripes of the hit counters: 256 KiB. Two todos in one stripe count as read as
/// often as both together, which costs a load at most.
const STRIPES: usize = 1 << 18;
/// Near hits since the last change that make a todo hot. An unneeded load
/// then happens at most once for so many reads.
const HOT: u8 = 16;
/// Most todos loaded ahead of one batch of the feed. If more hot todos change at
/// once, a bulk change is under way, and the feed must not wait for it.
const MAX_AHEAD: usize = 16;
/// Longest that a batch is held back: many times a load while all is well, and less
/// than a strong read waits for the frontier.
const PATIENCE: Duration = Duration::from_millis(20);

/// Near hits of todos since their last change, up to [`HOT`].
pub(super) struct HitCounters {
    stripes: Box<[AtomicU8]>,
}

impl Default for HitCounters {
    fn default() -> Self {
        Self {
            stripes: (0..STRIPES).map(|_| AtomicU8::new(0)).collect(),
        }
    }
}

impl HitCounters {
    fn stripe(&self, name: &TodoName) -> &AtomicU8 {
        let hash = usize::try_from(xxh3_64(name.as_str().as_bytes()) >> 1).unwrap_or(0);
        &self.stripes[hash % STRIPES]
    }

    /// Counts a hit. Writes only until the todo is hot, so that the readers of a hot
    /// todo share its cache line. Two hits at the same moment may count as one.
    fn add(&self, name: &TodoName) {
        let stripe = self.stripe(name);
        let hits = stripe.load(Ordering::Relaxed);
        if hits < HOT {
            stripe.store(hits + 1, Ordering::Relaxed);
        }
    }

    /// Resets the counter; returns whether the todo was hot.
    fn take_hot(&self, name: &TodoName) -> bool {
        let stripe = self.stripe(name);
        stripe.load(Ordering::Relaxed) > 0 && stripe.swap(0, Ordering::Relaxed) == HOT
    }
}

impl Loader {
    /// Counts a near hit of a todo.
    pub fn record_hit(&self, name: &TodoName) {
        self.hits.add(name);
    }

    /// Loads the hot todos among the changes of a batch that is not applied yet, and
    /// waits for them for `PATIENCE` at most. What is late or fails is loaded by its
    /// readers.
    pub async fn refresh_ahead(self: &Arc<Self>, batch: &[FeedItem]) {
        // The last change of each todo comes first and takes its count.
        let changes = batch.iter().rev().filter_map(|item| match &item.event {
            FeedEvent::Change(change) => Some(change),
            FeedEvent::Reset { .. }
            | FeedEvent::List(_)
            | FeedEvent::Heartbeat { .. }
            | FeedEvent::Nothing => None,
        });
        let hot = changes.filter(|change| self.is_worth_refreshing(&change.name, change.time));
        let requests: Vec<_> = hot
            .map(|hot| request(&hot.name, hot.time, Some(hot.time)))
            .collect();
        if !requests.is_empty() && requests.len() <= MAX_AHEAD {
            let _ = timeout(PATIENCE, self.load(requests, Charge::default())).await;
        }
    }

    /// The same for a write of this replica before it is acknowledged. No other
    /// replica knows of it, so there is no lease to ask for.
    pub async fn refresh_own_write(self: &Arc<Self>, name: &TodoName, time: OriginTime) {
        if self.is_worth_refreshing(name, time) {
            let requests = vec![request(name, time, None)];
            let _ = timeout(PATIENCE, self.load(requests, Charge::default())).await;
        }
    }

    /// Whether the todo is in the near cache with an older stamp, and hot or being loaded: a
    /// write of this replica and its change in the feed follow each other, and the
    /// first of them takes the count.
    fn is_worth_refreshing(&self, name: &TodoName, time: OriginTime) -> bool {
        let hot = self.hits.take_hot(name);
        let key = Key::Todo(name.clone());
        let is_older = |as_of| as_of < time;
        self.tiers.near.as_of(key.as_ref()).is_some_and(is_older)
            && (hot || self.state().flights.has(&key))
    }
}

fn request(name: &TodoName, time: OriginTime, lease: Option<OriginTime>) -> LoadRequest {
    LoadRequest {
        key: Key::Todo(name.clone()),
        requirement: LoadRequirement {
            after: time,
            grace: None,
        },
        lease,
        past_near: false,
    }
}
