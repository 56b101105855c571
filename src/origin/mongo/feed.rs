//! The feed: one change stream on the database, projected to names and times,
//! so that no document leaves the server.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use bson::{Bson, Document, RawArray, RawDocument, doc};
use futures::StreamExt;
use mongodb::{
    error::Error,
    options::CursorType,
    raw_batch_cursor::{RawBatch, RawBatchCursor},
};
use tokio::sync::{mpsc, watch};

use super::{
    HEARTBEATS, Inner, LISTS, TODOS, codes::feed_error, connect::wire_version, origin_time,
    timestamp,
};
use crate::{
    model::{Change, ChangeKind, ListName, TodoName, Touched},
    origin::{ConnectError, Feed, FeedError, FeedEvent, FeedItem, FeedPosition, FeedStart},
};

/// How long the server waits for something to happen before it answers with
/// nothing.
const AWAIT: Duration = Duration::from_millis(1000);
/// Events of one batch at most.
pub(super) const BATCH: u32 = 5000;
/// The same for a catch-up feed. An event has some 600 bytes, and three batches are in
/// memory: less than 1 MiB.
pub(super) const CATCH_UP_BATCH: u32 = 500;
/// From MongoDB 8.0 on, an event without a transaction may share its time.
const SHARED_TIMES_WIRE_VERSION: i32 = 25;

/// Where a stream resumes.
struct Position {
    token: Document,
    /// After an invalidate a stream cannot be resumed, only started after it.
    start_after: bool,
}

pub(super) struct MongoFeed {
    inner: Arc<Inner>,
    batches: mpsc::Receiver<Result<RawBatch, Error>>,
    /// The server says that an event without a transaction is the only one at
    /// its time. Asked at each opening: a rolling upgrade changes it.
    sole_events: bool,
    /// Reports the next election: a primary that froze sends nothing any more.
    election: watch::Receiver<u64>,
    position: Option<Arc<Position>>,
    /// What was read of a batch before something in it needed the server.
    ready: VecDeque<FeedItem>,
}

impl MongoFeed {
    /// `batch`: events of one batch at most.
    pub(super) async fn open(
        inner: Arc<Inner>,
        from: FeedStart,
        batch: u32,
    ) -> Result<Self, FeedError> {
        let (stream, position) = match from {
            FeedStart::After(time) => (
                doc! { "startAtOperationTime": timestamp(time.next()) },
                None,
            ),
            FeedStart::Resume(position) => {
                let position = position.0.downcast::<Position>();
                let position =
                    position.map_err(|_| FeedError::broken("the position is of another origin"))?;
                let option = if position.start_after {
                    "startAfter"
                } else {
                    "resumeAfter"
                };
                (doc! { option: position.token.clone() }, Some(position))
            }
        };
        let command = doc! {
            "aggregate": 1,
            "pipeline": pipeline(stream, &inner.replica),
            // Empty, so that opening takes no time: what another database of
            // the replica set writes is skipped event by event, millions of
            // them, and the follower has to be able to give up meanwhile.
            "cursor": { "batchSize": 0 },
        };
        let election = inner.topology.next_election();
        let opened = inner
            .feeds
            .run_cursor_command(command)
            .cursor_type(CursorType::TailableAwait)
            .batch_size(batch)
            .max_time(AWAIT)
            .batch()
            .await;
        let batches = prefetch(opened.map_err(feed_error)?);
        // After the stream was opened, and before an election ends it: so this
        // is the version of the server that the stream comes from.
        let hello = inner.feeds.run_command(doc! { "hello": 1 }).await;
        let version = wire_version(&hello.map_err(feed_error)?);
        Ok(Self {
            inner,
            batches,
            sole_events: version < SHARED_TIMES_WIRE_VERSION,
            election,
            position,
            ready: VecDeque::new(),
        })
    }

    async fn read(&mut self) -> Result<(), FeedError> {
        if let Some(cause) = self.inner.unusable.get() {
            return Err(FeedError::Fatal(cause.clone()));
        }
        let elected = async { self.election.changed().await };
        let batch = tokio::select! {
            biased;
            batch = self.batches.recv() => batch,
            Ok(()) = elected => return Err(FeedError::broken("a primary was elected")),
        };
        let batch = batch
            .ok_or_else(|| FeedError::broken("the stream ended"))?
            .map_err(feed_error)?;
        let mut unpinned = false;
        let mut last = None;
        for event in batch.doc_slices().map_err(feed_error)? {
            let event = event.ok().and_then(bson::RawBsonRef::as_document);
            let event = event.map(Event::read).unwrap_or_default();
            let item = self.item(&event).ok_or_else(|| {
                FeedError::Unreadable("an event of the stream has no time".into())
            })?;
            unpinned |= matches!(item.event, FeedEvent::Reset { .. });
            self.ready.push_back(item);
            last = Some(event);
        }
        if let Some(last) = last {
            let start_after = last.operation == "invalidate";
            let token = last.token.and_then(|token| Document::try_from(token).ok());
            self.position = token.map(|token| Arc::new(Position { token, start_after }));
        }
        if unpinned {
            // After DDL the collection may be another one. If that can't be
            // found out now, the next heartbeat tries again.
            self.inner.unprepared.store(true, Ordering::Relaxed);
            match self.inner.prepare(false).await {
                Ok(()) => {}
                Err(ConnectError::Permanent(cause)) => return Err(FeedError::Fatal(cause)),
                Err(error) => {
                    tracing::warn!(%error, "the collections cannot be looked at after a change of the schema");
                }
            }
        }
        Ok(())
    }

    /// The item of an event; `None` if the event has no time.
    fn item(&self, event: &Event<'_>) -> Option<FeedItem> {
        let time = origin_time(event.cluster_time?);
        let alone = self.sole_events && !event.in_transaction;
        // Never known to be alone: an invalidate shares its time.
        let reset = |reason: &str| FeedItem {
            time,
            alone: false,
            event: FeedEvent::Reset {
                reason: reason.to_owned(),
            },
        };
        if event.is_damaged {
            return Some(reset("an event that cannot be decoded"));
        }
        if event.coll == HEARTBEATS {
            let event = event
                .number
                .map_or(FeedEvent::Nothing, |number| FeedEvent::Heartbeat {
                    number: number.unsigned_abs(),
                });
            return Some(FeedItem { time, alone, event });
        }
        let kind = match event.operation {
            "insert" => ChangeKind::Created,
            "update" => ChangeKind::Updated,
            "replace" => ChangeKind::Replaced,
            "delete" => ChangeKind::Deleted,
            "" => return Some(reset("an event without an operation")),
            other => return Some(reset(other)),
        };
        let wall_ms = event
            .wall_ms
            .unwrap_or(i64::from(event.cluster_time?.time) * 1000);
        let Some(key) = event.key else {
            return Some(reset("an event without a key"));
        };
        if event.coll == LISTS {
            // As below: a name of another form does not exist.
            let name = key.get_str("_id").ok().and_then(ListName::parse);
            let event = name.map_or(FeedEvent::Nothing, FeedEvent::List);
            return Some(FeedItem { time, alone, event });
        }
        // A document whose _id is not a todo name does not exist for this
        // service.
        let Some(name) = key.get_str("_id").ok().and_then(TodoName::parse) else {
            return Some(FeedItem {
                time,
                alone,
                event: FeedEvent::Nothing,
            });
        };
        let touched = if kind == ChangeKind::Updated {
            event.touched()
        } else {
            Touched::All
        };
        Some(FeedItem {
            time,
            alone,
            event: FeedEvent::Change(Change {
                name,
                kind,
                touched,
                time,
                wall_ms,
            }),
        })
    }
}

/// The batches of a stream; the next one is fetched while one is worked on, so
/// that a replay takes only the server's time. At most three are in memory, of
/// 16 MiB each at most: the reply's own bound.
fn prefetch(mut stream: RawBatchCursor) -> mpsc::Receiver<Result<RawBatch, Error>> {
    let (sender, batches) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let batch = tokio::select! {
                batch = stream.next() => batch,
                () = sender.closed() => return,
            };
            let Some(batch) = batch else { return };
            if sender.send(batch).await.is_err() {
                return;
            }
        }
    });
    batches
}

/// The fields of an event, read in one pass. A field of the wrong type or with
/// text that is not UTF-8 makes it damaged; its time is still read.
#[derive(Default)]
struct Event<'a> {
    token: Option<&'a RawDocument>,
    operation: &'a str,
    is_damaged: bool,
    cluster_time: Option<bson::Timestamp>,
    wall_ms: Option<i64>,
    coll: &'a str,
    in_transaction: bool,
    key: Option<&'a RawDocument>,
    described: bool,
    paths: [Option<&'a RawArray>; 3],
    number: Option<i64>,
}

impl<'a> Event<'a> {
    fn read(event: &'a RawDocument) -> Self {
        let mut read = Self::default();
        for field in event {
            let Ok((name, value)) = field else {
                read.is_damaged = true;
                continue;
            };
            if read.field(name.as_str(), value).is_none() {
                read.is_damaged = true;
            }
        }
        read
    }

    fn field(&mut self, name: &str, value: bson::RawBsonRef<'a>) -> Option<()> {
        match name {
            "_id" => self.token = value.as_document(),
            "operationType" => self.operation = value.as_str()?,
            "clusterTime" => self.cluster_time = value.as_timestamp(),
            "wallTime" => {
                self.wall_ms = value.as_datetime().map(bson::DateTime::timestamp_millis);
            }
            "ns" => self.coll = value.as_document()?.get_str("coll").unwrap_or_default(),
            "txnNumber" => self.in_transaction = true,
            "documentKey" => self.key = value.as_document(),
            "described" => self.described = value.as_bool()?,
            "updated" => self.paths[0] = value.as_array(),
            "removed" => self.paths[1] = value.as_array(),
            "truncated" => self.paths[2] = value.as_array(),
            "number" => {
                let number = value.as_i64().or_else(|| value.as_i32().map(i64::from));
                self.number = Some(number.unwrap_or(0));
            }
            _ => {}
        }
        Some(())
    }

    /// The paths that an update touched; all, if it does not say or they cannot
    /// be read.
    fn touched(&self) -> Touched {
        self.described
            .then(|| self.paths())
            .flatten()
            .map_or(Touched::All, Touched::Paths)
    }

    fn paths(&self) -> Option<Vec<Box<str>>> {
        let mut paths = Vec::new();
        for some in self.paths {
            for path in some? {
                paths.push(path.ok()?.as_str()?.into());
            }
        }
        Some(paths)
    }
}

fn pipeline(stream: Document, replica: &str) -> Vec<Document> {
    let or_empty = |field: &str, empty: Bson| doc! { "$ifNull": [field, { "$literal": empty }] };
    let map = |input: Bson, out: &str| doc! { "$map": { "input": input, "in": out } };
    let updated =
        doc! { "$objectToArray": or_empty("$updateDescription.updatedFields", doc! {}.into()) };
    let none: Bson = Vec::<Bson>::new().into();
    let number = doc! { "$ifNull": ["$updateDescription.updatedFields.n", "$fullDocument.n"] };
    vec![
        doc! { "$changeStream": stream },
        doc! { "$match": { "$or": [
            { "ns.coll": { "$in": [TODOS, LISTS] } },
            { "to.coll": { "$in": [TODOS, LISTS] } },
            { "ns.coll": HEARTBEATS, "documentKey._id": replica },
            { "operationType": { "$in": ["dropDatabase", "invalidate"] } },
        ] } },
        doc! { "$project": {
            "operationType": 1,
            "clusterTime": 1,
            "wallTime": 1,
            "ns": 1,
            "txnNumber": 1,
            "documentKey._id": 1,
            "described": { "$eq": [{ "$type": "$updateDescription" }, "object"] },
            "updated": map(updated.into(), "$$this.k"),
            "removed": or_empty("$updateDescription.removedFields", none.clone()),
            "truncated": map(or_empty("$updateDescription.truncatedArrays", none).into(), "$$this.field"),
            "number": { "$cond": [{ "$eq": ["$ns.coll", HEARTBEATS] }, number, "$$REMOVE"] },
        } },
    ]
}

#[async_trait]
impl Feed for MongoFeed {
    async fn next(&mut self) -> Result<Vec<FeedItem>, FeedError> {
        while self.ready.is_empty() {
            self.read().await?;
        }
        Ok(self.ready.drain(..).collect())
    }

    fn position(&self) -> Option<FeedPosition> {
        let position = Arc::clone(self.position.as_ref()?);
        Some(FeedPosition(position))
    }
}
