//! The two caches. Both hold stamped values; neither is trusted: whether a
//! value may be answered is decided by `coherence` alone.

pub mod entry;
pub mod near;
pub mod redis;
pub mod shared;
