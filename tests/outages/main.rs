//! Troubles of the database that operators meet, tried on real servers: error
//! codes, rules, rights, missing primaries, index builds, lost connections.

#[path = "../wire/client.rs"]
#[expect(dead_code, reason = "the tests of the wire use all of it")]
mod client;
#[path = "../support/mod.rs"]
mod support;

mod disk;
mod feed;
mod mongo;
mod orphans;
mod rights;
mod start;
