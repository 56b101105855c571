//! The near and shared caches. Both hold stamped values and neither is trusted:
//! only `coherence` decides whether a value may be served.

pub mod near;
pub mod record;
pub mod redis;
pub mod shared;
mod tiers;

pub use tiers::{Tiers, shared_key};
