//! Catch-up feeds: a watcher whose cursor is older than the ring reads the changes
//! before the ring from a feed opened for it, by a task that ends when it has reached
//! the ring.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use super::{Watches, watcher::Watcher};
use crate::{
    budget::{Budget, CATCH_UP_BYTES, Caller, Count, Part},
    coherence::{ClosedTimes, CommitGroups},
    error::Error,
    model::{Event, OriginTime},
    origin::{
        Cause, Feed, FeedError, FeedEvent, FeedItem, FeedStart, HUNG_AFTER,
        MAX_TRIES_AT_A_POSITION, OPEN_TIMEOUT,
    },
};

/// A catch-up feed continues while fewer names than this are pending, so that the
/// watcher's queue never overflows.
const MAX_BACKLOG: usize = 128;
/// A catch-up feed that yields nothing for a heartbeat interval and `HUNG_AFTER`
/// hangs, since this replica's heartbeats lie in what it reads. It is opened again
/// with twice the patience, up to this: a long stretch without heartbeats may lie
/// before it.
const MAX_PATIENCE: Duration = Duration::from_secs(64);
/// The catch-up feed of a client that reads nothing for this long is closed, and the
/// client gets a reset.
const STALL_LIMIT: Duration = Duration::from_secs(30);
/// Pause before a broken catch-up feed is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);

impl Watches {
    pub(super) fn start_catch_up(
        self: &Arc<Self>,
        watcher: &Arc<Watcher>,
        after: OriginTime,
        caller: Option<&Arc<Caller>>,
    ) -> Result<(), Error> {
        let reserve = |budget: &Arc<Budget>, amount| {
            let reserved = budget.reserve(caller, amount);
            reserved.ok_or_else(|| self.overloaded(budget.name(), budget.limit()))
        };
        let reserved = (
            reserve(self.budgets.count(Count::CatchUpFeeds), 1)?,
            reserve(self.budgets.of(Part::CatchUp), CATCH_UP_BYTES)?,
        );
        let (watches, watcher) = (Arc::clone(self), Arc::clone(watcher));
        self.tasks.spawn(async move {
            let _reserved = reserved;
            let (shutdown, gone) = (watches.shutdown.clone(), watcher.gone.clone());
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = gone.cancelled() => {}
                () = watches.catch_up(&watcher, after) => {}
            }
        });
        Ok(())
    }

    async fn catch_up(&self, watcher: &Arc<Watcher>, after: OriginTime) {
        let mut from = FeedStart::After(after);
        let mut groups = CommitGroups::default();
        let mut patience = self.heartbeat_interval.saturating_add(HUNG_AFTER);
        let mut tries = 0;
        loop {
            let began = from.clone();
            let open = self.origin.open_catch_up_feed(from.clone());
            let error = match timeout(OPEN_TIMEOUT, open).await {
                Ok(Ok(mut feed)) => {
                    let drained =
                        self.drain_feed(feed.as_mut(), &mut from, &mut groups, watcher, patience);
                    let Err(error) = drained.await else { return };
                    patience = patience.saturating_mul(2).min(patience.max(MAX_PATIENCE));
                    error
                }
                Ok(Err(error)) => error,
                Err(_) => FeedError::Unreadable(
                    format!("it could not be opened within {OPEN_TIMEOUT:?}").into(),
                ),
            };
            if !began.is_same_place(&from) {
                tries = 0;
            }
            let goes_on = match error {
                FeedError::Broken(_) => true,
                FeedError::Unreadable(_) => {
                    tries += 1;
                    tries < MAX_TRIES_AT_A_POSITION
                }
                FeedError::HistoryLost(_) | FeedError::Fatal(_) => false,
            };
            if !goes_on {
                let frontier = self.tracker.watermarks.frontier();
                let reason = error.to_string();
                return self.hub.register_with_reset(watcher, frontier, &reason);
            }
            sleep(REOPEN_PAUSE).await;
        }
    }

    /// Pushes closed groups until the watcher can continue from the ring. `from` follows
    /// what was pushed: a batch that was not handed over in full is read again.
    async fn drain_feed(
        &self,
        feed: &mut dyn Feed,
        from: &mut FeedStart,
        groups: &mut CommitGroups,
        watcher: &Arc<Watcher>,
        patience: Duration,
    ) -> Result<(), FeedError> {
        loop {
            let silent = |_| FeedError::Unreadable(format!("no event within {patience:?}").into());
            for item in timeout(patience, feed.next()).await.map_err(silent)?? {
                let closed = add_item(groups, item)?;
                for (time, events) in &closed.released {
                    watcher.push(*time, events);
                }
                if self.hub.register(watcher, closed.frontier).is_ok() {
                    return Ok(());
                }
                while watcher.backlog() > MAX_BACKLOG {
                    let popped = watcher.popped.notified();
                    if timeout(STALL_LIMIT, popped).await.is_err() {
                        let frontier = self.tracker.watermarks.frontier();
                        let reason = "the client stopped reading while it caught up";
                        self.hub.register_with_reset(watcher, frontier, reason);
                        return Ok(());
                    }
                }
            }
            if let Some(position) = feed.position() {
                *from = FeedStart::Resume(position);
            }
        }
    }
}

fn add_item(groups: &mut CommitGroups, item: FeedItem) -> Result<ClosedTimes, FeedError> {
    let event = match item.event {
        FeedEvent::Change(change) => Some(Event::Change(Arc::new(change))),
        FeedEvent::List(name) => Some(Event::List(name)),
        FeedEvent::Reset { reason } => Some(Event::Reset {
            reason: reason.into(),
        }),
        FeedEvent::Heartbeat { .. } | FeedEvent::Nothing => None,
    };
    groups
        .add(item.time, item.alone, event)
        .map_err(|error| FeedError::broken(Cause::from_error(error, None)))
}
