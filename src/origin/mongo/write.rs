//! Writes, to the majority.
//!
//! An update or delete reads the document and writes by compare-and-swap: the
//! filter matches only the very document that was read. So it needs no
//! transaction, and its event is alone at its time. A transaction is used only
//! where a request id has to be stored together with the write, and to delete a
//! list.

mod sent;
mod transaction;
mod tries;

use std::{sync::Arc, time::Duration};

use bson::{Document, RawDocumentBuf, doc};
use bytes::Bytes;
use mongodb::{ClientSession, Collection, error::Error, options::ReturnDocument};
use tokio::time::{Instant, sleep, timeout};

use self::sent::SENT;
pub(super) use self::{
    sent::{Sent, note_sent, without_effect},
    tries::Tries,
};
use super::{
    Inner, REQUESTS, TODOS,
    codes::{WriteEffect, cause, write_effect},
    document, origin_time,
};
use crate::{
    error::shorten,
    model::{OriginTime, Patch, RequestId, TodoName, Unreadable, Write, WriteDone, validate},
    origin::{Cause, WriteError},
    pb::Todo,
};

/// Time for a write in all: longer than an election takes, shorter than a
/// caller without a deadline would wait.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
/// A write that could not be sent within this time is given up: it had no
/// effect, and its caller may try another replica.
const SEND_WITHIN: Duration = Duration::from_secs(5);
/// The same while no primary is known: an election takes longer than a caller
/// should wait for an answer that is certain already.
const SEND_WITHOUT_PRIMARY: Duration = Duration::from_millis(1500);
/// And the most of the caller's time: what is certain is said early enough to arrive.
const SHARE_WITHOUT_PRIMARY: f64 = 0.75;
/// A write that was not answered for so long may wait for a transaction that a dead
/// replica left open.
const STALLED_AFTER: Duration = Duration::from_secs(1);
/// How often those three are looked at.
const SEND_POLL: Duration = Duration::from_millis(25);

/// Why a try ended without an answer.
pub(super) enum Failed {
    /// The document changed meanwhile.
    Raced,
    Error(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// The outcome of a write that the server answered.
pub(super) type Outcome = Result<Bytes, Refusal>;

/// A refusal that reveals the origin's state.
pub(super) enum Refusal {
    NotFound,
    AlreadyExists,
    NotEmpty,
    EtagMismatch { current: String },
    Unreadable { field: String, problem: String },
    RequestIdReused,
    Invalid(crate::error::FieldProblem),
}

impl From<Unreadable> for Refusal {
    fn from(why: Unreadable) -> Self {
        Self::Unreadable {
            field: why.field,
            problem: why.problem,
        }
    }
}

impl Inner {
    pub(super) async fn write(
        &self,
        write: Write,
        request: Option<RequestId>,
        send_by: Option<Instant>,
    ) -> Result<WriteDone, WriteError> {
        let sent = Arc::<Sent>::default();
        let tries = Tries::new(send_by);
        let work = self.write_with_retries(&write, request, &sent, tries);
        let work = SENT.scope(Arc::clone(&sent), timeout(WRITE_TIMEOUT, work));
        tokio::select! {
            biased;
            done = work => done.unwrap_or_else(|_| {
                Err(WriteError::unknown(format!("MongoDB did not answer within {WRITE_TIMEOUT:?}")))
            }),
            cause = self.not_sent(&sent, send_by) => Err(WriteError::Unavailable(cause)),
        }
    }

    /// Ends once a write that was not sent yet has to be given up.
    async fn not_sent(&self, sent: &Sent, send_by: Option<Instant>) -> Cause {
        let begun = Instant::now();
        // Nothing is to be done before the earliest of these times: a write that is answered
        // as usual is not woken for it.
        let left = send_by.map_or(SEND_WITHIN, |by| by.saturating_duration_since(begun));
        let earliest = left.mul_f64(SHARE_WITHOUT_PRIMARY).min(STALLED_AFTER);
        sleep(earliest).await;
        loop {
            if begun.elapsed() >= STALLED_AFTER {
                self.orphans.look_soon();
            }
            let (limit, cause) = if self.topology.has_primary() {
                (left.min(SEND_WITHIN), "MongoDB took no command in time")
            } else {
                let share = left.mul_f64(SHARE_WITHOUT_PRIMARY);
                let cause = "the replica set has no primary";
                (share.min(SEND_WITHOUT_PRIMARY), cause)
            };
            if !sent.get() && begun.elapsed() >= limit {
                return format!("{cause}; the write was not sent").into();
            }
            sleep(SEND_POLL).await;
        }
    }

    async fn write_with_retries(
        &self,
        write: &Write,
        request: Option<RequestId>,
        sent: &Sent,
        mut tries: Tries,
    ) -> Result<WriteDone, WriteError> {
        let session = self.writes_client.start_session().await;
        let mut session = session.map_err(|error| WriteError::Unavailable(cause(error)))?;
        if matches!(write, Write::DeleteList { force: true, .. }) {
            return self
                .delete_list_with_todos(&mut session, write, sent, tries)
                .await;
        }
        loop {
            // Each try that is followed by another one had no effect.
            sent.set(false);
            let outcome = match request {
                Some(request) => self.in_transaction(&mut session, write, request).await,
                None if matches!(write, Write::DeleteList { .. }) => {
                    self.delete_in_transaction(&mut session, write, false).await
                }
                None => self.try_write(&mut session, write).await,
            };
            let at = session.operation_time().map(origin_time);
            let last: Cause = match outcome {
                Ok(outcome) => return answered(outcome, at),
                Err(Failed::Raced) => "it kept changing while it was written".into(),
                Err(Failed::Error(error)) => {
                    let effect = write_effect(&error, sent.get());
                    given_up(effect, cause(error), at)?
                }
            };
            sent.set(false);
            if !tries.again().await {
                // The other write may be of a replica that died.
                self.orphans.look_soon();
                let text = format!("{last} ({} tries)", tries.count());
                return Err(WriteError::Unavailable(last.with_text(text)));
            }
        }
    }

    pub(super) fn todos(&self) -> Collection<RawDocumentBuf> {
        self.writes.collection(TODOS)
    }

    async fn try_write(
        &self,
        session: &mut ClientSession,
        write: &Write,
    ) -> Result<Outcome, Failed> {
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
            Write::CreateList { name, list } => self.create_list(session, name, list).await,
            Write::UpdateList { name, patch, etag } => {
                self.update_list(session, name, patch, etag.as_deref())
                    .await
            }
            Write::DeleteList { .. } => self.try_delete_list(session, write, false).await,
        }
    }

    async fn try_delete_list(
        &self,
        session: &mut ClientSession,
        write: &Write,
        emptied: bool,
    ) -> Result<Outcome, Failed> {
        let Write::DeleteList { name, etag, .. } = write else {
            return Ok(Err(Refusal::NotFound));
        };
        self.delete_list(session, name, etag.as_deref(), emptied)
            .await
    }

    async fn stored_todo(
        &self,
        session: &mut ClientSession,
        name: &TodoName,
    ) -> Result<Option<RawDocumentBuf>, Error> {
        let todos = self.todos();
        let find = todos.find_one(doc! { "_id": name.as_str() });
        without_effect(find.session(session).into_future()).await
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
            Err(error) if write_effect(&error, true) == WriteEffect::Exists => {
                Ok(Err(Refusal::AlreadyExists))
            }
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
        let Some(stored) = self.stored_todo(session, name).await? else {
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
            Err(why) => return Ok(Err(why.into())),
        };
        let update = document::update(patch, &patch.apply(old, now));
        let todos = self.todos();
        let filter = match unchanged(name.as_str(), &stored) {
            Ok(filter) => filter,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let swap = todos.find_one_and_update(filter, update);
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
            let Some(stored) = self.stored_todo(session, name).await? else {
                return Ok(if allow_missing {
                    Ok(Bytes::new())
                } else {
                    Err(Refusal::NotFound)
                });
            };
            if let Some(refusal) = mismatch(Some(etag), &stored) {
                return Ok(Err(refusal));
            }
            match unchanged(name.as_str(), &stored) {
                Ok(filter) => filter,
                Err(refusal) => return Ok(Err(refusal)),
            }
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

/// Matches only the very document that was read. A document that does not come
/// back byte for byte (a field twice, text that is not UTF-8) can be matched by
/// nothing that the driver sends.
pub(super) fn unchanged(name: &str, stored: &RawDocumentBuf) -> Result<Document, Refusal> {
    let damaged = |problem: String| Refusal::Unreadable {
        field: "document".into(),
        problem,
    };
    let document = Document::try_from(stored)
        .map_err(|error| damaged(format!("is damaged: {}", shorten(&error.to_string()))))?;
    let back = RawDocumentBuf::try_from(&document);
    if back.is_ok_and(|back| back.as_bytes() != stored.as_bytes()) {
        return Err(damaged("has a field twice".into()));
    }
    Ok(doc! { "_id": name, "$expr": { "$eq": ["$$ROOT", { "$literal": document }] } })
}

pub(super) fn mismatch(etag: Option<&str>, stored: &RawDocumentBuf) -> Option<Refusal> {
    let current = document::etag(stored);
    (etag? != current).then_some(Refusal::EtagMismatch { current })
}

pub(super) fn answered(outcome: Outcome, at: Option<OriginTime>) -> Result<WriteDone, WriteError> {
    let Some(at) = at else {
        return Err(WriteError::unknown(
            "the server's reply has no operationTime",
        ));
    };
    outcome
        .map(|todo| WriteDone {
            body: todo,
            time: at,
        })
        .map_err(|refusal| match refusal {
            Refusal::NotFound => WriteError::NotFound { at },
            Refusal::NotEmpty => WriteError::NotEmpty { at },
            Refusal::AlreadyExists => WriteError::AlreadyExists { at },
            Refusal::EtagMismatch { current } => WriteError::EtagMismatch { current, at },
            Refusal::Unreadable { field, problem } => WriteError::Unreadable { field, problem, at },
            Refusal::RequestIdReused => WriteError::RequestIdReused,
            Refusal::Invalid(problem) => WriteError::Invalid(problem),
        })
}

/// The error of a write that is not tried again, or why it is.
pub(super) fn given_up(
    effect: WriteEffect,
    cause: Cause,
    at: Option<OriginTime>,
) -> Result<Cause, WriteError> {
    Err(match effect {
        // A duplicate of another document than the todo: somebody else's
        // request id, inserted at the same time.
        WriteEffect::Retry | WriteEffect::Exists => return Ok(cause),
        WriteEffect::Refused(rule) => WriteError::Refused { rule, cause },
        WriteEffect::NotWritten => WriteError::Unavailable(cause),
        WriteEffect::Unconfirmed => WriteError::OutcomeUnknown { cause, at },
        WriteEffect::Unknown => WriteError::OutcomeUnknown { cause, at: None },
    })
}
