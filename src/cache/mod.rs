//! The service proper: one struct, cut by verb. `read.rs` is the way of a
//! read, from top to bottom; `load.rs` asks the origin for what no cache has,
//! `lease.rs` lets one replica do so for all, `ahead.rs` before anybody asks;
//! `write.rs` is the way of a write; `heartbeat.rs` and `follow.rs` keep up
//! with the origin; `hub.rs` and `watch.rs` tell the watchers.

mod ahead;
mod clock;
mod count;
mod follow;
mod heartbeat;
mod hub;
mod lease;
mod load;
mod part;
mod read;
mod verify;
mod watch;
mod write;

use std::{
    collections::HashSet,
    future::Future,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, Semaphore, watch as channel},
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    ahead::Reads, count::ReadCounters, heartbeat::Heart, hub::Hub, load::Loads, verify::Verifier,
};
pub use self::{clock::Clock, watch::Watch};
pub use crate::coherence::Consistency;
use crate::{
    coherence::Watermarks,
    error::{Error, ReadInfo},
    model::{Change, ListName, OriginId, OriginTime, PagePosition, TodoName, Token},
    origin::Origin,
    telemetry::Metrics,
    tier::{near::Near, shared::Shared},
};

/// Writes under way at once: more than the origin gets done in a second would
/// only wait.
const MAX_WRITES: usize = 1024;

/// What the owner of the process sets.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Most bytes of the near tier.
    pub near_capacity: u64,
    /// No unmarked answer misses a write acknowledged longer ago.
    pub staleness_limit: Duration,
    /// Time from one heartbeat to the next.
    pub heartbeat_interval: Duration,
    /// How much of the feed is replayed at start, and how long shared entries
    /// live.
    pub replay_window: Duration,
    /// How long an overtaken page may still be answered; zero: not at all.
    pub list_grace: Duration,
    /// How old an answer may be when the origin cannot be asked; `None`: such
    /// answers are not given.
    pub stale_if_error: Option<Duration>,
    /// Loads at the origin at once.
    pub max_origin_loads: usize,
    /// One of so many cached answers is verified; 0: none.
    pub verify_one_in: u64,
}

/// How far the start has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The origin's time is not known yet: nothing can be answered.
    Starting,
    /// The floor is placed: answers are right, and mostly loaded.
    Started,
    /// The feed has been replayed: entries that others left in the shared tier
    /// are usable.
    CaughtUp,
}

/// Why the process cannot go on, and only a new one can.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Fatal(pub String);

/// The read-through service: two caches in front of an origin.
pub struct Cache {
    settings: Settings,
    clock: Clock,
    coherence: Watermarks,
    heart: Heart,
    near: Near,
    reads: Reads,
    shared: Option<Arc<dyn Shared>>,
    origin: Arc<dyn Origin>,
    hub: Hub,
    loads: Loads,
    writes: Arc<Semaphore>,
    /// The newest time of this replica's own writes.
    own_write: AtomicU64,
    metrics: Arc<Metrics>,
    read_counters: ReadCounters,
    /// Tells those who wait for the frontier, in the order in which they came.
    frontier_moved: Notify,
    verifier: Verifier,
    phase: channel::Sender<Phase>,
    /// Ends the streams of watchers.
    shutdown: CancellationToken,
    /// Loads, writes and private feeds, all of which outlive their callers.
    tasks: TaskTracker,
}

impl Cache {
    /// A service that does not run yet: see [`Cache::run`].
    #[must_use]
    pub fn new(
        settings: Settings,
        clock: Clock,
        origin: Arc<dyn Origin>,
        shared: Option<Arc<dyn Shared>>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Self::with_coherence(
            settings,
            clock,
            origin,
            shared,
            metrics,
            Watermarks::default(),
        )
    }

    /// The same with a fence of another size: a simulation makes many of them.
    #[must_use]
    pub fn with_coherence(
        settings: Settings,
        clock: Clock,
        origin: Arc<dyn Origin>,
        shared: Option<Arc<dyn Shared>>,
        metrics: Arc<Metrics>,
        coherence: Watermarks,
    ) -> Arc<Self> {
        let keep = (settings.staleness_limit * 2).max(settings.stale_if_error.unwrap_or_default());
        Arc::new(Self {
            coherence,
            heart: Heart::new(clock, keep),
            near: Near::new(settings.near_capacity),
            reads: Reads::default(),
            hub: Hub::new(Arc::clone(&metrics)),
            loads: Loads::new(settings.max_origin_loads),
            writes: Arc::new(Semaphore::new(MAX_WRITES)),
            own_write: AtomicU64::new(0),
            frontier_moved: Notify::new(),
            phase: channel::Sender::new(Phase::Starting),
            shutdown: CancellationToken::new(),
            read_counters: ReadCounters::new(&metrics),
            verifier: Verifier::new(settings.verify_one_in, &metrics),
            tasks: TaskTracker::new(),
            settings,
            clock,
            shared,
            origin,
            metrics,
        })
    }

    /// Keeps up with the origin: heartbeats and feed; and verifies a sample of
    /// the answers. Returns only when the process must end.
    pub async fn run(self: Arc<Self>) -> Fatal {
        let mut parts = JoinSet::new();
        let (beating, following, verifying) = (Arc::clone(&self), Arc::clone(&self), self);
        parts.spawn(async move { beating.beat().await });
        parts.spawn(async move { following.follow().await });
        parts.spawn(async move { verifying.verify().await });
        match parts.join_next().await {
            Some(Ok(fatal)) => fatal,
            Some(Err(panic)) => Fatal(format!(
                "a task that keeps up with the database ended: {panic}"
            )),
            None => Fatal("no task keeps up with the database".into()),
        }
    }

    /// How far the start has come; changes as it goes on.
    pub fn phase(&self) -> channel::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Whether reads can be answered: the floor is placed. One atomic, as it
    /// is asked by every call.
    fn started(&self) -> bool {
        self.coherence.floor() < OriginTime::MAX
    }

    /// Waits until the frontier has reached `time`.
    async fn frontier_at(&self, time: OriginTime) {
        loop {
            // Taken before the look, so that no move is missed.
            let moved = self.frontier_moved.notified();
            if self.coherence.frontier() >= time {
                return;
            }
            moved.await;
        }
    }

    /// Whose tokens these are.
    pub fn origin_id(&self) -> OriginId {
        self.origin.id()
    }

    /// No write acknowledged longer ago than this is missing from what is
    /// fresh to `fresh_to`. `None`: nothing can be said.
    pub fn bound_at(&self, fresh_to: OriginTime) -> Option<Duration> {
        let proven = self
            .heart
            .heartbeat_log(|heartbeat_log| heartbeat_log.proven(fresh_to))?;
        Some(self.clock.now().since(proven))
    }

    /// How old the newest proof of the origin's time is: within the staleness
    /// limit everything can be answered.
    pub fn age(&self) -> Option<Duration> {
        let begun = self
            .heart
            .heartbeat_log(crate::coherence::HeartbeatLog::newest_begun)?;
        Some(self.clock.now().since(begun))
    }

    /// The staleness bound of what the caches answer: the frontier's.
    pub fn frontier_bound(&self) -> Option<Duration> {
        self.bound_at(self.coherence.frontier())
    }

    /// Whether the origin acknowledges heartbeats.
    pub fn origin_is_up(&self) -> bool {
        !self.heart.is_down()
    }

    /// Whether the shared tier answers; `None`: there is none.
    pub fn shared_is_up(&self) -> Option<bool> {
        self.shared.as_ref().map(|shared| shared.is_up())
    }

    /// Sets the gauges that nothing else keeps up to date. In the runtime.
    pub fn measure(&self) {
        let seconds = |d: Option<Duration>| d.map_or(f64::INFINITY, |d| d.as_secs_f64());
        let metrics = &self.metrics;
        metrics.staleness_bound.set(seconds(self.frontier_bound()));
        let lag = self
            .frontier_bound()
            .map(|bound| bound.saturating_sub(self.age().unwrap_or_default()));
        metrics.frontier_lag.set(seconds(lag));
        metrics.near_bytes.set(self.near.bytes().cast_signed());
        metrics
            .near_entries
            .set(i64::try_from(self.near.len()).unwrap_or(i64::MAX));
        let tasks = tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks();
        metrics.tasks.set(i64::try_from(tasks).unwrap_or(i64::MAX));
    }

    /// Ends the streams of watchers, and waits for the writes under way.
    pub async fn drain(&self) {
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Waits for `work` until the caller's deadline; `tier` is what is being
/// waited for.
async fn within<T>(
    deadline: Option<Instant>,
    tier: &'static str,
    work: impl Future<Output = T>,
) -> Result<T, Error> {
    match deadline {
        Some(deadline) => timeout_at(deadline, work)
            .await
            .map_err(|_| Error::DeadlineExceeded { tier }),
        None => Ok(work.await),
    }
}

/// How fresh an answer must be, and until when it is wanted.
#[derive(Clone, Debug)]
pub struct Want {
    /// The arm of `Consistency`.
    pub consistency: Consistency,
    /// The caller's deadline.
    pub deadline: Option<Instant>,
}

/// An answer and how fresh it is.
#[derive(Clone, Debug)]
pub struct Answer<T> {
    /// The answer.
    pub body: T,
    /// How fresh it is.
    pub read: ReadInfo,
}

/// Several todos.
#[derive(Clone, Debug, Default)]
pub struct Many {
    /// Those found, encoded, in the order asked for.
    pub todos: Vec<Bytes>,
    /// Names that no todo has.
    pub missing: Vec<TodoName>,
    /// Names whose document cannot be read as a todo.
    pub unreadable: Vec<TodoName>,
}

/// A page of todos.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// The todos, encoded, in the query's order.
    pub todos: Vec<Bytes>,
    /// Names in the page whose document cannot be read as a todo.
    pub unreadable: Vec<TodoName>,
    /// Where the next page begins.
    pub next: Option<PagePosition>,
}

/// A write that took place.
#[derive(Clone, Debug)]
pub struct Written {
    /// The todo, encoded; empty after a delete.
    pub todo: Bytes,
    /// Presented to a read, the read is not older than the write.
    pub token: Token,
}

/// What a watcher wants.
#[derive(Clone, Debug)]
pub struct WatchRequest {
    /// One list, or all.
    pub list: Option<ListName>,
    /// Only these, if any are named.
    pub names: HashSet<TodoName>,
    /// After this time (`fresh_to` of a token); `None`: from now on.
    pub after: Option<OriginTime>,
    /// What that token has seen: no token of this watch has seen less, or a
    /// client that keeps only its last one would read older than it knows.
    pub seen: OriginTime,
    /// Send the todo with its change.
    pub include_todo: bool,
    /// How often to say where the stream stands.
    pub progress_interval: Duration,
}

/// One message to a watcher.
#[derive(Clone, Debug)]
pub struct WatchMessage {
    /// Where to resume: `fresh_to` is the cursor, `seen` the newest time in
    /// the message.
    pub token: Token,
    /// What happened.
    pub event: WatchEvent,
}

/// What a watcher is told.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// A todo changed.
    Change {
        /// Which, how and when. All watchers are told of the same one.
        change: Arc<Change>,
        /// The todo as it is now, encoded, if asked for and still there.
        todo: Option<Bytes>,
    },
    /// Nothing was missed up to the token's cursor.
    Progress {
        /// No change acknowledged longer ago is missing; `None`: nothing can
        /// be said, the cursor is older than what this replica remembers.
        staleness_bound: Option<Duration>,
    },
    /// All that was cached must be read anew.
    Reset {
        /// Why, for people.
        reason: Arc<str>,
    },
}
