//! The clients in other languages, and grpcurl, against real replicas of the
//! service. `clients/test` builds what is run here, then runs this.

#[path = "../wire/client.rs"]
#[expect(dead_code, reason = "the wire tests use more of it")]
mod client;
#[path = "../support/mod.rs"]
mod support;

mod grpcurl;
mod languages;
mod program;
mod replicas;
mod unavailable;
mod watchers;
