//! The coherence protocol: how a cached value is known to be fresh without
//! trusting the cache. This is the protocol on a page; `docs/protocol.md` is the
//! specification.
//!
//! # Terms
//!
//! The *origin* is the database. Each of its commits has an *origin time*, from
//! the origin's own clock. A cached value carries the exact origin time of the
//! state that it is: its *stamp*, `as_of`. Each replica follows the origin's
//! changes (the *feed*) and keeps, in [`Watermarks`]:
//!
//! * the *fence* of a key: the newest change seen in its stripe of keys;
//! * the *floor*: nothing at or before it is claimed to have been seen;
//! * the *frontier*: every change above the floor and up to it is in the fence.
//!
//! None of the three ever falls.
//!
//! # The one rule
//!
//! Read frontier, then fence and floor ([`ReadView`]). A value is *admissible* if
//! `as_of >= max(fence, floor)`. It is then fresh to `max(as_of, frontier)`, and
//! may be served if that reaches what the request needs. So an invalidation is
//! one atomic maximum, and it does not matter whether a cache lost, kept or
//! returned a value: an old one fails the check.
//!
//! # Who raises what, in which order
//!
//! For each change: the fence (or the floor, if the change cannot be assigned to
//! a stripe), then the hub of the watchers, then the frontier. Changes that share
//! a commit time move the frontier together ([`CommitGroups`]). A writer raises
//! its own fence before it replies.
//!
//! # Loads
//!
//! A load reads the origin at a time `after >= max(fence, floor, need)`, taken
//! when it begins. [`SingleFlight`] lets a reader join a running load only if
//! that load's `after` is high enough for it; a key has at most one load running
//! and one waiting.
//!
//! # Age
//!
//! A *heartbeat* is a small majority write, begun at the local instant `m` and
//! acknowledged with the origin time `h`. Every write acknowledged before `m` has
//! a time below `h`. So an answer fresh to `h - 1` misses no write older than
//! `now - m`: its *staleness bound*. [`HeartbeatLog`] keeps these pairs; no clocks
//! of two machines are compared.
//!
//! # Consistency levels
//!
//! Each level is an origin time that the answer must be fresh to
//! ([`Consistency`], [`MinFreshness`]): a bound on age is the `h - 1` of a
//! heartbeat young enough, a token is the time it has seen, and a strong read is
//! the `h - 1` of a heartbeat begun after it arrived.
//!
//! # Form
//!
//! Data and synchronous functions only: no runtime, clock, randomness or I/O;
//! time and answers come in as arguments. `tests/model` checks this code itself.

mod commit_groups;
mod consistency;
mod heartbeat_log;
mod single_flight;
mod watermarks;

mod ring;

pub use commit_groups::{ClosedTimes, CommitGroups, Entry, OutOfOrder};
pub use consistency::{Consistency, MinFreshness};
pub use heartbeat_log::HeartbeatLog;
pub use ring::{Next, Pending, Ring, TooOld};
pub use single_flight::{Joined, LoadRequirement, SingleFlight};
pub use watermarks::{Admitted, ReadView, Watermarks, moves_in_list, renewed};
