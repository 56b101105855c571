//! Closing of times: when all changes of one commit time are known.
//!
//! Several changes may share a time (a transaction). A time is closed by the
//! first event with a later one, or at once by an event that is known to be
//! alone. Until then the frontier stays below it, and watchers get none of it.

use std::sync::Arc;

use crate::model::{Change, OriginTime};

/// Most changes of one time that are held until it is closed: a transaction of
/// the origin may have more, and is then told as a reset.
const MAX_HELD: usize = 65_536;

/// What watchers are told of one event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// A todo changed.
    Change(Arc<Change>),
    /// All that was cached must be read anew. Absorbs what else has its time.
    Reset {
        /// Why, for people.
        reason: Arc<str>,
    },
}

/// The open time, and what is held of it. Outlives a reconnect: a resume
/// closes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CommitGroups {
    open: Option<(OriginTime, Vec<Entry>)>,
    newest: OriginTime,
}

/// What an event closed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ClosedTimes {
    /// The times that are closed, in order, with their entries.
    pub released: Vec<(OriginTime, Vec<Entry>)>,
    /// How far the frontier may move.
    pub frontier: OriginTime,
}

/// The feed went back in time: it is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of time {event} came after one of time {newest}")]
pub struct OutOfOrder {
    event: OriginTime,
    newest: OriginTime,
}

impl CommitGroups {
    /// Takes the next event: `alone` if it is known to be the only one at its
    /// time, `entry` if watchers are to be told of it.
    ///
    /// # Errors
    /// `OutOfOrder` if its time is below that of an event before.
    pub fn take(
        &mut self,
        time: OriginTime,
        alone: bool,
        entry: Option<Entry>,
    ) -> Result<ClosedTimes, OutOfOrder> {
        if time < self.newest {
            return Err(OutOfOrder {
                event: time,
                newest: self.newest,
            });
        }
        self.newest = time;
        let mut closed = ClosedTimes {
            frontier: time.pred(),
            released: Vec::new(),
        };
        if self.open.as_ref().is_some_and(|(open, _)| *open < time) {
            closed.released.extend(self.open.take());
        }
        let held = &mut self.open.get_or_insert_with(|| (time, Vec::new())).1;
        hold(held, entry);
        if alone {
            closed.released.extend(self.open.take());
            closed.frontier = time;
        }
        closed.released.retain(|(_, entries)| !entries.is_empty());
        Ok(closed)
    }

    /// Whether a time is open: nothing says yet that all of it is known.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Drops what is held of the open time: the feed goes on elsewhere, and a
    /// reset is told for all of it.
    pub fn discard_open(&mut self) {
        self.open = None;
    }
}

/// A reset absorbs the other entries of its time.
fn hold(held: &mut Vec<Entry>, entry: Option<Entry>) {
    let Some(entry) = entry else { return };
    if matches!(held.as_slice(), [Entry::Reset { .. }]) {
        return;
    }
    if matches!(entry, Entry::Reset { .. }) {
        held.clear();
    } else if held.len() >= MAX_HELD {
        let reason = "a transaction changed more todos than can be told one by one".into();
        *held = vec![Entry::Reset { reason }];
        return;
    }
    held.push(entry);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ChangeKind, TodoName, Touched};

    fn change(id: &str, time: u64) -> Entry {
        Entry::Change(Arc::new(Change {
            name: TodoName::parse(&format!("lists/home/todos/{id}")).expect("a name"),
            kind: ChangeKind::Updated,
            touched: Touched::All,
            time: OriginTime(time),
            wall_ms: 0,
        }))
    }

    fn take(
        closing: &mut CommitGroups,
        time: u64,
        alone: bool,
        entry: Option<Entry>,
    ) -> (Vec<(u64, usize)>, u64) {
        let closed = closing
            .take(OriginTime(time), alone, entry)
            .expect("in order");
        (
            closed
                .released
                .iter()
                .map(|(t, e)| (t.0, e.len()))
                .collect(),
            closed.frontier.0,
        )
    }

    #[test]
    fn an_event_that_is_alone_closes_its_time() {
        let mut closing = CommitGroups::default();
        assert_eq!(
            take(&mut closing, 5, true, Some(change("a", 5))),
            (vec![(5, 1)], 5)
        );
        assert!(!closing.is_open());
    }

    #[test]
    fn a_transaction_is_closed_by_the_next_time_only() {
        let mut closing = CommitGroups::default();
        assert_eq!(
            take(&mut closing, 5, false, Some(change("a", 5))),
            (vec![], 4)
        );
        assert_eq!(
            take(&mut closing, 5, false, Some(change("b", 5))),
            (vec![], 4)
        );
        assert!(closing.is_open());
        assert_eq!(take(&mut closing, 9, true, None), (vec![(5, 2)], 9));
    }

    #[test]
    fn a_reset_absorbs_the_rest_of_its_time() {
        let mut closing = CommitGroups::default();
        let reset = || {
            Some(Entry::Reset {
                reason: "drop".into(),
            })
        };
        take(&mut closing, 5, false, Some(change("a", 5)));
        take(&mut closing, 5, false, reset());
        take(&mut closing, 5, false, Some(change("b", 5)));
        assert_eq!(take(&mut closing, 6, false, None), (vec![(5, 1)], 5));
    }

    #[test]
    fn a_time_too_large_to_hold_becomes_a_reset() {
        let mut closing = CommitGroups::default();
        for _ in 0..=MAX_HELD {
            take(&mut closing, 5, false, Some(change("a", 5)));
        }
        let closed = closing.take(OriginTime(6), true, None).expect("in order");
        assert!(matches!(closed.released[0].1[..], [Entry::Reset { .. }]));
    }

    #[test]
    fn going_back_is_an_error() {
        let mut closing = CommitGroups::default();
        take(&mut closing, 5, true, None);
        assert!(closing.take(OriginTime(4), true, None).is_err());
    }
}
