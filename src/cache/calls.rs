//! The reads that callers ask for: decide what is needed, read, state how fresh the
//! response is.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Answer, Cache, MAX_RESPONSE_BYTES, ReadOptions, TodoBatch, TodoPage,
    request::{ReadItems, ReadRequest, sort_items},
    rights::Permission,
};
use crate::{
    auth,
    budget::{Caller, Part},
    error::{Error, Unavailable},
    model::{KeyRef, OriginTime, PageQuery, TodoName, Value},
};

/// Reads of more todos wait for their turn: a thousand take a millisecond of CPU, and some
/// hundred such reads at once would delay every other call.
const LARGE_READ: usize = 100;

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
        let (request, identity) = (self.begin(options).await?, options.identity.as_ref());
        let list = || name.list();
        let rights = self.check_right(list, Permission::GetTodos, identity, &request);
        let rights = rights.await?;
        let key = KeyRef::Todo(name);
        let item = self.read_one(key, &request).await?;
        let mut read = self.read_info_of_one(key, &item, &request)?;
        if let Some(rights) = rights.filter(|rights| !rights.cover(&read)) {
            let bytes = item.value.bytes();
            read = Box::pin(self.confirm(rights, read, bytes, &request)).await?;
        }
        match item.value {
            Value::Todo(body) => Ok(Answer { body, read }),
            Value::Unreadable(why) => Err(Error::unreadable(name.clone(), &why, read)),
            _ => Err(Error::not_found(name.clone(), read)),
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
        let (request, identity) = (self.begin(options).await?, options.identity.as_ref());
        let lists = names.iter().map(TodoName::parent);
        let rights = self.check_rights(lists, Permission::GetTodos, identity, &request);
        let rights = rights.await?;
        if names.len() > LARGE_READ {
            self.large_reads.next(options.caller.as_ref()).await;
        }
        let keys = names.iter().map(KeyRef::Todo);
        let items = match self.read_many(keys.clone(), &request).await? {
            ReadItems::All(items) => items,
            ReadItems::TooLarge { fitting, known } => {
                // It tells sizes, so the right must hold for what was read, too.
                let items = known;
                let known = keys.zip(&items);
                let known = known.filter_map(|(key, item)| Some((key, item.as_ref()?)));
                let read = self.read_info(known, &request)?;
                drop(items);
                if let Some(rights) = rights.filter(|rights| !rights.cover(&read)) {
                    // What was read is not needed any more.
                    Box::pin(self.confirm(rights, read, 0, &request)).await?;
                }
                return Err(too_large(fitting));
            }
        };
        let mut read = self.read_info(keys.zip(&items), &request)?;
        if let Some(rights) = rights.filter(|rights| !rights.cover(&read)) {
            let bytes = items.iter().map(|item| item.value.bytes()).sum();
            read = Box::pin(self.confirm(rights, read, bytes, &request)).await?;
        }
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
        let (request, identity) = (self.begin(options).await?, options.identity.as_ref());
        let list = || query.list.clone();
        let rights = self.check_right(list, Permission::ListTodos, identity, &request);
        let rights = rights.await?;
        if query.size as usize > LARGE_READ {
            self.large_reads.next(options.caller.as_ref()).await;
        }
        let mut query = Arc::clone(query);
        loop {
            match self.read_page(&query, carried, &request).await? {
                Ok(mut answer) => {
                    if let Some(rights) = rights.filter(|rights| !rights.cover(&answer.read)) {
                        let bytes = answer.body.todos.iter().map(Bytes::len).sum();
                        let confirm = self.confirm(rights, answer.read, bytes, &request);
                        answer.read = Box::pin(confirm).await?;
                    }
                    return Ok(answer);
                }
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
        let keys = page.names.iter().map(KeyRef::Todo);
        let items = match self.read_many(keys.clone(), request).await? {
            ReadItems::All(items) => items,
            ReadItems::TooLarge { fitting, .. } => return Ok(Err(fitting)),
        };
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

    /// The todo that is sent with a change, not older than `at_least`, if it still exists,
    /// and the newest state that this shows. `None`: it cannot be read in time, or its list
    /// does not allow it any more.
    pub async fn read_for_watch(
        &self,
        name: &TodoName,
        at_least: OriginTime,
        caller: Option<&Arc<Caller>>,
        identity: Option<&auth::Caller>,
    ) -> Option<(Option<Bytes>, OriginTime)> {
        let request = ReadRequest::of_watch(at_least, caller);
        let item = self.read_one(KeyRef::Todo(name), &request).await.ok()?;
        let request = request.at_least(item.admitted.seen);
        let list = || name.list();
        // It is here already, and there are not more of them than watches.
        let bytes = item.value.bytes() as u64;
        let _held = self.budgets.of(Part::Loads).force(caller, bytes);
        let right = self.check_right(list, Permission::WatchTodos, identity, &request);
        right.await.ok()?;
        match item.value {
            Value::Todo(todo) => Some((Some(todo), item.admitted.seen)),
            Value::Absent => Some((None, item.admitted.seen)),
            _ => None,
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
