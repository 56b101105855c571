//! The shared tier against real Redis servers in trouble: slots that move,
//! masters that die, servers that refuse, addresses that change.

#[path = "../support/mod.rs"]
mod support;

mod cluster;
mod common;
mod proxy;
mod refusals;
mod sentinel;
mod single;
