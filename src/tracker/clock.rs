//! The clock of this replica. The rules of coherence get its readings as
//! arguments.

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use crate::model::Mono;

/// Where monotonic instants come from.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// The system's clock that also counts the time in which the machine was
    /// suspended: an age must not stand still meanwhile.
    Boottime,
    /// tokio's clock since this instant: a simulation can pause it.
    Tokio(Instant),
}

impl Clock {
    /// The present instant.
    #[must_use]
    pub fn now(&self) -> Mono {
        let nanos = match self {
            Self::Boottime => {
                let now = clock_gettime(ClockId::Boottime);
                return Mono(
                    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs(),
                );
            }
            Self::Tokio(start) => start.elapsed().as_nanos(),
        };
        Mono(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}
