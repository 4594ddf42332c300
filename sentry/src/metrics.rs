//! Upstream's metrics, by name, and a few of our own.

use std::{sync::Arc, sync::Once, time::Duration};

use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Counters of the process; clones share them.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub requests: IntCounter,
    signed: IntCounter,
    failures: IntCounterVec,
    server_certificate_failures: IntCounterVec,
    pub issuer_changed: IntCounter,
    pub issuer_expiry: Expiry,
    duration: HistogramVec,
}

/// A point in time that monitors compare with now: absent rather than 1970 while it is not known.
#[derive(Clone)]
pub(crate) struct Expiry {
    gauge: IntGauge,
    registry: Registry,
    registered: Arc<Once>,
}

impl Expiry {
    /// Sets it to seconds since 1970.
    pub(crate) fn set(&self, seconds: i64) {
        self.gauge.set(seconds);
        self.registered.call_once(|| {
            if let Err(error) = self.registry.register(Box::new(self.gauge.clone())) {
                tracing::error!(%error, "the expiry of the issuer cannot be exported");
            }
        });
    }
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
            server_certificate_failures: IntCounterVec::new(
                Opts::new(
                    "dapr_sentry_servercert_issue_failed_total",
                    "The number of server TLS certificate issuance failures.",
                ),
                &["reason"],
            )?,
            issuer_changed: IntCounter::new(
                "dapr_sentry_issuercert_changed_total",
                "The number of issuer cert updates, when issuer cert or key is changed",
            )?,
            issuer_expiry: Expiry {
                gauge: IntGauge::new(
                    "dapr_sentry_issuercert_expiry_timestamp",
                    "The unix timestamp, in seconds, when issuer/root cert will expire.",
                )?,
                registry: registry.clone(),
                registered: Arc::new(Once::new()),
            },
            duration: HistogramVec::new(
                HistogramOpts::new(
                    "dapr_sentry_sign_duration_seconds",
                    "Time from a request to its answer, by validator and by the reason why there was no certificate (empty: there was one).",
                )
                .buckets(prometheus::exponential_buckets(0.001, 2.0, 12)?),
                &["validator", "reason"],
            )?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.signed.clone()))?;
        registry.register(Box::new(metrics.failures.clone()))?;
        registry.register(Box::new(metrics.server_certificate_failures.clone()))?;
        registry.register(Box::new(metrics.issuer_changed.clone()))?;
        registry.register(Box::new(metrics.duration.clone()))?;
        Ok(metrics)
    }

    pub(crate) fn signed(&self, validator: &str, took: Duration) {
        self.signed.inc();
        self.duration
            .with_label_values(&[validator, ""])
            .observe(took.as_secs_f64());
    }

    /// The counter has one reason only, as upstream has it; the histogram tells them apart.
    pub(crate) fn failed(&self, validator: &str, reason: &str, took: Duration) {
        self.failures.with_label_values(&["sign"]).inc();
        self.duration
            .with_label_values(&[validator, reason])
            .observe(took.as_secs_f64());
    }

    /// Sentry could not sign its own certificate: `invalid_csr` or `ca_error`.
    pub(crate) fn server_certificate_failed(&self, reason: &str) {
        self.server_certificate_failures.with_label_values(&[reason]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expiry_is_absent_until_it_is_known() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let names = || {
            registry
                .gather()
                .iter()
                .map(|family| family.name().to_owned())
                .collect::<Vec<_>>()
        };
        let expiry = "dapr_sentry_issuercert_expiry_timestamp".to_owned();
        assert!(!names().contains(&expiry));
        metrics.issuer_expiry.set(1);
        metrics.clone().issuer_expiry.set(2);
        assert!(names().contains(&expiry));
    }
}
