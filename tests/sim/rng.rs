//! The one source of randomness of a run: splitmix64, whose numbers never
//! change with a version of anything.

use std::{ops::Range, time::Duration};

pub struct Rng(u64);

impl Rng {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of the range.
    pub const fn of(&mut self, range: Range<u64>) -> u64 {
        range.start + self.draw() % (range.end - range.start)
    }

    pub const fn chance(&mut self, percent: u64) -> bool {
        self.draw() % 100 < percent
    }

    /// A duration of the range, in milliseconds.
    pub const fn ms(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.of(range))
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        let at = self.draw() % from.len() as u64;
        from[usize::try_from(at).expect("an index")].clone()
    }

    /// One of `from`, each as often as its weight says.
    pub fn weighted<T: Clone>(&mut self, from: &[(u64, T)]) -> T {
        let mut left = self.of(0..from.iter().map(|(weight, _)| weight).sum());
        for (weight, one) in from {
            if left < *weight {
                return one.clone();
            }
            left -= weight;
        }
        unreachable!("the weights were summed up")
    }
}
