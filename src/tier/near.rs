//! The cache in the process: encoded todos and pages, stamped.
//!
//! What it buys: a hit costs about a tenth of a microsecond and no copy of the
//! todo. What it costs: its capacity in memory. Nothing in it ever expires:
//! whether a value may be answered is decided by its stamp.

use std::{mem::size_of, sync::Arc};

use quick_cache::{
    Equivalent, Weighter,
    sync::{Cache, EntryAction, EntryResult},
};

use crate::model::{Mono, OriginTime, PageQuery, Stamped, TodoName, Value};

/// What an entry costs beside its key and value: the table's slots, the
/// headers of its allocations, what the allocator rounds up, and the holes that
/// churn leaves in its pages. Measured (`cargo bench --bench compare -- long memory`)
/// when 400 were counted, which is some 337,000 todos of 400 bytes: the process took 384 MiB
/// when full and 376 after half an hour of churn, 114 of them also with hardly
/// anything kept.
const ENTRY_OVERHEAD: u64 = 450;
/// Bytes that a todo is taken to have, to size the tables at first.
const USUAL_ENTRY: u64 = 512;

/// No entry takes more than this part of the capacity: one that does is not
/// kept, rather than pushing out many others.
const LARGEST_PART: u64 = 16;

/// A key of the near tier.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Todo(TodoName),
    Page(Arc<PageQuery>),
}

/// The same keys, borrowed. Hashes like `Key`.
#[derive(Hash)]
enum KeyRef<'a> {
    Todo(&'a str),
    Page(&'a PageQuery),
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        match (self, key) {
            (Self::Todo(name), Key::Todo(key)) => *name == key.as_str(),
            (Self::Page(query), Key::Page(key)) => **query == **key,
            _ => false,
        }
    }
}

#[derive(Clone)]
struct Entry {
    stamped: Stamped,
    /// When the load of a page began, if this replica loaded it.
    began: Option<Mono>,
}

#[derive(Clone)]
struct Bytes;

impl Weighter<Key, Entry> for Bytes {
    fn weight(&self, key: &Key, entry: &Entry) -> u64 {
        let key = match key {
            Key::Todo(name) => name.as_str().len(),
            Key::Page(query) => size_of::<PageQuery>() + query.filter.0.len() * 64,
        };
        let value = match &entry.stamped.value {
            Value::Todo(todo) => todo.len(),
            Value::Absent => 0,
            Value::Unreadable(why) => why.field.len() + why.problem.len(),
            // A name is an allocation of its own.
            Value::Page(page) => page.names.iter().map(|name| name.as_str().len() + 40).sum(),
        };
        ENTRY_OVERHEAD + (key + value) as u64
    }
}

/// The near tier: bounded by the bytes it takes.
pub struct Near {
    cache: Cache<Key, Entry, Bytes>,
    largest: u64,
}

impl Near {
    /// Holds at most `capacity` bytes, keys and overhead included.
    #[must_use]
    pub fn new(capacity: u64) -> Self {
        let entries = usize::try_from(capacity / USUAL_ENTRY)
            .unwrap_or(usize::MAX)
            .max(1);
        Self {
            cache: Cache::with_weighter(entries, capacity, Bytes),
            largest: capacity / LARGEST_PART,
        }
    }

    /// The stamped value of a todo.
    #[must_use]
    pub fn todo(&self, name: &str) -> Option<Stamped> {
        self.cache
            .get(&KeyRef::Todo(name))
            .map(|entry| entry.stamped)
    }

    /// The stamp of a todo; for the choice of what to keep this is no read.
    #[must_use]
    pub fn todo_as_of(&self, name: &str) -> Option<OriginTime> {
        self.cache
            .peek(&KeyRef::Todo(name))
            .map(|entry| entry.stamped.as_of)
    }

    /// A stamped page, and when its load began if this replica loaded it.
    #[must_use]
    pub fn page(&self, query: &PageQuery) -> Option<(Stamped, Option<Mono>)> {
        self.cache
            .get(&KeyRef::Page(query))
            .map(|entry| (entry.stamped, entry.began))
    }

    /// Keeps a todo, unless a newer state of it is kept already.
    pub fn put_todo(&self, name: TodoName, stamped: Stamped) {
        self.put(
            Key::Todo(name),
            Entry {
                stamped,
                began: None,
            },
        );
    }

    /// Keeps a page, unless a newer state of it is kept already.
    pub fn put_page(&self, query: Arc<PageQuery>, stamped: Stamped, began: Option<Mono>) {
        self.put(Key::Page(query), Entry { stamped, began });
    }

    /// Keeps this todo no longer.
    pub fn remove_todo(&self, name: &str) {
        self.cache.remove(&KeyRef::Todo(name));
    }

    /// Keeps this page no longer.
    pub fn remove_page(&self, query: &PageQuery) {
        self.cache.remove(&KeyRef::Page(query));
    }

    fn put(&self, key: Key, new: Entry) {
        if Bytes.weight(&key, &new) > self.largest {
            self.cache.remove(&key);
            return;
        }
        let keep_newer = |_: &Key, kept: &mut Entry| {
            if kept.stamped.as_of < new.stamped.as_of {
                *kept = new.clone();
            }
            EntryAction::Retain(())
        };
        if let EntryResult::Vacant(guard) = self.cache.entry(&key, None, keep_newer) {
            // Fails only when somebody put a value there meanwhile: then that
            // one stays, and costs at most another load.
            let _ = guard.insert(new.clone());
        }
    }

    /// Bytes held, by its own count.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.cache.weight()
    }

    /// Entries held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Filter, ListName, Order, Page};

    fn name(id: u32) -> TodoName {
        TodoName::parse(&format!("lists/home/todos/{id}")).expect("a name")
    }

    fn todo(as_of: u64, text: &str) -> Stamped {
        Stamped {
            as_of: OriginTime(as_of),
            value: Value::Todo(bytes::Bytes::copy_from_slice(text.as_bytes())),
        }
    }

    #[test]
    fn the_newer_state_wins_whatever_comes_first() {
        let near = Near::new(1 << 20);
        near.put_todo(name(1), todo(5, "five"));
        near.put_todo(name(1), todo(4, "four"));
        assert_eq!(near.todo("lists/home/todos/1"), Some(todo(5, "five")));
        near.put_todo(name(1), todo(6, "six"));
        assert_eq!(near.todo("lists/home/todos/1"), Some(todo(6, "six")));
        assert_eq!(near.todo("lists/home/todos/2"), None);
    }

    #[test]
    fn pages_are_told_apart_by_the_whole_query() {
        let near = Near::new(1 << 20);
        let list = ListName::parse("lists/home").expect("a name");
        let query = |size| PageQuery {
            list: list.clone(),
            filter: Filter::default(),
            order: Order::DueTime,
            size,
            after: None,
        };
        let page = Page {
            names: vec![name(1)],
            next: None,
        };
        let stamped = Stamped {
            as_of: OriginTime(3),
            value: Value::Page(Arc::new(page)),
        };
        near.put_page(Arc::new(query(10)), stamped.clone(), Some(Mono(7)));
        assert_eq!(near.page(&query(10)), Some((stamped, Some(Mono(7)))));
        assert_eq!(near.page(&query(11)), None);
    }

    #[test]
    fn stays_below_its_capacity() {
        let near = Near::new(1 << 20);
        for id in 0..20_000 {
            near.put_todo(name(id), todo(1, &"x".repeat(400)));
            assert!(near.bytes() <= 1 << 20);
        }
        assert!(near.len() > 1000, "{} entries", near.len());
        near.put_todo(name(7), todo(2, &"x".repeat(2 << 20)));
        assert_eq!(
            near.todo("lists/home/todos/7"),
            None,
            "too large a part of the tier"
        );
    }
}
