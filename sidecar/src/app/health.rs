//! The application's health: probes, and what follows from their results.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::channel::AppChannel;
use crate::settings::Probe;

/// Turns results of probes into health. Starts unhealthy; one success is enough, and it forgets earlier failures.
#[derive(Debug)]
struct Tracker {
    threshold: u32,
    failures: u32,
    healthy: bool,
}

impl Tracker {
    fn new(threshold: u32) -> Self {
        Self {
            threshold,
            failures: 0,
            healthy: false,
        }
    }

    /// Takes a result; says whether health changed.
    fn record(&mut self, success: bool) -> bool {
        let before = self.healthy;
        if success {
            self.failures = 0;
            self.healthy = true;
        } else {
            self.failures = self.failures.saturating_add(1);
            self.healthy = self.healthy && self.failures < self.threshold;
        }
        before != self.healthy
    }
}

/// Probes until `stop`, one probe at a time, and publishes health.
pub async fn watch(probe: Probe, app: AppChannel, healthy: watch::Sender<bool>, stop: CancellationToken) {
    let mut tracker = Tracker::new(probe.threshold);
    let mut ticks = tokio::time::interval(probe.interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if tracker.record(succeeds(&app, &probe.path, probe.timeout).await) {
            if tracker.healthy {
                tracing::info!("App entered healthy status");
            } else {
                tracing::warn!(failures = tracker.failures, "App entered un-healthy status");
            }
            healthy.send_replace(tracker.healthy);
        }
    }
}

async fn succeeds(app: &AppChannel, path: &str, timeout: Duration) -> bool {
    match tokio::time::timeout(timeout, app.probe(path)).await {
        Ok(Ok(status)) if status.is_success() => true,
        Ok(Ok(status)) => {
            tracing::debug!(%status, "the application answered a health probe with a failure");
            false
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "a health probe did not reach the application");
            false
        }
        Err(_) => {
            tracing::debug!("a health probe timed out");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tracker;

    #[test]
    fn one_success_is_healthy_and_failures_in_a_row_are_not() {
        let mut tracker = Tracker::new(2);
        assert!(!tracker.record(false), "it starts unhealthy");
        assert!(tracker.record(true));
        assert!(!tracker.record(false));
        assert!(!tracker.record(true), "a success starts the count again");
        assert!(!tracker.record(false));
        assert!(tracker.record(false));
        assert!(!tracker.healthy);
        assert!(tracker.record(true));
    }
}
