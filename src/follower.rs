//! Follows the origin's feed: for each change the fences first, then the hub, then
//! the frontier. Only the follower moves the frontier.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};

use crate::{
    backoff::Backoff,
    coherence::CommitGroups,
    loader::Loader,
    model::{Event, Mono, OriginTime, Touched},
    origin::{
        Cause, Feed, FeedError, FeedEvent, FeedItem, FeedPosition, FeedStart, HUNG_AFTER,
        MAX_TRIES_AT_A_POSITION, OPEN_TIMEOUT, Origin,
    },
    telemetry::{Kind, Metrics},
    tracker::{Fatal, OriginTracker},
    watch::Watches,
};

/// Longest replay at start. Then the replay is given up: the floor is raised, and
/// entries that other replicas left in the shared tier are loaded again.
const REPLAY_BUDGET: Duration = Duration::from_secs(15);
/// How often the feed is checked for hanging.
const WATCHDOG_INTERVAL: Duration = Duration::from_millis(250);
/// A time that stays open this long is closed by a heartbeat, so that watchers and
/// tokens do not wait for the heartbeat interval.
const OPEN_TIME_PATIENCE: Duration = Duration::from_millis(5);
/// Pauses before a broken feed is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(50);
const MAX_REOPEN_PAUSE: Duration = Duration::from_secs(1);
/// How long a fatal error (such as a revoked privilege) is retried before the process
/// exits, so that an operator can fix it.
const FATAL_PATIENCE: Duration = Duration::from_secs(30);

/// Why the feed is left.
enum FeedEnd {
    Broken(Cause),
    /// It does not get past its position, though the origin answers.
    Unreadable(Cause),
    Hung,
    /// Waiting does not help.
    Fatal(Cause),
    HistoryLost(Cause),
    ReplayTooLong,
}

/// Moves the frontier along the origin's feed.
pub struct Follower {
    origin: Arc<dyn Origin>,
    tracker: Arc<OriginTracker>,
    loader: Arc<Loader>,
    watches: Arc<Watches>,
    metrics: Arc<Metrics>,
    groups: CommitGroups,
    /// The time of the first heartbeat: the replay ends right before it.
    first_heartbeat: OriginTime,
    /// When the replay is given up; `None` once it is done.
    replay_ends: Option<Instant>,
    /// Where the feed is resumed; `None`: at `start`.
    position: Option<FeedPosition>,
    start: OriginTime,
    /// Failed tries at this position.
    tries: u32,
    /// Since when every try to open the feed met a fatal error.
    fatal_since: Option<Instant>,
}

impl Follower {
    /// Places floor and frontier a replay window before the origin's present time,
    /// then follows the feed for as long as the process lives.
    pub async fn run(
        origin: Arc<dyn Origin>,
        tracker: Arc<OriginTracker>,
        loader: Arc<Loader>,
        watches: Arc<Watches>,
        metrics: Arc<Metrics>,
        replay_window: Duration,
    ) -> Fatal {
        let first_heartbeat = tracker.heartbeat_now().await;
        let start = origin.replay_start(first_heartbeat, replay_window);
        // The hub first: once the floor is placed, calls are answered.
        watches.place(start);
        tracker.place(start);
        let mut follower = Self {
            origin,
            tracker,
            loader,
            watches,
            metrics,
            groups: CommitGroups::default(),
            first_heartbeat,
            replay_ends: Some(Instant::now() + REPLAY_BUDGET),
            position: None,
            start,
            tries: 0,
            fatal_since: None,
        };
        follower.follow_for_ever().await
    }

    async fn follow_for_ever(&mut self) -> Fatal {
        // A seed that differs between replicas, and not between runs of a simulation.
        let seed = self.first_heartbeat.0;
        let mut backoff = Backoff::with_seed(REOPEN_PAUSE, MAX_REOPEN_PAUSE, seed);
        loop {
            let opened = Instant::now();
            let end = match self.open().await {
                Ok(mut feed) => self.follow(feed.as_mut()).await,
                Err(end) => end,
            };
            if opened.elapsed() > MAX_REOPEN_PAUSE {
                backoff.reset();
            }
            let cause = match self.bound_tries(end) {
                FeedEnd::Fatal(cause) => return Fatal::NoFeed(cause),
                FeedEnd::Hung => {
                    self.log_reopened("hung", &"a heartbeat did not come back".into());
                    continue;
                }
                FeedEnd::Broken(cause) | FeedEnd::Unreadable(cause) => {
                    self.log_reopened("broken", &cause);
                    backoff.wait().await;
                    continue;
                }
                FeedEnd::ReplayTooLong => "the replay took too long".into(),
                FeedEnd::HistoryLost(cause) => cause,
            };
            if let ControlFlow::Break(fatal) = self.restart_from_now(&cause).await {
                return fatal;
            }
        }
    }

    /// Bounds the tries at one position, and the time for fatal errors. An event that
    /// cannot be read must not hold the feed for ever: the feed continues after it.
    fn bound_tries(&mut self, end: FeedEnd) -> FeedEnd {
        match end {
            FeedEnd::Unreadable(_) | FeedEnd::Hung => {
                self.tries += 1;
                if self.tries < MAX_TRIES_AT_A_POSITION {
                    return end;
                }
                self.tries = 0;
                let cause = match end {
                    FeedEnd::Unreadable(cause) => cause,
                    _ => "no heartbeat came back".into(),
                };
                let text = format!(
                    "the feed did not get past its position in {MAX_TRIES_AT_A_POSITION} tries: {cause}"
                );
                FeedEnd::HistoryLost(cause.with_text(text))
            }
            FeedEnd::Fatal(cause) => {
                let since = *self.fatal_since.get_or_insert_with(Instant::now);
                if since.elapsed() < FATAL_PATIENCE {
                    FeedEnd::Broken(cause)
                } else {
                    FeedEnd::Fatal(cause)
                }
            }
            FeedEnd::Broken(_) | FeedEnd::HistoryLost(_) | FeedEnd::ReplayTooLong => end,
        }
    }

    async fn open(&self) -> Result<Box<dyn Feed>, FeedEnd> {
        let from = match &self.position {
            Some(position) => FeedStart::Resume(position.clone()),
            None => FeedStart::After(self.start),
        };
        // The replay's budget holds for opening the feed, too.
        let limit = Instant::now() + OPEN_TIMEOUT;
        let limit = self.replay_ends.map_or(limit, |ends| ends.min(limit));
        match timeout_at(limit, self.origin.open_feed(from)).await {
            Ok(Ok(feed)) => Ok(feed),
            Ok(Err(error)) => Err(error.into()),
            Err(_) if self.replay_ends.is_some_and(|ends| Instant::now() >= ends) => {
                Err(FeedEnd::ReplayTooLong)
            }
            Err(_) => {
                let cause = format!("it could not be opened within {OPEN_TIMEOUT:?}");
                Err(FeedEnd::Unreadable(cause.into()))
            }
        }
    }

    /// Applies the feed's events until the feed must be left.
    async fn follow(&mut self, feed: &mut dyn Feed) -> FeedEnd {
        let mut newest = self.tracker.now();
        let mut open_since: Option<Instant> = None;
        loop {
            let wake = Instant::now() + WATCHDOG_INTERVAL;
            let wake = open_since.map_or(wake, |since| wake.min(since + OPEN_TIME_PATIENCE));
            match timeout_at(wake, feed.next()).await {
                Ok(Ok(items)) => {
                    self.loader.refresh_ahead(&items).await;
                    newest = self.tracker.now();
                    if let Err(end) = self.apply(items) {
                        return end;
                    }
                    self.position = feed.position().or(self.position.take());
                    (self.tries, self.fatal_since) = (0, None);
                    open_since = self
                        .groups
                        .is_open()
                        .then(|| open_since.unwrap_or_else(Instant::now));
                }
                Ok(Err(error)) => return error.into(),
                Err(_) if open_since.is_some_and(|since| since.elapsed() >= OPEN_TIME_PATIENCE) => {
                    self.tracker.heartbeats.request_now();
                    open_since = Some(Instant::now() + WATCHDOG_INTERVAL);
                }
                Err(_) => {}
            }
            if let Some(end) = self.check_watchdog(newest) {
                return end;
            }
        }
    }

    /// Whether the replay takes too long or the feed hangs. `newest`: when the feed
    /// last yielded events.
    fn check_watchdog(&self, newest: Mono) -> Option<FeedEnd> {
        if let Some(ends) = self.replay_ends {
            return (Instant::now() > ends).then_some(FeedEnd::ReplayTooLong);
        }
        let now = self.tracker.now();
        let awaited = self.tracker.heartbeats.awaited_since()?;
        let hung = now.since(awaited) > HUNG_AFTER && now.since(newest) > HUNG_AFTER;
        hung.then_some(FeedEnd::Hung)
    }

    /// Applies one batch. The frontier moves once a batch, after all of it.
    fn apply(&mut self, items: Vec<FeedItem>) -> Result<(), FeedEnd> {
        let mut frontier = self.tracker.watermarks.frontier();
        for item in items {
            let event = self.raise(item.time, item.event);
            let closed = self.groups.add(item.time, item.alone, event);
            let closed = closed.map_err(|error| FeedEnd::Broken(Cause::from_error(error, None)))?;
            for (time, events) in closed.released {
                self.watches.release(time, events);
            }
            frontier = frontier.max(closed.frontier);
        }
        self.advance(frontier);
        Ok(())
    }

    /// Raises the fences of a change, or the floor for an event that cannot be
    /// assigned to a stripe.
    fn raise(&self, time: OriginTime, event: FeedEvent) -> Option<Event> {
        match event {
            FeedEvent::Change(mut change) => {
                self.tracker.watermarks.raise(&change);
                self.metrics.feed_changes.inc();
                // Nobody reads the paths from here on, and they may be long.
                change.touched = Touched::All;
                Some(Event::Change(change.into()))
            }
            FeedEvent::List(name) => {
                let watermarks = &self.tracker.watermarks;
                watermarks.raise_list_document(name.as_str(), time);
                self.metrics.feed_changes.inc();
                Some(Event::List(name))
            }
            FeedEvent::Reset { reason } => {
                tracing::warn!(%reason, %time, "all cached values are invalidated");
                self.tracker.watermarks.raise_floor(time);
                self.metrics.resets.inc();
                Some(Event::Reset {
                    reason: reason.into(),
                })
            }
            FeedEvent::Heartbeat { number } => {
                self.tracker.heartbeats.record_returned(number);
                None
            }
            FeedEvent::Nothing => None,
        }
    }

    fn advance(&mut self, frontier: OriginTime) {
        self.tracker.advance(frontier);
        if self.replay_ends.is_some() && frontier >= self.first_heartbeat.pred() {
            self.replay_ends = None;
            self.tracker.set_caught_up();
            tracing::info!(%frontier, "caught up with the database");
        }
    }

    fn log_reopened(&self, kind: &'static str, problem: &Cause) {
        self.metrics
            .feed_reopened
            .get_or_create(&Kind { kind })
            .inc();
        self.tracker.heartbeats.expect_none_back();
        tracing::warn!(kind, %problem, "the feed is opened again");
    }

    /// The feed continues after `from`, and no change before it is claimed to have
    /// been seen: floor, hub, frontier, in this order.
    fn restart_from(&mut self, from: OriginTime, cause: &Cause) {
        self.log_reopened("lost", cause);
        self.tracker.watermarks.raise_floor(from);
        self.metrics.resets.inc();
        self.groups.discard_open();
        let reset = Event::Reset {
            reason: cause.to_string().into(),
        };
        self.watches.release(from, vec![reset]);
        (self.position, self.start) = (None, from);
        self.advance(from);
    }

    async fn restart_from_now(&mut self, cause: &Cause) -> ControlFlow<Fatal> {
        let start = self.tracker.heartbeat_now().await;
        let frontier = self.tracker.watermarks.frontier();
        if start < frontier {
            return ControlFlow::Break(Fatal::WentBack {
                from: frontier,
                to: start,
            });
        }
        self.restart_from(start, cause);
        ControlFlow::Continue(())
    }
}

impl From<FeedError> for FeedEnd {
    fn from(error: FeedError) -> Self {
        match error {
            FeedError::HistoryLost(cause) => Self::HistoryLost(cause),
            FeedError::Broken(cause) => Self::Broken(cause),
            FeedError::Unreadable(cause) => Self::Unreadable(cause),
            FeedError::Fatal(cause) => Self::Fatal(cause),
        }
    }
}
