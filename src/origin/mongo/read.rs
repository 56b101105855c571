//! Loads: `find` at a snapshot, whose exact time the reply tells.

use std::{collections::HashMap, time::Duration};

use bson::{Document, RawDocumentBuf, doc};
use futures::StreamExt;
use mongodb::error::{Error, ErrorKind};

use super::{Inner, TODOS, document, origin_time, timestamp};
use crate::{
    error::OriginError,
    model::{OriginTime, TodoName, Value},
};

/// The time is ahead of the server.
const INVALID_OPTIONS: i32 = 72;
/// No snapshot right after DDL.
const SNAPSHOT_UNAVAILABLE: i32 = 246;

/// Which state is to be read.
#[derive(Clone, Copy)]
pub(super) enum At {
    /// Any, if not before this.
    After(OriginTime),
    /// Exactly this.
    Exactly(OriginTime),
}

impl Inner {
    pub(super) async fn load_todos(
        &self,
        names: &[TodoName],
        after: OriginTime,
        limit: Duration,
    ) -> Result<(OriginTime, Vec<Value>), OriginError> {
        let ids: Vec<&str> = names.iter().map(TodoName::as_str).collect();
        // One more than can come, so that the server sees the end at once.
        let find = doc! {
            "find": TODOS,
            "filter": { "_id": { "$in": ids } },
            "batchSize": i32::try_from(names.len() + 1).unwrap_or(i32::MAX),
        };
        let (time, documents) = self.find(find, At::After(after), limit).await?;
        let mut found: HashMap<&str, &RawDocumentBuf> = HashMap::with_capacity(documents.len());
        for document in &documents {
            if let Ok(id) = document.get_str("_id") {
                found.insert(id, document);
            }
        }
        let value = |name: &TodoName| {
            found.get(name.as_str()).map_or(Value::Absent, |document| document::value(name, document))
        };
        Ok((time, names.iter().map(value).collect()))
    }

    /// All documents of a find, and the exact time of the state they are from.
    pub(super) async fn find(
        &self,
        find: Document,
        at: At,
        limit: Duration,
    ) -> Result<(OriginTime, Vec<RawDocumentBuf>), OriginError> {
        let mut tried = false;
        loop {
            match self.find_once(find.clone(), at, limit).await {
                Ok(found) => return Ok(found),
                Err(error) => {
                    let code = code(&error);
                    let again = [Some(INVALID_OPTIONS), Some(SNAPSHOT_UNAVAILABLE)].contains(&code);
                    if !again || tried {
                        return Err(match (code, at) {
                            (Some(INVALID_OPTIONS), At::After(time)) => OriginError::Ahead(time),
                            _ => OriginError::Unavailable(error.to_string()),
                        });
                    }
                    tried = true;
                }
            }
        }
    }

    async fn find_once(
        &self,
        mut find: Document,
        at: At,
        limit: Duration,
    ) -> Result<(OriginTime, Vec<RawDocumentBuf>), Error> {
        let (field, time) = match at {
            At::After(time) => ("afterClusterTime", time),
            At::Exactly(time) => ("atClusterTime", time),
        };
        find.insert("readConcern", doc! { "level": "snapshot", field: timestamp(time) });
        find.insert("maxTimeMS", i64::try_from(limit.as_millis()).unwrap_or(i64::MAX).max(1));
        let mut batches = self.reads.run_cursor_command(find).batch().await?;
        let (mut read_at, mut documents) = (None, Vec::new());
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            let cursor = batch.as_raw_document().get_document("cursor").map_err(Error::custom)?;
            if let Ok(time) = cursor.get_timestamp("atClusterTime") {
                read_at.get_or_insert(origin_time(time));
            }
            for document in batch.doc_slices()? {
                let document = document?.as_document().map(ToOwned::to_owned);
                documents.extend(document);
            }
        }
        let read_at =
            read_at.ok_or_else(|| Error::custom("the server does not tell the time of its snapshot"))?;
        Ok((read_at, documents))
    }
}

/// The server's code for what went wrong.
pub(super) fn code(error: &Error) -> Option<i32> {
    match *error.kind {
        ErrorKind::Command(ref command) => Some(command.code),
        _ => None,
    }
}
