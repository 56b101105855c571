//! Commit groups: the events of one commit time.
//!
//! Several changes may share a time (a transaction). A time is closed by the
//! first event with a later time, or at once by an event that is known to be the
//! only one at its time. Until then the frontier stays below it and watchers get
//! none of its changes. A reconnect closes nothing, so the open group outlives it.

use crate::model::{Event, OriginTime};

/// Most events of one time that are buffered until it is closed, about 10 MB. A
/// larger transaction reaches watchers as a reset.
const MAX_BUFFERED: usize = 65_536;

/// Collects events into groups of one commit time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CommitGroups {
    open: Option<(OriginTime, Vec<Event>)>,
    newest: OriginTime,
}

/// The groups that an event closed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ClosedTimes {
    /// The closed times in order, each with its events. Times without events
    /// for watchers are left out.
    pub released: Vec<(OriginTime, Vec<Event>)>,
    /// How far the frontier may move.
    pub frontier: OriginTime,
}

/// The feed returned an event with an earlier time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of time {event} came after one of time {newest}")]
pub struct OutOfOrder {
    event: OriginTime,
    newest: OriginTime,
}

impl CommitGroups {
    /// Adds the next event of the feed. `sole`: it is known to be the only event
    /// at its time. `event`: what watchers get of it, if anything.
    ///
    /// # Errors
    /// `OutOfOrder` if `time` is below the time of an earlier event.
    pub fn add(
        &mut self,
        time: OriginTime,
        sole: bool,
        event: Option<Event>,
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
        let group = &mut self.open.get_or_insert_with(|| (time, Vec::new())).1;
        buffer(group, event);
        if sole {
            closed.released.extend(self.open.take());
            closed.frontier = time;
        }
        closed.released.retain(|(_, events)| !events.is_empty());
        Ok(closed)
    }

    /// Whether a time is open: more events of it may follow.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Drops the open group. The caller sends a reset in its place.
    pub fn discard_open(&mut self) {
        self.open = None;
    }
}

/// Adds an event to its group. A reset absorbs the other events.
fn buffer(group: &mut Vec<Event>, event: Option<Event>) {
    let Some(event) = event else { return };
    if matches!(group.as_slice(), [Event::Reset { .. }]) {
        return;
    }
    if event.is_reset() {
        group.clear();
    } else if group.len() >= MAX_BUFFERED {
        let reason = "a transaction changed more todos than can be sent one by one".into();
        *group = vec![Event::Reset { reason }];
        return;
    }
    group.push(event);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Change, ChangeKind, TodoName, Touched};

    fn change(id: &str, time: u64) -> Event {
        Event::Change(Arc::new(Change {
            name: TodoName::parse(&format!("lists/home/todos/{id}")).expect("a name"),
            kind: ChangeKind::Updated,
            touched: Touched::All,
            time: OriginTime(time),
            wall_ms: 0,
        }))
    }

    fn add(
        groups: &mut CommitGroups,
        time: u64,
        alone: bool,
        event: Option<Event>,
    ) -> (Vec<(u64, usize)>, u64) {
        let closed = groups
            .add(OriginTime(time), alone, event)
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
        let mut groups = CommitGroups::default();
        assert_eq!(
            add(&mut groups, 5, true, Some(change("a", 5))),
            (vec![(5, 1)], 5)
        );
        assert!(!groups.is_open());
    }

    #[test]
    fn a_transaction_is_closed_by_the_next_time_only() {
        let mut groups = CommitGroups::default();
        assert_eq!(
            add(&mut groups, 5, false, Some(change("a", 5))),
            (vec![], 4)
        );
        assert_eq!(
            add(&mut groups, 5, false, Some(change("b", 5))),
            (vec![], 4)
        );
        assert!(groups.is_open());
        assert_eq!(add(&mut groups, 9, true, None), (vec![(5, 2)], 9));
    }

    #[test]
    fn a_reset_absorbs_the_rest_of_its_time() {
        let mut groups = CommitGroups::default();
        let reset = || {
            Some(Event::Reset {
                reason: "drop".into(),
            })
        };
        add(&mut groups, 5, false, Some(change("a", 5)));
        add(&mut groups, 5, false, reset());
        add(&mut groups, 5, false, Some(change("b", 5)));
        assert_eq!(add(&mut groups, 6, false, None), (vec![(5, 1)], 5));
    }

    #[test]
    fn a_time_too_large_to_hold_becomes_a_reset() {
        let mut groups = CommitGroups::default();
        for _ in 0..=MAX_BUFFERED {
            add(&mut groups, 5, false, Some(change("a", 5)));
        }
        let closed = groups.add(OriginTime(6), true, None).expect("in order");
        assert!(matches!(closed.released[0].1[..], [Event::Reset { .. }]));
    }

    #[test]
    fn going_back_is_an_error() {
        let mut groups = CommitGroups::default();
        add(&mut groups, 5, true, None);
        assert!(groups.add(OriginTime(4), true, None).is_err());
    }
}
