//! Writes of lists. An update is a compare-and-swap, as for todos. A delete is a
//! transaction, since it depends on two collections; with `force`, the todos are
//! deleted before it, batch by batch.

use bson::{Bson, Document, RawDocumentBuf, doc};
use bytes::Bytes;
use mongodb::{ClientSession, Collection, error::Error, options::ReturnDocument};
use prost::Message;

use super::{
    Inner, LISTS,
    codes::{WriteEffect, cause, write_effect},
    list_document, origin_time,
    page::of_list,
    write::{
        Failed, Outcome, Refusal, Sent, Tries, answered, given_up, mismatch, unchanged,
        without_effect,
    },
};
use crate::{
    model::{ListName, ListPatch, Write, WriteDone},
    origin::WriteError,
    pb::TodoList,
};

/// Most todos that one command deletes: some ten milliseconds of the server's work,
/// which other writes of the same documents wait for.
const DELETE_BATCH: i32 = 500;

/// The list of a stored document, encoded; empty if it cannot be read.
fn encoded(name: &ListName, stored: &RawDocumentBuf) -> Bytes {
    let list = list_document::list(name, stored);
    list.map(|list| list.encode_to_vec().into())
        .unwrap_or_default()
}

impl Inner {
    pub(super) fn lists(&self) -> Collection<RawDocumentBuf> {
        self.writes.collection(LISTS)
    }

    /// The list as it is now, encoded; empty if it cannot be read.
    pub(super) async fn list_as_it_is(
        &self,
        session: &mut ClientSession,
        name: &ListName,
    ) -> Result<Bytes, Error> {
        let stored = self.stored_list(session, name).await?;
        let list = stored.map(|stored| encoded(name, &stored));
        Ok(list.unwrap_or_default())
    }

    async fn stored_list(
        &self,
        session: &mut ClientSession,
        name: &ListName,
    ) -> Result<Option<RawDocumentBuf>, Error> {
        let lists = self.lists();
        let find = lists.find_one(doc! { "_id": name.as_str() });
        without_effect(find.session(session).into_future()).await
    }

    async fn stores_todo(
        &self,
        session: &mut ClientSession,
        name: &ListName,
    ) -> Result<bool, Error> {
        let todos = self.todos();
        let find = todos.find_one(of_list(name)).session(session);
        Ok(without_effect(find.into_future()).await?.is_some())
    }

    pub(super) async fn create_list(
        &self,
        session: &mut ClientSession,
        name: &ListName,
        list: &TodoList,
    ) -> Result<Outcome, Failed> {
        let now = bson::DateTime::now().timestamp_millis();
        let document = list_document::document(name, list, now);
        let stored = RawDocumentBuf::try_from(&document).map_err(Error::from)?;
        match self.lists().insert_one(&stored).session(session).await {
            Ok(_) => Ok(Ok(encoded(name, &stored))),
            Err(error) if write_effect(&error, true) == WriteEffect::Exists => {
                Ok(Err(Refusal::AlreadyExists))
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn update_list(
        &self,
        session: &mut ClientSession,
        name: &ListName,
        patch: &ListPatch,
        etag: Option<&str>,
    ) -> Result<Outcome, Failed> {
        let Some(stored) = self.stored_list(session, name).await? else {
            return self.document_list(session, name, patch, etag).await;
        };
        if let Some(refusal) = mismatch(etag, &stored) {
            return Ok(Err(refusal));
        }
        let old = match list_document::list(name, &stored) {
            Ok(old) => old,
            Err(why) => return Ok(Err(why.into())),
        };
        let now = bson::DateTime::now().timestamp_millis();
        let update = list_document::update(patch, &patch.apply(old, now), &stored);
        let filter = match unchanged(name.as_str(), &stored) {
            Ok(filter) => filter,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let lists = self.lists();
        let swap = lists.find_one_and_update(filter, update);
        let swap = swap.return_document(ReturnDocument::After);
        let Some(new) = swap.session(session).await? else {
            return Err(Failed::Raced);
        };
        Ok(Ok(encoded(name, &new)))
    }

    /// The first change of a list that has no document and exists because it contains
    /// todos: it gets one.
    async fn document_list(
        &self,
        session: &mut ClientSession,
        name: &ListName,
        patch: &ListPatch,
        etag: Option<&str>,
    ) -> Result<Outcome, Failed> {
        if !self.stores_todo(session, name).await? || etag.is_some() {
            return Ok(Err(Refusal::NotFound));
        }
        let now = bson::DateTime::now().timestamp_millis();
        let list = patch.apply(TodoList::default(), now);
        match self.create_list(session, name, &list).await? {
            Err(Refusal::AlreadyExists) => Err(Failed::Raced),
            outcome => Ok(outcome),
        }
    }

    /// Deletes the list's document if the list contains no todo. Runs in a
    /// transaction: what it read is what it deletes. `emptied`: todos of it were
    /// deleted before.
    pub(super) async fn delete_list(
        &self,
        session: &mut ClientSession,
        name: &ListName,
        etag: Option<&str>,
        emptied: bool,
    ) -> Result<Outcome, Failed> {
        let stored = self.stored_list(session, name).await?;
        if let Some(refusal) = stored.as_ref().and_then(|stored| mismatch(etag, stored)) {
            return Ok(Err(refusal));
        }
        if stored.is_none() && etag.is_some() {
            return Ok(Err(Refusal::NotFound));
        }
        if self.stores_todo(session, name).await? {
            return Ok(Err(Refusal::NotEmpty));
        }
        if stored.is_some() {
            let lists = self.lists();
            let delete = lists.delete_one(doc! { "_id": name.as_str() });
            delete.session(session).await?;
        } else if !emptied {
            return Ok(Err(Refusal::NotFound));
        }
        Ok(Ok(Bytes::new()))
    }

    /// Deletes a list with its todos: them first, so that a call that fails can be
    /// repeated. A todo that is created meanwhile is deleted as well.
    pub(super) async fn delete_list_with_todos(
        &self,
        session: &mut ClientSession,
        write: &Write,
        sent: &Sent,
        mut tries: Tries,
    ) -> Result<WriteDone, WriteError> {
        let Write::DeleteList { name, etag, .. } = write else {
            return Err(WriteError::unavailable("only a list has todos"));
        };
        let mut emptied = false;
        loop {
            let done = match self.delete_batch(session, name, etag.as_deref()).await {
                Ok(Ok(0)) => self.delete_in_transaction(session, write, emptied).await,
                Ok(Ok(_)) => {
                    emptied = true;
                    tries.reset();
                    continue;
                }
                Ok(Err(refusal)) => Ok(Err(refusal)),
                Err(error) => Err(error),
            };
            let at = session.operation_time().map(origin_time);
            let last = match done {
                Ok(Err(Refusal::NotEmpty)) => "todos were created meanwhile".into(),
                Ok(outcome) => return answered(outcome, at),
                Err(Failed::Raced) => "the list kept changing".into(),
                Err(Failed::Error(error)) => {
                    let effect = write_effect(&error, sent.get());
                    let given_up = given_up(effect, cause(error), at);
                    given_up.map_err(|error| partly_done(error, emptied))?
                }
            };
            // What a batch has deleted stays deleted: the write was sent.
            sent.set(emptied);
            if !tries.again().await {
                return Err(partly_done(WriteError::Unavailable(last), emptied));
            }
        }
    }

    /// Deletes some todos of the list, if it has this etag; how many there were.
    async fn delete_batch(
        &self,
        session: &mut ClientSession,
        name: &ListName,
        etag: Option<&str>,
    ) -> Result<Result<usize, Refusal>, Failed> {
        if etag.is_some() {
            let Some(stored) = self.stored_list(session, name).await? else {
                return Ok(Err(Refusal::NotFound));
            };
            if let Some(refusal) = mismatch(etag, &stored) {
                return Ok(Err(refusal));
            }
        }
        let todos: Collection<Document> = self.todos().clone_with_type();
        let ids = without_effect(ids_of(&todos, session, name)).await?;
        let count = ids.len();
        if count > 0 {
            // Only those that are still of this list.
            let filter = doc! { "_id": { "$in": ids }, "parent": name.as_str() };
            todos.delete_many(filter).session(session).await?;
        }
        Ok(Ok(count))
    }
}

/// Of the todos that one batch deletes.
async fn ids_of(
    todos: &Collection<Document>,
    session: &mut ClientSession,
    name: &ListName,
) -> Result<Vec<Bson>, Error> {
    let find = todos.find(of_list(name)).projection(doc! { "_id": 1 });
    let find = find
        .limit(DELETE_BATCH.into())
        .batch_size(DELETE_BATCH.unsigned_abs() + 1);
    let mut found = find.session(&mut *session).await?;
    let mut ids = Vec::new();
    while let Some(document) = found.next(session).await.transpose()? {
        ids.extend(document.get("_id").cloned());
    }
    Ok(ids)
}

/// The error of a delete that may have deleted todos: then something was written.
fn partly_done(error: WriteError, emptied: bool) -> WriteError {
    match error {
        WriteError::Unavailable(cause) if emptied => WriteError::OutcomeUnknown { cause, at: None },
        error => error,
    }
}
