//! The rules of coherence: data and synchronous functions. No tokio, fred,
//! mongodb or tonic here; no clock, no randomness, no IO: time and answers
//! come in as arguments. `tests/model` checks this very code.

mod arm;
mod closing;
mod fence;
mod flight;
mod ledger;
mod ring;

pub use arm::{Arm, Needed};
pub use closing::{Closed, Closing, Entry, OutOfOrder};
pub use fence::{Check, Coherence, Hit, moves_in_list, renewed};
pub use flight::{Flights, Joined, Required};
pub use ledger::Ledger;
pub use ring::{Next, Pending, Ring, TooOld};
