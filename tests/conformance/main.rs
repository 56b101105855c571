//! The same questions to every origin and to every shared tier.

#[path = "../support/mod.rs"]
mod support;

mod lease;
mod lists;
mod lists_mongo;
mod origin;
mod shared;
mod waiting;
