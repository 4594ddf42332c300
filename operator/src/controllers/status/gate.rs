//! Kinds whose status the API server does not let the operator write: for want of the right, or because an older definition
//! without a status is installed. Both may change at any time, so one object is tried now and then.

use std::{collections::HashMap, time::Duration};

use outrigger_core::backoff::Backoff;
use parking_lot::Mutex;
use prometheus::IntGaugeVec;
use tokio::time::Instant;

/// Pauses between tries.
const TRIES: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(60));

/// Why statuses of a kind are not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Forbidden,
    /// The kind is served without a status.
    NoStatus,
}

/// The kinds that are off.
pub(super) struct Gate {
    closed: Mutex<HashMap<&'static str, Closed>>,
    metric: IntGaugeVec,
}

struct Closed {
    refusal: Refusal,
    until: Instant,
    tries: Backoff,
}

impl Refusal {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::NoStatus => "no_status",
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Forbidden => "not allowed to write the status of this kind: it has none until the right is granted",
            Self::NoStatus => {
                "the installed definition of this kind has no status: it has none until the definition is replaced"
            }
        }
    }
}

impl Gate {
    /// The gauge has the labels kind and reason.
    pub(super) fn new(metric: IntGaugeVec) -> Self {
        Self {
            closed: Mutex::default(),
            metric,
        }
    }

    /// When a kind may be tried again that is off now.
    pub(super) fn closed_until(&self, kind: &str, now: Instant) -> Option<Instant> {
        let until = self.closed.lock().get(kind)?.until;
        (until > now).then_some(until)
    }

    /// Takes in that a write was refused. Returns when to try again.
    pub(super) fn close(&self, kind: &'static str, refusal: Refusal, now: Instant) -> Instant {
        let mut closed = self.closed.lock();
        let mut tries = match closed.get(kind) {
            Some(before) if before.refusal == refusal => before.tries.clone(),
            before => {
                if let Some(before) = before {
                    self.report(kind, before.refusal, 0);
                }
                self.report(kind, refusal, 1);
                tracing::warn!(kind, reason = refusal.as_str(), "{}", refusal.text());
                TRIES
            }
        };
        let until = now + tries.next_pause();
        closed.insert(kind, Closed { refusal, until, tries });
        until
    }

    /// Takes in that a write was not refused.
    pub(super) fn open(&self, kind: &str) {
        if let Some(closed) = self.closed.lock().remove(kind) {
            self.report(kind, closed.refusal, 0);
            tracing::info!(kind, "the status of this kind is no longer refused");
        }
    }

    fn report(&self, kind: &str, refusal: Refusal, value: i64) {
        self.metric.with_label_values(&[kind, refusal.as_str()]).set(value);
    }
}

/// The next writer may have another right, and another replica reports for itself.
impl Drop for Gate {
    fn drop(&mut self) {
        for (kind, closed) in self.closed.get_mut() {
            let labels = [*kind, closed.refusal.as_str()];
            self.metric.with_label_values(&labels).set(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Opts;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_kind_is_tried_again_ever_more_seldom_until_it_works() {
        let metric = IntGaugeVec::new(Opts::new("refused", "-"), &["kind", "reason"]).unwrap();
        let gate = Gate::new(metric.clone());
        let off = |reason| metric.with_label_values(&["Component", reason]).get();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let now = Instant::now();
            let until = gate.close("Component", Refusal::Forbidden, now);
            assert_eq!(gate.closed_until("Component", now), Some(until));
            assert_eq!(gate.closed_until("Configuration", now), None);
            tokio::time::advance(until - now).await;
            assert_eq!(gate.closed_until("Component", Instant::now()), None, "one may try");
            pauses.push(until - now);
        }
        assert!(
            pauses[0] <= Duration::from_secs(5) && pauses[7] >= Duration::from_secs(30),
            "{pauses:?}"
        );
        assert_eq!((off("forbidden"), off("no_status")), (1, 0));

        gate.close("Component", Refusal::NoStatus, Instant::now());
        assert_eq!((off("forbidden"), off("no_status")), (0, 1));
        gate.open("Component");
        assert_eq!((off("forbidden"), off("no_status")), (0, 0));
        assert_eq!(gate.closed_until("Component", Instant::now()), None);
    }
}
