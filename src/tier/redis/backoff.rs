//! Pauses between attempts: exponential, bounded, with jitter, so that replicas
//! that lost a server at the same time do not return at the same time.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
/// With connecting and the election of a new master this stays well below the
/// 10 s within which the tier must be in use again.
const LONGEST: Duration = Duration::from_secs(2);

/// The pauses of one series of attempts.
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST)
    }
}

impl Backoff {
    /// The next pause: between half and all of twice the one before.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST);
        jittered(pause)
    }
}

/// Between half of `pause` and `pause`.
pub(super) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..20).map(|_| backoff.next()).collect();
        assert!(pauses[0] <= FIRST && pauses[0] >= FIRST / 2);
        assert!(pauses.iter().all(|pause| *pause <= LONGEST));
        assert!(pauses[19] >= LONGEST / 2);
    }
}
