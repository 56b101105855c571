//! The rules of coherence: data and synchronous functions. No tokio, fred,
//! mongodb or tonic here; no clock, no randomness, no IO: time and answers
//! come in as arguments. `tests/model` checks this very code.

mod commit_groups;
mod consistency;
mod heartbeat_log;
mod single_flight;
mod watermarks;

pub use commit_groups::{ClosedTimes, CommitGroups, OutOfOrder};
pub use consistency::{Consistency, MinFreshness};
pub use heartbeat_log::HeartbeatLog;
pub use single_flight::{Joined, LoadRequirement, SingleFlight};
pub use watermarks::{Admitted, ReadView, Watermarks, moves_in_list, renewed};
