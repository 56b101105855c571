//! Writes, to the majority.
//!
//! An update or delete reads the document and writes by compare-and-swap: the
//! filter holds only for the very document that was read. So it needs no
//! transaction, and its event is alone at its time. A transaction is used only
//! where a request id has to be kept together with the write.

use std::time::Duration;

use bson::{Document, RawDocumentBuf, doc};
use bytes::Bytes;
use mongodb::{
    ClientSession, Collection,
    error::{Error, ErrorKind, WriteFailure},
    options::{ReadConcern, ReturnDocument, WriteConcern},
};
use tokio::time::timeout;

use super::{
    Inner, REQUESTS, TODOS,
    codes::{cause, code},
    document, origin_time,
};
use crate::{
    model::{OriginTime, Patch, RequestId, TodoName, Write, WriteDone, validate},
    origin::WriteError,
    pb::Todo,
};

/// Time for a write in all: longer than an election takes, shorter than a
/// caller without a deadline would wait.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
/// Tries of a compare-and-swap, and of a transaction that met another one.
const MAX_TRIES: usize = 16;
/// First pause between tries; doubled up to sixteen times as long.
const TRY_PAUSE: Duration = Duration::from_millis(2);
pub(super) const DUPLICATE_KEY: i32 = 11000;
/// The server is no primary.
const NOT_PRIMARY: [i32; 3] = [10107, 13435, 10058];
/// The server's word that it wrote nothing. Where the driver tried twice it
/// gives an error with this only if the first try wrote nothing either.
const NO_WRITES: &str = "NoWritesPerformed";
/// A commit may have taken place, whatever its last try met.
const UNKNOWN_COMMIT: &str = "UnknownTransactionCommitResult";

/// Why a try ended without an answer.
enum Failed {
    /// The document changed meanwhile.
    Raced,
    Error(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// What a write came to.
type Outcome = Result<Bytes, Refusal>;

/// A refusal that reveals the origin's state.
enum Refusal {
    NotFound,
    AlreadyExists,
    EtagMismatch { current: String },
    Unreadable { field: String, problem: String },
    RequestIdReused,
    Invalid(crate::error::FieldProblem),
}

impl Inner {
    pub(super) async fn write(
        &self,
        write: Write,
        request: Option<RequestId>,
    ) -> Result<WriteDone, WriteError> {
        let Ok(done) = timeout(WRITE_TIMEOUT, self.write_somehow(&write, request)).await else {
            let problem = format!("MongoDB did not answer within {WRITE_TIMEOUT:?}");
            return Err(WriteError::unknown(problem));
        };
        done
    }

    async fn write_somehow(
        &self,
        write: &Write,
        request: Option<RequestId>,
    ) -> Result<WriteDone, WriteError> {
        let mut session = self
            .writes_client
            .start_session()
            .await
            .map_err(|error| failed(error, None))?;
        let mut pause = TRY_PAUSE;
        for _ in 0..MAX_TRIES {
            let outcome = match request {
                Some(request) => self.in_transaction(&mut session, write, request).await,
                None => self.once(&mut session, write).await,
            };
            let at = session.operation_time().map(origin_time);
            match outcome {
                Ok(outcome) => return answered(outcome, at),
                Err(Failed::Raced) => {}
                Err(Failed::Error(error)) if error.contains_label("TransientTransactionError") => {}
                Err(Failed::Error(error)) => return Err(failed(error, at)),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(TRY_PAUSE * 16);
        }
        Err(WriteError::unavailable(format!(
            "the todo kept changing while it was written, {MAX_TRIES} times in a row"
        )))
    }

    fn todos(&self) -> Collection<RawDocumentBuf> {
        self.writes.collection(TODOS)
    }

    /// The write together with its request id, or the outcome of the first
    /// time.
    async fn in_transaction(
        &self,
        session: &mut ClientSession,
        write: &Write,
        request: RequestId,
    ) -> Result<Outcome, Failed> {
        session
            .start_transaction()
            .read_concern(ReadConcern::snapshot())
            .write_concern(WriteConcern::majority())
            .await?;
        let outcome = self.with_request_id(session, write, request).await;
        match outcome {
            Ok(Ok(done)) => {
                commit(session).await?;
                Ok(Ok(done))
            }
            other => {
                // Aborted by the server already, or by this.
                let _ = session.abort_transaction().await;
                other
            }
        }
    }

    async fn with_request_id(
        &self,
        session: &mut ClientSession,
        write: &Write,
        request: RequestId,
    ) -> Result<Outcome, Failed> {
        let requests: Collection<Document> = self.writes.collection(REQUESTS);
        let id = request.id.to_string();
        let fingerprint = bson::Binary {
            subtype: bson::spec::BinarySubtype::Generic,
            bytes: request.fingerprint.to_vec(),
        };
        let known = requests
            .find_one(doc! { "_id": &id })
            .session(&mut *session)
            .await?;
        if let Some(known) = known {
            if known.get("fingerprint") != Some(&bson::Bson::Binary(fingerprint)) {
                return Ok(Err(Refusal::RequestIdReused));
            }
            return Ok(Ok(self.as_it_is(session, write.name(), &known).await?));
        }
        let done = match self.once(session, write).await? {
            Ok(done) => done,
            refused => return Ok(refused),
        };
        let entry = doc! {
            "_id": &id,
            "fingerprint": fingerprint,
            "name": write.name().as_str(),
            "at": bson::DateTime::now(),
        };
        requests.insert_one(entry).session(&mut *session).await?;
        Ok(Ok(done))
    }

    /// The todo of a request that was done before, as it is now. The name may
    /// have been generated anew: the first one counts.
    async fn as_it_is(
        &self,
        session: &mut ClientSession,
        name: &TodoName,
        known: &Document,
    ) -> Result<Bytes, Failed> {
        let name = known
            .get_str("name")
            .ok()
            .and_then(TodoName::parse)
            .unwrap_or_else(|| name.clone());
        let stored = self
            .todos()
            .find_one(doc! { "_id": name.as_str() })
            .session(&mut *session)
            .await?;
        let todo = stored.and_then(|stored| document::todo(&name, &stored).ok());
        Ok(todo.map(document::encoded).unwrap_or_default())
    }

    async fn once(&self, session: &mut ClientSession, write: &Write) -> Result<Outcome, Failed> {
        match write {
            Write::Create { name, todo } => self.create(session, name, todo).await,
            Write::Update {
                name,
                patch,
                etag,
                allow_missing,
            } => {
                self.update(session, name, patch, etag.as_deref(), *allow_missing)
                    .await
            }
            Write::Delete {
                name,
                etag,
                allow_missing,
            } => {
                self.delete(session, name, etag.as_deref(), *allow_missing)
                    .await
            }
        }
    }

    async fn create(
        &self,
        session: &mut ClientSession,
        name: &TodoName,
        todo: &Todo,
    ) -> Result<Outcome, Failed> {
        let stored =
            RawDocumentBuf::try_from(&document::document(name, todo)).map_err(Error::from)?;
        match self
            .todos()
            .insert_one(&stored)
            .session(&mut *session)
            .await
        {
            Ok(_) => {
                let todo = document::todo(name, &stored)
                    .map(document::encoded)
                    .unwrap_or_default();
                Ok(Ok(todo))
            }
            Err(error) if is_duplicate(&error) => Ok(Err(Refusal::AlreadyExists)),
            Err(error) => Err(error.into()),
        }
    }

    async fn update(
        &self,
        session: &mut ClientSession,
        name: &TodoName,
        patch: &Patch,
        etag: Option<&str>,
        allow_missing: bool,
    ) -> Result<Outcome, Failed> {
        let now = bson::DateTime::now().timestamp_millis();
        let Some(stored) = self
            .todos()
            .find_one(doc! { "_id": name.as_str() })
            .session(&mut *session)
            .await?
        else {
            if !allow_missing || etag.is_some() {
                return Ok(Err(Refusal::NotFound));
            }
            let mut todo = patch.create(name.as_str(), now);
            if let Err(mut problems) = validate(&mut todo, "todo.") {
                return Ok(Err(Refusal::Invalid(problems.swap_remove(0))));
            }
            return match self.create(session, name, &todo).await? {
                Err(Refusal::AlreadyExists) => Err(Failed::Raced),
                other => Ok(other),
            };
        };
        if let Some(refusal) = mismatch(etag, &stored) {
            return Ok(Err(refusal));
        }
        let old = match document::todo(name, &stored) {
            Ok(old) => old,
            Err(why) => {
                return Ok(Err(Refusal::Unreadable {
                    field: why.field,
                    problem: why.problem,
                }));
            }
        };
        let update = document::update(patch, &patch.apply(old, now));
        let todos = self.todos();
        let swap = todos.find_one_and_update(unchanged(name, &stored), update);
        let new = swap
            .return_document(ReturnDocument::After)
            .session(&mut *session)
            .await?;
        let Some(new) = new else {
            return Err(Failed::Raced);
        };
        Ok(Ok(document::todo(name, &new)
            .map(document::encoded)
            .unwrap_or_default()))
    }

    async fn delete(
        &self,
        session: &mut ClientSession,
        name: &TodoName,
        etag: Option<&str>,
        allow_missing: bool,
    ) -> Result<Outcome, Failed> {
        let todos = self.todos();
        let filter = if let Some(etag) = etag {
            let stored = todos
                .find_one(doc! { "_id": name.as_str() })
                .session(&mut *session)
                .await?;
            let Some(stored) = stored else {
                return Ok(if allow_missing {
                    Ok(Bytes::new())
                } else {
                    Err(Refusal::NotFound)
                });
            };
            if let Some(refusal) = mismatch(Some(etag), &stored) {
                return Ok(Err(refusal));
            }
            unchanged(name, &stored)
        } else {
            doc! { "_id": name.as_str() }
        };
        let deleted = todos
            .delete_one(filter)
            .session(&mut *session)
            .await?
            .deleted_count;
        match (deleted, etag) {
            (0, Some(_)) => Err(Failed::Raced),
            (0, None) if !allow_missing => Ok(Err(Refusal::NotFound)),
            _ => Ok(Ok(Bytes::new())),
        }
    }
}

/// Commits, again where the server says that it may.
async fn commit(session: &mut ClientSession) -> Result<(), Error> {
    let mut tries = 0;
    loop {
        match session.commit_transaction().await {
            Err(error) if error.contains_label(UNKNOWN_COMMIT) && tries < 2 => tries += 1,
            done => return done,
        }
    }
}

/// Holds only for the very document that was read.
fn unchanged(name: &TodoName, stored: &RawDocumentBuf) -> Document {
    let stored = Document::try_from(stored).unwrap_or_default();
    doc! { "_id": name.as_str(), "$expr": { "$eq": ["$$ROOT", { "$literal": stored }] } }
}

fn mismatch(etag: Option<&str>, stored: &RawDocumentBuf) -> Option<Refusal> {
    let current = document::etag(stored);
    (etag? != current).then_some(Refusal::EtagMismatch { current })
}

fn answered(outcome: Outcome, at: Option<OriginTime>) -> Result<WriteDone, WriteError> {
    let Some(at) = at else {
        return Err(WriteError::unknown(
            "the server's reply has no operationTime",
        ));
    };
    outcome
        .map(|todo| WriteDone { todo, time: at })
        .map_err(|refusal| match refusal {
            Refusal::NotFound => WriteError::NotFound { at },
            Refusal::AlreadyExists => WriteError::AlreadyExists { at },
            Refusal::EtagMismatch { current } => WriteError::EtagMismatch { current, at },
            Refusal::Unreadable { field, problem } => WriteError::Unreadable { field, problem, at },
            Refusal::RequestIdReused => WriteError::RequestIdReused,
            Refusal::Invalid(problem) => WriteError::Invalid(problem),
        })
}

/// Whether anything was written: only where the server says, or nothing was
/// sent, is it known that not.
fn failed(error: Error, at: Option<OriginTime>) -> WriteError {
    let not_primary = code(&error).is_some_and(|code| NOT_PRIMARY.contains(&code));
    let unsent = matches!(
        *error.kind,
        ErrorKind::ServerSelection { .. }
            | ErrorKind::Authentication { .. }
            | ErrorKind::DnsResolve { .. }
    );
    let unconfirmed = matches!(
        *error.kind,
        ErrorKind::Write(WriteFailure::WriteConcernError(_))
    );
    let unknown_commit = error.contains_label(UNKNOWN_COMMIT);
    let no_writes = not_primary && error.contains_label(NO_WRITES);
    let cause = cause(error);
    if !unknown_commit && (unsent || no_writes) {
        WriteError::Unavailable(cause)
    } else {
        let at = at.filter(|_| unconfirmed && !unknown_commit);
        WriteError::OutcomeUnknown { cause, at }
    }
}

fn is_duplicate(error: &Error) -> bool {
    match *error.kind {
        ErrorKind::Write(WriteFailure::WriteError(ref write)) => write.code == DUPLICATE_KEY,
        ErrorKind::Command(ref command) => command.code == DUPLICATE_KEY,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The driver tries a write twice and tells what the second try met. That
    /// one found no primary; the first may have written.
    #[test]
    fn no_primary_at_the_second_try_says_nothing_of_the_first() {
        let reply =
            doc! { "code": 10107, "codeName": "NotWritablePrimary", "errmsg": "not primary" };
        let error = Error::from(ErrorKind::Command(
            bson::deserialize_from_document(reply).expect("an error"),
        ));
        assert!(matches!(
            failed(error, None),
            WriteError::OutcomeUnknown { .. }
        ));
    }
}
