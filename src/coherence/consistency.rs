//! Consistency levels. Each is a time that a response must be fresh to.

use std::time::Duration;

use super::HeartbeatLog;
use crate::model::{Mono, OriginTime};

/// How fresh a caller wants a response to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// From the nearest cache, within the staleness limit.
    MinimizeLatency,
    /// No write acknowledged longer ago than this is missing.
    MaxStaleness(Duration),
    /// Not older than the response whose token has `seen` this time.
    AtLeastAsFresh(OriginTime),
    /// Includes every write acknowledged before the read began.
    FullyConsistent,
    /// From a cache within the staleness limit, or not at all.
    CachedOnly,
}

/// What a response must be fresh to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinFreshness {
    /// This time.
    At(OriginTime),
    /// Not known before a heartbeat begun at this instant or later is
    /// acknowledged.
    Heartbeat(Mono),
}

impl Consistency {
    /// What a request that arrived at `arrival` needs: the maximum of what its
    /// level asks for and of the staleness `limit`, whatever the level.
    #[must_use]
    pub fn min_freshness(
        &self,
        arrival: Mono,
        limit: Duration,
        log: &HeartbeatLog,
    ) -> MinFreshness {
        let since = match self {
            Self::FullyConsistent => arrival,
            Self::MaxStaleness(d) => arrival.minus((*d).min(limit)),
            Self::MinimizeLatency | Self::AtLeastAsFresh(_) | Self::CachedOnly => {
                arrival.minus(limit)
            }
        };
        match log.age(since) {
            Some(age) => MinFreshness::At(age.max(self.without_age())),
            None => MinFreshness::Heartbeat(since),
        }
    }

    /// What the level needs without its age: a response marked stale must be
    /// fresh to this.
    #[must_use]
    pub const fn without_age(&self) -> OriginTime {
        match self {
            Self::AtLeastAsFresh(seen) => *seen,
            _ => OriginTime::ZERO,
        }
    }

    /// Whether a value that only lacks freshness is worth a wait for the frontier
    /// instead of a load.
    #[must_use]
    pub const fn waits_for_frontier(&self) -> bool {
        matches!(
            self,
            Self::MaxStaleness(_) | Self::AtLeastAsFresh(_) | Self::FullyConsistent
        )
    }

    /// Whether a page invalidated within the list grace may be served.
    #[must_use]
    pub fn allows_grace(&self, grace: Duration) -> bool {
        match self {
            Self::FullyConsistent => false,
            Self::MaxStaleness(d) => *d >= grace,
            _ => !grace.is_zero(),
        }
    }

    /// Whether a response marked stale may be given while the origin is down.
    #[must_use]
    pub const fn allows_stale(&self) -> bool {
        !matches!(self, Self::FullyConsistent)
    }

    /// Whether a shared entry with the stamp `as_of` may be used. The shared tier may
    /// return anything: a stamp above `proven`, the newest time that this replica can
    /// prove the origin to have reached, is used by no level that promises more than
    /// the staleness limit, and by the others for one heartbeat interval. That is how
    /// far behind another replica this one may be while all is well.
    /// `interval_before`: the time one heartbeat interval before a time.
    #[must_use]
    pub fn believes(
        &self,
        as_of: OriginTime,
        proven: OriginTime,
        interval_before: impl FnOnce(OriginTime) -> OriginTime,
    ) -> bool {
        let may_be_ahead = matches!(self, Self::MinimizeLatency | Self::CachedOnly);
        as_of <= proven || (may_be_ahead && interval_before(as_of) <= proven)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(15);
    const SECOND: u64 = 1_000_000_000;

    fn log() -> HeartbeatLog {
        let mut log = HeartbeatLog::default();
        for n in [10, 20, 30] {
            log.record(
                OriginTime(n * 100),
                Mono(n * SECOND),
                Mono(n * SECOND + 1),
                LIMIT * 4,
            );
        }
        log
    }

    #[test]
    fn each_arm_is_a_time() {
        let (log, arrival) = (log(), Mono(31 * SECOND));
        let need = |consistency: Consistency| consistency.min_freshness(arrival, LIMIT, &log);
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
        let (log, arrival) = (log(), Mono(31 * SECOND));
        for consistency in [
            Consistency::MaxStaleness(LIMIT * 100),
            Consistency::AtLeastAsFresh(OriginTime(5)),
        ] {
            assert_eq!(
                consistency.min_freshness(arrival, LIMIT, &log),
                MinFreshness::At(OriginTime(1999))
            );
        }
        let token = Consistency::AtLeastAsFresh(OriginTime(9999));
        assert_eq!(
            token.min_freshness(arrival, LIMIT, &log),
            MinFreshness::At(OriginTime(9999))
        );
        let late = Mono(46 * SECOND);
        for consistency in [Consistency::MinimizeLatency, Consistency::CachedOnly, token] {
            assert_eq!(
                consistency.min_freshness(late, LIMIT, &log),
                MinFreshness::Heartbeat(late.minus(LIMIT))
            );
        }
    }

    #[test]
    fn a_strong_read_takes_no_heartbeat_begun_before_it() {
        let mut log = log();
        let arrival = Mono(40 * SECOND);
        log.record(OriginTime(4000), Mono(arrival.0 - 1), arrival, LIMIT * 4);
        assert_eq!(
            Consistency::FullyConsistent.min_freshness(arrival, LIMIT, &log),
            MinFreshness::Heartbeat(arrival)
        );
        log.record(OriginTime(4001), arrival, arrival, LIMIT * 4);
        assert_eq!(
            Consistency::FullyConsistent.min_freshness(arrival, LIMIT, &log),
            MinFreshness::At(OriginTime(4000))
        );
    }
}
