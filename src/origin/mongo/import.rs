//! Import: many documents in one call, each on its own.

use std::time::Duration;

use bson::Document;
use mongodb::{
    Collection,
    error::{Error, ErrorKind},
    options::InsertManyOptions,
};
use tokio::time::timeout;

use super::{Inner, TODOS, codes::cause, document, write::DUPLICATE_KEY};
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

/// What became of a batch of `all` documents, if the majority has the rest of
/// them: those that were there already are not new, and others may be refused.
fn refused_of(error: &Error, all: usize) -> Option<Imported> {
    let ErrorKind::InsertMany(ref many) = *error.kind else {
        return None;
    };
    if many.write_concern_error.is_some() {
        return None;
    }
    let errors = many.write_errors.as_deref().unwrap_or_default();
    let refused = errors
        .iter()
        .filter(|error| error.code != DUPLICATE_KEY)
        .map(|error| (error.index, error.message.clone()))
        .collect();
    Some(Imported {
        created: all.saturating_sub(errors.len()),
        refused,
    })
}
