//! Lists in the embedded store: two tables, written together. `lists` has the lists
//! themselves, `list_members` finds them by a member.

use std::{collections::BTreeSet, ops::Bound, sync::Arc};

use bytes::Bytes;
use prost::Message;
use redb::{ReadableTable, StorageError};

use super::{
    store::{etag, order_prefix},
    tables::{Tables, WriteResult, mismatch},
    wall_ms,
};
use crate::{
    model::{
        ListName, ListPatch, Order, OriginTime, TodoName, Unreadable, Value, WriteDone,
        timestamp_from_ms,
    },
    origin::{FeedEvent, FeedItem, WriteError},
    pb::TodoList,
};

/// Most todos that one command of the writer deletes: what commands behind it wait for.
const DELETE_BATCH: usize = 500;
/// What is wrong with a list that cannot be decoded.
const DAMAGED: (&str, &str) = ("document", "is damaged in the store");

/// The order by whose keys the todos of a list are found.
const ANY_ORDER: Order = Order::CreateTimeDesc;

pub(super) fn value(stored: &[u8]) -> Value {
    match TodoList::decode(stored) {
        Ok(list) => Value::List(Arc::new(TodoList {
            etag: etag(stored),
            ..list
        })),
        Err(_) => Value::Unreadable(Arc::new(Unreadable {
            field: DAMAGED.0.into(),
            problem: DAMAGED.1.into(),
        })),
    }
}

/// The stored bytes with their etag as one more field, as for todos.
pub(super) fn with_etag(stored: &[u8]) -> Bytes {
    let etag = TodoList {
        etag: etag(stored),
        ..TodoList::default()
    };
    [stored, &etag.encode_to_vec()].concat().into()
}

/// Adds the first `most` names after `after` of lists that have this member, from its
/// keys.
pub(super) fn add_of_member(
    names: &mut BTreeSet<ListName>,
    keys: redb::Range<'_, (&'static str, &'static str), ()>,
    member: &str,
    after: &str,
    most: usize,
) -> Result<(), StorageError> {
    let mut found = 0;
    for key in keys {
        let (key, _) = key?;
        let (other, name) = key.value();
        if other != member || found == most {
            break;
        }
        if name > after {
            names.extend(ListName::parse(name));
            found += 1;
        }
    }
    Ok(())
}

/// Adds the first `most` names after `after` of lists that are stored.
pub(super) fn add_stored(
    names: &mut BTreeSet<ListName>,
    stored: redb::Range<'_, &'static str, &'static [u8]>,
    after: &str,
    most: usize,
) -> Result<(), StorageError> {
    // One more, since the first may be `after` itself.
    for entry in stored.take(most.saturating_add(1)) {
        let (name, _) = entry?;
        if name.value() > after {
            names.extend(ListName::parse(name.value()));
        }
    }
    Ok(())
}

/// Adds the first `most` names after `after` of lists that contain todos: one seek
/// each.
pub(super) fn add_parents(
    names: &mut BTreeSet<ListName>,
    orders: &impl ReadableTable<&'static [u8], ()>,
    after: &str,
    most: usize,
) -> Result<(), StorageError> {
    let mut behind = behind_list(after);
    for _ in 0..most {
        let Some(parent) = first_parent(orders, &behind)? else {
            break;
        };
        behind = behind_list(parent.as_str());
        names.insert(parent);
    }
    Ok(())
}

/// A key behind all todos of this list and before those of every later one: the keys
/// of a list end their name with a zero byte, and no name has a byte below 2.
fn behind_list(list: &str) -> Vec<u8> {
    let mut key = order_prefix(ANY_ORDER, list);
    if let Some(end) = key.last_mut() {
        *end = 1;
    }
    key
}

/// The list of the first key after this one.
fn first_parent(
    orders: &impl ReadableTable<&'static [u8], ()>,
    after: &[u8],
) -> Result<Option<ListName>, StorageError> {
    let bounds = (Bound::Excluded(after), Bound::Unbounded);
    let Some(key) = orders.range::<&[u8]>(bounds)?.next().transpose()? else {
        return Ok(None);
    };
    let key = key.0.value();
    if key.first() != after.first() {
        return Ok(None);
    }
    let name = key[1..].split(|byte| *byte == 0).next();
    Ok(name
        .and_then(|name| std::str::from_utf8(name).ok())
        .and_then(ListName::parse))
}

impl Tables<'_> {
    pub(super) fn create_list(
        &mut self,
        name: &ListName,
        list: TodoList,
        clock: &mut u64,
        items: &mut Vec<FeedItem>,
    ) -> WriteResult {
        if self.lists.get(name.as_str())?.is_some() {
            let at = OriginTime(*clock);
            return Ok(Err(WriteError::AlreadyExists { at }));
        }
        let now = Some(timestamp_from_ms(wall_ms()));
        let list = TodoList {
            create_time: now,
            update_time: now,
            ..list
        };
        let body = self.put_list(name, None, list)?;
        let time = publish(clock, items, name);
        Ok(Ok(WriteDone { body, time }))
    }

    pub(super) fn update_list(
        &mut self,
        name: &ListName,
        patch: &ListPatch,
        given: Option<&str>,
        clock: &mut u64,
        items: &mut Vec<FeedItem>,
    ) -> WriteResult {
        let at = OriginTime(*clock);
        let Some(stored) = self.stored_list(name)? else {
            // One that exists because it contains todos gets a document.
            if given.is_some() || self.some_todos(name)?.is_empty() {
                return Ok(Err(WriteError::NotFound { at }));
            }
            let list = patch.apply(TodoList::default(), wall_ms());
            return self.create_list(name, list, clock, items);
        };
        if let Some(mismatch) = mismatch(given, &stored, at) {
            return Ok(Err(mismatch));
        }
        let Ok(old) = TodoList::decode(&*stored) else {
            return Ok(Err(WriteError::Unreadable {
                field: DAMAGED.0.into(),
                problem: DAMAGED.1.into(),
                at,
            }));
        };
        let new = patch.apply(old.clone(), wall_ms());
        let body = self.put_list(name, Some(&old), new)?;
        let time = publish(clock, items, name);
        Ok(Ok(WriteDone { body, time }))
    }

    /// Deletes a list. With `force`, deletes todos of it before, at most a batch: if
    /// there are more, the answer is `NotEmpty`, and the caller repeats the command.
    pub(super) fn delete_list(
        &mut self,
        name: &ListName,
        given: Option<&str>,
        force: bool,
        clock: &mut u64,
        items: &mut Vec<FeedItem>,
    ) -> WriteResult {
        let at = OriginTime(*clock);
        let stored = self.stored_list(name)?;
        if let Some(stored) = &stored
            && let Some(mismatch) = mismatch(given, stored, at)
        {
            return Ok(Err(mismatch));
        }
        let todos = self.some_todos(name)?;
        let (is_empty, is_stored) = (todos.is_empty(), stored.is_some());
        if !is_stored && (given.is_some() || is_empty) {
            return Ok(Err(WriteError::NotFound { at }));
        }
        if !is_empty && !force {
            return Ok(Err(WriteError::NotEmpty { at }));
        }
        for todo in todos.iter().take(DELETE_BATCH) {
            if let Err(refusal) = self.delete(todo, None, true, clock, items)? {
                return Ok(Err(refusal));
            }
        }
        if todos.len() > DELETE_BATCH {
            let at = OriginTime(*clock);
            return Ok(Err(WriteError::NotEmpty { at }));
        }
        if let Some(stored) = stored {
            self.lists.remove(name.as_str())?;
            let old = TodoList::decode(&*stored).unwrap_or_default();
            self.remove_members(name, old.members.keys())?;
            publish(clock, items, name);
        }
        Ok(Ok(WriteDone {
            body: Bytes::new(),
            time: OriginTime(*clock),
        }))
    }

    fn stored_list(&self, name: &ListName) -> Result<Option<Vec<u8>>, redb::Error> {
        let stored = self.lists.get(name.as_str())?;
        Ok(stored.map(|stored| stored.value().to_vec()))
    }

    /// The names of a batch of the list's todos, and of one more.
    fn some_todos(&self, list: &ListName) -> Result<Vec<TodoName>, redb::Error> {
        let prefix = order_prefix(ANY_ORDER, list.as_str());
        let mut todos = Vec::new();
        for key in self.orders.range(prefix.as_slice()..)? {
            let key = key?.0;
            if !key.value().starts_with(&prefix) || todos.len() > DELETE_BATCH {
                break;
            }
            // Behind the prefix: a byte and the value that is sorted by.
            let name = key.value().get(prefix.len() + 9..).unwrap_or_default();
            todos.extend(std::str::from_utf8(name).ok().and_then(TodoName::parse));
        }
        Ok(todos)
    }

    /// Stores a list and its members' keys; the list with its etag.
    fn put_list(
        &mut self,
        name: &ListName,
        old: Option<&TodoList>,
        new: TodoList,
    ) -> Result<Bytes, redb::Error> {
        let new = TodoList {
            name: name.as_str().to_owned(),
            etag: String::new(),
            ..new
        };
        if let Some(old) = old {
            let members = old.members.keys();
            self.remove_members(name, members.filter(|old| !new.members.contains_key(*old)))?;
        }
        for member in new.members.keys() {
            self.members.insert((member.as_str(), name.as_str()), ())?;
        }
        let stored = new.encode_to_vec();
        self.lists.insert(name.as_str(), stored.as_slice())?;
        Ok(with_etag(&stored))
    }

    fn remove_members<'m>(
        &mut self,
        name: &ListName,
        members: impl Iterator<Item = &'m String>,
    ) -> Result<(), redb::Error> {
        for member in members {
            self.members.remove((member.as_str(), name.as_str()))?;
        }
        Ok(())
    }
}

fn publish(clock: &mut u64, items: &mut Vec<FeedItem>, name: &ListName) -> OriginTime {
    *clock += 1;
    let time = OriginTime(*clock);
    items.push(FeedItem {
        time,
        alone: true,
        event: FeedEvent::List(name.clone()),
    });
    time
}
