//! What lies in the file: tables, their keys and how they are read.

use std::{collections::BTreeSet, io};

use bytes::Bytes;
use prost::Message;
use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition,
};

use super::{OpenProblem, lists, wall_ms};
use crate::{
    model::{
        Change, ChangeKind, Condition, Filter, ListName, ListsPage, ListsQuery, Order, OriginTime,
        Page, PagePosition, PageQuery, SortKey, TodoName, Touched, Value, timestamp_ms,
    },
    origin::FeedEvent,
    pb::Todo,
};

/// Name -> the todo's protobuf form without its etag.
pub(super) const TODOS: TableDefinition<&str, &[u8]> = TableDefinition::new("todos");
/// The four orders: see `order_key`.
pub(super) const ORDERS: TableDefinition<&[u8], ()> = TableDefinition::new("orders");
/// Name -> the list's protobuf form without its etag.
pub(super) const LISTS: TableDefinition<&str, &[u8]> = TableDefinition::new("lists");
/// (member, name of a list that has it): written with the list.
pub(super) const LIST_MEMBERS: TableDefinition<(&str, &str), ()> =
    TableDefinition::new("list_members");
/// Commit number -> change.
pub(super) const HISTORY: TableDefinition<u64, &[u8]> = TableDefinition::new("history");
/// Request id -> what it was used for.
pub(super) const REQUESTS: TableDefinition<u128, &[u8]> = TableDefinition::new("requests");
/// (wall clock in ms, request id), to forget the old ones.
pub(super) const REQUEST_TIMES: TableDefinition<(i64, u128), ()> =
    TableDefinition::new("request_times");
/// Single numbers.
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// Version of all this. A file of a later version is not touched.
pub(super) const FORMAT: u64 = 1;
/// The version from the first change of a list on: its history has an entry that the
/// version before cannot read.
pub(super) const FORMAT_WITH_LISTS: u64 = 2;
/// Where the version is.
pub(super) const FORMAT_KEY: &str = "format";
pub(super) const LAST_WRITE: &str = "last_write";
pub(super) const RESERVED: &str = "reserved";
pub(super) const HISTORY_START: &str = "history_start";

/// What was found in the file.
pub(super) struct Opened {
    pub id: u64,
    /// No number up to this was left unused for sure: go on above.
    pub clock: u64,
    /// Every change after this is in the history.
    pub history_start: u64,
    pub history_len: u64,
    /// Commit numbers with their wall clock, a second or more apart.
    pub wall_clock_samples: Vec<(u64, i64)>,
}

/// Makes the tables of a new file; reads what an old one has.
pub(super) fn prepare(database: &Database) -> Result<Opened, OpenProblem> {
    let txn = database.begin_write()?;
    let opened = {
        let mut meta = txn.open_table(META)?;
        let known =
            |meta: &redb::Table<&str, u64>, key: &str| -> Result<Option<u64>, redb::Error> {
                Ok(meta.get(key)?.map(|value| value.value()))
            };
        let format = known(&meta, FORMAT_KEY)?.unwrap_or(FORMAT);
        if !(FORMAT..=FORMAT_WITH_LISTS).contains(&format) {
            return Err(OpenProblem::Format(format));
        }
        meta.insert(FORMAT_KEY, format)?;
        let id = known(&meta, "id")?.unwrap_or_else(rand::random);
        meta.insert("id", id)?;
        let clock = known(&meta, RESERVED)?.unwrap_or(1);
        let history_start = known(&meta, HISTORY_START)?.unwrap_or(clock);
        meta.insert(HISTORY_START, history_start)?;
        txn.open_table(TODOS)?;
        txn.open_table(ORDERS)?;
        txn.open_table(LISTS)?;
        txn.open_table(LIST_MEMBERS)?;
        txn.open_table(REQUESTS)?;
        txn.open_table(REQUEST_TIMES)?;
        let history = txn.open_table(HISTORY)?;
        let history_len = history.len()?;
        let mut wall_clock_samples: Vec<(u64, i64)> = Vec::new();
        for entry in history.iter()? {
            let (number, raw) = entry?;
            let wall = entry_wall_ms(raw.value());
            if wall_clock_samples
                .last()
                .is_none_or(|(_, last)| wall >= last + 1000)
            {
                wall_clock_samples.push((number.value(), wall));
            }
        }
        Opened {
            id,
            clock,
            history_start,
            history_len,
            wall_clock_samples,
        }
    };
    txn.commit()?;
    Ok(opened)
}

/// A snapshot's tables.
pub(super) struct Reader {
    todos: ReadOnlyTable<&'static str, &'static [u8]>,
    orders: ReadOnlyTable<&'static [u8], ()>,
    lists: ReadOnlyTable<&'static str, &'static [u8]>,
    members: ReadOnlyTable<(&'static str, &'static str), ()>,
    meta: ReadOnlyTable<&'static str, u64>,
}

impl Reader {
    pub(super) fn new(txn: &ReadTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            todos: txn.open_table(TODOS)?,
            orders: txn.open_table(ORDERS)?,
            lists: txn.open_table(LISTS)?,
            members: txn.open_table(LIST_MEMBERS)?,
            meta: txn.open_table(META)?,
        })
    }

    pub(super) fn last_write(&self) -> Result<u64, redb::Error> {
        Ok(self.meta.get(LAST_WRITE)?.map_or(0, |value| value.value()))
    }

    pub(super) fn value(&self, name: &TodoName) -> Result<Value, redb::Error> {
        let stored = self.todos.get(name.as_str())?;
        Ok(stored.map_or(Value::Absent, |stored| {
            Value::Todo(with_etag(stored.value()))
        }))
    }

    pub(super) fn list(&self, name: &ListName) -> Result<Value, redb::Error> {
        let stored = self.lists.get(name.as_str())?;
        Ok(stored.map_or(Value::Absent, |stored| lists::value(stored.value())))
    }

    /// The names of lists. Reads at most one key more than the page has, for each member
    /// or for each of the two tables.
    pub(super) fn lists(&self, query: &ListsQuery) -> Result<ListsPage, redb::Error> {
        let most = usize::try_from(query.size)
            .unwrap_or(usize::MAX)
            .saturating_add(1);
        let after = query.after.as_ref().map_or("", ListName::as_str);
        let mut names = BTreeSet::new();
        if let Some(members) = &query.members {
            for member in members.iter() {
                let keys = self.members.range((&**member, after)..)?;
                lists::add_of_member(&mut names, keys, member, after, most)?;
            }
        } else {
            let stored = self.lists.range(after..)?;
            lists::add_stored(&mut names, stored, after, most)?;
            lists::add_parents(&mut names, &self.orders, after, most)?;
        }
        Ok(ListsPage {
            more: names.len() >= most,
            names: names.into_iter().take(most - 1).collect(),
        })
    }

    /// Walks the list's part of the order's keys.
    pub(super) fn page(&self, query: &PageQuery) -> Result<Page, redb::Error> {
        let prefix = order_prefix(query.order, query.list.as_str());
        let (start, skip) = match &query.after {
            Some(after) => (order_key(query.order, &after.name, after.key), true),
            None => (prefix.clone(), false),
        };
        let size = usize::try_from(query.size).unwrap_or(usize::MAX);
        let mut page = Page::default();
        let mut last = None;
        for entry in self.orders.range(start.as_slice()..)? {
            let (key, ()) = entry.map(|(key, value)| (key, value.value()))?;
            let key = key.value();
            if !key.starts_with(&prefix) {
                break;
            }
            if skip && key == start.as_slice() {
                continue;
            }
            let Some(name) = name_of(key, &prefix, query) else {
                continue;
            };
            let Some(todo) = self.matching(&name, &query.filter)? else {
                continue;
            };
            if page.names.len() == size {
                page.next = last;
                break;
            }
            if page.names.len() + 1 == size {
                last = Some(PagePosition {
                    key: sort_key(query.order, &todo),
                    name: name.clone(),
                });
            }
            page.names.push(name);
        }
        Ok(page)
    }

    fn matching(&self, name: &TodoName, filter: &Filter) -> Result<Option<Todo>, redb::Error> {
        let Some(stored) = self.todos.get(name.as_str())? else {
            return Ok(None);
        };
        let todo = Todo::decode(stored.value())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(filter
            .0
            .iter()
            .all(|condition| holds(condition, &todo))
            .then_some(todo))
    }
}

/// The stored bytes with their etag, a strong hash of them, as one more field:
/// protobuf messages may be joined.
pub(super) fn with_etag(stored: &[u8]) -> Bytes {
    let etag = Todo {
        etag: etag(stored),
        ..Todo::default()
    };
    let mut raw = Vec::with_capacity(stored.len() + etag.encoded_len());
    raw.extend_from_slice(stored);
    raw.extend_from_slice(&etag.encode_to_vec());
    raw.into()
}

/// The etag of a stored todo: half a blake3 hash.
pub(super) fn etag(stored: &[u8]) -> String {
    blake3::hash(stored).to_hex()[..32].to_owned()
}

fn holds(condition: &Condition, todo: &Todo) -> bool {
    match condition {
        Condition::State(op, state) => op.holds(&(todo.state() as i32), &(*state as i32)),
        Condition::Priority(op, priority) => {
            op.holds(&(todo.priority() as i32), &(*priority as i32))
        }
        Condition::Label(label) => todo.labels.contains(label),
        Condition::Due(op, due) => todo
            .due_time
            .as_ref()
            .and_then(timestamp_ms)
            .is_some_and(|ms| op.holds(&ms, &due.0)),
    }
}

const ORDERS_ALL: [Order; 4] = [
    Order::CreateTimeDesc,
    Order::CreateTime,
    Order::DueTime,
    Order::PriorityDesc,
];

/// The keys of a todo in all orders.
pub(super) fn order_keys(name: &TodoName, todo: &Todo) -> [Vec<u8>; 4] {
    ORDERS_ALL.map(|order| order_key(order, name, sort_key(order, todo)))
}

fn sort_key(order: Order, todo: &Todo) -> SortKey {
    let time = match order {
        Order::PriorityDesc => return SortKey::Priority(u8::try_from(todo.priority).unwrap_or(0)),
        Order::DueTime => &todo.due_time,
        Order::CreateTime | Order::CreateTimeDesc => &todo.create_time,
    };
    time.as_ref()
        .and_then(timestamp_ms)
        .map_or(SortKey::Missing, SortKey::Time)
}

/// `order | list | 0 | ...`: no name has a zero byte.
pub(super) fn order_prefix(order: Order, list: &str) -> Vec<u8> {
    let tag = ORDERS_ALL
        .iter()
        .position(|other| *other == order)
        .unwrap_or(0);
    let mut key = vec![u8::try_from(tag).unwrap_or(0)];
    key.extend_from_slice(list.as_bytes());
    key.push(0);
    key
}

/// `... | 0 if there is a value, else 1 | value, rising in this order | name`.
fn order_key(order: Order, name: &TodoName, sort: SortKey) -> Vec<u8> {
    let mut key = order_prefix(order, name.parent());
    let rising = |ms: i64| ms.cast_unsigned() ^ (1 << 63);
    let (missing, value) = match sort {
        SortKey::Time(ms) if order == Order::CreateTimeDesc => (0, !rising(ms)),
        SortKey::Time(ms) => (0, rising(ms)),
        SortKey::Priority(rank) => (0, u64::from(u8::MAX - rank)),
        SortKey::Missing => (1, 0),
        SortKey::Wrong => (2, 0),
    };
    key.push(missing);
    key.extend_from_slice(&value.to_be_bytes());
    key.extend_from_slice(name.as_str().as_bytes());
    key
}

fn name_of(key: &[u8], prefix: &[u8], query: &PageQuery) -> Option<TodoName> {
    let name = key.get(prefix.len() + 9..)?;
    let name = TodoName::parse(std::str::from_utf8(name).ok()?)?;
    (name.parent() == query.list.as_str()).then_some(name)
}

/// The first byte of a history entry that is a change of a list.
const LIST_ENTRY: u8 = 4;

/// An event as it lies in the history: `kind | wall clock | name \n paths`. `None`: it is
/// not remembered.
pub(super) fn encode_entry(event: &FeedEvent, wall_ms: i64) -> Option<Vec<u8>> {
    let change = match event {
        FeedEvent::Change(change) => change,
        FeedEvent::List(name) => {
            let parts = [
                &[LIST_ENTRY],
                &wall_ms.to_be_bytes()[..],
                name.as_str().as_bytes(),
            ];
            return Some(parts.concat());
        }
        _ => return None,
    };
    let kind = match change.kind {
        ChangeKind::Created => 0,
        ChangeKind::Updated => 1,
        ChangeKind::Replaced => 2,
        ChangeKind::Deleted => 3,
    };
    let mut raw = vec![kind];
    raw.extend_from_slice(&change.wall_ms.to_be_bytes());
    raw.extend_from_slice(change.name.as_str().as_bytes());
    if let Touched::Paths(paths) = &change.touched {
        for path in paths {
            raw.push(b'\n');
            raw.extend_from_slice(path.as_bytes());
        }
    }
    Some(raw)
}

/// The wall clock of a history entry; 0, if it cannot be read.
pub(super) fn entry_wall_ms(raw: &[u8]) -> i64 {
    let wall = raw.get(1..9).and_then(|wall| wall.try_into().ok());
    wall.map_or(0, i64::from_be_bytes)
}

pub(super) fn decode_entry(time: OriginTime, raw: &[u8]) -> Option<FeedEvent> {
    let wall_ms = entry_wall_ms(raw);
    let mut lines = std::str::from_utf8(raw.get(9..)?).ok()?.split('\n');
    let name = lines.next()?;
    let kind = match raw.first()? {
        0 => ChangeKind::Created,
        1 => ChangeKind::Updated,
        2 => ChangeKind::Replaced,
        &LIST_ENTRY => return ListName::parse(name).map(FeedEvent::List),
        _ => ChangeKind::Deleted,
    };
    let paths: Vec<Box<str>> = lines.map(Into::into).collect();
    let touched = if kind == ChangeKind::Updated {
        Touched::Paths(paths)
    } else {
        Touched::All
    };
    Some(FeedEvent::Change(Change {
        name: TodoName::parse(name)?,
        kind,
        touched,
        time,
        wall_ms,
    }))
}

/// The change that a write of this kind makes now.
pub(super) fn change_now(name: TodoName, kind: ChangeKind, touched: Touched, time: u64) -> Change {
    Change {
        name,
        kind,
        touched,
        time: OriginTime(time),
        wall_ms: wall_ms(),
    }
}
