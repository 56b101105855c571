//! Tidemark: todos, read through two caches, with every answer saying how
//! fresh it is. ARCHITECTURE.md shows the way of a read; `cache::read` is that
//! way.

pub mod budget;
pub mod cache;
pub mod cli;
pub mod coherence;
pub mod config;
pub mod error;
#[doc(hidden)]
pub mod fuzzing;
pub mod grpc;
pub mod model;
pub mod origin;
pub mod server;
pub mod telemetry;
pub mod text;
pub mod tier;
pub mod tls;

/// The messages of the public contract, as `proto/todo/v1/todo.proto` has
/// them. Plain data: the service itself is known to `grpc` alone.
pub mod pb {
    #![expect(clippy::large_enum_variant, reason = "generated")]
    include!(concat!(env!("OUT_DIR"), "/messages/todo.v1.rs"));

    /// The compiled proto file with its imports: for reflection and for the
    /// JSON form of messages.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
