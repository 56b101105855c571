//! The reads that callers ask for: decide what is needed, read, state how fresh the
//! response is.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Answer, Cache, MAX_RESPONSE_BYTES, ReadOptions, TodoBatch, TodoPage,
    request::{ReadItems, ReadRequest, sort_items},
};
use crate::{
    budget::Caller,
    coherence::Consistency,
    error::{Error, Unavailable},
    model::{KeyRef, OriginTime, PageQuery, TodoName, Value},
};

/// Time to read the todo that is sent with a change to a watcher.
const WATCH_READ_TIMEOUT: Duration = Duration::from_secs(2);

impl Cache {
    /// One todo, encoded.
    ///
    /// # Errors
    /// `TodoNotFound` and `TodoUnreadable` are responses too and say how fresh they
    /// are; see [`Error`] for the others.
    pub async fn get(
        &self,
        name: &TodoName,
        options: &ReadOptions,
    ) -> Result<Answer<Bytes>, Error> {
        let request = self.begin(options).await?;
        let key = KeyRef::Todo(name);
        let item = self.read_one(key, &request).await?;
        let read = self.read_info(std::iter::once((key, &item)), &request)?;
        match item.value {
            Value::Todo(body) => Ok(Answer { body, read }),
            Value::Unreadable(why) => Err(Error::TodoUnreadable {
                name: name.clone(),
                field: why.field.clone(),
                problem: why.problem.clone(),
                read: Some(read.into()),
                token: None,
            }),
            Value::Absent | Value::Page(_) => Err(Error::TodoNotFound {
                name: name.clone(),
                read: Some(read),
                token: None,
            }),
        }
    }

    /// Several todos in the order asked for. A name asked for twice is answered
    /// twice.
    ///
    /// # Errors
    /// See [`Error`]. Missing and unreadable todos are no errors.
    pub async fn get_many(
        &self,
        names: &[TodoName],
        options: &ReadOptions,
    ) -> Result<Answer<TodoBatch>, Error> {
        let request = self.begin(options).await?;
        let items = match self.read_many(names, &request).await? {
            ReadItems::All(items) => items,
            ReadItems::TooLarge { fitting } => return Err(too_large(fitting)),
        };
        let keys = names.iter().map(KeyRef::Todo);
        let read = self.read_info(keys.zip(&items), &request)?;
        Ok(Answer {
            body: sort_items(names.iter(), items.into_iter()),
            read,
        })
    }

    /// One page of a list: its names, then their todos like any others. A page whose
    /// todos are too large for one response ends early. `carried`: the least `fresh_to`
    /// of the earlier pages.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list(
        &self,
        query: &Arc<PageQuery>,
        carried: Option<OriginTime>,
        options: &ReadOptions,
    ) -> Result<Answer<TodoPage>, Error> {
        let request = self.begin(options).await?;
        let mut query = Arc::clone(query);
        loop {
            match self.read_page(&query, carried, &request).await? {
                Ok(answer) => return Ok(answer),
                // The position after the last todo that fits is known to the origin
                // only: read a shorter page, which ends there.
                Err(fitting) => {
                    let size = u32::try_from(fitting).unwrap_or(u32::MAX);
                    let size = size.min(query.size - 1).max(1);
                    Arc::make_mut(&mut query).size = size;
                }
            }
        }
    }

    /// The page; or how many of its todos fit into a response.
    async fn read_page(
        &self,
        query: &Arc<PageQuery>,
        carried: Option<OriginTime>,
        request: &ReadRequest<'_>,
    ) -> Result<Result<Answer<TodoPage>, usize>, Error> {
        let page_key = KeyRef::Page(query);
        let page_item = self.read_one(page_key, request).await?;
        let Value::Page(page) = &page_item.value else {
            return Err(Unavailable::NoValue.into());
        };
        let items = match self.read_many(&page.names, request).await? {
            ReadItems::All(items) => items,
            ReadItems::TooLarge { fitting } => return Ok(Err(fitting)),
        };
        let keys = page.names.iter().map(KeyRef::Todo);
        let parts = keys.zip(&items).chain([(page_key, &page_item)]);
        let mut read = self.read_info(parts, request)?;
        if let Some(carried) = carried {
            read.token.fresh_to = read.token.fresh_to.min(carried);
        }
        let batch = sort_items(page.names.iter(), items.into_iter());
        let body = TodoPage {
            todos: batch.todos,
            unreadable: batch.unreadable,
            next: page.next.clone(),
        };
        Ok(Ok(Answer { body, read }))
    }

    /// The todo that is sent with a change, not older than `at_least`. `None`: it
    /// does not exist any more, or cannot be read in time.
    pub async fn read_for_watch(
        &self,
        name: &TodoName,
        at_least: OriginTime,
        caller: Option<&Arc<Caller>>,
    ) -> Option<Bytes> {
        let request = ReadRequest {
            consistency: Consistency::AtLeastAsFresh(at_least),
            deadline: Some(Instant::now() + WATCH_READ_TIMEOUT),
            caller,
            min_freshness: at_least,
            origin_error: None,
        };
        match self
            .read_one(KeyRef::Todo(name), &request)
            .await
            .ok()?
            .value
        {
            Value::Todo(todo) => Some(todo),
            Value::Absent | Value::Unreadable(_) | Value::Page(_) => None,
        }
    }
}

fn too_large(fitting: usize) -> Error {
    Error::MessageTooLarge {
        what: "reply",
        limit: MAX_RESPONSE_BYTES,
        advice: format!("ask for at most {fitting} of these names at once"),
    }
}
