//! The injector's metrics. The first three have upstream's names and labels.

use std::{collections::HashSet, sync::Arc, time::Duration};

use parking_lot::Mutex;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};

use crate::decision::Outcome;

/// App ids come from users: further ones than this many share a label value.
const MAX_APP_IDS: usize = 1000;
/// No legal app id or pod name is longer.
const MAX_APP_ID: usize = 253;
const OTHER: &str = "other";

/// Why a review failed, as upstream groups it.
#[derive(Debug, Clone, Copy)]
pub enum Failure {
    /// Not a pod, or the requester is not allowed.
    PodPatch,
    /// The review or the pod cannot be used.
    Patch,
    /// The answer could not be written as JSON.
    Response,
}

impl Failure {
    const fn reason(self) -> &'static str {
        match self {
            Self::PodPatch => "pod_patch",
            Self::Patch => "patch",
            Self::Response => "response",
        }
    }
}

/// The counters; clones share them.
#[derive(Clone)]
pub struct Metrics {
    requests: IntCounter,
    succeeded: IntCounterVec,
    failed: IntCounterVec,
    skipped: IntCounterVec,
    duration: Histogram,
    configuration_writes: IntCounterVec,
    refusals: IntCounterVec,
    app_ids: Arc<Mutex<HashSet<String>>>,
}

impl Metrics {
    /// # Errors
    /// When the registry has metrics of these names already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let name = |name: &str| format!("dapr_injector_{name}");
        let vector = |what: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name(what), help), labels);
        let buckets = vec![
            0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0,
        ];
        let metrics = Self {
            requests: IntCounter::new(
                name("sidecar_injection_requests_total"),
                "The total number of sidecar injection requests.",
            )?,
            succeeded: vector(
                "sidecar_injection_succeeded_total",
                "The total number of successful sidecar injections.",
                &["app_id"],
            )?,
            failed: vector(
                "sidecar_injection_failed_total",
                "The total number of failed sidecar injections.",
                &["app_id", "reason"],
            )?,
            skipped: vector(
                "sidecar_injection_skipped_total",
                "Pods that were admitted without a change.",
                &["reason"],
            )?,
            duration: Histogram::with_opts(
                HistogramOpts::new(
                    name("sidecar_injection_review_duration_seconds"),
                    "Time from a review's complete body to its answer.",
                )
                .buckets(buckets),
            )?,
            configuration_writes: vector(
                "webhook_configuration_writes_total",
                "Attempts to write the CA bundle into the webhook's registration.",
                &["result"],
            )?,
            refusals: vector(
                "refusals_total",
                "Pods without a sidecar of which the operator was to be told.",
                &["result"],
            )?,
            app_ids: Arc::default(),
        };
        registry.register(Box::new(metrics.refusals.clone()))?;
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.succeeded.clone()))?;
        registry.register(Box::new(metrics.failed.clone()))?;
        registry.register(Box::new(metrics.skipped.clone()))?;
        registry.register(Box::new(metrics.duration.clone()))?;
        registry.register(Box::new(metrics.configuration_writes.clone()))?;
        Ok(metrics)
    }

    pub fn request(&self) {
        self.requests.inc();
    }

    pub fn failed(&self, app_id: &str, failure: Failure) {
        let app_id = self.bounded(app_id);
        self.failed.with_label_values(&[app_id, failure.reason()]).inc();
    }

    /// Counts how a review ended.
    pub fn outcome(&self, outcome: Outcome, app_id: &str) {
        let skipped = |reason| self.skipped.with_label_values(&[reason]).inc();
        match outcome {
            Outcome::Injected => {
                let app_id = self.bounded(app_id);
                self.succeeded.with_label_values(&[app_id]).inc();
            }
            Outcome::NotAPod => {
                skipped("not_a_pod");
                self.failed(app_id, Failure::PodPatch);
            }
            Outcome::NotCreated => skipped("not_created"),
            Outcome::NotAllowed => {
                skipped("requester_not_allowed");
                self.failed(app_id, Failure::PodPatch);
            }
            Outcome::NotEnabled => skipped("not_enabled"),
            Outcome::AlreadyInjected => skipped("already_injected"),
            Outcome::Denied => self.failed(app_id, Failure::Patch),
        }
    }

    pub fn took(&self, duration: Duration) {
        self.duration.observe(duration.as_secs_f64());
    }

    pub fn refusals(&self, result: &'static str, count: usize) {
        self.refusals.with_label_values(&[result]).inc_by(count as u64);
    }

    pub fn configuration_write(&self, succeeded: bool) {
        let result = if succeeded { "success" } else { "failure" };
        self.configuration_writes.with_label_values(&[result]).inc();
    }

    fn bounded<'a>(&self, app_id: &'a str) -> &'a str {
        if app_id.len() > MAX_APP_ID {
            return OTHER;
        }
        let mut known = self.app_ids.lock();
        if known.contains(app_id) {
            return app_id;
        }
        if known.len() >= MAX_APP_IDS {
            return OTHER;
        }
        known.insert(app_id.to_owned());
        app_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(registry: &Registry) -> String {
        prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap()
    }

    #[test]
    fn names_and_labels_are_upstreams() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        metrics.request();
        metrics.outcome(Outcome::Injected, "cart");
        metrics.outcome(Outcome::NotAllowed, "cart");
        metrics.outcome(Outcome::Denied, "");
        let text = text(&registry);
        for line in [
            "dapr_injector_sidecar_injection_requests_total 1",
            "dapr_injector_sidecar_injection_succeeded_total{app_id=\"cart\"} 1",
            "dapr_injector_sidecar_injection_failed_total{app_id=\"cart\",reason=\"pod_patch\"} 1",
            "dapr_injector_sidecar_injection_failed_total{app_id=\"\",reason=\"patch\"} 1",
            "dapr_injector_sidecar_injection_skipped_total{reason=\"requester_not_allowed\"} 1",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn app_ids_are_bounded() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        for number in 0..=MAX_APP_IDS {
            metrics.outcome(Outcome::Injected, &format!("app-{number}"));
        }
        metrics.outcome(Outcome::Injected, "app-0");
        metrics.outcome(Outcome::Injected, &"a".repeat(300));
        let text = text(&registry);
        assert!(text.contains("succeeded_total{app_id=\"other\"} 2"));
        assert!(text.contains("succeeded_total{app_id=\"app-0\"} 2"));
        assert_eq!(text.matches("succeeded_total{").count(), MAX_APP_IDS + 1);
    }
}
