//! Joining of loads: who may wait for a load that another reader began.
//!
//! What it buys: a cold or changed key costs one load, however many read it.
//! What it costs: a reader that comes too late for the running load waits for
//! its end and then for the next one: two ends at most.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
};

use crate::model::{Mono, OriginTime};

/// Loads under way and those that wait to begin: for one key at most one of
/// each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SingleFlight<K: Hash + Eq, W> {
    table: HashMap<K, Slots<W>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Slots<W> {
    running: Option<Running<W>>,
    next: Option<Next<W>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Running<W> {
    after: OriginTime,
    began: Mono,
    waiters: Vec<W>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Next<W> {
    required: OriginTime,
    waiters: Vec<W>,
}

/// What became of a reader that asked for a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// It waits for the load under way.
    Running,
    /// It waits for the one after.
    Next,
    /// It is the first: the caller must see to it that the load is begun.
    First,
}

/// What a reader asks of a load that it may join.
#[derive(Clone, Copy, Debug)]
pub struct LoadRequirement {
    /// `max(fence, floor, need)`: the load must have begun with an `after` not
    /// below it.
    pub after: OriginTime,
    /// For a page within its grace: a lower `after` will do, if the load was
    /// begun at this instant or later.
    pub grace: Option<(OriginTime, Mono)>,
}

impl<W> Running<W> {
    fn serves(&self, required: &LoadRequirement) -> bool {
        let in_grace =
            |(after, since): (OriginTime, Mono)| self.after >= after && self.began >= since;
        self.after >= required.after || required.grace.is_some_and(in_grace)
    }
}

impl<K: Hash + Eq + Clone, W> Default for SingleFlight<K, W> {
    fn default() -> Self {
        Self {
            table: HashMap::new(),
        }
    }
}

impl<K: Hash + Eq + Clone, W> SingleFlight<K, W> {
    /// Lets a reader join: the load under way only if that began late enough,
    /// else the next one.
    pub fn join(&mut self, key: &K, required: LoadRequirement, waiter: W) -> Joined {
        let Some(slots) = self.table.get_mut(key) else {
            let next = Some(Next {
                required: required.after,
                waiters: vec![waiter],
            });
            self.table.insert(
                key.clone(),
                Slots {
                    running: None,
                    next,
                },
            );
            return Joined::First;
        };
        if let Some(running) = slots
            .running
            .as_mut()
            .filter(|running| running.serves(&required))
        {
            running.waiters.push(waiter);
            return Joined::Running;
        }
        let next = slots.next.get_or_insert(Next {
            required: required.after,
            waiters: Vec::new(),
        });
        next.required = next.required.max(required.after);
        next.waiters.push(waiter);
        Joined::Next
    }

    /// Whether a reader of this key would wait for a load that there is anyhow.
    #[must_use]
    pub fn has(&self, key: &K) -> bool {
        self.table.contains_key(key)
    }

    /// Begins the waiting loads of these keys as one: returns its `after`, at
    /// least `base` and what every waiter requires. To be called right before
    /// the origin is asked.
    pub fn begin(&mut self, keys: &[K], base: OriginTime, now: Mono) -> OriginTime {
        let required = |key| {
            self.table
                .get(key)
                .and_then(|slots| slots.next.as_ref())
                .map(|next| next.required)
        };
        let after = keys.iter().filter_map(required).fold(base, OriginTime::max);
        for key in keys {
            let Some(slots) = self.table.get_mut(key) else {
                continue;
            };
            let Some(next) = slots.next.take() else {
                continue;
            };
            debug_assert!(slots.running.is_none(), "two loads of a key run at once");
            slots.running = Some(Running {
                after,
                began: now,
                waiters: next.waiters,
            });
        }
        after
    }

    /// Answers those who wait for the next load of this key with a value that
    /// somebody else loaded, if no load is under way and the value's `as_of`
    /// is at least what each of them requires of a load's `after`.
    pub fn settle(&mut self, key: &K, as_of: OriginTime) -> Option<Vec<W>> {
        let slots = self.table.get(key)?;
        let next = slots.next.as_ref().filter(|_| slots.running.is_none())?;
        if as_of < next.required {
            return None;
        }
        self.table.remove(key)?.next.map(|next| next.waiters)
    }

    /// Ends the load under way of this key: those who wait for it, and whether
    /// a next one is to be begun.
    pub fn end(&mut self, key: &K) -> (Vec<W>, bool) {
        let Some(slots) = self.table.get_mut(key) else {
            return (Vec::new(), false);
        };
        let waiters = slots
            .running
            .take()
            .map(|running| running.waiters)
            .unwrap_or_default();
        let more = slots.next.is_some();
        if !more {
            self.table.remove(key);
        }
        (waiters, more)
    }

    /// Keys with a load under way or waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether no load is under way or waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}

/// In the order of the keys. For the model, which compares states by it.
impl<K: Hash + Ord, W: Hash> Hash for SingleFlight<K, W> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut slots: Vec<_> = self.table.iter().collect();
        slots.sort_unstable_by_key(|(key, _)| *key);
        slots.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn required(after: u64) -> LoadRequirement {
        LoadRequirement {
            after: OriginTime(after),
            grace: None,
        }
    }

    #[test]
    fn a_load_is_joined_only_if_it_began_late_enough() {
        let mut flights = SingleFlight::default();
        assert_eq!(flights.join(&"k", required(5), 1), Joined::First);
        assert_eq!(flights.join(&"k", required(7), 2), Joined::Next);
        assert_eq!(flights.begin(&["k"], OriginTime(6), Mono(0)), OriginTime(7));
        assert_eq!(flights.join(&"k", required(7), 3), Joined::Running);
        assert_eq!(flights.join(&"k", required(8), 4), Joined::Next);
        assert_eq!(flights.join(&"k", required(12), 5), Joined::Next);
        assert_eq!(flights.end(&"k"), (vec![1, 2, 3], true));
        assert_eq!(
            flights.begin(&["k"], OriginTime(6), Mono(0)),
            OriginTime(12)
        );
        assert_eq!(flights.end(&"k"), (vec![4, 5], false));
        assert!(flights.is_empty());
    }

    #[test]
    fn a_batch_begins_at_the_most_that_any_of_its_readers_requires() {
        let mut flights = SingleFlight::default();
        flights.join(&"a", required(5), 1);
        flights.join(&"b", required(9), 2);
        assert_eq!(
            flights.begin(&["a", "b"], OriginTime(3), Mono(0)),
            OriginTime(9)
        );
        assert_eq!(flights.join(&"a", required(9), 3), Joined::Running);
        assert_eq!(flights.end(&"a"), (vec![1, 3], false));
        assert_eq!(flights.end(&"b"), (vec![2], false));
    }

    #[test]
    fn a_value_from_elsewhere_settles_only_what_it_is_new_enough_for() {
        let mut flights = SingleFlight::default();
        flights.join(&"k", required(5), 1);
        flights.join(&"k", required(7), 2);
        assert_eq!(
            flights.settle(&"k", OriginTime(6)),
            None,
            "one of them requires more"
        );
        assert_eq!(flights.settle(&"k", OriginTime(7)), Some(vec![1, 2]));
        assert!(flights.is_empty());
        assert_eq!(flights.settle(&"k", OriginTime(7)), None);
        flights.join(&"k", required(5), 3);
        flights.begin(&["k"], OriginTime(6), Mono(0));
        flights.join(&"k", required(9), 4);
        assert_eq!(
            flights.settle(&"k", OriginTime(9)),
            None,
            "a load is under way"
        );
    }

    #[test]
    fn a_page_in_grace_joins_a_load_that_was_overtaken() {
        let mut flights = SingleFlight::default();
        flights.join(&"p", required(5), 1);
        flights.begin(&["p"], OriginTime(5), Mono(100));
        let grace = |need, since| LoadRequirement {
            after: OriginTime(9),
            grace: Some((OriginTime(need), Mono(since))),
        };
        assert_eq!(flights.join(&"p", grace(5, 100), 2), Joined::Running);
        assert_eq!(
            flights.join(&"p", grace(5, 101), 3),
            Joined::Next,
            "begun too long ago"
        );
        assert_eq!(
            flights.join(&"p", grace(6, 100), 4),
            Joined::Next,
            "below what the request needs"
        );
    }
}
