//! Watches: every change of a list after a cursor, or a newer change of the same
//! todo, or a reset; never a silent gap.
//!
//! The hub gets each closed commit group from the follower before the frontier
//! reaches its time, and appends it to a ring. The watchers read the ring at their own
//! pace. A watch whose cursor is older than the ring reads a catch-up feed first.
//!
//! A change passes five types: `FeedItem` (the origin's), [`Event`] (shared by all
//! watchers), [`Delivery`] (from a watcher's queue), [`WatchMessage`], and the reply
//! message.

mod catch_up;
mod hub;
mod queue;
mod ring;
mod stream;
mod watcher;

use std::{collections::HashSet, convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::hub::Hub;
pub use self::{
    queue::{ConflatingQueue, Delivery},
    ring::{Ring, TooOld},
    stream::WatchStream,
};
use crate::{
    budget::{Budgets, Caller},
    error::Error,
    model::{Change, Event, ListName, OriginTime, TodoName, Token},
    origin::Origin,
    telemetry::{Kind, Metrics},
    tracker::OriginTracker,
    turns::Turns,
};

/// What a watcher asks for.
#[derive(Clone, Debug)]
pub struct WatchRequest {
    /// One list; `None`: all lists.
    pub list: Option<ListName>,
    /// Only these todos; empty: all of the list.
    pub names: HashSet<TodoName>,
    /// After this time (`fresh_to` of a token); `None`: from now on.
    pub after: Option<OriginTime>,
    /// What that token has seen. No token of this watch has seen less, or a client
    /// that keeps only the last token could read older than it has seen.
    pub seen: OriginTime,
    /// Send the todo with its change.
    pub include_todo: bool,
    /// The lists that the caller needs a right on, sorted: tell when it has to be
    /// checked again. Empty: it needs none.
    pub right_on: Arc<[ListName]>,
    /// Longest time between two messages.
    pub progress_interval: Duration,
    /// Ends the watch, as a shutdown does: its connection is about to close.
    pub closing: CancellationToken,
    /// The caller whose share of the catch-up feeds it uses; `None`: not charged to a caller.
    pub caller: Option<Arc<Caller>>,
}

/// One message to a watcher.
#[derive(Clone, Debug)]
pub struct WatchMessage {
    /// Where to resume: `fresh_to` is the cursor, `seen` the newest time that the
    /// messages so far have shown.
    pub token: Token,
    /// What happened.
    pub event: WatchEvent,
}

/// The content of a message.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// A todo changed.
    Change {
        /// Which, how and when. All watchers share it.
        change: Arc<Change>,
        /// The encoded todo as it is now, if asked for and if it exists.
        todo: Option<Bytes>,
    },
    /// Nothing was missed up to the token's cursor.
    Progress {
        /// No change acknowledged longer ago is missing. `None`: no bound can be
        /// stated, because the cursor is older than the heartbeat log.
        staleness_bound: Option<Duration>,
    },
    /// The document of a watched list changed: the right to go on has to be checked.
    /// Not sent.
    ListChanged(ListName),
    /// The client must read again everything that it cached.
    Reset {
        /// Why, for people.
        reason: Arc<str>,
    },
}

/// Watchers that take changes from the ring in one round of the runtime.
const TURNS_AT_ONCE: usize = 8;

/// The watches of this replica.
pub struct Watches {
    hub: Hub,
    turns: Turns,
    tracker: Arc<OriginTracker>,
    origin: Arc<dyn Origin>,
    metrics: Arc<Metrics>,
    budgets: Arc<Budgets>,
    heartbeat_interval: Duration,
    /// Ends the streams.
    shutdown: CancellationToken,
    /// Catch-up feeds.
    tasks: TaskTracker,
}

impl Watches {
    /// No watches yet.
    #[must_use]
    pub fn new(
        tracker: Arc<OriginTracker>,
        origin: Arc<dyn Origin>,
        metrics: Arc<Metrics>,
        budgets: Arc<Budgets>,
        heartbeat_interval: Duration,
        shutdown: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        Self {
            hub: Hub::new(Arc::clone(&metrics), Arc::clone(&budgets)),
            turns: Turns::new(TURNS_AT_ONCE),
            budgets,
            tracker,
            origin,
            metrics,
            heartbeat_interval,
            shutdown,
            tasks,
        }
    }

    /// Gives the watchers their turns. Never returns.
    pub(crate) async fn give_turns(&self) -> Infallible {
        self.turns.give().await
    }

    /// Starts after `start`. Called once, before the first watch.
    pub(crate) fn place(&self, start: OriginTime) {
        self.hub.place(start);
    }

    /// Hands a closed commit group to the watchers, before the frontier reaches it.
    pub(crate) fn release(&self, time: OriginTime, events: Vec<Event>) {
        self.hub.release(time, events);
    }

    fn overloaded(&self, what: &'static str, limit: u64) -> Error {
        self.metrics
            .overloaded
            .get_or_create(&Kind { kind: what })
            .inc();
        Error::overloaded(what, usize::try_from(limit).unwrap_or(usize::MAX))
    }
}
