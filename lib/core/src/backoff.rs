//! Pauses between retries: doubling, bounded, with jitter so that many who failed together do not retry together.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

/// Grows from `min` to `max`; each pause is between half of the step and the whole of it.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    step: Duration,
}

impl Backoff {
    pub const fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, step: min }
    }

    /// The next pause.
    pub fn next_pause(&mut self) -> Duration {
        let step = self.step;
        self.step = (step * 2).min(self.max);
        step / 2 + (step / 2).mul_f64(random_fraction())
    }

    /// Begins anew after a success.
    pub fn reset(&mut self) {
        self.step = self.min;
    }
}

/// A random number from 0 to 1, good enough to spread load and for nothing else.
pub fn random_fraction() -> f64 {
    // The standard library seeds each of these differently.
    let random = RandomState::new().build_hasher().finish();
    f64::from((random >> 32) as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_bound_and_begins_anew() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new(seconds(1), seconds(5));
        for step in [1, 2, 4, 5, 5] {
            let pause = backoff.next_pause();
            assert!(
                pause >= seconds(step) / 2 && pause <= seconds(step),
                "{pause:?} for {step}"
            );
        }
        backoff.reset();
        assert!(backoff.next_pause() <= seconds(1));
    }

    #[test]
    fn pauses_differ() {
        assert!(
            (0..20)
                .map(|_| random_fraction())
                .any(|fraction| fraction != random_fraction())
        );
    }
}
