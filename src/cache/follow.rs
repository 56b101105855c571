//! Keeps up with the origin's feed: for each change fences first, then the
//! hub, then the frontier. It is the only one that moves the frontier.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

use super::{Cache, Fatal, Phase};
use crate::{
    coherence::{CommitGroups, Entry},
    model::OriginTime,
    origin::{Feed, FeedError, FeedEvent, FeedItem, FeedPosition, FeedStart},
    telemetry::Kind,
};

/// Longest replay at start. What is older is given up: the floor is raised,
/// and entries that others left in the shared tier are loaded anew.
const REPLAY_BUDGET: Duration = Duration::from_secs(15);
/// A heartbeat that was acknowledged and does not come back within this time
/// shows that the feed hangs.
pub(super) const HUNG_AFTER: Duration = Duration::from_secs(2);
/// How often that is looked at.
const WATCHDOG_INTERVAL: Duration = Duration::from_millis(250);
/// A time that stays open for so long is closed by a heartbeat of its own, so
/// that watchers and tokens don't wait for the interval.
const OPEN_TIME_PATIENCE: Duration = Duration::from_millis(5);
/// Pause before a broken feed is opened again; doubled each time up to the
/// second one.
const REOPEN_PAUSE: Duration = Duration::from_millis(50);
const MAX_REOPEN_PAUSE: Duration = Duration::from_secs(1);
/// Tries at one position that the feed does not get past while the database is
/// reachable. Then it goes on behind that position: an event that cannot be
/// read must not hold it for ever.
pub(super) const MAX_TRIES_AT_A_POSITION: u32 = 4;
/// How long an error that waiting does not help (a right taken away) may last
/// before the process ends with it: somebody may be about to correct it.
const FATAL_PATIENCE: Duration = Duration::from_secs(30);
/// Time for opening the feed.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a feed is left.
enum Left {
    Broken(String),
    /// It does not get past its position, though the database answers.
    Unreadable(String),
    Hung,
    /// Waiting does not help.
    Fatal(String),
    HistoryLost(String),
    ReplayTooLong,
}

struct Follower<'a> {
    cache: &'a Arc<Cache>,
    closing: CommitGroups,
    /// The time of heartbeat 0: the replay is done right before it.
    h0: OriginTime,
    /// When the replay is given up; `None` once it is done.
    replay_ends: Option<Instant>,
    /// Where the feed is resumed; `None`: at `start`.
    position: Option<FeedPosition>,
    start: OriginTime,
    /// Failed tries at this position.
    tries: u32,
    /// Since when all that opening the feed meets is fatal.
    fatal_since: Option<Instant>,
}

impl Cache {
    /// Follows the feed for as long as the process lives.
    pub(super) async fn follow(self: &Arc<Self>) -> Fatal {
        let h0 = self.heartbeat_now().await;
        let start = self.origin.replay_start(h0, self.settings.replay_window);
        // The hub first: with the floor calls begin to be answered.
        self.hub.place(start);
        self.coherence.place(start);
        self.phase.send_replace(Phase::Started);
        let mut follower = Follower {
            cache: self,
            closing: CommitGroups::default(),
            h0,
            replay_ends: Some(Instant::now() + REPLAY_BUDGET),
            position: None,
            start,
            tries: 0,
            fatal_since: None,
        };
        follower.run().await
    }

    /// The time of a heartbeat begun now: tried until one is acknowledged.
    async fn heartbeat_now(&self) -> OriginTime {
        let since = self.clock.now();
        loop {
            match self.heart.begun_since(since).await {
                Ok(time) => return time,
                Err(_) => sleep(REOPEN_PAUSE).await,
            }
        }
    }
}

impl Follower<'_> {
    async fn run(&mut self) -> Fatal {
        let mut pause = REOPEN_PAUSE;
        loop {
            let opened = Instant::now();
            let left = match self.open().await {
                Ok(mut feed) => self.follow(feed.as_mut()).await,
                Err(left) => left,
            };
            if opened.elapsed() > MAX_REOPEN_PAUSE {
                pause = REOPEN_PAUSE;
            }
            match self.bounded(left) {
                Left::ReplayTooLong => {
                    let reason = "the replay took too long";
                    if let ControlFlow::Break(fatal) = self.after_lost_history(reason).await {
                        return fatal;
                    }
                }
                Left::HistoryLost(problem) => match self.after_lost_history(&problem).await {
                    ControlFlow::Continue(()) => {}
                    ControlFlow::Break(fatal) => return fatal,
                },
                Left::Fatal(problem) => {
                    return Fatal(format!("the database gives no feed of changes: {problem}"));
                }
                Left::Hung => self.reopened("hung", "a heartbeat did not come back"),
                Left::Broken(problem) | Left::Unreadable(problem) => {
                    self.reopened("broken", &problem);
                    sleep(pause).await;
                    pause = (pause * 2).min(MAX_REOPEN_PAUSE);
                }
            }
        }
    }

    /// Bounds the tries at one position, and the time for fatal errors.
    fn bounded(&mut self, left: Left) -> Left {
        match left {
            Left::Unreadable(_) | Left::Hung => {
                self.tries += 1;
                if self.tries < MAX_TRIES_AT_A_POSITION {
                    return left;
                }
                self.tries = 0;
                let problem = match left {
                    Left::Unreadable(problem) => problem,
                    _ => "no heartbeat came back".into(),
                };
                Left::HistoryLost(format!(
                    "the feed did not get past its position in {MAX_TRIES_AT_A_POSITION} tries: {problem}"
                ))
            }
            Left::Fatal(problem) => {
                let since = *self.fatal_since.get_or_insert_with(Instant::now);
                if since.elapsed() < FATAL_PATIENCE {
                    Left::Broken(problem)
                } else {
                    Left::Fatal(problem)
                }
            }
            other => other,
        }
    }

    async fn open(&self) -> Result<Box<dyn Feed>, Left> {
        let from = match &self.position {
            Some(position) => FeedStart::Resume(position.clone()),
            None => FeedStart::After(self.start),
        };
        // The replay's budget holds for opening it, too.
        let limit = Instant::now() + OPEN_TIMEOUT;
        let limit = self.replay_ends.map_or(limit, |ends| ends.min(limit));
        match timeout_at(limit, self.cache.origin.open_feed(from)).await {
            Ok(Ok(feed)) => Ok(feed),
            Ok(Err(error)) => Err(error.into()),
            Err(_) if self.replay_ends.is_some_and(|ends| Instant::now() >= ends) => {
                Err(Left::ReplayTooLong)
            }
            Err(_) => Err(Left::Unreadable(format!(
                "it could not be opened within {OPEN_TIMEOUT:?}"
            ))),
        }
    }

    /// Applies what the feed brings until it must be left.
    async fn follow(&mut self, feed: &mut dyn Feed) -> Left {
        let mut newest = self.cache.clock.now();
        let mut open_since: Option<Instant> = None;
        loop {
            let wake = Instant::now() + WATCHDOG_INTERVAL;
            let wake = open_since.map_or(wake, |since| wake.min(since + OPEN_TIME_PATIENCE));
            match timeout_at(wake, feed.next()).await {
                Ok(Ok(items)) => {
                    self.cache.load_ahead(&items).await;
                    newest = self.cache.clock.now();
                    if let Err(left) = self.apply(items) {
                        return left;
                    }
                    self.position = feed.position().or(self.position.take());
                    (self.tries, self.fatal_since) = (0, None);
                    open_since = self
                        .closing
                        .is_open()
                        .then(|| open_since.unwrap_or_else(Instant::now));
                }
                Ok(Err(error)) => return error.into(),
                Err(_) if open_since.is_some_and(|since| since.elapsed() >= OPEN_TIME_PATIENCE) => {
                    self.cache.heart.want();
                    open_since = Some(Instant::now() + WATCHDOG_INTERVAL);
                }
                Err(_) => {}
            }
            if let Some(left) = self.watch_over(newest) {
                return left;
            }
        }
    }

    /// Whether the replay takes too long or the feed hangs.
    fn watch_over(&self, newest: crate::model::Mono) -> Option<Left> {
        if let Some(ends) = self.replay_ends {
            return (Instant::now() > ends).then_some(Left::ReplayTooLong);
        }
        let now = self.cache.clock.now();
        let awaited = self.cache.heart.awaited_since()?;
        let hung = now.since(awaited) > HUNG_AFTER && now.since(newest) > HUNG_AFTER;
        hung.then_some(Left::Hung)
    }

    /// One batch. The frontier moves, and those who wait for it are told, once
    /// a batch.
    fn apply(&mut self, items: Vec<FeedItem>) -> Result<(), Left> {
        let cache = self.cache;
        let mut frontier = cache.coherence.frontier();
        for item in items {
            let entry = self.raise(item.time, item.event);
            let closed = self.closing.take(item.time, item.alone, entry);
            let closed = closed.map_err(|error| Left::Broken(error.to_string()))?;
            for (time, entries) in closed.released {
                cache.hub.release(time, entries);
            }
            frontier = frontier.max(closed.frontier);
        }
        self.advance(frontier);
        Ok(())
    }

    /// Raises fences, or the floor for what cannot be pinned to a stripe.
    fn raise(&self, time: OriginTime, event: FeedEvent) -> Option<Entry> {
        let cache = self.cache;
        match event {
            FeedEvent::Change(change) => {
                cache.coherence.raise(&change);
                cache.metrics.feed_changes.inc();
                Some(Entry::Change(change.into()))
            }
            FeedEvent::Reset { reason } => {
                tracing::warn!(%reason, %time, "the caches are not trusted any more");
                cache.coherence.raise_floor(time);
                cache.metrics.resets.inc();
                Some(Entry::Reset {
                    reason: reason.into(),
                })
            }
            FeedEvent::Heartbeat { number } => {
                cache.heart.seen_back(number);
                None
            }
            FeedEvent::Nothing => None,
        }
    }

    fn advance(&mut self, frontier: OriginTime) {
        if frontier > self.cache.coherence.frontier() {
            self.cache.coherence.advance(frontier);
            self.cache.frontier_moved.notify_waiters();
        }
        if self.replay_ends.is_some() && frontier >= self.h0.pred() {
            self.replay_ends = None;
            self.cache.phase.send_replace(Phase::CaughtUp);
            tracing::info!(%frontier, "caught up with the database");
        }
    }

    fn reopened(&self, kind: &'static str, problem: &str) {
        self.cache
            .metrics
            .feed_reopened
            .get_or_create(&Kind { kind })
            .inc();
        self.cache.heart.expect_none_back();
        tracing::warn!(kind, problem, "the feed is opened again");
    }

    /// The feed goes on after `from`, and nothing before it is claimed to have
    /// been seen: floor, hub, frontier, in this order.
    fn begin_anew(&mut self, from: OriginTime, reason: &str) {
        self.reopened("lost", reason);
        let cache = self.cache;
        cache.coherence.raise_floor(from);
        cache.metrics.resets.inc();
        self.closing.discard_open();
        cache.hub.release(
            from,
            vec![Entry::Reset {
                reason: reason.into(),
            }],
        );
        (self.position, self.start) = (None, from);
        self.advance(from);
    }

    async fn after_lost_history(&mut self, problem: &str) -> ControlFlow<Fatal> {
        let start = self.cache.heartbeat_now().await;
        let frontier = self.cache.coherence.frontier();
        if start < frontier {
            return ControlFlow::Break(Fatal(format!(
                "the database went back in time, from {frontier} to {start}: it was restored to an older state, \
                 and this process must start anew"
            )));
        }
        self.begin_anew(start, problem);
        ControlFlow::Continue(())
    }
}

impl From<FeedError> for Left {
    fn from(error: FeedError) -> Self {
        match error {
            FeedError::HistoryLost(cause) => Self::HistoryLost(cause.to_string()),
            FeedError::Broken(cause) => Self::Broken(cause.to_string()),
            FeedError::Unreadable(cause) => Self::Unreadable(cause.to_string()),
            FeedError::Fatal(cause) => Self::Fatal(cause.to_string()),
        }
    }
}
