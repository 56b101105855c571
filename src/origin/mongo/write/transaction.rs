//! Writes in a transaction: a request id is stored together with its write, so that the
//! same request has an effect once, and a list is deleted only while it is empty.

use bson::{Document, doc};
use bytes::Bytes;
use mongodb::{
    ClientSession, Collection,
    error::Error,
    options::{ReadConcern, WriteConcern},
};

use super::{Failed, Inner, Outcome, REQUESTS, Refusal, document, without_effect};
use crate::model::{ListName, RequestId, TodoName, Write};

impl Inner {
    /// The write together with its request id, or the outcome of the first
    /// time.
    pub(super) async fn in_transaction(
        &self,
        session: &mut ClientSession,
        write: &Write,
        request: RequestId,
    ) -> Result<Outcome, Failed> {
        begin(session).await?;
        let outcome = without_effect(self.with_request_id(session, write, request)).await;
        end(session, outcome).await
    }

    pub(in super::super) async fn delete_in_transaction(
        &self,
        session: &mut ClientSession,
        write: &Write,
        emptied: bool,
    ) -> Result<Outcome, Failed> {
        begin(session).await?;
        let outcome = without_effect(self.try_delete_list(session, write, emptied)).await;
        end(session, outcome).await
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
            return Ok(Ok(self.as_it_is(session, &known).await?));
        }
        let done = match self.try_write(session, write).await? {
            Ok(done) => done,
            refused => return Ok(refused),
        };
        let entry = doc! {
            "_id": &id,
            "fingerprint": fingerprint,
            "name": write.name().to_string(),
            "at": bson::DateTime::now(),
        };
        requests.insert_one(entry).session(&mut *session).await?;
        Ok(Ok(done))
    }

    /// The todo or list of a request that was done before, as it is now. The name may
    /// have been generated anew: the first one counts.
    async fn as_it_is(
        &self,
        session: &mut ClientSession,
        known: &Document,
    ) -> Result<Bytes, Failed> {
        let name = known.get_str("name").unwrap_or_default();
        if let Some(name) = ListName::parse(name) {
            return Ok(self.list_as_it_is(session, &name).await?);
        }
        let Some(name) = TodoName::parse(name) else {
            return Ok(Bytes::new());
        };
        let stored = self.stored_todo(session, &name).await?;
        let todo = stored.and_then(|stored| document::todo(&name, &stored).ok());
        Ok(todo.map(document::encoded).unwrap_or_default())
    }
}

/// A commit may have taken place, whatever its last try met.
const UNKNOWN_COMMIT: &str = "UnknownTransactionCommitResult";

async fn begin(session: &mut ClientSession) -> Result<(), Error> {
    session
        .start_transaction()
        .read_concern(ReadConcern::snapshot())
        .write_concern(WriteConcern::majority())
        .await
}

/// Commits what was written; aborts what was not.
async fn end(
    session: &mut ClientSession,
    outcome: Result<Outcome, Failed>,
) -> Result<Outcome, Failed> {
    if let Ok(Ok(done)) = outcome {
        commit(session).await?;
        return Ok(Ok(done));
    }
    // Aborted by the server already, or by this.
    let _ = without_effect(session.abort_transaction().into_future()).await;
    outcome
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
