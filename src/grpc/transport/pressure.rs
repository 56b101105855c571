//! Closes connections before the process takes more memory than it may.
//!
//! Budgets charge what is known to be held. This is the last resort for what is not: a library
//! below may hold more for a connection than it is charged for. Without it, the system kills the
//! process, and all callers lose their connections. `docs/adr/0114` has an attack that needs it.

use std::{convert::Infallible, time::Duration};

use tokio::time::sleep;

use super::accept::{Connections, Shed, Warning};
use crate::telemetry;

/// How often the memory is looked at: over a network of 1 Gbit/s, 12 MB may come meanwhile.
const TICK: Duration = Duration::from_millis(100);
/// Eighths of the memory limit above which connections are closed. All budgets, near and base
/// are the limit itself; that all of them are used up at once does not happen.
const MOST_EIGHTHS: u64 = 7;

/// Closes connections while the process takes nearly as much as this limit, in bytes. Never
/// returns.
pub(super) async fn relieve(connections: &Connections, limit: u64) -> Infallible {
    let most = limit / 8 * MOST_EIGHTHS;
    let mut warning = Warning::default();
    loop {
        sleep(TICK).await;
        let resident = telemetry::resident_bytes().unwrap_or_default();
        if resident < most {
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
    }
}
