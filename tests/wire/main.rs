//! The service from outside: the real process, a real client, and for most
//! tests a real replica set and a real Redis Cluster.

#[path = "../support/mod.rs"]
mod support;

mod attack;
mod auth;
mod bad_input;
mod bounds;
mod calls;
mod cli;
mod client;
mod coherence;
mod connections;
mod json;
mod life;
mod lists;
mod page;
mod pod;
mod raw;
mod readme;
mod rights;
mod signals;
mod terminal;
mod tls;
mod tour;
mod traces;
mod verify;
mod watch;
mod web;
