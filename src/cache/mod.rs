//! The read-through service: near cache, shared cache and origin behind one interface.
//! `calls.rs` has the reads that callers ask for, `read.rs` the read path, `write.rs`
//! the write path. Loads, heartbeats, the feed, watches and verification are modules
//! with their own state: this one builds them and runs their tasks.

mod calls;
mod counters;
mod freshness;
mod grace;
mod lists;
mod read;
mod read_many;
mod request;
mod rights;
mod watch;
mod write;
mod write_queue;

use std::{future::Future, sync::Arc, time::Duration};

use futures::stream::BoxStream;
use tokio::{
    sync::watch as channel,
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{counters::ReadCounters, write_queue::WriteQueue};
pub use self::{
    lists::ListPage,
    request::{Answer, ReadOptions, TodoBatch, TodoPage, WriteOptions, Written},
    rights::Permission,
};
use crate::{
    budget::{Budget, Budgets, Caller, Count, Reservation},
    coherence::Watermarks,
    error::Error,
    follower::Follower,
    loader::Loader,
    model::OriginId,
    origin::Origin,
    telemetry::{Kind, Metrics},
    tier::{Tiers, near::Near, shared::Shared},
    tracker::OriginTracker,
    turns::Turns,
    verifier::Verifier,
    watch::Watches,
};
pub use crate::{
    coherence::Consistency,
    tracker::{Clock, Fatal, Phase},
    watch::{WatchEvent, WatchMessage, WatchRequest},
};

/// Most bytes of todos in one response: what gRPC clients accept by default (4 MiB),
/// less what some of them count with a message.
pub const MAX_RESPONSE_BYTES: usize = (4 << 20) - (16 << 10);
/// Largest todo that is sent, in bytes. A valid one has less than 64 KiB; an edit made
/// in the database may be larger.
pub const MAX_TODO_BYTES: usize = 1 << 20;

/// The messages of a watch. Ends when the replica shuts down, after a last progress
/// message, or with the error that refuses to go on.
pub type Watch = BoxStream<'static, Result<WatchMessage, Error>>;

/// Reads of many todos that begin in one round of the runtime: some milliseconds of work.
const LARGE_READS_AT_ONCE: usize = 2;

/// The settings of the cache.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Most bytes of the near tier.
    pub near_capacity: u64,
    /// Upper bound on the staleness of any response that is not marked stale.
    pub staleness_limit: Duration,
    /// Time from one heartbeat to the next.
    pub heartbeat_interval: Duration,
    /// How much of the feed is replayed at start, and how long shared entries
    /// live.
    pub replay_window: Duration,
    /// How long an invalidated page may be served; zero: not at all.
    pub list_grace: Duration,
    /// Largest staleness of a response marked stale; `None`: no such responses.
    pub stale_if_error: Option<Duration>,
    /// Loads at the origin at once.
    pub max_origin_loads: usize,
    /// One in this many cached values is verified; 0: none.
    pub verify_one_in: u64,
}

/// The read-through service: two caches in front of an origin.
pub struct Cache {
    settings: Settings,
    origin: Arc<dyn Origin>,
    tracker: Arc<OriginTracker>,
    tiers: Arc<Tiers>,
    loader: Arc<Loader>,
    watches: Arc<Watches>,
    verifier: Arc<Verifier>,
    writes: Arc<WriteQueue>,
    /// Turns of reads of many todos.
    large_reads: Arc<Turns>,
    budgets: Arc<Budgets>,
    metrics: Arc<Metrics>,
    read_counters: ReadCounters,
    /// Ends the streams of watchers.
    shutdown: CancellationToken,
    /// Loads, writes and catch-up feeds, which outlive their callers.
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
        budgets: Arc<Budgets>,
    ) -> Arc<Self> {
        let watermarks = Watermarks::default();
        Self::with_watermarks(
            settings, clock, origin, shared, metrics, budgets, watermarks,
        )
    }

    /// The same with fences of another size: a simulation makes many of them.
    #[must_use]
    pub fn with_watermarks(
        settings: Settings,
        clock: Clock,
        origin: Arc<dyn Origin>,
        shared: Option<Arc<dyn Shared>>,
        metrics: Arc<Metrics>,
        budgets: Arc<Budgets>,
        watermarks: Watermarks,
    ) -> Arc<Self> {
        let keep = (settings.staleness_limit * 2).max(settings.stale_if_error.unwrap_or_default());
        let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
        let tracker = Arc::new(OriginTracker::new(
            watermarks,
            clock,
            Arc::clone(&origin),
            Arc::clone(&metrics),
            settings.heartbeat_interval,
            keep,
        ));
        let tiers = Arc::new(Tiers::new(
            Near::new(settings.near_capacity),
            shared,
            settings.replay_window,
            Arc::clone(&metrics),
        ));
        let loader = Arc::new(Loader::new(
            Arc::clone(&origin),
            Arc::clone(&tracker),
            Arc::clone(&tiers),
            Arc::clone(&metrics),
            tasks.clone(),
            Arc::clone(&budgets),
            settings.max_origin_loads,
        ));
        let watches = Arc::new(Watches::new(
            Arc::clone(&tracker),
            Arc::clone(&origin),
            Arc::clone(&metrics),
            Arc::clone(&budgets),
            settings.heartbeat_interval,
            shutdown.clone(),
            tasks.clone(),
        ));
        let verifier = Arc::new(Verifier::new(
            settings.verify_one_in,
            Arc::clone(&tracker),
            Arc::clone(&tiers),
            Arc::clone(&loader),
            &metrics,
        ));
        Arc::new(Self {
            origin,
            tracker,
            tiers,
            loader,
            watches,
            verifier,
            writes: WriteQueue::new(Arc::clone(budgets.count(Count::RunningWrites))),
            large_reads: Arc::new(Turns::new(LARGE_READS_AT_ONCE)),
            budgets,
            read_counters: ReadCounters::new(&metrics),
            metrics,
            settings,
            shutdown,
            tasks,
        })
    }

    /// Sends heartbeats, follows the feed, and verifies a sample of the cached
    /// values. Returns only when the process must end.
    pub async fn run(self: Arc<Self>) -> Fatal {
        let mut tasks = JoinSet::new();
        let tracker = Arc::clone(&self.tracker);
        tasks.spawn(async move { tracker.send_heartbeats().await });
        tasks.spawn(Follower::run(
            Arc::clone(&self.origin),
            Arc::clone(&self.tracker),
            Arc::clone(&self.loader),
            Arc::clone(&self.watches),
            Arc::clone(&self.metrics),
            self.settings.replay_window,
        ));
        let verifier = Arc::clone(&self.verifier);
        tasks.spawn(async move { verifier.run().await });
        let watches = Arc::clone(&self.watches);
        tasks.spawn(async move { match watches.give_turns().await {} });
        let large_reads = Arc::clone(&self.large_reads);
        tasks.spawn(async move { match large_reads.give().await {} });
        match tasks.join_next().await {
            Some(Ok(fatal)) => fatal,
            Some(Err(panic)) => Fatal::TaskPanicked(panic),
            None => Fatal::TaskEnded("that keeps up with the database"),
        }
    }

    /// How far the start has come.
    pub fn phase(&self) -> channel::Receiver<Phase> {
        self.tracker.phase()
    }

    /// Identifies the origin in tokens.
    pub fn origin_id(&self) -> OriginId {
        self.origin.id()
    }

    /// Time since the newest acknowledged heartbeat began; `None`: there is none.
    pub fn age(&self) -> Option<Duration> {
        self.tracker.age()
    }

    /// The staleness bound of what the caches serve; `None`: none can be stated.
    pub fn frontier_bound(&self) -> Option<Duration> {
        self.tracker.frontier_bound()
    }

    /// Whether the origin acknowledges heartbeats.
    pub fn origin_is_up(&self) -> bool {
        !self.tracker.heartbeats.is_down()
    }

    /// Whether the shared tier answers; `None`: there is none.
    pub fn shared_is_up(&self) -> Option<bool> {
        self.tiers.shared_is_up()
    }

    /// Sets the gauges that nothing else keeps up to date. Called in the runtime.
    pub fn measure(&self) {
        let seconds = |d: Option<Duration>| d.map_or(f64::INFINITY, |d| d.as_secs_f64());
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let (metrics, near) = (&self.metrics, &self.tiers.near);
        let bound = self.frontier_bound();
        metrics.staleness_bound.set(seconds(bound));
        let lag = bound.map(|bound| bound.saturating_sub(self.age().unwrap_or_default()));
        metrics.frontier_lag.set(seconds(lag));
        metrics.near_bytes.set(near.bytes().cast_signed());
        metrics.near_entries.set(count(near.len()));
        let runtime = tokio::runtime::Handle::current().metrics();
        metrics.tasks.set(count(runtime.num_alive_tasks()));
    }

    /// Ends the streams of watchers, and waits for the writes under way.
    pub async fn drain(&self) {
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// A place among a number of things that all callers share.
    fn reserve(&self, count: Count, caller: Option<&Arc<Caller>>) -> Result<Reservation, Error> {
        let budget = self.budgets.count(count);
        let place = budget.reserve(caller, 1);
        place.ok_or_else(|| self.overloaded(budget))
    }

    fn overloaded(&self, budget: &Budget) -> Error {
        let kind = budget.name();
        self.metrics.overloaded.get_or_create(&Kind { kind }).inc();
        let limit = usize::try_from(budget.limit()).unwrap_or(usize::MAX);
        Error::overloaded(kind, limit)
    }
}

/// Waits for `work` until the caller's deadline. `tier`: what is waited for.
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
