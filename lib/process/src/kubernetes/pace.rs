//! The pace of writes that keep a field as it should be.

use std::time::Duration;

use tokio::time::Instant;

/// After this long without a write the next one is not held back.
const QUIET: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(30);
/// Writes in a row that are prompt: changes by people, however often they try, are put right within a second.
const PROMPT: u32 = 8;
const SHORTEST: Duration = Duration::from_millis(500);

/// Spreads writes: somebody who keeps writing another bundle (a replica that has not seen new trust anchors yet) must not
/// make us write as fast as we can.
#[derive(Debug)]
pub struct Pace {
    next: Instant,
    /// Writes in a row, without a quiet time between them.
    writes: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            next: Instant::now(),
            writes: 0,
        }
    }
}

impl Pace {
    /// The earliest time of the next write.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Notes an attempt.
    pub fn wrote(&mut self, now: Instant) {
        let quiet = now > self.next + QUIET;
        self.writes = if quiet { 1 } else { self.writes + 1 };
        self.next = now
            + match self.writes.checked_sub(PROMPT) {
                None | Some(0) => SHORTEST,
                Some(more) => backoff(more),
            };
    }
}

/// One second, then twice as long each time, up to half a minute.
pub fn backoff(attempts: u32) -> Duration {
    Duration::from_secs(1 << attempts.saturating_sub(1).min(5)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_writes_slow_down_and_a_quiet_time_forgives() {
        let mut pace = Pace::default();
        let mut pauses = Vec::new();
        let mut now = pace.next;
        for _ in 0..PROMPT + 7 {
            pace.wrote(now);
            pauses.push(pace.next - now);
            now = pace.next;
        }
        let (prompt, slower) = pauses.split_at(PROMPT as usize);
        assert!(prompt.iter().all(|pause| *pause == SHORTEST));
        assert_eq!(slower, [1, 2, 4, 8, 16, 30, 30].map(Duration::from_secs));
        now = pace.next + QUIET + Duration::from_secs(1);
        pace.wrote(now);
        assert_eq!(pace.next - now, SHORTEST);
    }
}
