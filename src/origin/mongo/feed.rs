//! The feed: one change stream on the database, projected to names and times,
//! so that no document leaves the server.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use bson::{Bson, Document, RawDocument, doc};
use futures::StreamExt;
use mongodb::{error::Error, options::CursorType, raw_batch_cursor::RawBatchCursor};
use tokio::sync::watch;

use super::{HEARTBEATS, Inner, TODOS, origin_time, read::code, timestamp};
use crate::{
    error::FeedError,
    model::{Change, ChangeKind, TodoName, Touched},
    origin::{Feed, FeedEvent, FeedItem, FeedPosition, FeedStart},
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
    batches: RawBatchCursor,
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
            FeedStart::After(time) => (doc! { "startAtOperationTime": timestamp(time.next()) }, None),
            FeedStart::Resume(position) => {
                let position = position.0.downcast::<Position>();
                let position =
                    position.map_err(|_| FeedError::Broken("the position is of another origin".into()))?;
                let option = if position.start_after { "startAfter" } else { "resumeAfter" };
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
        let batches = opened.map_err(broken)?;
        Ok(Self { inner, batches, primary, position, ready: VecDeque::new() })
    }

    async fn read(&mut self) -> Result<(), FeedError> {
        let elected = async { self.primary.changed().await };
        let batch = tokio::select! {
            biased;
            batch = self.batches.next() => batch,
            Ok(()) = elected => return Err(FeedError::Broken("another node is the primary now".into())),
        };
        let batch = batch.ok_or_else(|| FeedError::Broken("the stream ended".into()))?.map_err(broken)?;
        let mut unpinned = false;
        for event in batch.doc_slices().map_err(broken)? {
            let event = event.ok().and_then(bson::RawBsonRef::as_document);
            let event = event.ok_or_else(|| FeedError::Broken("an event is no document".into()))?;
            let item = self
                .item(event)
                .ok_or_else(|| FeedError::Broken(format!("an event cannot be read: {event:?}")))?;
            unpinned |= matches!(item.event, FeedEvent::Reset { .. });
            self.ready.push_back(item);
            let token = event.get_document("_id").ok().and_then(|token| Document::try_from(token).ok());
            let start_after = event.get_str("operationType").is_ok_and(|kind| kind == "invalidate");
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

    fn item(&self, event: &RawDocument) -> Option<FeedItem> {
        let timestamp = event.get_timestamp("clusterTime").ok()?;
        let time = origin_time(timestamp);
        let alone = self.inner.alone_is_known && event.get("txnNumber").ok()?.is_none();
        let kind = event.get_str("operationType").ok()?;
        let coll = event.get_document("ns").ok().and_then(|ns| ns.get_str("coll").ok()).unwrap_or_default();
        if coll == HEARTBEATS {
            let number = match event.get("number").ok()? {
                Some(number) => number.as_i64().or_else(|| number.as_i32().map(i64::from)).unwrap_or(0),
                None => return Some(FeedItem { time, alone, event: FeedEvent::Nothing }),
            };
            let event = FeedEvent::Heartbeat { number: number.unsigned_abs() };
            return Some(FeedItem { time, alone, event });
        }
        let kind = match kind {
            "insert" => ChangeKind::Created,
            "update" => ChangeKind::Updated,
            "replace" => ChangeKind::Replaced,
            "delete" => ChangeKind::Deleted,
            other => {
                // DDL is never known to be alone: an invalidate shares its time.
                return Some(FeedItem {
                    time,
                    alone: false,
                    event: FeedEvent::Reset { reason: other.to_owned() },
                });
            }
        };
        let wall = event.get_datetime("wallTime").map(bson::DateTime::timestamp_millis);
        let wall_ms = wall.unwrap_or(i64::from(timestamp.time) * 1000);
        let name = event.get_document("documentKey").ok()?.get_str("_id").ok().and_then(TodoName::parse);
        // A document whose _id is no todo name does not exist for this service.
        let Some(name) = name else { return Some(FeedItem { time, alone, event: FeedEvent::Nothing }) };
        let touched = if kind == ChangeKind::Updated { touched(event)? } else { Touched::All };
        Some(FeedItem {
            time,
            alone,
            event: FeedEvent::Change(Change { name, kind, touched, time, wall_ms }),
        })
    }
}

/// The paths that an update touched; all, if it does not say.
fn touched(event: &RawDocument) -> Option<Touched> {
    if !event.get_bool("described").unwrap_or(false) {
        return Some(Touched::All);
    }
    let mut paths = Vec::new();
    for field in ["updated", "removed", "truncated"] {
        for path in event.get_array(field).ok()? {
            paths.push(path.ok()?.as_str()?.into());
        }
    }
    Some(Touched::Paths(paths))
}

fn pipeline(stream: Document, replica: &str) -> Vec<Document> {
    let or_empty = |field: &str, empty: Bson| doc! { "$ifNull": [field, { "$literal": empty }] };
    let map = |input: Bson, out: &str| doc! { "$map": { "input": input, "in": out } };
    let updated = doc! { "$objectToArray": or_empty("$updateDescription.updatedFields", doc! {}.into()) };
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
    let problem = error.to_string();
    if code(&error).is_some_and(|code| HISTORY_LOST.contains(&code)) {
        FeedError::HistoryLost(problem)
    } else {
        FeedError::Broken(problem)
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
