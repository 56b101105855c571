//! How often a write that met another one is tried again.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;

/// A compare-and-swap, or a transaction, that met another one is tried again for so long,
/// and at least so often: the other one takes as long as the server and its disk do. Less
/// than `SEND_WITHIN`, so that the caller hears why.
const TRY_FOR: Duration = Duration::from_secs(3);
const MIN_TRIES: usize = 16;
/// Pauses between tries.
const TRY_PAUSE: Duration = Duration::from_millis(2);
const MAX_TRY_PAUSE: Duration = Duration::from_millis(32);

/// The tries of one write.
pub(in super::super) struct Tries {
    begun: Instant,
    count: usize,
    backoff: Backoff,
    send_by: Option<Instant>,
}

impl Tries {
    /// `send_by`: no try begins after this time.
    pub(in super::super) fn new(send_by: Option<Instant>) -> Self {
        Self {
            begun: Instant::now(),
            count: 0,
            backoff: Backoff::new(TRY_PAUSE, MAX_TRY_PAUSE),
            send_by,
        }
    }

    /// After a try that failed: waits and returns whether another one is due.
    pub(in super::super) async fn again(&mut self) -> bool {
        self.count += 1;
        let now = Instant::now();
        let is_late = self.send_by.is_some_and(|by| now >= by);
        if is_late || (self.count >= MIN_TRIES && now - self.begun >= TRY_FOR) {
            return false;
        }
        self.backoff.wait().await;
        true
    }

    /// Tries that failed.
    pub(in super::super) const fn count(&self) -> usize {
        self.count
    }

    /// Some of the work is done: the tries begin again.
    pub(in super::super) fn reset(&mut self) {
        (self.begun, self.count) = (Instant::now(), 0);
        self.backoff.reset();
    }
}
