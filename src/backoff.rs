//! Pauses between tries: exponential, bounded, with jitter, so that replicas that
//! lost a server at the same time do not return at the same time.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use tokio::time::sleep;

/// The pauses of one series of tries. Each is between half of a length and all of
/// it; the length doubles from pause to pause up to a bound.
pub struct Backoff {
    first: Duration,
    longest: Duration,
    length: Duration,
    rng: SmallRng,
}

impl Backoff {
    /// Pauses of at most `first`, then twice that, and so on up to `longest`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self::with_seed(first, longest, rand::random())
    }

    /// The same with a seed for the jitter, for code that a simulation repeats. It
    /// should differ between replicas.
    #[must_use]
    pub fn with_seed(first: Duration, longest: Duration, seed: u64) -> Self {
        debug_assert!(first <= longest, "{first:?} is above {longest:?}");
        Self {
            first,
            longest,
            length: first,
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    /// The next pause begins at the first length again.
    pub const fn reset(&mut self) {
        self.length = self.first;
    }

    /// Waits for the next pause.
    pub async fn wait(&mut self) {
        sleep(self.next_pause()).await;
    }

    fn next_pause(&mut self) -> Duration {
        let pause = self.length.mul_f64(self.rng.random_range(0.5..=1.0));
        self.length = self.length.saturating_mul(2).min(self.longest);
        pause
    }
}

/// Between half of `pause` and `pause`, for tries at a steady pace.
#[must_use]
pub fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(2);

    #[test]
    fn pauses_double_up_to_a_bound_and_begin_again() {
        let mut backoff = Backoff::new(FIRST, LONGEST);
        let mut length = FIRST;
        for _ in 0..20 {
            let pause = backoff.next_pause();
            assert!(pause >= length / 2 && pause <= length, "{pause:?}");
            length = (length * 2).min(LONGEST);
        }
        assert_eq!(length, LONGEST);
        backoff.reset();
        assert!(backoff.next_pause() <= FIRST);
    }

    #[test]
    fn one_seed_gives_the_same_pauses_and_another_one_others() {
        let pauses = |seed| {
            let mut backoff = Backoff::with_seed(FIRST, LONGEST, seed);
            std::array::from_fn::<_, 5, _>(|_| backoff.next_pause())
        };
        assert_eq!(pauses(1), pauses(1));
        assert_ne!(pauses(1), pauses(2));
    }
}
