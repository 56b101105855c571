//! Loads of lists: one document, and pages of names.
//!
//! The names of all lists are the union of the collection `lists` and of the parents
//! in `todos`. MongoDB has no bounded "distinct", so the parents are read by steps: each
//! reads some keys of an index that begins with `parent`, after the last parent found.
//! All finds of a page read one snapshot.

use std::{collections::BTreeSet, time::Duration};

use bson::{Document, RawDocumentBuf, doc};
use mongodb::error::Error;
use tokio::time::Instant;

use super::{
    Inner, LISTS, TODOS,
    codes::{INVALID_OPTIONS, cause, code, is_stale_snapshot},
    list_document,
    page::{no_array, of_list},
    read::{At, snapshot_pauses},
};
use crate::{
    model::{ListName, ListsPage, ListsQuery, OriginTime, TodoName, Value},
    origin::OriginError,
};

/// The names of lists, as a regular expression of the server.
const LIST_NAMES: &str = "^lists/[A-Za-z0-9][A-Za-z0-9._~-]{0,62}\\z";
/// Most index keys that one step reads. Lists with few todos come many to a step; one
/// with more todos than this takes a step alone.
const STEP_KEYS: i32 = 101;

/// Why a step did not find anything out.
enum StepError {
    /// There is no collection; the server said so at this time.
    NoCollection(OriginTime),
    Failed(Error),
}

impl From<Error> for StepError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Inner {
    pub(super) async fn load_list(
        &self,
        name: &ListName,
        after: OriginTime,
        limit: Duration,
    ) -> Result<(OriginTime, Value), OriginError> {
        let find = doc! { "find": LISTS, "filter": { "_id": name.as_str() }, "batchSize": 2 };
        let (time, documents) = self.find(find, At::After(after), limit).await?;
        let document = documents.and_then(|documents| documents.into_iter().next());
        let value = document.map_or(Value::Absent, |document| {
            list_document::value(name, &document)
        });
        Ok((time, value))
    }

    pub(super) async fn load_lists(
        &self,
        query: &ListsQuery,
        after: OriginTime,
        limit: Duration,
    ) -> Result<(OriginTime, ListsPage), OriginError> {
        if query.members.is_none() {
            return self.load_all_lists(query, after, limit).await;
        }
        let (time, documents) = self
            .find(find_lists(query), At::After(after), limit)
            .await?;
        let names = names_of(&documents.unwrap_or_default());
        Ok((time, page_of(names, wanted(query))))
    }

    /// The page by several finds at one snapshot; from the beginning if the server
    /// forgot the snapshot, or if a collection was dropped meanwhile.
    async fn load_all_lists(
        &self,
        query: &ListsQuery,
        mut after: OriginTime,
        limit: Duration,
    ) -> Result<(OriginTime, ListsPage), OriginError> {
        let ends = Instant::now() + limit;
        let left = || ends.saturating_duration_since(Instant::now());
        // `todos` did not exist at this time.
        let mut no_todos = false;
        let mut pauses = snapshot_pauses();
        loop {
            let (time, documents) = self
                .find(find_lists(query), At::After(after), left())
                .await?;
            let stored = names_of(&documents.unwrap_or_default());
            let mut names = stored.clone();
            let failed = match self.add_parents(query, &mut names, time, ends).await {
                Ok(()) => return Ok((time, page_of(names, wanted(query)))),
                // No collection before `time` and after it is none at it.
                Err(StepError::NoCollection(_)) if no_todos && names == stored => {
                    return Ok((time, page_of(names, wanted(query))));
                }
                Err(StepError::NoCollection(at)) => {
                    (no_todos, after) = (true, after.max(at));
                    OriginError::unavailable("the collections kept changing")
                }
                Err(StepError::Failed(error)) if is_stale_snapshot(&error) => {
                    OriginError::unavailable(cause(error))
                }
                Err(StepError::Failed(error)) => {
                    return Err(OriginError::unavailable(cause(error)));
                }
            };
            if left().is_zero() {
                return Err(failed);
            }
            pauses.wait().await;
        }
    }

    /// Adds the lists that contain todos at this time, as far as the page may need
    /// them: at most its size, and one more.
    async fn add_parents(
        &self,
        query: &ListsQuery,
        names: &mut BTreeSet<ListName>,
        time: OriginTime,
        ends: Instant,
    ) -> Result<(), StepError> {
        let wanted = wanted(query);
        // No parent behind the last document is on the page.
        let last = names.iter().nth(wanted).cloned();
        let mut after = query.after.clone();
        let mut found = 0;
        while found <= wanted {
            let Some(step) = self.step(after.as_ref(), last.as_ref(), time, ends).await? else {
                break;
            };
            for (parent, contains_todo) in step {
                // A parent whose first documents are no todos of the list.
                if contains_todo || self.contains_todo(&parent, time, ends).await? {
                    names.insert(parent.clone());
                    found += 1;
                }
                after = Some(parent);
            }
        }
        Ok(())
    }

    /// The next parents in order, each with whether a todo of it was seen; `None`: there
    /// is none any more.
    async fn step(
        &self,
        after: Option<&ListName>,
        last: Option<&ListName>,
        time: OriginTime,
        ends: Instant,
    ) -> Result<Option<Vec<(ListName, bool)>>, StepError> {
        let mut range = doc! { "$gt": after.map_or("lists/", ListName::as_str) };
        match last {
            Some(last) => range.insert("$lte", last.as_str()),
            None => range.insert("$lt", "lists0"),
        };
        range.insert("$regex", LIST_NAMES);
        // An array of parents is in the index, too, and is no parent. It has to be looked
        // for in the documents, and so only where the keys alone do not help.
        for condition in [Document::new(), no_array("parent")] {
            let find = doc! {
                "find": TODOS,
                "filter": { "$and": [{ "parent": range.clone() }, condition] },
                "sort": { "parent": 1 },
                "projection": { "parent": 1, "_id": 1 },
                "limit": STEP_KEYS,
                "batchSize": STEP_KEYS + 1,
            };
            let documents = self.find_exactly(find, time, ends).await?;
            let parents = parents(&documents);
            if documents.is_empty() || !parents.is_empty() {
                return Ok((!parents.is_empty()).then_some(parents));
            }
        }
        Ok(None)
    }

    /// Whether the list contains a todo at this time.
    async fn contains_todo(
        &self,
        list: &ListName,
        time: OriginTime,
        ends: Instant,
    ) -> Result<bool, StepError> {
        let find = doc! {
            "find": TODOS,
            "filter": of_list(list),
            "projection": { "_id": 1 },
            "limit": 1,
            "batchSize": 2,
        };
        let found = self.find_exactly(find, time, ends).await?;
        Ok(!found.is_empty())
    }

    /// The documents of a find at exactly this time.
    async fn find_exactly(
        &self,
        find: Document,
        time: OriginTime,
        ends: Instant,
    ) -> Result<Vec<RawDocumentBuf>, StepError> {
        let mut tries = 0;
        loop {
            let left = ends.saturating_duration_since(Instant::now());
            match self.find_once(find.clone(), At::Exactly(time), left).await {
                // A new primary may not have reached the time yet.
                Err(error) if code(&error) == Some(INVALID_OPTIONS) && tries == 0 => tries += 1,
                Err(error) => return Err(error.into()),
                Ok(found) if found.at.is_none() => {
                    return Err(StepError::NoCollection(found.operation_time));
                }
                Ok(found) => return Ok(found.documents),
            }
        }
    }
}

fn wanted(query: &ListsQuery) -> usize {
    usize::try_from(query.size).unwrap_or(usize::MAX)
}

/// The documents of a page, one more than wanted.
fn find_lists(query: &ListsQuery) -> Document {
    let mut conditions = vec![doc! { "_id": { "$regex": LIST_NAMES } }];
    if let Some(after) = &query.after {
        conditions.push(doc! { "_id": { "$gt": after.as_str() } });
    }
    if let Some(members) = &query.members {
        let members: Vec<_> = members.iter().map(AsRef::as_ref).collect::<Vec<&str>>();
        let member = doc! { "$elemMatch": { "principal": { "$in": members } } };
        conditions.push(doc! { list_document::MEMBERS: member });
    }
    let most = i32::try_from(query.size).unwrap_or(i32::MAX - 2) + 1;
    doc! {
        "find": LISTS,
        "filter": { "$and": conditions },
        "sort": { "_id": 1 },
        "projection": { "_id": 1 },
        "limit": most,
        "batchSize": most + 1,
    }
}

fn names_of(documents: &[RawDocumentBuf]) -> BTreeSet<ListName> {
    let name = |document: &RawDocumentBuf| ListName::parse(document.get_str("_id").ok()?);
    documents.iter().filter_map(name).collect()
}

/// The parents of these documents, in order, each with whether one of them is a todo
/// of its list.
fn parents(documents: &[RawDocumentBuf]) -> Vec<(ListName, bool)> {
    let mut parents: Vec<(ListName, bool)> = Vec::new();
    for document in documents {
        let Some(parent) = document.get_str("parent").ok().and_then(ListName::parse) else {
            continue;
        };
        let todo = document.get_str("_id").ok().and_then(TodoName::parse);
        let is_todo = todo.is_some_and(|todo| todo.parent() == parent.as_str());
        match parents.last_mut() {
            Some((last, contains_todo)) if *last == parent => *contains_todo |= is_todo,
            _ => parents.push((parent, is_todo)),
        }
    }
    parents
}

/// The page of these names, one more than wanted if there is more.
fn page_of(names: BTreeSet<ListName>, wanted: usize) -> ListsPage {
    ListsPage {
        more: names.len() > wanted,
        names: names.into_iter().take(wanted).collect(),
    }
}
