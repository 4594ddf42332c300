//! Spreads the writes of one object: somebody who keeps changing it must not make us write as fast as we can.

use std::time::Duration;

use tokio::time::Instant;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
/// After this long without a write the next one is not held back.
const QUIET: Duration = Duration::from_secs(600);

/// When an object may be written next.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last: Option<Instant>,
    pause: Duration,
}

impl Pace {
    pub(super) fn wrote(&mut self, now: Instant) {
        let in_a_row = self.last.is_some_and(|last| now < last + QUIET);
        self.pause = if in_a_row {
            (self.pause * 2).clamp(FIRST, LONGEST)
        } else {
            Duration::ZERO
        };
        self.last = Some(now);
    }

    /// At once after a first write: a single change by somebody else is put right without delay.
    pub(super) fn next(&self) -> Instant {
        self.last.map_or_else(Instant::now, |last| last + self.pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn writes_in_a_row_are_ever_further_apart() {
        let mut pace = Pace::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            pace.wrote(now);
            pauses.push((pace.next() - now).as_secs());
            now = pace.next();
        }
        assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        now += QUIET;
        pace.wrote(now);
        assert_eq!(pace.next(), now);
    }
}
