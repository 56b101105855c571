//! Tidemark: a todo service that reads through two caches from a database. Every
//! response states how stale it can be.
//!
//! The read path:
//!
//! 1. `grpc::service` parses the request and calls [`cache::Cache::get`].
//! 2. `cache::freshness` turns the consistency level into a time that the response
//!    must be fresh to ([`coherence::Consistency`]).
//! 3. `cache::read` looks into the near cache ([`tier::near`]): a value is served if
//!    [`coherence::ReadView`] admits its stamp.
//! 4. Otherwise it waits for the frontier ([`tracker`]), asks the shared cache
//!    ([`tier::redis`]), or loads from the origin ([`loader`], [`origin`]).
//! 5. `cache::freshness` states how fresh the response is.
//!
//! Meanwhile [`follower`] applies the origin's changes: it raises fences, hands the
//! changes to [`watch`], and moves the frontier. docs/protocol.md specifies all of this,
//! [`coherence`] has it on one page, and ARCHITECTURE.md has the map of the modules.

pub mod audit;
pub mod auth;
pub mod backoff;
pub mod budget;
pub mod cache;
pub mod cli;
pub mod coherence;
pub mod config;
pub mod error;
pub mod follower;
#[doc(hidden)]
pub mod fuzzing;
pub mod grpc;
pub mod loader;
pub mod model;
pub mod origin;
pub mod server;
pub mod telemetry;
pub mod text;
pub mod tier;
pub mod tls;
pub mod tracker;
mod turns;
pub mod verifier;
pub mod watch;

/// The messages of the public contract, as `proto/todo/v1/todo.proto` has
/// them. Plain data: the service itself is known to `grpc` alone.
pub mod pb {
    #![expect(clippy::large_enum_variant, reason = "generated")]
    include!(concat!(env!("OUT_DIR"), "/messages/todo.v1.rs"));

    /// The compiled proto file with its imports: for reflection and for the
    /// JSON form of messages.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
