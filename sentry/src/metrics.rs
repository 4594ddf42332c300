//! Upstream's metrics, by name, and a few of our own.

use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Counters of the process; clones share them.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub requests: IntCounter,
    pub signed: IntCounter,
    failures: IntCounterVec,
    pub issuer_changed: IntCounter,
    pub issuer_expiry: IntGauge,
    /// Seconds from request to answer, by validator and outcome.
    pub duration: HistogramVec,
}

impl Metrics {
    /// # Errors
    /// When the registry already has a metric of the same name.
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            requests: IntCounter::new(
                "dapr_sentry_cert_sign_request_received_total",
                "The number of CSRs received.",
            )?,
            signed: IntCounter::new(
                "dapr_sentry_cert_sign_success_total",
                "The number of certificates issued.",
            )?,
            failures: IntCounterVec::new(
                Opts::new(
                    "dapr_sentry_cert_sign_failure_total",
                    "The number of errors occurred when signing the CSR.",
                ),
                &["reason"],
            )?,
            issuer_changed: IntCounter::new(
                "dapr_sentry_issuercert_changed_total",
                "The number of issuer cert updates, when issuer cert or key is changed",
            )?,
            issuer_expiry: IntGauge::new(
                "dapr_sentry_issuercert_expiry_timestamp",
                "The unix timestamp, in seconds, when issuer/root cert will expire.",
            )?,
            duration: HistogramVec::new(
                HistogramOpts::new(
                    "dapr_sentry_sign_duration_seconds",
                    "Time from a request to its answer.",
                )
                .buckets(prometheus::exponential_buckets(0.001, 2.0, 12)?),
                &["validator", "outcome"],
            )?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.signed.clone()))?;
        registry.register(Box::new(metrics.failures.clone()))?;
        registry.register(Box::new(metrics.issuer_changed.clone()))?;
        registry.register(Box::new(metrics.issuer_expiry.clone()))?;
        registry.register(Box::new(metrics.duration.clone()))?;
        Ok(metrics)
    }

    /// Upstream has one reason only.
    pub(crate) fn failed(&self) {
        self.failures.with_label_values(&["sign"]).inc();
    }
}
