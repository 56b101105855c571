//! What one write does to the tables, in the transaction of its group.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use redb::{ReadableTable, Table, WriteTransaction};

use super::{
    lists,
    store::{
        LIST_MEMBERS, LISTS, ORDERS, REQUEST_TIMES, REQUESTS, TODOS, change_now, etag, order_keys,
        with_etag,
    },
    wall_ms,
};
use crate::{
    model::{
        Change, ChangeKind, ListName, OriginTime, Patch, RequestId, Resource, TodoName, Touched,
        Write, WriteDone, validate,
    },
    origin::{FeedEvent, FeedItem, WriteError},
    pb::Todo,
};

/// How long a request id is remembered (see the proto).
const REQUEST_AGE: Duration = Duration::from_secs(24 * 3600);

pub(super) struct Tables<'a> {
    todos: Table<'a, &'static str, &'static [u8]>,
    pub(super) orders: Table<'a, &'static [u8], ()>,
    pub(super) lists: Table<'a, &'static str, &'static [u8]>,
    pub(super) members: Table<'a, (&'static str, &'static str), ()>,
    requests: Table<'a, u128, &'static [u8]>,
    request_times: Table<'a, (i64, u128), ()>,
}

/// The outcome of a write; the outer error: the store failed.
pub(super) type WriteResult = Result<Result<WriteDone, WriteError>, redb::Error>;

impl<'a> Tables<'a> {
    pub(super) fn open(txn: &'a WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            todos: txn.open_table(TODOS)?,
            orders: txn.open_table(ORDERS)?,
            lists: txn.open_table(LISTS)?,
            members: txn.open_table(LIST_MEMBERS)?,
            requests: txn.open_table(REQUESTS)?,
            request_times: txn.open_table(REQUEST_TIMES)?,
        })
    }

    pub(super) fn write(
        &mut self,
        write: Write,
        request: Option<RequestId>,
        clock: &mut u64,
        items: &mut Vec<FeedItem>,
    ) -> WriteResult {
        if let Some(request) = &request
            && let Some(done) = self.repeated(request, *clock)?
        {
            return Ok(done);
        }
        let name = write.name();
        let done = match write {
            Write::Create { name, todo } => self.create(&name, &todo, clock, items)?,
            Write::Update {
                name,
                patch,
                etag,
                allow_missing,
            } => self.update(&name, &patch, etag.as_deref(), allow_missing, clock, items)?,
            Write::Delete {
                name,
                etag,
                allow_missing,
            } => self.delete(&name, etag.as_deref(), allow_missing, clock, items)?,
            Write::CreateList { name, list } => self.create_list(&name, list, clock, items)?,
            Write::UpdateList { name, patch, etag } => {
                self.update_list(&name, &patch, etag.as_deref(), clock, items)?
            }
            Write::DeleteList { name, etag, force } => {
                self.delete_list(&name, etag.as_deref(), force, clock, items)?
            }
        };
        if let (Ok(_), Some(request)) = (&done, request) {
            self.remember(&request, &name)?;
        }
        Ok(done)
    }

    /// The outcome of a request that was done before: the todo or list as it is now.
    fn repeated(
        &self,
        request: &RequestId,
        clock: u64,
    ) -> Result<Option<Result<WriteDone, WriteError>>, redb::Error> {
        let Some(known) = self.requests.get(request.id.as_u128())? else {
            return Ok(None);
        };
        let Some((fingerprint, rest)) = known.value().split_at_checked(16) else {
            return Ok(None);
        };
        let Some((wall, name)) = rest.split_at_checked(8) else {
            return Ok(None);
        };
        let wall = wall.try_into().map_or(0, i64::from_be_bytes);
        if wall_ms() - wall > i64::try_from(REQUEST_AGE.as_millis()).unwrap_or(i64::MAX) {
            return Ok(None);
        }
        if fingerprint != request.fingerprint {
            return Ok(Some(Err(WriteError::RequestIdReused)));
        }
        let name = std::str::from_utf8(name).unwrap_or_default();
        let body = if ListName::parse(name).is_some() {
            let stored = self.lists.get(name)?;
            stored.map(|stored| lists::with_etag(stored.value()))
        } else {
            let stored = self.todos.get(name)?;
            stored.map(|stored| with_etag(stored.value()))
        };
        Ok(Some(Ok(WriteDone {
            body: body.unwrap_or_default(),
            time: OriginTime(clock),
        })))
    }

    fn remember(&mut self, request: &RequestId, name: &Resource) -> Result<(), redb::Error> {
        let (id, now) = (request.id.as_u128(), wall_ms());
        let raw = [
            &request.fingerprint[..],
            &now.to_be_bytes()[..],
            name.to_string().as_bytes(),
        ]
        .concat();
        self.requests.insert(id, raw.as_slice())?;
        self.request_times.insert((now, id), ())?;
        // Two for each that comes, so that they never grow beyond a day's.
        let forget = now - i64::try_from(REQUEST_AGE.as_millis()).unwrap_or(i64::MAX);
        for _ in 0..2 {
            let Some((wall, id)) = self.request_times.first()?.map(|(key, _)| key.value()) else {
                break;
            };
            if wall >= forget {
                break;
            }
            self.request_times.remove((wall, id))?;
            // It may have been used again since.
            let known = self.requests.get(id)?;
            if known.is_some_and(|known| known.value().get(16..24) == Some(&wall.to_be_bytes())) {
                self.requests.remove(id)?;
            }
        }
        Ok(())
    }

    fn create(
        &mut self,
        name: &TodoName,
        todo: &Todo,
        clock: &mut u64,
        items: &mut Vec<FeedItem>,
    ) -> WriteResult {
        if self.todos.get(name.as_str())?.is_some() {
            return Ok(Err(WriteError::AlreadyExists {
                at: OriginTime(*clock),
            }));
        }
        let stored = self.put(name, None, todo)?;
        let time = publish(clock, items, name, ChangeKind::Created, Touched::All);
        Ok(Ok(WriteDone {
            body: with_etag(&stored),
            time,
        }))
    }

    fn stored(&self, name: &TodoName) -> Result<Option<Vec<u8>>, redb::Error> {
        let stored = self.todos.get(name.as_str())?;
        Ok(stored.map(|stored| stored.value().to_vec()))
    }

    fn update(
        &mut self,
        name: &TodoName,
        patch: &Patch,
        given: Option<&str>,
        allow_missing: bool,
        clock: &mut u64,
        items: &mut Vec<FeedItem>,
    ) -> WriteResult {
        let old = self.stored(name)?;
        let at = OriginTime(*clock);
        let Some(old) = old else {
            if !allow_missing || given.is_some() {
                return Ok(Err(WriteError::NotFound { at }));
            }
            let mut todo = patch.create(name.as_str(), wall_ms());
            if let Err(mut problems) = validate(&mut todo, "todo.") {
                return Ok(Err(WriteError::Invalid(problems.swap_remove(0))));
            }
            return self.create(name, &todo, clock, items);
        };
        if let Some(mismatch) = mismatch(given, &old, at) {
            return Ok(Err(mismatch));
        }
        let Some(old) = decoded(&old) else {
            return Ok(Err(unreadable(at)));
        };
        let new = patch.apply(old.clone(), wall_ms());
        let stored = self.put(name, Some(&old), &new)?;
        let time = publish(clock, items, name, ChangeKind::Updated, touched(&old, &new));
        Ok(Ok(WriteDone {
            body: with_etag(&stored),
            time,
        }))
    }

    pub(super) fn delete(
        &mut self,
        name: &TodoName,
        given: Option<&str>,
        allow_missing: bool,
        clock: &mut u64,
        items: &mut Vec<FeedItem>,
    ) -> WriteResult {
        let old = self.stored(name)?;
        let at = OriginTime(*clock);
        let Some(old) = old else {
            let missing = Ok(WriteDone {
                body: Bytes::new(),
                time: at,
            });
            return Ok(if allow_missing {
                missing
            } else {
                Err(WriteError::NotFound { at })
            });
        };
        if let Some(mismatch) = mismatch(given, &old, at) {
            return Ok(Err(mismatch));
        }
        if let Some(old) = decoded(&old) {
            for key in order_keys(name, &old) {
                self.orders.remove(key.as_slice())?;
            }
        }
        self.todos.remove(name.as_str())?;
        let time = publish(clock, items, name, ChangeKind::Deleted, Touched::All);
        Ok(Ok(WriteDone {
            body: Bytes::new(),
            time,
        }))
    }

    pub(super) fn import(
        &mut self,
        todos: Vec<Todo>,
        clock: &mut u64,
        items: &mut Vec<FeedItem>,
    ) -> Result<usize, redb::Error> {
        let mut new = 0;
        for todo in todos {
            let Some(name) = TodoName::parse(&todo.name) else {
                continue;
            };
            new += usize::from(self.create(&name, &todo, clock, items)?.is_ok());
        }
        Ok(new)
    }

    /// Stores a todo and moves its keys in the orders.
    fn put(
        &mut self,
        name: &TodoName,
        old: Option<&Todo>,
        new: &Todo,
    ) -> Result<Vec<u8>, redb::Error> {
        let new = Todo {
            name: name.as_str().to_owned(),
            etag: String::new(),
            ..new.clone()
        };
        let keys = order_keys(name, &new);
        if let Some(old) = old {
            for key in order_keys(name, old)
                .iter()
                .filter(|key| !keys.contains(key))
            {
                self.orders.remove(key.as_slice())?;
            }
        }
        for key in &keys {
            self.orders.insert(key.as_slice(), ())?;
        }
        let stored = new.encode_to_vec();
        self.todos.insert(name.as_str(), stored.as_slice())?;
        Ok(stored)
    }
}

fn publish(
    clock: &mut u64,
    items: &mut Vec<FeedItem>,
    name: &TodoName,
    kind: ChangeKind,
    touched: Touched,
) -> OriginTime {
    *clock += 1;
    let change: Change = change_now(name.clone(), kind, touched, *clock);
    items.push(FeedItem {
        time: change.time,
        alone: true,
        event: FeedEvent::Change(change),
    });
    OriginTime(*clock)
}

fn decoded(stored: &[u8]) -> Option<Todo> {
    Todo::decode(stored).ok()
}

fn unreadable(at: OriginTime) -> WriteError {
    WriteError::Unreadable {
        field: "todo".into(),
        problem: "is damaged in the store".into(),
        at,
    }
}

pub(super) fn mismatch(given: Option<&str>, stored: &[u8], at: OriginTime) -> Option<WriteError> {
    let current = etag(stored);
    (given? != current).then_some(WriteError::EtagMismatch { current, at })
}

/// The fields in which two states differ.
fn touched(old: &Todo, new: &Todo) -> Touched {
    let fields = [
        ("title", old.title != new.title),
        ("notes", old.notes != new.notes),
        ("state", old.state != new.state),
        ("priority", old.priority != new.priority),
        ("labels", old.labels != new.labels),
        ("due_time", old.due_time != new.due_time),
        ("complete_time", old.complete_time != new.complete_time),
        ("update_time", true),
    ];
    Touched::Paths(
        fields
            .iter()
            .filter(|(_, differs)| *differs)
            .map(|(field, _)| (*field).into())
            .collect(),
    )
}
