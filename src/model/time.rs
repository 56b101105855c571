//! The two clocks of the service: the origin's and the process's own.

use std::{fmt, time::Duration};

/// A point on the origin's own logical clock. MongoDB: the BSON timestamp
/// (`seconds << 32 | increment`); embedded: the commit number. Only times of
/// one origin can be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OriginTime(pub u64);

impl OriginTime {
    /// Before everything.
    pub const ZERO: Self = Self(0);
    /// Above every time that an origin gives: nothing is admissible under it.
    pub const MAX: Self = Self(u64::MAX);

    /// The time just before this one; `ZERO` has none and stays.
    #[must_use]
    pub const fn pred(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The time just after this one; `MAX` has none and stays.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for OriginTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// An instant of this process's monotonic clock, in nanoseconds since its
/// start of counting; the clock includes time in which the machine is suspended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

impl Mono {
    /// How long `earlier` lies back; zero if it does not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The instant `d` before this one; the clock's start if there is none.
    #[must_use]
    pub fn minus(self, d: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}
