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
    HEARTBEATS, Inner, TODOS,
    codes::{cause, code},
    origin_time, timestamp,
};
use crate::{
    model::{Change, ChangeKind, TodoName, Touched},
    origin::{Feed, FeedError, FeedEvent, FeedItem, FeedPosition, FeedStart},
};

/// How long the server waits for something to happen before it answers with
/// nothing.
const AWAIT: Duration = Duration::from_millis(1000);
/// Events of one batch at most.
const BATCH: u32 = 5000;
/// The oplog no longer reaches back so far; or the stream cannot go on.
const HISTORY_LOST: [i32; 2] = [286, 280];

/// Where a stream goes on.
struct Position {
    token: Document,
    /// After an invalidate a stream cannot be resumed, only started after it.
    start_after: bool,
}

pub(super) struct MongoFeed {
    inner: Arc<Inner>,
    batches: mpsc::Receiver<Result<RawBatch, Error>>,
    /// The primary that it was opened at; another one is elected where that
    /// one froze, too, and then nothing comes from it any more.
    primary: watch::Receiver<Option<String>>,
    position: Option<Arc<Position>>,
    /// What was read of a batch before something in it needed the server.
    ready: VecDeque<FeedItem>,
}

impl MongoFeed {
    pub(super) async fn open(inner: Arc<Inner>, from: FeedStart) -> Result<Self, FeedError> {
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
            "cursor": { "batchSize": BATCH },
        };
        let mut primary = inner.primary.clone();
        primary.mark_unchanged();
        let opened = inner
            .writes
            .run_cursor_command(command)
            .cursor_type(CursorType::TailableAwait)
            .batch_size(BATCH)
            .max_time(AWAIT)
            .batch()
            .await;
        let batches = ahead(opened.map_err(broken)?);
        Ok(Self {
            inner,
            batches,
            primary,
            position,
            ready: VecDeque::new(),
        })
    }

    async fn read(&mut self) -> Result<(), FeedError> {
        let elected = async { self.primary.changed().await };
        let batch = tokio::select! {
            biased;
            batch = self.batches.recv() => batch,
            Ok(()) = elected => return Err(FeedError::broken("another node is the primary now")),
        };
        let batch = batch
            .ok_or_else(|| FeedError::broken("the stream ended"))?
            .map_err(broken)?;
        let mut unpinned = false;
        let mut last = None;
        for event in batch.doc_slices().map_err(broken)? {
            let event = event.ok().and_then(bson::RawBsonRef::as_document);
            let event = event.ok_or_else(|| FeedError::broken("an event is not a document"))?;
            let read = Event::read(event);
            let item = read.as_ref().and_then(|read| self.item(read));
            let item = item
                .ok_or_else(|| FeedError::broken(format!("an event cannot be read: {event:?}")))?;
            unpinned |= matches!(item.event, FeedEvent::Reset { .. });
            self.ready.push_back(item);
            last = read;
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
            if let Err(error) = self.inner.prepare(false).await {
                tracing::warn!(%error, "the collection cannot be looked at after DDL");
            }
        }
        Ok(())
    }

    fn item(&self, event: &Event<'_>) -> Option<FeedItem> {
        let time = origin_time(event.cluster_time?);
        let alone = self.inner.alone_is_known && !event.in_transaction;
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
            "" => return None,
            other => {
                // DDL is never known to be alone: an invalidate shares its time.
                return Some(FeedItem {
                    time,
                    alone: false,
                    event: FeedEvent::Reset {
                        reason: other.to_owned(),
                    },
                });
            }
        };
        let wall_ms = event
            .wall_ms
            .unwrap_or(i64::from(event.cluster_time?.time) * 1000);
        // A document whose _id is no todo name does not exist for this service.
        let Some(name) = event.key?.get_str("_id").ok().and_then(TodoName::parse) else {
            return Some(FeedItem {
                time,
                alone,
                event: FeedEvent::Nothing,
            });
        };
        let touched = if kind == ChangeKind::Updated {
            event.touched()?
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

/// The batches of a stream, the next one on its way while one is worked on: a
/// replay then takes what the server takes for it. At most three are here at
/// once, of 16 MiB each at the utmost: the reply's own bound.
fn ahead(mut stream: RawBatchCursor) -> mpsc::Receiver<Result<RawBatch, Error>> {
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

/// The fields of an event, read in one pass.
#[derive(Default)]
struct Event<'a> {
    token: Option<&'a RawDocument>,
    operation: &'a str,
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
    fn read(event: &'a RawDocument) -> Option<Self> {
        let mut read = Self::default();
        for field in event {
            let (name, value) = field.ok()?;
            match name.as_str() {
                "_id" => read.token = value.as_document(),
                "operationType" => read.operation = value.as_str()?,
                "clusterTime" => read.cluster_time = value.as_timestamp(),
                "wallTime" => {
                    read.wall_ms = value.as_datetime().map(bson::DateTime::timestamp_millis);
                }
                "ns" => read.coll = value.as_document()?.get_str("coll").unwrap_or_default(),
                "txnNumber" => read.in_transaction = true,
                "documentKey" => read.key = value.as_document(),
                "described" => read.described = value.as_bool()?,
                "updated" => read.paths[0] = value.as_array(),
                "removed" => read.paths[1] = value.as_array(),
                "truncated" => read.paths[2] = value.as_array(),
                "number" => {
                    let number = value.as_i64().or_else(|| value.as_i32().map(i64::from));
                    read.number = Some(number.unwrap_or(0));
                }
                _ => {}
            }
        }
        Some(read)
    }

    /// The paths that an update touched; all, if it does not say.
    fn touched(&self) -> Option<Touched> {
        if !self.described {
            return Some(Touched::All);
        }
        let mut paths = Vec::new();
        for some in self.paths {
            for path in some? {
                paths.push(path.ok()?.as_str()?.into());
            }
        }
        Some(Touched::Paths(paths))
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
            { "ns.coll": TODOS },
            { "to.coll": TODOS },
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

fn broken(error: Error) -> FeedError {
    if code(&error).is_some_and(|code| HISTORY_LOST.contains(&code)) {
        FeedError::HistoryLost(cause(error))
    } else {
        FeedError::Broken(cause(error))
    }
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
