//! MongoDB as the origin: a replica set. Reads are snapshots on the primary
//! with their exact time, writes go to the majority, the feed is one change
//! stream on the database.

mod check;
mod codes;
mod collections;
mod connect;
pub(crate) mod document;
mod feed;
mod import;
mod list_document;
mod lists;
mod orphans;
mod page;
mod read;
mod topology;
mod write;
mod write_list;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bson::{Bson, Document, doc};
use mongodb::{Client, Database};
use tokio::time::Instant;

pub use self::check::{Finding, Status, check};
use self::{orphans::Orphans, read::At, topology::Topology};
use super::{
    Cause, ConnectError, Feed, FeedError, FeedStart, Imported, Origin, OriginError, WriteError,
};
use crate::{
    model::{
        ListName, ListsPage, ListsQuery, OriginId, OriginTime, Page, PageQuery, RequestId,
        TodoName, Value, Write, WriteDone,
    },
    pb,
};

/// The todos, readable and editable by hand.
const TODOS: &str = "todos";
/// The lists with their members, readable and editable by hand.
const LISTS: &str = "lists";
/// A document for each replica that lives, for its heartbeats.
const HEARTBEATS: &str = "tidemark_heartbeats";
/// Request ids with what they were used for.
const REQUESTS: &str = "tidemark_requests";

/// The database is being dropped: nothing is written to it meanwhile.
const DATABASE_DROP_PENDING: i32 = 215;
/// Pause before a heartbeat that met a drop is sent again: a drop takes some
/// ten milliseconds, and readers wait for the heartbeat.
const DROP_PAUSE: Duration = Duration::from_millis(10);

/// MongoDB.
pub struct MongoDb {
    inner: Arc<Inner>,
}

struct Inner {
    id: OriginId,
    cache_epoch: u64,
    /// Name of this process in the heartbeats.
    replica: String,
    /// Gives up soon when no primary is known: for reads, heartbeats and the
    /// look at the collections.
    reads: Database,
    /// Waits through an election for the second try of a write.
    writes: Database,
    writes_client: Client,
    /// For feeds: each holds a connection.
    feeds: Database,
    topology: Topology,
    orphans: Orphans,
    scope: AtomicU64,
    /// `todos` or `lists` was missing when they were last looked at.
    unprepared: AtomicBool,
    /// Why the collections cannot be used any more, once that is known: the
    /// feed then ends for good.
    unusable: OnceLock<Cause>,
    /// An index build of this replica is under way.
    building: AtomicBool,
}

/// A time as MongoDB writes it.
const fn timestamp(time: OriginTime) -> bson::Timestamp {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the two halves of the number"
    )]
    bson::Timestamp {
        time: (time.0 >> 32) as u32,
        increment: time.0 as u32,
    }
}

const fn origin_time(timestamp: bson::Timestamp) -> OriginTime {
    OriginTime((timestamp.time as u64) << 32 | timestamp.increment as u64)
}

impl Inner {
    /// The result of `work`; `None` if a primary was elected, or found again
    /// after an outage, before it was done. One that froze does not answer, and
    /// those that wait for it must ask the new one.
    async fn at_this_primary<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut election = self.topology.next_election();
        tokio::select! {
            biased;
            done = work => Some(done),
            Ok(()) = election.changed() => None,
        }
    }
}

/// Whether a write was refused because its database is being dropped.
fn refused_for_a_drop(reply: &Document) -> bool {
    let errors = reply.get_array("writeErrors").ok();
    let first = errors
        .and_then(|errors| errors.first())
        .and_then(Bson::as_document);
    first.and_then(|error| error.get_i32("code").ok()) == Some(DATABASE_DROP_PENDING)
}

#[async_trait]
impl Origin for MongoDb {
    fn id(&self) -> OriginId {
        self.inner.id
    }

    fn entry_scope(&self) -> u64 {
        self.inner.scope.load(Ordering::Relaxed)
    }

    async fn load_todos(
        &self,
        names: &[TodoName],
        after: OriginTime,
        limit: Duration,
    ) -> Result<(OriginTime, Vec<Value>), OriginError> {
        self.inner.load_todos(names, after, limit).await
    }

    async fn load_page(
        &self,
        query: &PageQuery,
        after: OriginTime,
        limit: Duration,
    ) -> Result<(OriginTime, Page), OriginError> {
        self.inner.load_page(query, At::After(after), limit).await
    }

    async fn load_list(
        &self,
        name: &ListName,
        after: OriginTime,
        limit: Duration,
    ) -> Result<(OriginTime, Value), OriginError> {
        self.inner.load_list(name, after, limit).await
    }

    async fn load_lists(
        &self,
        query: &ListsQuery,
        after: OriginTime,
        limit: Duration,
    ) -> Result<(OriginTime, ListsPage), OriginError> {
        self.inner.load_lists(query, after, limit).await
    }

    async fn heartbeat(&self, number: u64, limit: Duration) -> Result<OriginTime, OriginError> {
        let inner = &self.inner;
        if inner.unprepared.load(Ordering::Relaxed) {
            // A collection was dropped: whoever makes it again, its indexes
            // and its identity are wanted.
            let inner = Arc::clone(inner);
            tokio::spawn(async move {
                if let Err(ConnectError::Permanent(cause)) = inner.prepare(false).await {
                    let _ = inner.unusable.set(cause);
                }
            });
        }
        let set =
            doc! { "n": i64::try_from(number).unwrap_or(i64::MAX), "at": bson::DateTime::now() };
        let update = doc! {
            "update": HEARTBEATS,
            "updates": [{ "q": { "_id": &inner.replica }, "u": { "$set": set }, "upsert": true }],
            "writeConcern": { "w": "majority", "wtimeout": i64::try_from(limit.as_millis()).unwrap_or(1000) },
        };
        let reply = loop {
            let answer =
                inner.at_this_primary(async { inner.reads.run_command(update.clone()).await });
            // The same heartbeat may be sent twice: it was begun before either.
            let Some(answer) = answer.await else { continue };
            let reply = answer.map_err(|error| OriginError::unavailable(codes::cause(error)))?;
            if !refused_for_a_drop(&reply) {
                break reply;
            }
            // Nothing was written: the same heartbeat may be sent again.
            tokio::time::sleep(DROP_PAUSE).await;
        };
        for problem in ["writeConcernError", "writeErrors"] {
            if let Some(error) = reply.get(problem) {
                tracing::debug!(%error, "MongoDB's majority did not acknowledge a heartbeat");
                return Err(OriginError::unavailable(
                    "a heartbeat was not acknowledged by the majority",
                ));
            }
        }
        let time = reply.get_timestamp("operationTime");
        time.map(origin_time)
            .map_err(|_| OriginError::unavailable("the server's reply has no operationTime"))
    }

    async fn write(
        &self,
        write: Write,
        request: Option<RequestId>,
        send_by: Option<Instant>,
    ) -> Result<WriteDone, WriteError> {
        self.inner.write(write, request, send_by).await
    }

    async fn import(&self, todos: Vec<pb::Todo>) -> Result<Imported, OriginError> {
        self.inner.import(todos).await
    }

    fn replay_start(&self, h0: OriginTime, window: Duration) -> OriginTime {
        OriginTime((h0.0 >> 32).saturating_sub(window.as_secs()) << 32)
    }

    async fn open_feed(&self, from: FeedStart) -> Result<Box<dyn Feed>, FeedError> {
        feed::MongoFeed::open(Arc::clone(&self.inner), from, feed::BATCH)
            .await
            .map(|feed| Box::new(feed) as Box<dyn Feed>)
    }

    async fn open_catch_up_feed(&self, from: FeedStart) -> Result<Box<dyn Feed>, FeedError> {
        feed::MongoFeed::open(Arc::clone(&self.inner), from, feed::CATCH_UP_BATCH)
            .await
            .map(|feed| Box::new(feed) as Box<dyn Feed>)
    }
}
