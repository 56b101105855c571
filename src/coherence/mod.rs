//! The coherence protocol: plain data and synchronous functions. No runtime, no clock,
//! no randomness and no I/O: times and answers come in as arguments, so `tests/model`
//! checks this very code. docs/protocol.md is the specification; this is its summary.
//!
//! **Times.** The origin stamps every commit with a time of its logical clock. Times are
//! compared only with each other. Every cached value has a stamp (`as_of`): it is exactly
//! the state of its key at that time.
//!
//! **What a replica knows.** The *fence* of a key is the time of the newest change seen
//! for it; keys share stripes, which costs a load at most. The *floor* is a fence for all
//! keys: no change up to it is claimed to have been seen. The *frontier* is the time up to
//! which every change is in the fence or below the floor. None of them ever falls.
//!
//! **The one rule** ([`ReadView`]). Read the frontier, then fence and floor. A value is
//! *admissible* if its stamp is not below fence and floor. It is then *fresh to* its stamp
//! or the frontier, whichever is later, and may be served if that reaches what the request
//! needs. So a cache may lose entries or return old ones: an old entry fails the rule, and
//! nothing has to be deleted.
//!
//! **Changes** ([`Watermarks`], [`CommitGroups`]). In this order: raise the fences (or the
//! floor, for what cannot be assigned to a key), hand the change to watchers, move the
//! frontier. The frontier reaches a time only when no more changes of it can arrive.
//!
//! **Age** ([`HeartbeatLog`]). A heartbeat is a small majority write. It is begun at a
//! local instant `m` and acknowledged with an origin time `h`. A value that is fresh to
//! `h - 1` misses no write that anybody had acknowledged before `m`: its staleness is
//! bounded by the time since `m`. No two clocks are compared.
//!
//! **Requests** ([`Consistency`]). A consistency level is turned into an origin time that
//! the response must be fresh to. A strong read needs the time of a heartbeat that began
//! after it arrived, and all strong reads of that moment share one.
//!
//! **Loads** ([`SingleFlight`]). A reader may wait for a running load only if that load
//! began with a time that is late enough for the reader. A key has at most one running
//! load and one that waits to begin.

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
