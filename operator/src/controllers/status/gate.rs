//! Kinds whose status the API server does not let the operator write: for want of the right, which may be granted for each
//! namespace apart, or because an older definition without a status is installed. Both may change at any time, so one object
//! is tried now and then.

use std::{collections::HashMap, time::Duration};

use outrigger_core::backoff::Backoff;
use parking_lot::Mutex;
use prometheus::{IntGauge, IntGaugeVec};
use tokio::time::Instant;

use super::board::Id;

/// Pauses between tries.
const TRIES: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(60));
/// When nobody has tried for so long, there is nothing to try it with any more.
const FORGOTTEN: Duration = Duration::from_secs(120);

/// Why statuses of a kind are not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Refusal {
    Forbidden,
    /// The kind is served without a status.
    NoStatus,
}

/// What is off.
pub(super) struct Gate {
    closed: Mutex<HashMap<Place, Closed>>,
    metric: IntGaugeVec,
}

/// Where a refusal holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    kind: &'static str,
    refusal: Refusal,
    /// `None` for all of them.
    namespace: Option<String>,
}

struct Closed {
    until: Instant,
    tries: Backoff,
}

impl Place {
    fn of(id: &Id, refusal: Refusal) -> Self {
        Self {
            kind: id.kind,
            refusal,
            namespace: match refusal {
                Refusal::Forbidden => Some(id.key.namespace.clone()),
                Refusal::NoStatus => None,
            },
        }
    }
}

impl Refusal {
    const ALL: [Self; 2] = [Self::Forbidden, Self::NoStatus];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::NoStatus => "no_status",
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Forbidden => {
                "not allowed to write statuses of this kind here: there are none until the right is granted"
            }
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

    /// When one may try again to write the status of an object, if not now.
    pub(super) fn closed_until(&self, id: &Id, now: Instant) -> Option<Instant> {
        let mut closed = self.closed.lock();
        closed.retain(|place, closed| {
            let keep = closed.until + FORGOTTEN > now;
            if !keep {
                self.gauge(place).dec();
            }
            keep
        });
        let until = Refusal::ALL.map(|refusal| Some(closed.get(&Place::of(id, refusal))?.until));
        until.into_iter().flatten().max().filter(|until| *until > now)
    }

    /// Takes in that a write was refused. Returns when to try again.
    pub(super) fn close(&self, id: &Id, refusal: Refusal, now: Instant) -> Instant {
        let place = Place::of(id, refusal);
        let mut closed = self.closed.lock();
        for other in Refusal::ALL.into_iter().filter(|other| *other != refusal) {
            let other = Place::of(id, other);
            if closed.remove(&other).is_some() {
                self.gauge(&other).dec();
            }
        }
        let is_first = !closed
            .keys()
            .any(|other| (other.kind, other.refusal) == (place.kind, refusal));
        let gauge = self.gauge(&place);
        let entry = closed.entry(place).or_insert_with(|| {
            gauge.inc();
            if is_first {
                let (kind, namespace, reason) = (id.kind, &id.key.namespace, refusal.as_str());
                tracing::warn!(kind, namespace, reason, "{}", refusal.text());
            }
            Closed {
                until: now,
                tries: TRIES,
            }
        });
        entry.until = now + entry.tries.next_pause();
        entry.until
    }

    /// Takes in that a write was not refused.
    pub(super) fn open(&self, id: &Id) {
        let mut closed = self.closed.lock();
        for place in Refusal::ALL.map(|refusal| Place::of(id, refusal)) {
            if closed.remove(&place).is_some() {
                self.gauge(&place).dec();
                let (kind, namespace, reason) = (id.kind, &id.key.namespace, place.refusal.as_str());
                tracing::info!(kind, namespace, reason, "statuses are no longer refused");
            }
        }
    }

    fn gauge(&self, place: &Place) -> IntGauge {
        self.metric.with_label_values(&[place.kind, place.refusal.as_str()])
    }
}

/// The next writer may have another right, and another replica reports for itself.
impl Drop for Gate {
    fn drop(&mut self) {
        for place in self.closed.lock().keys() {
            self.gauge(place).dec();
        }
    }
}

#[cfg(test)]
mod tests {
    use outrigger_process::kubernetes::watch::ObjectKey;
    use prometheus::Opts;

    use super::*;

    fn gate() -> (Gate, IntGaugeVec) {
        let metric = IntGaugeVec::new(Opts::new("refused", "-"), &["kind", "reason"]).unwrap();
        (Gate::new(metric.clone()), metric)
    }

    fn id(kind: &'static str, namespace: &str) -> Id {
        Id {
            kind,
            key: ObjectKey::new(namespace, "db"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_is_tried_again_ever_more_seldom_until_it_works() {
        let (gate, metric) = gate();
        let component = id("Component", "shop");
        let off = |reason| metric.with_label_values(&["Component", reason]).get();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let now = Instant::now();
            let until = gate.close(&component, Refusal::Forbidden, now);
            assert_eq!(gate.closed_until(&component, now), Some(until));
            assert_eq!(gate.closed_until(&id("Configuration", "shop"), now), None);
            tokio::time::advance(until - now).await;
            assert_eq!(gate.closed_until(&component, Instant::now()), None, "one may try");
            pauses.push(until - now);
        }
        assert!(
            pauses[0] <= Duration::from_secs(5) && pauses[7] >= Duration::from_secs(30),
            "{pauses:?}"
        );
        assert_eq!((off("forbidden"), off("no_status")), (1, 0));

        gate.close(&component, Refusal::NoStatus, Instant::now());
        assert_eq!((off("forbidden"), off("no_status")), (0, 1));
        gate.open(&component);
        assert_eq!((off("forbidden"), off("no_status")), (0, 0));
        assert_eq!(gate.closed_until(&component, Instant::now()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_right_is_lacking_in_a_namespace_and_a_status_everywhere() {
        let (gate, metric) = gate();
        let (shop, bank) = (id("Component", "shop"), id("Component", "bank"));
        let off = |reason| metric.with_label_values(&["Component", reason]).get();
        let now = Instant::now();
        gate.close(&shop, Refusal::Forbidden, now);
        assert_eq!(gate.closed_until(&bank, now), None);
        gate.open(&bank);
        assert!(gate.closed_until(&shop, now).is_some());
        gate.close(&bank, Refusal::Forbidden, now);
        assert_eq!(off("forbidden"), 2);
        // The namespace bank is gone with all that is in it.
        let mut now = now;
        for _ in 0..10 {
            now = gate.close(&shop, Refusal::Forbidden, now);
        }
        assert_eq!(gate.closed_until(&shop, now), None);
        assert_eq!(off("forbidden"), 1);

        gate.close(&shop, Refusal::NoStatus, now);
        assert!(gate.closed_until(&bank, now).is_some());
        assert_eq!((off("forbidden"), off("no_status")), (0, 1));
        drop(gate);
        assert_eq!(off("no_status"), 0);
    }
}
