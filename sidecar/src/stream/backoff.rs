//! Pauses between attempts: they grow to a limit, and differ between sidecars so that these do not all come at once.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

const FIRST: Duration = Duration::from_millis(500);
const GROWTH: f64 = 1.5;
/// A pause is up to this part shorter or longer.
const JITTER: f64 = 0.5;

/// The state of one series of attempts.
#[derive(Debug)]
pub struct Backoff {
    limit: Duration,
    next: Duration,
}

impl Backoff {
    pub fn new(limit: Duration) -> Self {
        Self { limit, next: FIRST }
    }

    /// Begins anew after a success.
    pub fn reset(&mut self) {
        self.next = FIRST;
    }

    pub fn next(&mut self) -> Duration {
        self.step(fraction())
    }

    /// `fraction` is between 0 and 1.
    fn step(&mut self, fraction: f64) -> Duration {
        let pause = self.next.mul_f64(1.0 - JITTER + 2.0 * JITTER * fraction);
        self.next = self.next.mul_f64(GROWTH).min(self.limit);
        pause
    }
}

/// The standard library seeds its hashers at random: good enough to spread sidecars, and no further dependency.
fn fraction() -> f64 {
    let bits = u32::try_from(RandomState::new().build_hasher().finish() >> 32).unwrap_or_default();
    f64::from(bits) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_limit_and_begins_anew() {
        let mut backoff = Backoff::new(Duration::from_secs(1));
        let pauses: Vec<_> = (0..4).map(|_| backoff.step(0.5).as_millis()).collect();
        assert_eq!(pauses, [500, 750, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.step(0.0).as_millis(), 250);
        assert_eq!(backoff.step(1.0).as_millis(), 1125);
        assert!((0.0..=1.0).contains(&fraction()));
    }
}
