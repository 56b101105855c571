//! The cache in the process: encoded todos and pages, stamped.
//!
//! A hit costs about a tenth of a microsecond and copies no todo. The cost is its
//! capacity in memory. Nothing expires: whether a value may be served is decided
//! by its stamp.

use std::mem::size_of;

use quick_cache::{
    Equivalent, Weighter,
    sync::{Cache, EntryAction, EntryResult},
};

use crate::model::{Condition, Key, KeyRef, Mono, OriginTime, PageQuery, Stamped, Value};
use crate::pb::TodoList;

/// Bytes of an entry beside its key and value: the table's slots, the headers of
/// its allocations, what the allocator rounds up, and fragmentation under churn.
/// Measured with `cargo bench --bench compare -- long memory`.
const ENTRY_OVERHEAD: u64 = 450;
/// Bytes of a usual todo, to size the tables at first.
const USUAL_ENTRY: u64 = 512;
/// Bytes of one allocation beside its content: header and rounding.
const ALLOCATION: usize = 24;

/// An entry may take at most this part of the capacity. A larger one is not kept,
/// instead of evicting many others.
const LARGEST_PART: u64 = 16;

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self == key.as_ref()
    }
}

/// A value in the near tier.
#[derive(Clone)]
pub struct NearEntry {
    /// The value.
    pub stamped: Stamped,
    /// When the load of a page began, if this replica loaded it.
    pub load_began: Option<Mono>,
}

#[derive(Clone)]
struct Weight;

impl Weighter<Key, NearEntry> for Weight {
    fn weight(&self, key: &Key, entry: &NearEntry) -> u64 {
        let key = match key {
            Key::Todo(name) => name.as_str().len(),
            Key::Page(query) => query_bytes(query),
            Key::List(name) => name.as_str().len(),
            Key::Lists(query) => {
                let members = query.members.iter().flat_map(|members| members.iter());
                members.map(|member| member.len() + 2 * ALLOCATION).sum()
            }
        };
        let value = match &entry.stamped.value {
            Value::Todo(todo) => todo.len(),
            Value::Absent => 0,
            Value::Unreadable(why) => why.field.len() + why.problem.len() + 2 * ALLOCATION,
            // Each name is an allocation with two counters.
            Value::Page(page) => page
                .names
                .iter()
                .map(|name| name.as_str().len() + 16 + 16 + ALLOCATION)
                .sum(),
            Value::Lists(page) => {
                let names = page.names.iter();
                names
                    .map(|name| name.as_str().len() + 16 + 16 + ALLOCATION)
                    .sum()
            }
            Value::List(list) => list_bytes(list),
        };
        ENTRY_OVERHEAD + (key + value) as u64
    }
}

/// Bytes that a list takes: a member is a slot of the table and an allocation.
fn list_bytes(list: &TodoList) -> usize {
    let members = list.members.keys();
    let members: usize = members.map(|name| name.len() + 40 + ALLOCATION).sum();
    size_of::<TodoList>() + list.name.len() + list.title.len() + 3 * ALLOCATION + members
}

/// Bytes that a query takes, the text of its labels included.
fn query_bytes(query: &PageQuery) -> usize {
    let condition = |condition: &Condition| {
        let text = match condition {
            Condition::Label(label) => label.capacity() + ALLOCATION,
            Condition::State(..) | Condition::Priority(..) | Condition::Due(..) => 0,
        };
        size_of::<Condition>() + text
    };
    let conditions: usize = query.filter.0.iter().map(condition).sum();
    size_of::<PageQuery>() + query.list.as_str().len() + 2 * ALLOCATION + conditions
}

/// The near tier, bounded by the bytes that it takes.
pub struct Near {
    cache: Cache<Key, NearEntry, Weight>,
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
            cache: Cache::with_weighter(entries, capacity, Weight),
            largest: capacity / LARGEST_PART,
        }
    }

    /// The entry of a key.
    #[must_use]
    pub fn get(&self, key: KeyRef<'_>) -> Option<NearEntry> {
        self.cache.get(&key)
    }

    /// Inserts a value, unless a newer one of the key is present.
    /// `load_began`: when the load of a page began, if this replica loaded it.
    pub fn put(&self, key: &Key, stamped: Stamped, load_began: Option<Mono>) {
        let new = NearEntry {
            stamped,
            load_began,
        };
        if Weight.weight(key, &new) > self.largest {
            self.cache.remove(&key.as_ref());
            return;
        }
        let keep_newer = |_: &Key, kept: &mut NearEntry| {
            if kept.stamped.as_of < new.stamped.as_of {
                *kept = new.clone();
            }
            EntryAction::Retain(())
        };
        if let EntryResult::Vacant(guard) = self.cache.entry(key, None, keep_newer) {
            // Fails only if somebody inserted a value meanwhile. That one stays;
            // the cost is at most one more load.
            let _ = guard.insert(new.clone());
        }
    }

    /// The stamp of a key. Does not count as a use of the entry.
    #[must_use]
    pub fn as_of(&self, key: KeyRef<'_>) -> Option<OriginTime> {
        self.cache.peek(&key).map(|entry| entry.stamped.as_of)
    }

    /// Removes the entry of a key.
    pub fn remove(&self, key: KeyRef<'_>) {
        self.cache.remove(&key);
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
    use std::sync::Arc;

    use super::*;
    use crate::model::{Filter, ListName, Order, Page, TodoName};

    fn name(id: u32) -> TodoName {
        TodoName::parse(&format!("lists/home/todos/{id}")).expect("a name")
    }

    fn key(id: u32) -> Key {
        Key::Todo(name(id))
    }

    fn get(near: &Near, id: u32) -> Option<Stamped> {
        near.get(key(id).as_ref()).map(|entry| entry.stamped)
    }

    fn todo(as_of: u64, text: &str) -> Stamped {
        Stamped {
            as_of: OriginTime(as_of),
            value: Value::Todo(bytes::Bytes::copy_from_slice(text.as_bytes())),
        }
    }

    fn query(size: u32, filter: Filter) -> Arc<PageQuery> {
        Arc::new(PageQuery {
            list: ListName::parse("lists/home").expect("a name"),
            filter,
            order: Order::DueTime,
            size,
            after: None,
        })
    }

    #[test]
    fn the_newer_state_wins_in_any_order() {
        let near = Near::new(1 << 20);
        near.put(&key(1), todo(5, "five"), None);
        near.put(&key(1), todo(4, "four"), None);
        assert_eq!(get(&near, 1), Some(todo(5, "five")));
        near.put(&key(1), todo(6, "six"), None);
        assert_eq!(get(&near, 1), Some(todo(6, "six")));
        assert_eq!(get(&near, 2), None);
    }

    #[test]
    fn pages_are_distinguished_by_the_whole_query() {
        let near = Near::new(1 << 20);
        let page = Page {
            names: vec![name(1)],
            next: None,
        };
        let stamped = Stamped {
            as_of: OriginTime(3),
            value: Value::Page(Arc::new(page)),
        };
        let (ten, eleven) = (query(10, Filter::default()), query(11, Filter::default()));
        near.put(&Key::Page(Arc::clone(&ten)), stamped.clone(), Some(Mono(7)));
        let found = near.get(KeyRef::Page(&ten)).expect("kept");
        assert_eq!((found.stamped, found.load_began), (stamped, Some(Mono(7))));
        assert!(near.get(KeyRef::Page(&eleven)).is_none());
    }

    #[test]
    fn stays_below_its_capacity() {
        let near = Near::new(1 << 20);
        for id in 0..20_000 {
            near.put(&key(id), todo(1, &"x".repeat(400)), None);
            assert!(near.bytes() <= 1 << 20);
        }
        assert!(near.len() > 1000, "{} entries", near.len());
        near.put(&key(7), todo(2, &"x".repeat(2 << 20)), None);
        assert_eq!(get(&near, 7), None, "too large a part of the tier");
    }

    /// The text of a filter counts.
    #[test]
    fn a_query_weighs_the_text_of_its_labels() {
        let label = |text: String| query(10, Filter(vec![Condition::Label(text)]));
        let (short, long) = (label("a".into()), label("a".repeat(8000)));
        assert!(query_bytes(&long) >= query_bytes(&short) + 7999);
    }
}
