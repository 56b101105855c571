//! One watch: a cursor on the feed, and the messages of it.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::Stream;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    Cache, WatchEvent, WatchMessage, WatchRequest,
    follow::{HUNG_AFTER, MAX_TRIES_AT_A_POSITION, OPEN_TIMEOUT},
    hub::{MAX_PRIVATE_FEEDS, MAX_WATCHERS, Watcher},
};
use crate::{
    coherence::{CommitGroups, Entry, Next, TooOld},
    error::Error,
    model::{OriginTime, Token},
    origin::{Feed, FeedError, FeedEvent, FeedItem, FeedStart},
};

/// A private feed goes on when fewer names than this are pending: it paces
/// itself by its client, and never overflows it.
const PRIVATE_BACKLOG: usize = 1024;
/// A private feed that brings nothing for a heartbeat interval and `HUNG_AFTER`
/// hangs: heartbeats of this replica lie in what it reads. It is opened anew,
/// and waited for twice as long each time, up to this: a long way without them
/// may lie before it.
const MOST_PATIENCE: Duration = Duration::from_secs(64);
/// When a caller that found too many watches should try again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The messages of a watch. Ends only when the replica shuts down, after a
/// last progress message.
pub type Watch = Pin<Box<dyn Stream<Item = WatchMessage> + Send>>;

struct Watching {
    cache: Arc<Cache>,
    watcher: Arc<Watcher>,
    /// What the token presented has seen.
    seen: OriginTime,
    include_todo: bool,
    progress_interval: Duration,
    next_progress: Instant,
    ended: bool,
}

impl Cache {
    /// Starts a watch. Its first message comes at once.
    ///
    /// # Errors
    /// `OriginUnavailable` while starting, `TokenInvalid` if the token is ahead
    /// of the database, `Overloaded` if there are too many.
    pub async fn watch(
        self: &Arc<Self>,
        request: WatchRequest,
        deadline: Option<Instant>,
    ) -> Result<Watch, Error> {
        if !self.started() {
            return Err(self.unavailable(
                "this replica is starting and does not know the database's time".into(),
            ));
        }
        if self.shutdown.is_cancelled() {
            return Err(Error::Draining);
        }
        if let Some(after) = request.after {
            let newest = after.max(request.seen);
            if self.refuse_future(newest, deadline).await? {
                return Err(self.token_from_the_future("after", newest));
            }
        }
        let after = request.after.unwrap_or_else(|| self.coherence.frontier());
        let watcher = self
            .hub
            .watcher(request.list, request.names, after)
            .ok_or_else(|| self.overloaded("open watches", MAX_WATCHERS))?;
        match self.hub.register(&watcher, after) {
            Ok(()) => {}
            Err(TooOld::ResetSince) => {
                let frontier = self.coherence.frontier();
                self.hub
                    .register_with_reset(&watcher, frontier, "the database was replaced since");
            }
            Err(TooOld::NotInRing) => self.serve_privately(&watcher, after)?,
        }
        self.metrics.watchers.inc();
        let watching = Watching {
            cache: Arc::clone(self),
            watcher,
            seen: request.seen,
            include_todo: request.include_todo,
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

    /// What lies between an old cursor and the ring comes from a feed of its
    /// own, by a task that ends when it has reached the ring.
    fn serve_privately(
        self: &Arc<Self>,
        watcher: &Arc<Watcher>,
        after: OriginTime,
    ) -> Result<(), Error> {
        let place = self.hub.private_place().ok_or_else(|| {
            self.overloaded(
                "watches that begin before the recent changes",
                MAX_PRIVATE_FEEDS,
            )
        })?;
        let (cache, watcher) = (Arc::clone(self), Arc::clone(watcher));
        self.tasks.spawn(async move {
            let _place = place;
            let gone = cache.shutdown.clone();
            tokio::select! {
                biased;
                () = gone.cancelled() => {}
                () = cache.feed_privately(&watcher, after) => {}
            }
        });
        Ok(())
    }

    async fn feed_privately(&self, watcher: &Arc<Watcher>, after: OriginTime) {
        let mut from = FeedStart::After(after);
        let mut closing = CommitGroups::default();
        let mut patience = self.settings.heartbeat_interval.saturating_add(HUNG_AFTER);
        let mut tries = 0;
        // The watch itself holds the other reference.
        while Arc::strong_count(watcher) > 1 {
            let began = from.clone();
            let lost = match timeout(OPEN_TIMEOUT, self.origin.open_feed(from.clone())).await {
                Ok(Ok(mut feed)) => {
                    let drained = self.drain_privately(
                        feed.as_mut(),
                        &mut from,
                        &mut closing,
                        watcher,
                        patience,
                    );
                    let Err(error) = drained.await else { return };
                    patience = patience.saturating_mul(2).min(patience.max(MOST_PATIENCE));
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
            let goes_on = match lost {
                FeedError::Broken(_) => true,
                FeedError::Unreadable(_) => {
                    tries += 1;
                    tries < MAX_TRIES_AT_A_POSITION
                }
                FeedError::HistoryLost(_) | FeedError::Fatal(_) => false,
            };
            if !goes_on {
                return self.hub.register_with_reset(
                    watcher,
                    self.coherence.frontier(),
                    &lost.to_string(),
                );
            }
            tokio::time::sleep(RETRY_AFTER / 10).await;
        }
    }

    /// Hands over closed times until the ring has the rest, or the watcher is
    /// gone. `from` follows: a batch that was not handed over is read again.
    async fn drain_privately(
        &self,
        feed: &mut dyn Feed,
        from: &mut FeedStart,
        closing: &mut CommitGroups,
        watcher: &Arc<Watcher>,
        patience: Duration,
    ) -> Result<(), FeedError> {
        loop {
            let silent =
                |_| FeedError::Unreadable(format!("nothing came within {patience:?}").into());
            for item in timeout(patience, feed.next()).await.map_err(silent)?? {
                let closed = take(closing, item)?;
                for (time, entries) in &closed.released {
                    watcher.push(*time, entries);
                }
                if self.hub.register(watcher, closed.frontier).is_ok() {
                    return Ok(());
                }
            }
            if let Some(position) = feed.position() {
                *from = FeedStart::Resume(position);
            }
            while watcher.backlog() > PRIVATE_BACKLOG {
                watcher.popped.notified().await;
            }
            if Arc::strong_count(watcher) == 1 {
                return Ok(());
            }
        }
    }
}

fn take(
    closing: &mut CommitGroups,
    item: FeedItem,
) -> Result<crate::coherence::ClosedTimes, FeedError> {
    let entry = match item.event {
        FeedEvent::Change(change) => Some(Entry::Change(Arc::new(change))),
        FeedEvent::Reset { reason } => Some(Entry::Reset {
            reason: reason.into(),
        }),
        FeedEvent::Heartbeat { .. } | FeedEvent::Nothing => None,
    };
    closing
        .take(item.time, item.alone, entry)
        .map_err(|error| FeedError::broken(error.to_string()))
}

impl Watching {
    async fn next(&mut self) -> Option<WatchMessage> {
        while !self.ended {
            if let Some(next) = self.watcher.pop() {
                return Some(self.message(next).await);
            }
            let shutdown = self.cache.shutdown.clone();
            let pushed = async {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => true,
                    () = self.watcher.pushed.notified() => false,
                }
            };
            match timeout_at(self.next_progress, pushed).await {
                Ok(false) => {}
                Ok(true) => {
                    self.ended = true;
                    return Some(self.progress(self.watcher.cursor()));
                }
                Err(_) => {
                    self.next_progress = Instant::now() + self.progress_interval;
                    let frontier = self.cache.coherence.frontier();
                    if let Some(cursor) = self.reached(frontier) {
                        return Some(self.progress(cursor));
                    }
                }
            }
        }
        None
    }

    /// How far this watch has come: the frontier, once it is on the ring.
    fn reached(&self, frontier: OriginTime) -> Option<OriginTime> {
        if self.cache.hub.has(&self.watcher) {
            self.watcher.progress(frontier)
        } else {
            Some(self.watcher.cursor())
        }
    }

    fn progress(&self, cursor: OriginTime) -> WatchMessage {
        // Infinite before the first heartbeat that proves anything of it.
        let staleness_bound = self.cache.bound_at(cursor);
        WatchMessage {
            token: self.token(cursor, cursor),
            event: WatchEvent::Progress { staleness_bound },
        }
    }

    async fn message(&self, next: Next) -> WatchMessage {
        let event = match next.entry {
            Entry::Reset { reason } => WatchEvent::Reset { reason },
            Entry::Change(change) => {
                self.cache.metrics.watch_changes.inc();
                let todo = if self.include_todo {
                    self.cache.read_for_watch(&change.name, next.seen).await
                } else {
                    None
                };
                WatchEvent::Change { change, todo }
            }
        };
        WatchMessage {
            token: self.token(next.seen, next.cursor),
            event,
        }
    }

    /// What the client is to keep: it resumes at `cursor`, and reads nothing
    /// older than what it was told here and before.
    fn token(&self, seen: OriginTime, cursor: OriginTime) -> Token {
        let seen = seen.max(cursor).max(self.seen);
        Token {
            origin: self.cache.origin_id(),
            seen,
            fresh_to: cursor,
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.cache.hub.remove(&self.watcher);
        self.cache.metrics.watchers.dec();
    }
}
