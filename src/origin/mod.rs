//! The database of record. Two of them: MongoDB and the embedded store.

pub mod embedded;
mod error;
pub mod mongo;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::Instant;

pub use self::error::{Cause, ConnectError, FeedError, Imported, OriginError, Rule, WriteError};

use crate::{
    model::{
        Change, ListName, ListsPage, ListsQuery, OriginId, OriginTime, Page, PageQuery, RequestId,
        TodoName, Value, Write, WriteDone,
    },
    pb,
};

/// Time for opening a feed.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// A feed hangs if it does not return a heartbeat within this time after its
/// acknowledgement.
pub const HUNG_AFTER: Duration = Duration::from_secs(2);
/// Tries at one position that a feed does not get past while the origin is reachable.
/// Then it continues after that position.
pub const MAX_TRIES_AT_A_POSITION: u32 = 4;

/// An origin: what the service asks of its database of record. One conformance
/// suite (`tests/conformance/origin.rs`) runs on every implementation.
#[async_trait]
pub trait Origin: Send + Sync + 'static {
    /// Who it is: the same for every replica and after every restart.
    fn id(&self) -> OriginId;

    /// What shared entries are bound to: the origin, its collection as it is
    /// now (another after it was dropped and made again) and the operator's
    /// cache epoch. May change after a `FeedEvent::Reset`.
    fn entry_scope(&self) -> u64;

    /// The exact state of these keys at one time `>= after`, in their order:
    /// `(that time, values)`. A todo comes encoded with its etag. At most 1000
    /// names. Returns within `limit`.
    ///
    /// # Errors
    /// `Ahead` if the origin has not reached `after`; `Unavailable` for
    /// everything else.
    async fn load_todos(
        &self,
        names: &[TodoName],
        after: OriginTime,
        limit: Duration,
    ) -> Result<(OriginTime, Vec<Value>), OriginError>;

    /// The exact page at one time `>= after`. Names only of todos (readable or
    /// not) whose `parent` and name are of the list. Reads no more than the
    /// list's own part of an index.
    ///
    /// # Errors
    /// As `load_todos`.
    async fn load_page(
        &self,
        query: &PageQuery,
        after: OriginTime,
        limit: Duration,
    ) -> Result<(OriginTime, Page), OriginError>;

    /// Most pages and documents of lists that it should load at once. An origin in this
    /// process takes the CPU of the calls for them.
    fn page_loads(&self) -> usize {
        usize::MAX
    }

    /// The exact state of a list's document at one time `>= after`: a list, absent,
    /// or unreadable.
    ///
    /// # Errors
    /// As `load_todos`.
    async fn load_list(
        &self,
        name: &ListName,
        after: OriginTime,
        limit: Duration,
    ) -> Result<(OriginTime, Value), OriginError>;

    /// The exact page of the names of lists at one time `>= after`. With members:
    /// of lists whose document has one of them, which may be unreadable. Without: of
    /// all lists that have a document or contain a todo. Names that are no list's
    /// name do not exist.
    ///
    /// # Errors
    /// As `load_todos`.
    async fn load_lists(
        &self,
        query: &ListsQuery,
        after: OriginTime,
        limit: Duration,
    ) -> Result<(OriginTime, ListsPage), OriginError>;

    /// A small majority write to this replica's own document. Returns the time
    /// of the write: above every write that anyone had acknowledged before the
    /// call. It comes back in the feed under the same number. No retries;
    /// returns within `limit`.
    ///
    /// # Errors
    /// `Unavailable`: not acknowledged by the majority; it may come back in the
    /// feed all the same.
    async fn heartbeat(&self, number: u64, limit: Duration) -> Result<OriginTime, OriginError>;

    /// One write, once it is durable (majority). One that was not sent to the
    /// database by `send_by` is given up: `Unavailable`.
    ///
    /// # Errors
    /// Each says whether anything was written.
    async fn write(
        &self,
        write: Write,
        request: Option<RequestId>,
        send_by: Option<Instant>,
    ) -> Result<WriteDone, WriteError>;

    /// Inserts many todos, for `tidemark import`; those whose name is taken
    /// stay as they are. At most 1000 todos; names and fields valid, times set
    /// by the caller. A todo that the database refuses does not keep the
    /// others out.
    ///
    /// # Errors
    /// `Unavailable`: some may have been written; the same call again is
    /// idempotent.
    async fn import(&self, todos: Vec<pb::Todo>) -> Result<Imported, OriginError>;

    /// Where the feed of a new replica starts: the replay window before `h0`,
    /// by the origin's own clock, never before what it still remembers as far
    /// as it knows.
    fn replay_start(&self, h0: OriginTime, window: Duration) -> OriginTime;

    /// Opens the feed. Several may be open at once; each is independent.
    ///
    /// # Errors
    /// See [`FeedError`].
    async fn open_feed(&self, from: FeedStart) -> Result<Box<dyn Feed>, FeedError>;

    /// The same for a watch that catches up: one of many, so it holds less than
    /// [`CATCH_UP_BYTES`](crate::budget::CATCH_UP_BYTES) at a time.
    ///
    /// # Errors
    /// See [`FeedError`].
    async fn open_catch_up_feed(&self, from: FeedStart) -> Result<Box<dyn Feed>, FeedError> {
        self.open_feed(from).await
    }
}

/// Where a feed begins.
#[derive(Clone, Debug)]
pub enum FeedStart {
    /// With the first change whose time is above this.
    After(OriginTime),
    /// Right after the last event that another feed gave: without a gap and
    /// without a double, also inside a transaction.
    Resume(FeedPosition),
}

impl FeedStart {
    /// Whether both are known to be the same position.
    #[must_use]
    pub fn is_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::After(one), Self::After(other)) => one == other,
            (Self::Resume(one), Self::Resume(other)) => Arc::ptr_eq(&one.0, &other.0),
            _ => false,
        }
    }
}

/// Where a feed stands: the origin's own resume token. Opaque.
#[derive(Clone, Debug)]
pub struct FeedPosition(pub Arc<dyn std::any::Any + Send + Sync>);

/// One open feed: the origin's changes in time order, without gaps.
#[async_trait]
pub trait Feed: Send {
    /// The next events, at least one, in time order; waits for them. When it
    /// fails the feed is finished. Cancel safe: a dropped call loses nothing.
    /// Never blocks for more than the origin's own poll time without noticing
    /// that the connection is dead; the follower's watchdog catches the rest.
    ///
    /// # Errors
    /// See `FeedError`.
    async fn next(&mut self) -> Result<Vec<FeedItem>, FeedError>;

    /// Right after the last event that `next` returned.
    fn position(&self) -> Option<FeedPosition>;
}

/// One event of the feed.
#[derive(Clone, Debug)]
pub struct FeedItem {
    /// Its commit time.
    pub time: OriginTime,
    /// Whether it is known to be the only event at its time: then it closes
    /// its time at once.
    pub alone: bool,
    /// What happened.
    pub event: FeedEvent,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum FeedEvent {
    /// A todo changed. Its `time` is the item's.
    Change(Change),
    /// The document of a list was inserted, changed or deleted.
    List(ListName),
    /// A heartbeat of this replica came back.
    Heartbeat {
        /// Its number.
        number: u64,
    },
    /// Something that cannot be pinned to a stripe: raises the floor.
    Reset {
        /// What it was, for people: `drop`, `rename`, ...
        reason: String,
    },
    /// Nothing that concerns the caches; only its time counts.
    Nothing,
}
