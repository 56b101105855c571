//! What lies in the file: tables, their keys and how they are read.

use bytes::Bytes;
use prost::Message;
use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition,
};

use super::wall_ms;
use crate::{
    model::{
        Change, ChangeKind, Condition, Filter, Order, OriginTime, Page, PagePosition, PageQuery,
        SortKey, TodoName, Touched, Value, timestamp_ms,
    },
    pb::Todo,
};

/// Name -> the todo's protobuf form without its etag.
pub(super) const TODOS: TableDefinition<&str, &[u8]> = TableDefinition::new("todos");
/// The four orders: see `order_key`.
pub(super) const ORDERS: TableDefinition<&[u8], ()> = TableDefinition::new("orders");
/// Commit number -> change.
pub(super) const HISTORY: TableDefinition<u64, &[u8]> = TableDefinition::new("history");
/// Request id -> what it was used for.
pub(super) const REQUESTS: TableDefinition<u128, &[u8]> = TableDefinition::new("requests");
/// (wall clock in ms, request id), to forget the old ones.
pub(super) const REQUEST_TIMES: TableDefinition<(i64, u128), ()> =
    TableDefinition::new("request_times");
/// Single numbers.
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// Version of all this. A file of another version is not touched.
const FORMAT: u64 = 1;
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

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Makes the tables of a new file; reads what an old one has.
pub(super) fn prepare(database: &Database) -> Result<Opened, String> {
    let txn = database.begin_write().map_err(text)?;
    let opened = {
        let mut meta = txn.open_table(META).map_err(text)?;
        let known = |meta: &redb::Table<&str, u64>, key: &str| -> Result<Option<u64>, String> {
            Ok(meta.get(key).map_err(text)?.map(|value| value.value()))
        };
        let format = known(&meta, "format")?.unwrap_or(FORMAT);
        if format != FORMAT {
            return Err(format!(
                "its format is {format}, and this version knows only {FORMAT}; use the version that wrote it"
            ));
        }
        meta.insert("format", FORMAT).map_err(text)?;
        let id = known(&meta, "id")?.unwrap_or_else(rand::random);
        meta.insert("id", id).map_err(text)?;
        let clock = known(&meta, RESERVED)?.unwrap_or(1);
        let history_start = known(&meta, HISTORY_START)?.unwrap_or(clock);
        meta.insert(HISTORY_START, history_start).map_err(text)?;
        txn.open_table(TODOS).map_err(text)?;
        txn.open_table(ORDERS).map_err(text)?;
        txn.open_table(REQUESTS).map_err(text)?;
        txn.open_table(REQUEST_TIMES).map_err(text)?;
        let history = txn.open_table(HISTORY).map_err(text)?;
        let history_len = history.len().map_err(text)?;
        let mut wall_clock_samples: Vec<(u64, i64)> = Vec::new();
        for entry in history.iter().map_err(text)? {
            let (number, raw) = entry.map_err(text)?;
            let wall = decode_change(OriginTime(number.value()), raw.value())
                .map_or(0, |change| change.wall_ms);
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
    txn.commit().map_err(text)?;
    Ok(opened)
}

/// A snapshot's tables.
pub(super) struct Reader {
    todos: ReadOnlyTable<&'static str, &'static [u8]>,
    orders: ReadOnlyTable<&'static [u8], ()>,
    meta: ReadOnlyTable<&'static str, u64>,
}

impl Reader {
    pub(super) fn new(txn: &ReadTransaction) -> Result<Self, String> {
        Ok(Self {
            todos: txn.open_table(TODOS).map_err(text)?,
            orders: txn.open_table(ORDERS).map_err(text)?,
            meta: txn.open_table(META).map_err(text)?,
        })
    }

    pub(super) fn last_write(&self) -> Result<u64, String> {
        Ok(self
            .meta
            .get(LAST_WRITE)
            .map_err(text)?
            .map_or(0, |value| value.value()))
    }

    pub(super) fn value(&self, name: &TodoName) -> Result<Value, String> {
        let stored = self.todos.get(name.as_str()).map_err(text)?;
        Ok(stored.map_or(Value::Absent, |stored| {
            Value::Todo(with_etag(stored.value()))
        }))
    }

    /// Walks the list's part of the order's keys.
    pub(super) fn page(&self, query: &PageQuery) -> Result<Page, String> {
        let prefix = order_prefix(query.order, query.list.as_str());
        let (start, skip) = match &query.after {
            Some(after) => (order_key(query.order, &after.name, after.key), true),
            None => (prefix.clone(), false),
        };
        let size = usize::try_from(query.size).unwrap_or(usize::MAX);
        let mut page = Page::default();
        let mut last = None;
        for entry in self.orders.range(start.as_slice()..).map_err(text)? {
            let (key, ()) = entry
                .map(|(key, value)| (key, value.value()))
                .map_err(text)?;
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

    fn matching(&self, name: &TodoName, filter: &Filter) -> Result<Option<Todo>, String> {
        let Some(stored) = self.todos.get(name.as_str()).map_err(text)? else {
            return Ok(None);
        };
        let todo = Todo::decode(stored.value()).map_err(text)?;
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
fn order_prefix(order: Order, list: &str) -> Vec<u8> {
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

/// A change as it lies in the history: `kind | wall clock | name \n paths`.
pub(super) fn encode_change(change: &Change) -> Vec<u8> {
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
    raw
}

pub(super) fn decode_change(time: OriginTime, raw: &[u8]) -> Option<Change> {
    let kind = match raw.first()? {
        0 => ChangeKind::Created,
        1 => ChangeKind::Updated,
        2 => ChangeKind::Replaced,
        _ => ChangeKind::Deleted,
    };
    let wall_ms = i64::from_be_bytes(raw.get(1..9)?.try_into().ok()?);
    let mut lines = std::str::from_utf8(&raw[9..]).ok()?.split('\n');
    let name = TodoName::parse(lines.next()?)?;
    let paths: Vec<Box<str>> = lines.map(Into::into).collect();
    let touched = if kind == ChangeKind::Updated {
        Touched::Paths(paths)
    } else {
        Touched::All
    };
    Some(Change {
        name,
        kind,
        touched,
        time,
        wall_ms,
    })
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
