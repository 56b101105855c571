//! What this replica knows of the origin: watermarks, acknowledged heartbeats,
//! and its own newest write. The follower and the heartbeat task raise them; reads,
//! loads, watches and the verifier read them or wait for them.

mod clock;
mod heartbeats;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    task::JoinError,
};

pub use self::{clock::Clock, heartbeats::Heartbeats};
use crate::{
    coherence::{HeartbeatLog, Watermarks},
    model::{Mono, OriginTime, Resource},
    origin::{Cause, Origin},
    telemetry::Metrics,
};

/// How far the start of this replica has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The origin's time is not known yet: no read can be answered.
    Starting,
    /// The floor is placed: reads are right, and most of them load.
    Started,
    /// The feed is replayed: entries that other replicas left in the shared tier
    /// can be served.
    CaughtUp,
}

/// Why this replica cannot go on: only a new process can.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// The origin was restored to an older state while this process ran.
    #[error(
        "the database went back in time, from {from} to {to}: it was restored to an older state; \
         restart this process"
    )]
    WentBack {
        /// The newest time known before.
        from: OriginTime,
        /// The time of a heartbeat sent after that.
        to: OriginTime,
    },
    /// No feed can be opened, and waiting does not help.
    #[error("the database gives no feed of changes: {0}")]
    NoFeed(#[source] Cause),
    /// A task that must run for as long as the process ended.
    #[error("the task {0} ended")]
    TaskEnded(&'static str),
    /// One of those tasks panicked.
    #[error("a task that keeps up with the database ended: {0}")]
    TaskPanicked(#[source] JoinError),
}

/// What this replica knows of the origin. One for each replica, shared by its parts.
pub struct OriginTracker {
    pub(crate) watermarks: Watermarks,
    pub(crate) heartbeats: Heartbeats,
    clock: Clock,
    origin: Arc<dyn Origin>,
    metrics: Arc<Metrics>,
    heartbeat_interval: Duration,
    /// The newest time of this replica's own writes.
    own_write: AtomicU64,
    /// Wakes those that wait for the frontier, in the order in which they came.
    frontier_moved: Notify,
    phase: watch::Sender<Phase>,
}

impl OriginTracker {
    /// A tracker that knows nothing yet. `keep`: how long heartbeats stay in the
    /// log, at least the largest age that a read may ask for.
    #[must_use]
    pub fn new(
        watermarks: Watermarks,
        clock: Clock,
        origin: Arc<dyn Origin>,
        metrics: Arc<Metrics>,
        heartbeat_interval: Duration,
        keep: Duration,
    ) -> Self {
        Self {
            watermarks,
            heartbeats: Heartbeats::new(clock, keep),
            clock,
            origin,
            metrics,
            heartbeat_interval,
            own_write: AtomicU64::new(0),
            frontier_moved: Notify::new(),
            phase: watch::Sender::new(Phase::Starting),
        }
    }

    /// The present instant of this replica's clock.
    #[must_use]
    pub fn now(&self) -> Mono {
        self.clock.now()
    }

    /// How far the start has come.
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Whether reads can be answered. One atomic, since every call asks.
    pub fn is_started(&self) -> bool {
        self.watermarks.floor() < OriginTime::MAX
    }

    /// Places floor and frontier where the replay begins.
    pub(crate) fn place(&self, start: OriginTime) {
        self.watermarks.place(start);
        self.phase.send_replace(Phase::Started);
    }

    pub(crate) fn set_caught_up(&self) {
        self.phase.send_replace(Phase::CaughtUp);
    }

    /// Moves the frontier up, if it is below, and wakes those that wait for it.
    pub(crate) fn advance(&self, frontier: OriginTime) {
        if frontier > self.watermarks.frontier() {
            self.watermarks.advance(frontier);
            self.frontier_moved.notify_waiters();
        }
    }

    /// Waits until the frontier has reached `time`.
    pub async fn wait_for_frontier(&self, time: OriginTime) {
        loop {
            // Registered before the comparison, so that no move is missed.
            let moved = self.frontier_moved.notified();
            if self.watermarks.frontier() >= time {
                return;
            }
            moved.await;
        }
    }

    /// The newest time that the origin is known to have reached, from feed and
    /// heartbeats.
    pub fn newest_known(&self) -> OriginTime {
        let heartbeat = self
            .heartbeats
            .log(HeartbeatLog::newest)
            .unwrap_or_default();
        self.watermarks.frontier().max(heartbeat)
    }

    /// The newest time that this replica can prove the origin to have reached:
    /// as `newest_known`, and its own newest write.
    pub fn newest_proven(&self) -> OriginTime {
        self.newest_known().max(self.own_write())
    }

    /// The newest time of this replica's own writes; zero: none yet.
    pub fn own_write(&self) -> OriginTime {
        OriginTime(self.own_write.load(Ordering::Acquire))
    }

    /// Raises every stripe that the feed will raise for a write of this replica,
    /// before the write is acknowledged. `time` is an upper bound of its commit time:
    /// valid for fences and tokens, never as a stamp. `moves`: the write can
    /// change pages of the list.
    pub fn record_own_write(&self, name: &Resource, moves: bool, time: OriginTime) {
        self.own_write.fetch_max(time.0, Ordering::AcqRel);
        match name {
            Resource::Todo(name) => {
                self.watermarks.raise_todo(name.as_str(), time);
                if moves {
                    self.watermarks
                        .raise_lists_by_own_write(name.parent(), time);
                }
            }
            Resource::List(name) => {
                self.watermarks.raise_list_document(name.as_str(), time);
                if moves {
                    self.watermarks
                        .raise_lists_by_own_write(name.as_str(), time);
                }
            }
        }
    }

    /// Upper bound on the staleness of a value that is fresh to `fresh_to`.
    /// `None`: no acknowledged heartbeat proves anything of it.
    pub fn staleness_bound(&self, fresh_to: OriginTime) -> Option<Duration> {
        let begun = self.heartbeats.log(|log| log.begun_below(fresh_to))?;
        Some(self.now().since(begun))
    }

    /// The staleness bound of what the caches serve.
    pub fn frontier_bound(&self) -> Option<Duration> {
        self.staleness_bound(self.watermarks.frontier())
    }

    /// Time since the newest acknowledged heartbeat began. Within the staleness
    /// limit every consistency level can be served.
    pub fn age(&self) -> Option<Duration> {
        let begun = self.heartbeats.log(HeartbeatLog::newest_begun)?;
        Some(self.now().since(begun))
    }
}
