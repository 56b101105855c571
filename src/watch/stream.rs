//! One watch: a cursor on the feed, and its messages.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::Stream;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

pub(super) use super::hub::Watcher;
use super::{Delivery, TooOld, WatchEvent, WatchMessage, WatchRequest, Watches, hub::MAX_WATCHERS};
use crate::{
    error::Error,
    model::{Event, OriginTime, Token},
};

/// The messages of a watch, without todos. Ends only when the replica shuts down,
/// or the connection of the watch closes, after a last progress message.
pub type WatchStream = Pin<Box<dyn Stream<Item = WatchMessage> + Send>>;

struct Watching {
    watches: Arc<Watches>,
    watcher: Arc<Watcher>,
    /// What the presented token has seen.
    seen: OriginTime,
    closing: CancellationToken,
    progress_interval: Duration,
    next_progress: Instant,
    ended: bool,
}

impl Watches {
    /// Opens a watch. Its first message is ready at once.
    ///
    /// # Errors
    /// `OriginUnavailable` while starting, `Draining` while shutting down,
    /// `Overloaded` at the limits of watches and of catch-up feeds.
    pub fn open(self: &Arc<Self>, request: WatchRequest) -> Result<WatchStream, Error> {
        if !self.tracker.is_started() {
            return Err(Error::starting());
        }
        if self.shutdown.is_cancelled() {
            return Err(Error::Draining);
        }
        let frontier = self.tracker.watermarks.frontier();
        let after = request.after.unwrap_or(frontier);
        let watcher = self
            .hub
            .watcher(request.list, request.names, after)
            .ok_or_else(|| self.overloaded("open watches", MAX_WATCHERS))?;
        match self.hub.register(&watcher, after) {
            Ok(()) => {}
            Err(TooOld::ResetSince) => {
                let reason = "the database was replaced since";
                self.hub.register_with_reset(&watcher, frontier, reason);
            }
            Err(TooOld::NotInRing) => self.start_catch_up(&watcher, after)?,
        }
        self.metrics.watchers.inc();
        let watching = Watching {
            watches: Arc::clone(self),
            watcher,
            seen: request.seen,
            closing: request.closing,
            progress_interval: request.progress_interval,
            next_progress: Instant::now() + request.progress_interval,
            ended: false,
        };
        let first = watching.progress(after);
        let rest = futures::stream::unfold(watching, |mut watching| async move {
            watching.next().await.map(|message| (message, watching))
        });
        Ok(Box::pin(futures::StreamExt::chain(
            futures::stream::iter([first]),
            rest,
        )))
    }
}

impl Watching {
    async fn next(&mut self) -> Option<WatchMessage> {
        while !self.ended {
            // The client resumes at the cursor, and gets what is pending then.
            if self.closing.is_cancelled() || self.watches.shutdown.is_cancelled() {
                self.ended = true;
                return Some(self.progress(self.watcher.cursor()));
            }
            if let Some(delivery) = self.watcher.pop() {
                return Some(self.message(delivery));
            }
            let shutdown = self.watches.shutdown.clone();
            let pushed = async {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => {}
                    () = self.closing.cancelled() => {}
                    () = self.watcher.pushed.notified() => {}
                }
            };
            if timeout_at(self.next_progress, pushed).await.is_err() {
                self.next_progress = Instant::now() + self.progress_interval;
                // Read before the queue is looked at: what is pushed later has a
                // later time.
                let frontier = self.watches.tracker.watermarks.frontier();
                if let Some(cursor) = self.reached(frontier) {
                    return Some(self.progress(cursor));
                }
            }
        }
        None
    }

    /// How far this watch has come: the frontier, once the hub serves it.
    fn reached(&self, frontier: OriginTime) -> Option<OriginTime> {
        if self.watches.hub.has(&self.watcher) {
            self.watcher.progress(frontier)
        } else {
            Some(self.watcher.cursor())
        }
    }

    fn progress(&self, cursor: OriginTime) -> WatchMessage {
        let staleness_bound = self.watches.tracker.staleness_bound(cursor);
        WatchMessage {
            token: self.token(cursor, cursor),
            event: WatchEvent::Progress { staleness_bound },
        }
    }

    fn message(&self, delivery: Delivery) -> WatchMessage {
        let event = match delivery.event {
            Event::Reset { reason } => WatchEvent::Reset { reason },
            Event::Change(change) => {
                self.watches.metrics.watch_changes.inc();
                WatchEvent::Change { change, todo: None }
            }
        };
        WatchMessage {
            token: self.token(delivery.seen, delivery.cursor),
            event,
        }
    }

    /// The client resumes at `cursor`, and reads nothing older than what it was
    /// shown here and before.
    fn token(&self, seen: OriginTime, cursor: OriginTime) -> Token {
        Token {
            origin: self.watches.origin.id(),
            seen: seen.max(cursor).max(self.seen),
            fresh_to: cursor,
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.watches.hub.remove(&self.watcher);
        self.watches.metrics.watchers.dec();
    }
}
