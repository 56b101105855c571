//! The same questions to every origin and to every shared tier.

#[path = "../support/mod.rs"]
mod support;

mod origin;
mod shared;
