//! Import: many documents in one call, each on its own.

use std::time::Duration;

use bson::Document;
use mongodb::{
    Collection,
    error::{Error, ErrorKind},
    options::InsertManyOptions,
};
use tokio::time::timeout;

use super::{
    Inner, TODOS,
    codes::{WriteEffect, cause, write_code},
    document,
};
use crate::{
    model::TodoName,
    origin::{Imported, OriginError},
    pb::Todo,
};

/// Time for a batch of an import.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(60);

impl Inner {
    pub(super) async fn import(&self, todos: Vec<Todo>) -> Result<Imported, OriginError> {
        let documents: Vec<_> = todos
            .iter()
            .filter_map(|todo| Some(document::document(&TodoName::parse(&todo.name)?, todo)))
            .collect();
        let all = documents.len();
        let options = InsertManyOptions::builder().ordered(false).build();
        let collection: Collection<Document> = self.writes.collection(TODOS);
        let insert = collection.insert_many(documents).with_options(options);
        match timeout(IMPORT_TIMEOUT, async { insert.await }).await {
            Ok(Ok(_)) => Ok(Imported {
                created: all,
                refused: Vec::new(),
            }),
            Ok(Err(error)) => {
                refused_of(&error, all).ok_or_else(|| OriginError::unavailable(cause(error)))
            }
            Err(_) => Err(OriginError::unavailable(format!(
                "no answer within {IMPORT_TIMEOUT:?}"
            ))),
        }
    }
}

/// The result of a batch of `all` documents, if the majority has all of them
/// that were not refused. Those that existed already are not new.
fn refused_of(error: &Error, all: usize) -> Option<Imported> {
    let ErrorKind::InsertMany(ref many) = *error.kind else {
        return None;
    };
    if many.write_concern_error.is_some() {
        return None;
    }
    let errors = many.write_errors.as_deref().unwrap_or_default();
    let mut imported = Imported {
        created: all.saturating_sub(errors.len()),
        refused: Vec::new(),
    };
    for error in errors {
        match write_code(error.code, &error.message) {
            WriteEffect::Exists => {}
            WriteEffect::Refused(rule) => imported.refused.push((error.index, rule)),
            // The same batch again is idempotent.
            _ => return None,
        }
    }
    Some(imported)
}
