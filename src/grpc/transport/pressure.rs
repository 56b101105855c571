//! Closes connections before the process takes more memory than it may.
//!
//! Budgets charge what is known to be held. This is the last resort for what is not: a library
//! below may hold more for a connection than it is charged for. Without it, the system kills the
//! process, and all callers lose their connections. `docs/adr/0114` has an attack that needs it.

use std::{convert::Infallible, time::Duration};

use tokio::time::sleep;

use super::{
    accept::{Connections, Warning},
    table::Shed,
};
use crate::{budget::Budgets, telemetry};

/// How often the memory is looked at, and how often it is above this part of the limit, in
/// percent: over a network of 1 Gbit/s, 12 MB may come in the first time, and over one of
/// 10 Gbit/s as much in the second.
const TICK: Duration = Duration::from_millis(100);
const NEAR_TICK: Duration = Duration::from_millis(10);
const NEAR_PERCENT: u64 = 50;
/// Parts of the memory limit, in percent, above which connections are closed if the process
/// takes more than near, base and budgets account for, and above which they are closed
/// whatever it takes.
const MOST_PERCENT: u64 = 87;
const LAST_PERCENT: u64 = 95;
/// Rounds of closing in a row, 2 s. Hardly a connection of that address is left then: the
/// memory is held by something else, and to close more would only end the service.
const MAX_ROUNDS: u32 = 20;
/// Pause after as many rounds.
const FUTILE_PAUSE: Duration = Duration::from_mins(1);

/// Closes connections while the process takes nearly as much as this limit, in bytes. Never
/// returns.
pub(super) async fn relieve(
    connections: &Connections,
    budgets: &Budgets,
    limit: u64,
) -> Infallible {
    let mut warning = Warning::default();
    let mut rounds = 0;
    let mut pause = TICK;
    loop {
        sleep(pause).await;
        let resident = telemetry::resident_bytes().unwrap_or_default();
        pause = if resident < limit / 100 * NEAR_PERCENT {
            TICK
        } else {
            NEAR_TICK
        };
        if !is_short(resident, limit, budgets.accounted()) {
            rounds = 0;
            continue;
        }
        if let Some(shed) = connections.shed()
            && warning.is_due()
        {
            let Shed {
                address,
                connections,
            } = shed;
            tracing::warn!(
                resident,
                limit,
                %address,
                connections,
                "connections were closed: the process takes nearly as much memory as it may (--memory-limit)"
            );
        }
        // What is closed gives its memory back in that time.
        pause = TICK;
        rounds += 1;
        if rounds == MAX_ROUNDS {
            rounds = 0;
            sleep(FUTILE_PAUSE).await;
        }
    }
}

/// Whether connections have to be closed. `accounted`: bytes that somebody is charged for, or
/// that are set aside.
const fn is_short(resident: u64, limit: u64, accounted: u64) -> bool {
    let percent = limit / 100;
    resident >= percent * LAST_PERCENT
        || (resident >= percent * MOST_PERCENT && resident > accounted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_accounted_for_closes_no_connection_before_the_last_percents() {
        assert!(!is_short(860, 1000, 100), "below the limit's share");
        assert!(is_short(880, 1000, 500), "held by nobody who is charged");
        assert!(
            !is_short(880, 1000, 900),
            "a full near cache and budgets in use"
        );
        assert!(is_short(950, 1000, 1000), "the process is about to end");
    }
}
