//! The log of acknowledged heartbeats. It turns a time of the origin into an age
//! without comparing clocks.

use std::{collections::VecDeque, time::Duration};

use crate::model::{Mono, OriginTime};

/// Heartbeats younger than this are all kept.
const KEPT_WHOLE: Duration = Duration::from_secs(1);
/// Older ones are thinned to one for each 64th of their age (rounded down to a
/// power of two). A stated age is then at most 2 % too large, and the log of a
/// whole day has some hundred entries.
const PARTS_OF_AGE: u64 = 64;

/// One acknowledged heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Heartbeat {
    /// Its time at the origin.
    time: OriginTime,
    /// The local instant at which it was begun, taken before it was sent.
    begun: Mono,
}

/// Acknowledged heartbeats, oldest first, rising in both of their times.
///
/// Every write that anyone had acknowledged before `begun` has a time below
/// `time`. Any subset of the log is sound, so it may be thinned at will.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HeartbeatLog {
    heartbeats: VecDeque<Heartbeat>,
}

impl HeartbeatLog {
    /// Adds an acknowledged heartbeat and forgets those older than `keep`. One
    /// that does not rise in both times adds no knowledge and is left out.
    pub fn record(&mut self, time: OriginTime, begun: Mono, now: Mono, keep: Duration) {
        if self
            .heartbeats
            .back()
            .is_some_and(|last| last.time >= time || last.begun >= begun)
        {
            return;
        }
        self.thin(now, keep);
        self.heartbeats.push_back(Heartbeat { time, begun });
    }

    /// Keeps the oldest entry of each cell of a grid whose cells double with age.
    /// The grid is fixed, so the entry that one thinning keeps for a cell is also
    /// the one that the next thinning keeps.
    fn thin(&mut self, now: Mono, keep: Duration) {
        let mut last_cell = None;
        self.heartbeats.retain(|heartbeat| {
            let age = now.since(heartbeat.begun);
            if age <= KEPT_WHOLE {
                return true;
            }
            let width = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX) / PARTS_OF_AGE;
            let cell = (width.ilog2(), heartbeat.begun.0 >> width.ilog2());
            age <= keep && last_cell.replace(cell) != Some(cell)
        });
    }

    /// The least `h - 1` among the heartbeats begun at `since` or later. A value
    /// fresh to it misses no write acknowledged before `since`. `None`: no such
    /// heartbeat yet.
    #[must_use]
    pub fn age(&self, since: Mono) -> Option<OriginTime> {
        let at = self
            .heartbeats
            .partition_point(|heartbeat| heartbeat.begun < since);
        self.heartbeats
            .get(at)
            .map(|heartbeat| heartbeat.time.pred())
    }

    /// The latest instant before which a value fresh to `fresh_to` misses no
    /// acknowledged write. Its staleness bound is the time since then. `None`: no
    /// bound can be stated.
    #[must_use]
    pub fn begun_below(&self, fresh_to: OriginTime) -> Option<Mono> {
        let after = self
            .heartbeats
            .partition_point(|heartbeat| heartbeat.time.pred() <= fresh_to);
        after.checked_sub(1).map(|at| self.heartbeats[at].begun)
    }

    /// The time of the newest acknowledged heartbeat.
    #[must_use]
    pub fn newest(&self) -> Option<OriginTime> {
        self.heartbeats.back().map(|heartbeat| heartbeat.time)
    }

    /// The local instant at which the newest acknowledged heartbeat was begun.
    #[must_use]
    pub fn newest_begun(&self) -> Option<Mono> {
        self.heartbeats.back().map(|heartbeat| heartbeat.begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn filled(every_ms: u64, count: u64, keep: Duration) -> HeartbeatLog {
        let mut heartbeat_log = HeartbeatLog::default();
        for n in 1..=count {
            let begun = Mono(n * every_ms * MS);
            heartbeat_log.record(OriginTime(n * 10), begun, Mono(begun.0 + MS), keep);
        }
        heartbeat_log
    }

    #[test]
    fn empty_proves_nothing() {
        let heartbeat_log = HeartbeatLog::default();
        assert_eq!(heartbeat_log.age(Mono(0)), None);
        assert_eq!(heartbeat_log.begun_below(OriginTime::MAX), None);
    }

    #[test]
    fn age_is_the_first_heartbeat_begun_late_enough() {
        let heartbeat_log = filled(100, 5, Duration::from_secs(60));
        assert_eq!(heartbeat_log.age(Mono(200 * MS)), Some(OriginTime(19)));
        assert_eq!(heartbeat_log.age(Mono(200 * MS + 1)), Some(OriginTime(29)));
        assert_eq!(heartbeat_log.age(Mono(500 * MS + 1)), None);
    }

    /// Not `h - 2`: an answer fresh to `h - 1` has every write below `h`.
    #[test]
    fn bound_counts_heartbeats_up_to_the_next_time() {
        let heartbeat_log = filled(100, 5, Duration::from_secs(60));
        assert_eq!(
            heartbeat_log.begun_below(OriginTime(29)),
            Some(Mono(300 * MS))
        );
        assert_eq!(
            heartbeat_log.begun_below(OriginTime(28)),
            Some(Mono(200 * MS))
        );
        assert_eq!(heartbeat_log.begun_below(OriginTime(8)), None);
        assert_eq!(
            heartbeat_log.begun_below(OriginTime::MAX),
            Some(Mono(500 * MS))
        );
    }

    #[test]
    fn heartbeats_that_do_not_rise_are_left_out() {
        let mut heartbeat_log = filled(100, 2, Duration::from_secs(60));
        heartbeat_log.record(
            OriginTime(5),
            Mono(900 * MS),
            Mono(901 * MS),
            Duration::from_secs(60),
        );
        heartbeat_log.record(
            OriginTime(50),
            Mono(150 * MS),
            Mono(901 * MS),
            Duration::from_secs(60),
        );
        assert_eq!(heartbeat_log.newest(), Some(OriginTime(20)));
    }

    #[test]
    fn thinned_by_age_with_small_gaps() {
        let keep = Duration::from_secs(15);
        let heartbeat_log = filled(2, 30_000, keep);
        assert!(
            heartbeat_log.heartbeats.len() < 1000,
            "{}",
            heartbeat_log.heartbeats.len()
        );
        let now = Mono(30_000 * 2 * MS + MS);
        let mut newer = now;
        for heartbeat in heartbeat_log.heartbeats.iter().rev() {
            let age = now.since(heartbeat.begun);
            assert!(age <= keep);
            let gap = newer.since(heartbeat.begun);
            assert!(
                gap <= Duration::from_millis(4) || gap <= age / 16,
                "{gap:?} at {age:?}"
            );
            newer = heartbeat.begun;
        }
        assert!(now.since(newer) + Duration::from_secs(1) > keep);
    }
}
