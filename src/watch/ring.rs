//! The ring of recent commit groups, which all watches read.

use std::{collections::VecDeque, mem::size_of, sync::Arc};

use crate::model::{Change, Event, OriginTime};

/// Most events in the ring: about half a minute at 2000 changes a second. An older
/// cursor is served by a catch-up feed.
const RING_EVENTS: usize = 65_536;
/// Bytes of an event beside its texts: the event, its shared change, their counters.
const EVENT_BYTES: usize = size_of::<Event>() + size_of::<Change>() + 48;

/// One commit time with its events.
pub type Group = (OriginTime, Arc<[Event]>);

/// The recent commit groups in order. Nothing after `start` is missing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ring {
    groups: VecDeque<Group>,
    events: usize,
    bytes: usize,
    max_bytes: usize,
    start: OriginTime,
    end: OriginTime,
    last_reset: OriginTime,
}

/// Why the ring cannot serve a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooOld {
    /// The changes between it and the ring must be read from the origin.
    NotInRing,
    /// There was a reset since: the client must read everything again.
    ResetSince,
}

impl Default for Ring {
    fn default() -> Self {
        Self::starting_at(OriginTime::ZERO)
    }
}

impl Ring {
    /// An empty ring that begins after `start`.
    #[must_use]
    pub const fn starting_at(start: OriginTime) -> Self {
        Self {
            groups: VecDeque::new(),
            events: 0,
            bytes: 0,
            max_bytes: usize::MAX,
            start,
            end: start,
            last_reset: OriginTime::ZERO,
        }
    }

    /// The same, holding at most this many bytes.
    #[must_use]
    pub fn with_max_bytes(mut self, max_bytes: usize) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// Adds a commit group. Returns the groups that leave the ring for it.
    pub fn push(&mut self, time: OriginTime, events: Arc<[Event]>) -> Vec<Group> {
        debug_assert!(time >= self.end, "{time} was pushed after {}", self.end);
        if events.iter().any(Event::is_reset) {
            self.last_reset = time;
        }
        self.events += events.len();
        self.bytes += bytes_of(&events);
        self.end = self.end.max(time);
        self.groups.push_back((time, events));
        let mut evicted = Vec::new();
        while self.events > RING_EVENTS || self.bytes > self.max_bytes {
            let Some((time, oldest)) = self.groups.pop_front() else {
                break;
            };
            self.events -= oldest.len();
            self.bytes -= bytes_of(&oldest);
            self.start = time;
            evicted.push((time, oldest));
        }
        evicted
    }

    /// The groups after a cursor.
    ///
    /// # Errors
    /// `TooOld` if some of them may have left the ring.
    pub fn since(&self, cursor: OriginTime) -> Result<impl Iterator<Item = &Group>, TooOld> {
        if cursor < self.start {
            return Err(if cursor < self.last_reset {
                TooOld::ResetSince
            } else {
                TooOld::NotInRing
            });
        }
        Ok(after(&self.groups, cursor))
    }

    /// Everything after this time is in the ring.
    #[must_use]
    pub const fn start(&self) -> OriginTime {
        self.start
    }

    /// The newest time that was closed.
    #[must_use]
    pub const fn end(&self) -> OriginTime {
        self.end
    }

    /// Bytes held.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The groups after a cursor.
pub(super) fn after(groups: &VecDeque<Group>, cursor: OriginTime) -> impl Iterator<Item = &Group> {
    let at = groups.partition_point(|(time, _)| *time <= cursor);
    groups.range(at..)
}

fn bytes_of(events: &[Event]) -> usize {
    let text = |event: &Event| match event {
        Event::Change(change) => change.name.as_str().len(),
        Event::List(name) => name.as_str().len(),
        Event::Reset { reason } => reason.len(),
    };
    events.iter().map(|event| EVENT_BYTES + text(event)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Change, ChangeKind, TodoName, Touched};

    fn updated(id: u8, time: u64) -> Event {
        Event::Change(Arc::new(Change {
            name: TodoName::parse(&format!("lists/home/todos/{id}")).expect("a name"),
            kind: ChangeKind::Updated,
            touched: Touched::All,
            time: OriginTime(time),
            wall_ms: 0,
        }))
    }

    #[test]
    fn the_ring_knows_what_it_has_lost() {
        let mut ring = Ring::starting_at(OriginTime(10));
        for time in 11..100_000 {
            ring.push(OriginTime(time), vec![updated(1, time)].into());
        }
        assert_eq!(ring.since(OriginTime(11)).err(), Some(TooOld::NotInRing));
        let start = 99_999 - RING_EVENTS as u64;
        assert_eq!(
            ring.since(OriginTime(start)).expect("in the ring").count(),
            RING_EVENTS
        );
        assert_eq!(
            ring.since(OriginTime(99_999)).expect("in the ring").count(),
            0
        );
        let reset = Event::Reset {
            reason: "drop".into(),
        };
        ring.push(OriginTime(100_000), vec![reset].into());
        assert_eq!(ring.since(OriginTime(11)).err(), Some(TooOld::ResetSince));
    }

    #[test]
    fn the_ring_stays_below_its_bytes() {
        let mut ring = Ring::starting_at(OriginTime(0)).with_max_bytes(10_000);
        let mut evicted = 0;
        for time in 1..1000 {
            evicted += ring
                .push(OriginTime(time), vec![updated(1, time)].into())
                .len();
            assert!(ring.bytes() <= 10_000);
        }
        assert!(evicted > 900);
        assert_eq!(ring.since(OriginTime(1)).err(), Some(TooOld::NotInRing));
    }
}
