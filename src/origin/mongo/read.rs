//! Loads: `find` at a snapshot, whose exact time is in the reply.

use std::{collections::HashMap, time::Duration};

use bson::{Document, RawDocumentBuf, doc};
use futures::StreamExt;
use mongodb::error::Error;
use tokio::time::Instant;

use super::{
    HEARTBEATS, Inner, TODOS,
    codes::{INVALID_OPTIONS, cause, code, is_retryable_read, is_stale_snapshot},
    collections, document, origin_time, timestamp,
};
use crate::{
    backoff::Backoff,
    model::{OriginTime, TodoName, Value},
    origin::OriginError,
};

/// The first and the longest pause before a read is done again whose snapshot the
/// server does not have: it may choose a later one. A server that keeps no history
/// (`minSnapshotHistoryWindowInSeconds: 0`) forgets a snapshot with the next write, and
/// under load refuses many reads in a row; the read's own limit ends the tries.
const FIRST_SNAPSHOT_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_SNAPSHOT_PAUSE: Duration = Duration::from_millis(50);

/// The pauses between such reads.
pub(super) fn snapshot_pauses() -> Backoff {
    Backoff::new(FIRST_SNAPSHOT_PAUSE, LONGEST_SNAPSHOT_PAUSE)
}

/// Which state is to be read.
#[derive(Clone, Copy)]
pub(super) enum At {
    /// Any, if not before this.
    After(OriginTime),
    /// Exactly this, of a collection that is there: where there is none now,
    /// that says nothing of what was.
    Exactly(OriginTime),
}

impl Inner {
    pub(super) async fn load_todos(
        &self,
        names: &[TodoName],
        after: OriginTime,
        limit: Duration,
    ) -> Result<(OriginTime, Vec<Value>), OriginError> {
        // One alone takes the server's shortest way.
        let filter = match names {
            [name] => doc! { "_id": name.as_str() },
            names => {
                doc! { "_id": { "$in": names.iter().map(TodoName::as_str).collect::<Vec<_>>() } }
            }
        };
        // One more than can come, so that the server sees the end at once.
        let find = doc! {
            "find": TODOS,
            "filter": filter,
            "batchSize": i32::try_from(names.len() + 1).unwrap_or(i32::MAX),
        };
        let (time, documents) = self.find(find, At::After(after), limit).await?;
        let documents = documents.unwrap_or_default();
        let mut found: HashMap<&str, &RawDocumentBuf> = HashMap::with_capacity(documents.len());
        for document in &documents {
            if let Ok(id) = document.get_str("_id") {
                found.insert(id, document);
            }
        }
        let value = |name: &TodoName| {
            found
                .get(name.as_str())
                .map_or(Value::Absent, |document| document::value(name, document))
        };
        Ok((time, names.iter().map(value).collect()))
    }

    /// All documents of a find, and the exact time of the state they are from;
    /// `None` if there was no collection at that time.
    pub(super) async fn find(
        &self,
        find: Document,
        at: At,
        limit: Duration,
    ) -> Result<(OriginTime, Option<Vec<RawDocumentBuf>>), OriginError> {
        let ends = Instant::now() + limit;
        let mut pauses = snapshot_pauses();
        let mut was_ahead = false;
        loop {
            let left = ends.saturating_duration_since(Instant::now());
            let error = match self.find_or_nothing(&find, at, left).await {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            let ahead = code(&error) == Some(INVALID_OPTIONS);
            if ahead && !was_ahead {
                was_ahead = true;
                continue;
            }
            // At another time than exactly this the page would be another one.
            let may_be_later = matches!(at, At::After(_)) && is_stale_snapshot(&error);
            if may_be_later && Instant::now() < ends {
                pauses.wait().await;
                continue;
            }
            return Err(match at {
                At::After(time) | At::Exactly(time) if ahead => OriginError::Ahead(time),
                _ => OriginError::unavailable(cause(error)),
            });
        }
    }

    /// Where there is no collection, a reply has no stamp. Then the time is
    /// taken from another collection, after that reply, and the find is done
    /// again at that time: no collection before and after it is none at it.
    async fn find_or_nothing(
        &self,
        find: &Document,
        at: At,
        limit: Duration,
    ) -> Result<(OriginTime, Option<Vec<RawDocumentBuf>>), Error> {
        let found = self.find_once(find.clone(), at, limit).await?;
        let at = match (found.at, at) {
            (Some(time), _) => return Ok((time, Some(found.documents))),
            (None, At::Exactly(_)) => return Err(no_stamp()),
            (None, At::After(after)) => At::After(after.max(found.operation_time)),
        };
        let any = doc! { "find": HEARTBEATS, "projection": { "_id": 1 }, "limit": 1 };
        let mut time = self.find_once(any.clone(), at, limit).await?.at;
        if time.is_none() {
            // The whole database was dropped.
            collections::create(&self.reads, HEARTBEATS).await?;
            time = self.find_once(any, at, limit).await?.at;
        }
        let time = time.ok_or_else(no_stamp)?;
        let again = self
            .find_once(find.clone(), At::Exactly(time), limit)
            .await?;
        Ok((time, again.at.map(|_| again.documents)))
    }

    /// Asks a new primary where the one that was asked froze, and once more where the
    /// connection broke or the server was no primary any more: an election, or a
    /// connection that a middlebox closed, does not fail a read.
    pub(super) async fn find_once(
        &self,
        find: Document,
        at: At,
        limit: Duration,
    ) -> Result<Found, Error> {
        let mut repeated = false;
        loop {
            match self
                .at_this_primary(self.find_at(find.clone(), at, limit))
                .await
            {
                Some(Err(error)) if !repeated && is_retryable_read(&error) => repeated = true,
                Some(found) => return found,
                None => {}
            }
        }
    }

    async fn find_at(&self, mut find: Document, at: At, limit: Duration) -> Result<Found, Error> {
        let (field, time) = match at {
            At::After(time) => ("afterClusterTime", time),
            At::Exactly(time) => ("atClusterTime", time),
        };
        find.insert(
            "readConcern",
            doc! { "level": "snapshot", field: timestamp(time) },
        );
        find.insert(
            "maxTimeMS",
            i64::try_from(limit.as_millis()).unwrap_or(i64::MAX).max(1),
        );
        let mut batches = self.reads.run_cursor_command(find).batch().await?;
        let mut found = Found {
            at: None,
            operation_time: OriginTime::ZERO,
            documents: Vec::new(),
        };
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            let reply = batch.as_raw_document();
            let stamp = reply
                .get_document("cursor")
                .and_then(|cursor| cursor.get_timestamp("atClusterTime"));
            found.at = found.at.or(stamp.ok().map(origin_time));
            if let Ok(time) = reply.get_timestamp("operationTime") {
                found.operation_time = found.operation_time.max(origin_time(time));
            }
            for document in batch.doc_slices()? {
                found
                    .documents
                    .extend(document?.as_document().map(ToOwned::to_owned));
            }
        }
        Ok(found)
    }
}

fn no_stamp() -> Error {
    std::io::Error::other("the server tells no time of its snapshot").into()
}

/// What one find gave.
pub(super) struct Found {
    /// The exact time of the state read; none, if there is no collection.
    pub at: Option<OriginTime>,
    pub operation_time: OriginTime,
    pub documents: Vec<RawDocumentBuf>,
}
