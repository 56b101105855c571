//! The arms of `Consistency`: each is a time that an answer must reach.

use std::time::Duration;

use super::HeartbeatLog;
use crate::model::{Mono, OriginTime};

/// How fresh a caller wants an answer to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// From the nearest cache, within the staleness limit.
    MinimizeLatency,
    /// No write acknowledged longer ago is missing.
    MaxStaleness(Duration),
    /// Not older than the answer whose token says it has `seen` this.
    AtLeastAsFresh(OriginTime),
    /// Every write acknowledged before the read began is in it.
    FullyConsistent,
    /// Within the staleness limit, from caches, or not at all.
    CachedOnly,
}

/// What an arm asks for at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinFreshness {
    /// An answer fresh to this.
    At(OriginTime),
    /// It can't be said before a heartbeat begun at this instant or later is
    /// acknowledged.
    Heartbeat(Mono),
}

impl Consistency {
    /// What this arm needs of a request that arrived at `arrival`: the greater
    /// of its own row and of `age(limit)`, whatever the arm.
    #[must_use]
    pub fn need(
        &self,
        arrival: Mono,
        limit: Duration,
        heartbeat_log: &HeartbeatLog,
    ) -> MinFreshness {
        let since = match self {
            Self::FullyConsistent => arrival,
            Self::MaxStaleness(d) => arrival.minus((*d).min(limit)),
            _ => arrival.minus(limit),
        };
        match heartbeat_log.age(since) {
            Some(age) => MinFreshness::At(age.max(self.without_age())),
            None => MinFreshness::Heartbeat(since),
        }
    }

    /// What the arm needs when its part of age is left out: all that an answer
    /// marked stale has to reach.
    #[must_use]
    pub const fn without_age(&self) -> OriginTime {
        match self {
            Self::AtLeastAsFresh(seen) => *seen,
            _ => OriginTime::ZERO,
        }
    }

    /// Whether an answer that only waits for the frontier is worth a wait.
    #[must_use]
    pub const fn waits_for_frontier(&self) -> bool {
        matches!(
            self,
            Self::MaxStaleness(_) | Self::AtLeastAsFresh(_) | Self::FullyConsistent
        )
    }

    /// Whether a page that was overtaken within the list grace may be answered.
    #[must_use]
    pub fn allows_grace(&self, grace: Duration) -> bool {
        match self {
            Self::FullyConsistent => false,
            Self::MaxStaleness(d) => *d >= grace,
            _ => !grace.is_zero(),
        }
    }

    /// Whether an answer marked stale may be given when the origin is away.
    #[must_use]
    pub const fn allows_stale(&self) -> bool {
        !matches!(self, Self::FullyConsistent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(15);
    const SECOND: u64 = 1_000_000_000;

    fn heartbeat_log() -> HeartbeatLog {
        let mut heartbeat_log = HeartbeatLog::default();
        for n in [10, 20, 30] {
            heartbeat_log.record(
                OriginTime(n * 100),
                Mono(n * SECOND),
                Mono(n * SECOND + 1),
                LIMIT * 4,
            );
        }
        heartbeat_log
    }

    #[test]
    fn each_arm_is_a_time() {
        let (heartbeat_log, arrival) = (heartbeat_log(), Mono(31 * SECOND));
        let need = |consistency: Consistency| consistency.need(arrival, LIMIT, &heartbeat_log);
        assert_eq!(
            need(Consistency::MinimizeLatency),
            MinFreshness::At(OriginTime(1999))
        );
        assert_eq!(
            need(Consistency::CachedOnly),
            MinFreshness::At(OriginTime(1999))
        );
        assert_eq!(
            need(Consistency::MaxStaleness(Duration::from_secs(2))),
            MinFreshness::At(OriginTime(2999))
        );
        assert_eq!(
            need(Consistency::MaxStaleness(Duration::ZERO)),
            MinFreshness::Heartbeat(arrival),
            "nothing proves an age of zero but a heartbeat begun now"
        );
        assert_eq!(
            need(Consistency::FullyConsistent),
            MinFreshness::Heartbeat(arrival)
        );
    }

    /// `max_staleness` above the limit and tokens from long ago don't loosen
    /// the limit.
    #[test]
    fn the_limit_holds_for_every_arm() {
        let (heartbeat_log, arrival) = (heartbeat_log(), Mono(31 * SECOND));
        for consistency in [
            Consistency::MaxStaleness(LIMIT * 100),
            Consistency::AtLeastAsFresh(OriginTime(5)),
        ] {
            assert_eq!(
                consistency.need(arrival, LIMIT, &heartbeat_log),
                MinFreshness::At(OriginTime(1999))
            );
        }
        let token = Consistency::AtLeastAsFresh(OriginTime(9999));
        assert_eq!(
            token.need(arrival, LIMIT, &heartbeat_log),
            MinFreshness::At(OriginTime(9999))
        );
        let late = Mono(46 * SECOND);
        for consistency in [Consistency::MinimizeLatency, Consistency::CachedOnly, token] {
            assert_eq!(
                consistency.need(late, LIMIT, &heartbeat_log),
                MinFreshness::Heartbeat(late.minus(LIMIT))
            );
        }
    }

    #[test]
    fn a_strong_read_takes_no_heartbeat_begun_before_it() {
        let mut heartbeat_log = heartbeat_log();
        let arrival = Mono(40 * SECOND);
        heartbeat_log.record(OriginTime(4000), Mono(arrival.0 - 1), arrival, LIMIT * 4);
        assert_eq!(
            Consistency::FullyConsistent.need(arrival, LIMIT, &heartbeat_log),
            MinFreshness::Heartbeat(arrival)
        );
        heartbeat_log.record(OriginTime(4001), arrival, arrival, LIMIT * 4);
        assert_eq!(
            Consistency::FullyConsistent.need(arrival, LIMIT, &heartbeat_log),
            MinFreshness::At(OriginTime(4000))
        );
    }
}
