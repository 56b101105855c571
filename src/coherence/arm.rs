//! The arms of `Consistency`: each is a time that an answer must reach.

use std::time::Duration;

use super::Ledger;
use crate::model::{Mono, OriginTime};

/// How fresh a caller wants an answer to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
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
pub enum Needed {
    /// An answer fresh to this.
    At(OriginTime),
    /// It can't be said before a heartbeat begun at this instant or later is
    /// acknowledged.
    Heartbeat(Mono),
}

impl Arm {
    /// What this arm needs of a request that arrived at `arrival`: the greater
    /// of its own row and of `age(limit)`, whatever the arm.
    #[must_use]
    pub fn need(&self, arrival: Mono, limit: Duration, ledger: &Ledger) -> Needed {
        let since = match self {
            Self::FullyConsistent => arrival,
            Self::MaxStaleness(d) => arrival.minus((*d).min(limit)),
            _ => arrival.minus(limit),
        };
        match ledger.age(since) {
            Some(age) => Needed::At(age.max(self.regardless_of_age())),
            None => Needed::Heartbeat(since),
        }
    }

    /// What the arm needs when its part of age is left out: all that an answer
    /// marked stale has to reach.
    #[must_use]
    pub const fn regardless_of_age(&self) -> OriginTime {
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

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        for n in [10, 20, 30] {
            ledger.record(
                OriginTime(n * 100),
                Mono(n * SECOND),
                Mono(n * SECOND + 1),
                LIMIT * 4,
            );
        }
        ledger
    }

    #[test]
    fn each_arm_is_a_time() {
        let (ledger, arrival) = (ledger(), Mono(31 * SECOND));
        let need = |arm: Arm| arm.need(arrival, LIMIT, &ledger);
        assert_eq!(need(Arm::MinimizeLatency), Needed::At(OriginTime(1999)));
        assert_eq!(need(Arm::CachedOnly), Needed::At(OriginTime(1999)));
        assert_eq!(
            need(Arm::MaxStaleness(Duration::from_secs(2))),
            Needed::At(OriginTime(2999))
        );
        assert_eq!(
            need(Arm::MaxStaleness(Duration::ZERO)),
            Needed::Heartbeat(arrival),
            "nothing proves an age of zero but a heartbeat begun now"
        );
        assert_eq!(need(Arm::FullyConsistent), Needed::Heartbeat(arrival));
    }

    /// `max_staleness` above the limit and tokens from long ago don't loosen
    /// the limit.
    #[test]
    fn the_limit_holds_for_every_arm() {
        let (ledger, arrival) = (ledger(), Mono(31 * SECOND));
        for arm in [
            Arm::MaxStaleness(LIMIT * 100),
            Arm::AtLeastAsFresh(OriginTime(5)),
        ] {
            assert_eq!(
                arm.need(arrival, LIMIT, &ledger),
                Needed::At(OriginTime(1999))
            );
        }
        let token = Arm::AtLeastAsFresh(OriginTime(9999));
        assert_eq!(
            token.need(arrival, LIMIT, &ledger),
            Needed::At(OriginTime(9999))
        );
        let late = Mono(46 * SECOND);
        for arm in [Arm::MinimizeLatency, Arm::CachedOnly, token] {
            assert_eq!(
                arm.need(late, LIMIT, &ledger),
                Needed::Heartbeat(late.minus(LIMIT))
            );
        }
    }

    #[test]
    fn a_strong_read_takes_no_heartbeat_begun_before_it() {
        let mut ledger = ledger();
        let arrival = Mono(40 * SECOND);
        ledger.record(OriginTime(4000), Mono(arrival.0 - 1), arrival, LIMIT * 4);
        assert_eq!(
            Arm::FullyConsistent.need(arrival, LIMIT, &ledger),
            Needed::Heartbeat(arrival)
        );
        ledger.record(OriginTime(4001), arrival, arrival, LIMIT * 4);
        assert_eq!(
            Arm::FullyConsistent.need(arrival, LIMIT, &ledger),
            Needed::At(OriginTime(4000))
        );
    }
}
