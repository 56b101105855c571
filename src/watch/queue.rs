//! The queue of one watcher: what it has not been sent yet, with changes of the
//! same todo merged.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{Hash, Hasher},
    sync::Arc,
};

use crate::model::{Change, ChangeKind, Event, OriginTime, TodoName};

/// Most names that may be pending for one watcher, some 64 KB: more than it takes at
/// once only if a transaction changed many todos of its list. A client that is further
/// behind reads its list again sooner than it works them off.
const MAX_PENDING: usize = 256;

/// The events pending for one watcher, and the last cursor sent.
///
/// Changes of one name merge: the merged one goes to the tail and keeps the
/// time of the oldest change merged into it, and no cursor sent reaches the
/// oldest time still pending. So a client that resumes from any cursor it was
/// sent misses nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflatingQueue {
    start: OriginTime,
    cursor: OriginTime,
    items: BTreeMap<u64, Item>,
    by_name: HashMap<TodoName, u64>,
    /// The oldest times of the pending changes, with the number of changes of each.
    oldest: BTreeMap<OriginTime, usize>,
    next: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Item {
    event: Event,
    oldest: OriginTime,
    newest: OriginTime,
}

/// One message's worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// What happened.
    pub event: Event,
    /// Where to resume after it.
    pub cursor: OriginTime,
    /// The newest time in it.
    pub seen: OriginTime,
}

impl ConflatingQueue {
    /// Nothing yet, for a watcher that begins after `start`.
    #[must_use]
    pub fn after(start: OriginTime) -> Self {
        Self {
            start,
            cursor: start,
            items: BTreeMap::new(),
            by_name: HashMap::new(),
            oldest: BTreeMap::new(),
            next: 0,
        }
    }

    /// Adds what this watcher wants of a closed time. Times must rise. `true`
    /// if it overflowed into a reset.
    pub fn push(&mut self, time: OriginTime, events: impl Iterator<Item = Event>) -> bool {
        if time <= self.start {
            return false;
        }
        // What was committed together with a revocation is not delivered: the list first,
        // in whatever order the transaction wrote.
        let is_list = |event: &Event| matches!(event, Event::List(_));
        let (lists, others): (Vec<_>, Vec<_>) = events.partition(is_list);
        for entry in lists.into_iter().chain(others) {
            match entry {
                Event::Change(change) => self.push_change(time, change),
                Event::List(_) => self.push_list(time, entry),
                Event::Reset { reason } => self.reset(time, reason),
            }
        }
        let overflowed = self.items.len() > MAX_PENDING;
        if overflowed {
            let reason = format!("more than {MAX_PENDING} changes were waiting to be sent");
            self.reset(time, reason.into());
        }
        overflowed
    }

    fn push_change(&mut self, time: OriginTime, change: Arc<Change>) {
        let name = change.name.clone();
        let swallowed = self.by_name.remove(&name).and_then(|at| self.remove(at));
        let oldest = swallowed.as_ref().map_or(time, |item| item.oldest);
        let change = match swallowed.map(|item| item.event) {
            Some(Event::Change(earlier)) => merged(&earlier, change),
            _ => change,
        };
        self.by_name.insert(name, self.next);
        self.add(Item {
            event: Event::Change(change),
            oldest,
            newest: time,
        });
    }

    /// A change of the list's document stays where it is in the order of commits, and
    /// no later change of a todo merges with one before it: what was committed before
    /// a revocation is delivered, what was committed after it is not.
    fn push_list(&mut self, time: OriginTime, event: Event) {
        self.by_name.clear();
        self.add(Item {
            event,
            oldest: time,
            newest: time,
        });
    }

    fn add(&mut self, item: Item) {
        *self.oldest.entry(item.oldest).or_default() += 1;
        self.items.insert(self.next, item);
        self.next += 1;
    }

    fn remove(&mut self, at: u64) -> Option<Item> {
        let item = self.items.remove(&at)?;
        if let Some(count) = self.oldest.get_mut(&item.oldest) {
            *count -= 1;
            if *count == 0 {
                self.oldest.remove(&item.oldest);
            }
        }
        Some(item)
    }

    /// Replaces everything pending by a reset at `time`.
    pub fn reset(&mut self, time: OriginTime, reason: Arc<str>) {
        self.items.clear();
        self.by_name.clear();
        self.oldest.clear();
        self.add(Item {
            event: Event::Reset { reason },
            oldest: time,
            newest: time,
        });
    }

    /// The next thing to send.
    pub fn pop(&mut self) -> Option<Delivery> {
        let at = *self.items.first_key_value()?.0;
        let item = self.remove(at)?;
        if let Event::Change(change) = &item.event
            && self.by_name.get(&change.name) == Some(&at)
        {
            self.by_name.remove(&change.name);
        }
        let is_below_all = self
            .oldest
            .first_key_value()
            .is_none_or(|(oldest, _)| item.newest < *oldest);
        if is_below_all {
            self.cursor = self.cursor.max(item.newest);
        }
        debug_assert!(
            self.oldest
                .keys()
                .next()
                .is_none_or(|oldest| self.cursor < *oldest),
            "the cursor {} is not below what is pending",
            self.cursor
        );
        Some(Delivery {
            event: item.event,
            cursor: self.cursor,
            seen: item.newest,
        })
    }

    /// The cursor to tell when nothing is pending, given that everything up to
    /// `frontier` was pushed. `None` while something is pending.
    pub fn progress(&mut self, frontier: OriginTime) -> Option<OriginTime> {
        if !self.items.is_empty() {
            return None;
        }
        self.cursor = self.cursor.max(frontier);
        Some(self.cursor)
    }

    /// The last cursor that was sent or may be sent now.
    #[must_use]
    pub const fn cursor(&self) -> OriginTime {
        self.cursor
    }

    /// How many names are pending.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing is pending.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

/// The state that the model compares: the cursor and the pending events, in order.
impl Hash for ConflatingQueue {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.start, self.cursor, self.items.len()).hash(state);
        self.items.values().for_each(|item| item.hash(state));
    }
}

/// Merges two changes of one todo. An undelivered creation stays a creation; a delete
/// followed by a create becomes an update.
fn merged(earlier: &Change, later: Arc<Change>) -> Arc<Change> {
    let kind = match (earlier.kind, later.kind) {
        (ChangeKind::Created, ChangeKind::Updated | ChangeKind::Replaced) => ChangeKind::Created,
        (ChangeKind::Deleted, ChangeKind::Created) => ChangeKind::Updated,
        _ => return later,
    };
    Arc::new(Change {
        kind,
        ..(*later).clone()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::model::Touched;

    fn change(id: u8, kind: ChangeKind, time: u64) -> Event {
        Event::Change(Arc::new(Change {
            name: TodoName::parse(&format!("lists/home/todos/{id}")).expect("a name"),
            kind,
            touched: Touched::All,
            time: OriginTime(time),
            wall_ms: 0,
        }))
    }

    #[test]
    fn a_list_comes_before_the_todos_of_its_transaction_and_after_earlier_ones() {
        let list = Event::List(crate::model::ListName::parse("lists/home").expect("a list"));
        let mut queue = ConflatingQueue::after(OriginTime(0));
        queue.push(OriginTime(1), [updated(1, 1)].into_iter());
        let together = [updated(1, 2), list.clone(), updated(2, 2)];
        queue.push(OriginTime(2), together.into_iter());
        let told: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        let events: Vec<_> = told.iter().map(|next| next.event.clone()).collect();
        assert_eq!(events, [updated(1, 1), list, updated(1, 2), updated(2, 2)]);
        let cursors: Vec<_> = told.iter().map(|next| next.cursor.0).collect();
        assert_eq!(cursors, [1, 1, 1, 2], "none passes what is pending");
    }

    fn updated(id: u8, time: u64) -> Event {
        change(id, ChangeKind::Updated, time)
    }

    fn push(pending: &mut ConflatingQueue, time: u64, ids: &[u8]) {
        pending.push(OriginTime(time), ids.iter().map(|id| updated(*id, time)));
    }

    fn cursors(pending: &mut ConflatingQueue) -> Vec<u64> {
        std::iter::from_fn(|| pending.pop())
            .map(|next| next.cursor.0)
            .collect()
    }

    #[test]
    fn of_one_time_only_the_last_carries_the_new_cursor() {
        let mut pending = ConflatingQueue::after(OriginTime(3));
        push(&mut pending, 5, &[1, 2, 3]);
        push(&mut pending, 6, &[4]);
        assert_eq!(cursors(&mut pending), [3, 3, 5, 6]);
    }

    #[test]
    fn a_merged_change_keeps_its_oldest_time() {
        let mut pending = ConflatingQueue::after(OriginTime(0));
        push(&mut pending, 5, &[1]);
        push(&mut pending, 6, &[2]);
        push(&mut pending, 7, &[1]);
        assert_eq!(
            cursors(&mut pending),
            [0, 7],
            "6 is sent before the change of 5 is"
        );
    }

    #[test]
    fn progress_never_overtakes_a_change() {
        let mut pending = ConflatingQueue::after(OriginTime(3));
        assert_eq!(
            pending.progress(OriginTime(2)),
            Some(OriginTime(3)),
            "never below the start"
        );
        push(&mut pending, 5, &[1]);
        assert_eq!(pending.progress(OriginTime(9)), None);
        pending.pop();
        assert_eq!(pending.progress(OriginTime(9)), Some(OriginTime(9)));
    }

    #[test]
    fn past_its_bound_there_is_a_reset() {
        let mut pending = ConflatingQueue::after(OriginTime(0));
        let many = (0..=MAX_PENDING).map(|id| {
            let name = TodoName::parse(&format!("lists/home/todos/{id}")).expect("a name");
            let Event::Change(sample) = updated(1, 5) else {
                unreachable!()
            };
            Event::Change(Arc::new(Change {
                name,
                ..(*sample).clone()
            }))
        });
        assert!(pending.push(OriginTime(5), many));
        assert!(matches!(
            pending.pop(),
            Some(Delivery {
                event: Event::Reset { .. },
                cursor: OriginTime(5),
                ..
            })
        ));
        assert!(pending.is_empty());
    }

    proptest! {
        /// I6: whatever is pushed and drained, a client that resumes from any
        /// cursor it was sent gets every change after it, and no cursor is at
        /// or after the time of a change that was not delivered.
        #[test]
        fn no_cursor_passes_what_was_not_delivered(
            steps in prop::collection::vec((prop::collection::vec(0u8..6, 0..4), 0usize..4), 1..40),
            start in 0u64..10,
        ) {
            let mut pending = ConflatingQueue::after(OriginTime(start));
            let mut log: Vec<(u64, u8)> = Vec::new();
            // For each name the newest time that was delivered.
            let mut delivered: HashMap<TodoName, u64> = HashMap::new();
            let mut last = start;
            for (at, (ids, pops)) in steps.iter().enumerate() {
                let time = at as u64 + 1;
                let ids: BTreeSet<_> = ids.iter().copied().collect();
                pending.push(OriginTime(time), ids.iter().map(|id| updated(*id, time)));
                log.extend(ids.iter().map(|id| (time, *id)));
                for _ in 0..*pops {
                    let sent = match pending.pop() {
                        Some(next) => {
                            let Event::Change(change) = &next.event else { unreachable!() };
                            delivered.insert(change.name.clone(), next.seen.0);
                            next.cursor.0
                        }
                        None => pending.progress(OriginTime(time)).expect("nothing pending").0,
                    };
                    prop_assert!(sent >= last);
                    last = sent;
                    for (time, id) in &log {
                        let name = TodoName::parse(&format!("lists/home/todos/{id}")).expect("a name");
                        let known = delivered.get(&name).copied().unwrap_or_default();
                        prop_assert!(*time <= start || *time > sent || known >= *time);
                    }
                }
            }
        }
    }
}
