//! The data of one read: what it needs, what was found, what is missing.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    auth,
    budget::Caller,
    coherence::{Admitted, Consistency, ReadView},
    error::Error,
    model::{
        Key, OriginTime, PagePosition, ReadInfo, RequestId, Source, Stamped, TodoName, Token, Value,
    },
};

/// How a caller wants a read to be done.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// How fresh the response must be.
    pub consistency: Consistency,
    /// When the caller stops waiting; `None`: never.
    pub deadline: Option<Instant>,
    /// The caller whose share of the budgets it uses; `None`: not charged to a caller.
    pub caller: Option<Arc<Caller>>,
    /// Whose rights count; `None`: authentication is off.
    pub identity: Option<auth::Caller>,
}

/// How a caller wants a write to be done.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Repeats under the same id have no effect.
    pub request_id: Option<RequestId>,
    /// When the caller stops waiting; `None`: never.
    pub deadline: Option<Instant>,
    /// The caller whose share of the budgets it uses; `None`: not charged to a caller.
    pub caller: Option<Arc<Caller>>,
    /// Whose rights count; `None`: authentication is off.
    pub identity: Option<auth::Caller>,
}

/// A response and how fresh it is.
#[derive(Clone, Debug)]
pub struct Answer<T> {
    /// The response.
    pub body: T,
    /// How fresh it is.
    pub read: ReadInfo,
}

/// Several todos.
#[derive(Clone, Debug, Default)]
pub struct TodoBatch {
    /// The encoded todos that exist, in the order asked for.
    pub todos: Vec<Bytes>,
    /// Names that no todo has.
    pub missing: Vec<TodoName>,
    /// Names whose document cannot be read as a todo.
    pub unreadable: Vec<TodoName>,
}

/// A page of todos.
#[derive(Clone, Debug, Default)]
pub struct TodoPage {
    /// The encoded todos, in the query's order.
    pub todos: Vec<Bytes>,
    /// Names in the page whose document cannot be read as a todo.
    pub unreadable: Vec<TodoName>,
    /// Where the next page begins.
    pub next: Option<PagePosition>,
}

/// A write that took place.
#[derive(Clone, Debug)]
pub struct Written {
    /// The encoded todo or list; empty after a delete.
    pub body: Bytes,
    /// A read that presents it is not older than the write.
    pub token: Token,
}

/// What one request needs, decided once at its arrival.
pub(super) struct ReadRequest<'a> {
    pub(super) consistency: Consistency,
    pub(super) deadline: Option<Instant>,
    pub(super) caller: Option<&'a Arc<Caller>>,
    /// What the response must be fresh to.
    pub(super) min_freshness: OriginTime,
    /// Why the origin cannot be asked. Set only if responses marked stale are
    /// allowed; `min_freshness` is then without its age.
    /// Boxed, as it is rare and large.
    pub(super) origin_error: Option<Box<Error>>,
}

/// Time for a read that a message of a watch waits for.
const WATCH_READ_TIMEOUT: Duration = Duration::from_secs(2);

impl<'a> ReadRequest<'a> {
    /// The same, not older than `time` either.
    pub(super) fn at_least(&self, time: OriginTime) -> Self {
        Self {
            min_freshness: self.min_freshness.max(time),
            origin_error: self.origin_error.clone(),
            ..*self
        }
    }

    /// What a message of a watch needs.
    pub(super) fn of_watch(time: OriginTime, caller: Option<&'a Arc<Caller>>) -> Self {
        Self {
            consistency: Consistency::AtLeastAsFresh(time),
            deadline: Some(Instant::now() + WATCH_READ_TIMEOUT),
            caller,
            min_freshness: time,
            origin_error: None,
        }
    }

    pub(super) const fn origin_down(&self) -> bool {
        self.origin_error.is_some()
    }

    /// A value as a part of this request's response.
    pub(super) const fn item(&self, value: Value, admitted: Admitted, source: Source) -> ReadItem {
        ReadItem {
            value,
            admitted,
            source,
            stale: self.origin_down(),
        }
    }
}

/// One part of a response: a todo, or a page of names.
pub(super) struct ReadItem {
    pub(super) value: Value,
    pub(super) admitted: Admitted,
    pub(super) source: Source,
    pub(super) stale: bool,
}

/// The result of a read of several todos.
pub(super) enum ReadItems {
    /// All of them, in their order.
    All(Vec<ReadItem>),
    /// They are too large for one response: some of the first ones would fit.
    TooLarge {
        /// How many: exact if all before were read, else by their mean size.
        fitting: usize,
        /// What was read, in its place.
        known: Vec<Option<ReadItem>>,
    },
}

/// What a read of several todos found, each with its place in the response.
pub(super) type Found = Vec<(usize, ReadItem)>;

/// A part that near could not answer.
pub(super) struct Miss {
    /// Its place in the response.
    pub(super) at: usize,
    pub(super) key: Key,
    pub(super) view: ReadView,
    /// An admissible value that is not fresh enough.
    pub(super) candidate: Option<(Stamped, Source)>,
    /// The near cache holds a value that a change has invalidated.
    pub(super) invalidated: bool,
}

/// Sorts items by whether there is a todo.
pub(super) fn sort_items<'a>(
    names: impl Iterator<Item = &'a TodoName>,
    items: impl Iterator<Item = ReadItem>,
) -> TodoBatch {
    let mut batch = TodoBatch::default();
    for (name, item) in names.zip(items) {
        match item.value {
            Value::Todo(todo) => batch.todos.push(todo),
            Value::Unreadable(_) => batch.unreadable.push(name.clone()),
            _ => batch.missing.push(name.clone()),
        }
    }
    batch
}
