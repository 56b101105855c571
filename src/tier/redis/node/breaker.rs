//! Stops the requests to a node that does not answer.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Failures in a row that open a breaker.
const BREAKER_FAILURES: u32 = 5;

/// Stops requests of one direction after failures in a row, until a probe
/// succeeds. It starts open.
pub(super) struct Breaker {
    open: AtomicBool,
    failures: AtomicU32,
    /// Successes, for the watch to see whether there was one since it last looked.
    pub(super) successes: AtomicU64,
}

impl Breaker {
    pub(super) const fn new() -> Self {
        Self {
            open: AtomicBool::new(true),
            failures: AtomicU32::new(0),
            successes: AtomicU64::new(0),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    pub(super) fn succeeded(&self) {
        self.failures.store(0, Ordering::Relaxed);
        self.successes.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether it is time to open.
    pub(super) fn failed(&self) -> bool {
        self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= BREAKER_FAILURES
    }

    /// Returns whether this changed anything.
    pub(super) fn set_open(&self, open: bool) -> bool {
        self.failures.store(0, Ordering::Relaxed);
        self.open.swap(open, Ordering::Relaxed) != open
    }
}
