//! The ledger of acknowledged heartbeats: what turns a time of the origin into
//! an age, without comparing clocks.

use std::{collections::VecDeque, time::Duration};

use crate::model::{Mono, OriginTime};

/// Entries younger than this are all kept.
const KEPT_WHOLE: Duration = Duration::from_secs(1);
/// Older ones are thinned to one for each 64th of their age (rounded down to a
/// power of two), so an age is told 2 % too old at most, and a ledger of a
/// whole day has some hundred entries.
const PARTS_OF_AGE: u64 = 64;

/// One acknowledged heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Beat {
    /// Its time at the origin.
    time: OriginTime,
    /// The local instant it was begun at, taken before it was sent.
    begun: Mono,
}

/// Acknowledged heartbeats, oldest first, rising in both of their times.
///
/// Every write that anyone had acknowledged before `begun` has a time below
/// `time`. Any part of the ledger is sound, so it may be thinned at will.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HeartbeatLog {
    beats: VecDeque<Beat>,
}

impl HeartbeatLog {
    /// Adds an acknowledged heartbeat and forgets what is older than `keep`.
    /// One that does not rise in both times adds nothing and is left out.
    pub fn record(&mut self, time: OriginTime, begun: Mono, now: Mono, keep: Duration) {
        if self
            .beats
            .back()
            .is_some_and(|last| last.time >= time || last.begun >= begun)
        {
            return;
        }
        self.thin(now, keep);
        self.beats.push_back(Beat { time, begun });
    }

    /// Keeps the oldest entry of each cell of a grid whose cells double with
    /// age. The grid does not move, so what one thinning keeps as the oldest
    /// of a cell the next one keeps too.
    fn thin(&mut self, now: Mono, keep: Duration) {
        let mut last_cell = None;
        self.beats.retain(|beat| {
            let age = now.since(beat.begun);
            if age <= KEPT_WHOLE {
                return true;
            }
            let width = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX) / PARTS_OF_AGE;
            let cell = (width.ilog2(), beat.begun.0 >> width.ilog2());
            age <= keep && last_cell.replace(cell) != Some(cell)
        });
    }

    /// `age(d)` of the protocol: the least `h - 1` among the heartbeats begun
    /// at `since = arrival - d` or later. An answer fresh to it misses no
    /// write acknowledged before `since`. `None`: no such heartbeat yet.
    #[must_use]
    pub fn age(&self, since: Mono) -> Option<OriginTime> {
        let at = self.beats.partition_point(|beat| beat.begun < since);
        self.beats.get(at).map(|beat| beat.time.pred())
    }

    /// The instant before which an answer fresh to `fresh_to` misses no
    /// acknowledged write: its staleness bound is the time since then. `None`:
    /// infinite.
    #[must_use]
    pub fn proven(&self, fresh_to: OriginTime) -> Option<Mono> {
        let after = self
            .beats
            .partition_point(|beat| beat.time.pred() <= fresh_to);
        after.checked_sub(1).map(|at| self.beats[at].begun)
    }

    /// The time of the newest acknowledged heartbeat.
    #[must_use]
    pub fn newest(&self) -> Option<OriginTime> {
        self.beats.back().map(|beat| beat.time)
    }

    /// The local instant at which the newest acknowledged heartbeat was begun.
    #[must_use]
    pub fn newest_begun(&self) -> Option<Mono> {
        self.beats.back().map(|beat| beat.begun)
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
        assert_eq!(heartbeat_log.proven(OriginTime::MAX), None);
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
        assert_eq!(heartbeat_log.proven(OriginTime(29)), Some(Mono(300 * MS)));
        assert_eq!(heartbeat_log.proven(OriginTime(28)), Some(Mono(200 * MS)));
        assert_eq!(heartbeat_log.proven(OriginTime(8)), None);
        assert_eq!(heartbeat_log.proven(OriginTime::MAX), Some(Mono(500 * MS)));
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
            heartbeat_log.beats.len() < 1000,
            "{}",
            heartbeat_log.beats.len()
        );
        let now = Mono(30_000 * 2 * MS + MS);
        let mut newer = now;
        for beat in heartbeat_log.beats.iter().rev() {
            let age = now.since(beat.begun);
            assert!(age <= keep);
            let gap = newer.since(beat.begun);
            assert!(
                gap <= Duration::from_millis(4) || gap <= age / 16,
                "{gap:?} at {age:?}"
            );
            newer = beat.begun;
        }
        assert!(now.since(newer) + Duration::from_secs(1) > keep);
    }
}
