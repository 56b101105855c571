//! One watch: a cursor on the feed, and its messages.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::Stream;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Delivery, TooOld, WatchEvent, WatchMessage, WatchRequest, Watches, watcher::Watcher};
use crate::{
    budget::Caller,
    error::{Error, Unavailable},
    model::{Event, OriginTime, Token},
};

/// The messages of a watch, without todos. Ends only when the replica shuts down,
/// or the connection of the watch closes, after a last progress message.
pub type WatchStream = Pin<Box<dyn Stream<Item = WatchMessage> + Send>>;

struct Watching {
    watches: Arc<Watches>,
    watcher: Arc<Watcher>,
    /// What the presented token and the messages so far have seen. No later token has
    /// seen less.
    seen: OriginTime,
    closing: CancellationToken,
    caller: Option<Arc<Caller>>,
    progress_interval: Duration,
    next_progress: Instant,
    ended: bool,
}

impl Watches {
    /// Opens a watch. Its first message is ready at once.
    ///
    /// # Errors
    /// `OriginUnavailable` while starting, `Draining` while shutting down,
    /// `Overloaded` at the limit of catch-up feeds.
    pub fn open(self: &Arc<Self>, request: WatchRequest) -> Result<WatchStream, Error> {
        if !self.tracker.is_started() {
            return Err(Unavailable::Starting.into());
        }
        if self.shutdown.is_cancelled() {
            return Err(Error::Draining);
        }
        let frontier = self.tracker.watermarks.frontier();
        let after = request.after.unwrap_or(frontier);
        let watcher = self.hub.add_watcher(&request, after);
        // From here on a drop of `watching` removes the watcher.
        let mut watching = Watching {
            watches: Arc::clone(self),
            watcher,
            seen: request.seen,
            closing: request.closing,
            caller: request.caller.clone(),
            progress_interval: request.progress_interval,
            next_progress: Instant::now() + request.progress_interval,
            ended: false,
        };
        self.metrics.watchers.inc();
        match self.hub.register(&watching.watcher, after) {
            Ok(()) => {}
            Err(TooOld::ResetSince) => {
                let reason = "the database was replaced since";
                self.hub
                    .register_with_reset(&watching.watcher, frontier, reason);
            }
            Err(TooOld::NotInRing) => {
                self.start_catch_up(&watching.watcher, after, request.caller.as_ref())?;
            }
        }
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
        if self.ended {
            return None;
        }
        let (shutdown, closing) = (self.watches.shutdown.clone(), self.closing.clone());
        loop {
            // Registered before the ring is read, so that no change is missed.
            let watcher = Arc::clone(&self.watcher);
            let changed = watcher.changed.notified();
            // The client resumes at the cursor, and gets what is pending then.
            if shutdown.is_cancelled() || closing.is_cancelled() {
                self.ended = true;
                return Some(self.progress(watcher.cursor()));
            }
            if let Some(delivery) = watcher.pop() {
                return Some(self.message(delivery));
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => continue,
                () = closing.cancelled() => continue,
                () = self.watches.turns.next(self.caller.as_ref()) => {}
            }
            // Read before the ring: what is appended later has a later time.
            let frontier = self.watches.tracker.watermarks.frontier();
            let more = self.watches.hub.pull(&watcher);
            if let Some(delivery) = watcher.pop() {
                return Some(self.message(delivery));
            }
            if Instant::now() >= self.next_progress {
                self.next_progress = Instant::now() + self.progress_interval;
                if let Some(cursor) = watcher.progress(frontier) {
                    return Some(self.progress(cursor));
                }
            }
            if more {
                // Lets others run: thousands of changes of other todos may follow.
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = closing.cancelled() => {}
                () = changed => {}
                () = watcher.pushed.notified() => {}
                () = sleep_until(self.next_progress) => {}
            }
        }
    }

    fn progress(&mut self, cursor: OriginTime) -> WatchMessage {
        let staleness_bound = self.watches.tracker.staleness_bound(cursor);
        WatchMessage {
            token: self.token(cursor, cursor),
            event: WatchEvent::Progress { staleness_bound },
        }
    }

    fn message(&mut self, delivery: Delivery) -> WatchMessage {
        let event = match delivery.event {
            Event::Reset { reason } => WatchEvent::Reset { reason },
            Event::List(list) => WatchEvent::ListChanged(list),
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
    fn token(&mut self, seen: OriginTime, cursor: OriginTime) -> Token {
        self.seen = self.seen.max(seen).max(cursor);
        Token {
            origin: self.watches.origin.id(),
            seen: self.seen,
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
