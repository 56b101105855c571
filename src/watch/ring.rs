//! The ring of recent commit groups, from which a watch with a recent cursor
//! starts.

use std::{collections::VecDeque, sync::Arc};

use crate::model::{Event, OriginTime};

/// Most events in the ring: about half a minute at 2000 changes a second, in some
/// 10 MB. An older cursor is served by a catch-up feed.
const RING_EVENTS: usize = 65_536;

/// The recent closed times in order. Nothing after `start` is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ring {
    times: VecDeque<(OriginTime, Arc<[Event]>)>,
    events: usize,
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

impl Ring {
    /// An empty ring that begins after `start`.
    #[must_use]
    pub fn starting_at(start: OriginTime) -> Self {
        Self {
            start,
            end: start,
            ..Self::default()
        }
    }

    /// Adds a closed time.
    pub fn push(&mut self, time: OriginTime, events: Arc<[Event]>) {
        if events.iter().any(Event::is_reset) {
            self.last_reset = time;
        }
        self.events += events.len();
        self.end = self.end.max(time);
        self.times.push_back((time, events));
        while self.events > RING_EVENTS {
            let Some((time, oldest)) = self.times.pop_front() else {
                break;
            };
            self.events -= oldest.len();
            self.start = time;
        }
    }

    /// The times after a cursor.
    ///
    /// # Errors
    /// `TooOld` if some of them may have left the ring.
    pub fn since(
        &self,
        cursor: OriginTime,
    ) -> Result<impl Iterator<Item = &(OriginTime, Arc<[Event]>)>, TooOld> {
        if cursor < self.start {
            return Err(if cursor < self.last_reset {
                TooOld::ResetSince
            } else {
                TooOld::NotInRing
            });
        }
        let at = self.times.partition_point(|(time, _)| *time <= cursor);
        Ok(self.times.range(at..))
    }

    /// The newest time that was closed.
    #[must_use]
    pub const fn end(&self) -> OriginTime {
        self.end
    }
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
}
