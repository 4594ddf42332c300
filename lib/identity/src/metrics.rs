//! Counters of a process's identity. Names are upstream's where it has them; only sidecars register them, as upstream's.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::error::FetchError;

/// Made before the registry that serves them, which a sidecar has only once it has its Configuration; clones share them.
#[derive(Clone)]
pub struct Metrics {
    initialised: IntCounter,
    init_failed: IntCounterVec,
    renewed: IntCounter,
    fetch_failed: IntCounterVec,
    expiry: IntGauge,
    anchors: IntCounterVec,
}

impl Metrics {
    /// # Errors
    /// When the app id is not a legal label value.
    pub fn new(app_id: &str) -> prometheus::Result<Self> {
        let options =
            |name: &str, help: &str| Opts::new(format!("dapr_runtime_mtls_{name}"), help).const_label("app_id", app_id);
        Ok(Self {
            initialised: IntCounter::with_opts(options("init_total", "Successful starts with mTLS."))?,
            init_failed: IntCounterVec::new(
                options("init_fail_total", "Failed attempts to get the first certificate."),
                &["reason"],
            )?,
            renewed: IntCounter::with_opts(options("workload_cert_rotated_total", "Renewals of the certificate."))?,
            fetch_failed: IntCounterVec::new(
                options(
                    "workload_cert_rotated_fail_total",
                    "Failed attempts to get a certificate, the first one included.",
                ),
                &["reason"],
            )?,
            expiry: IntGauge::with_opts(options(
                "workload_cert_expiry_timestamp",
                "When the certificate expires, in seconds since the epoch.",
            ))?,
            anchors: IntCounterVec::new(
                options("trust_anchors_reload_total", "Looks at a changed trust anchors file."),
                &["result"],
            )?,
        })
    }

    /// # Errors
    /// When a name is taken.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.initialised.clone()))?;
        registry.register(Box::new(self.init_failed.clone()))?;
        registry.register(Box::new(self.renewed.clone()))?;
        registry.register(Box::new(self.fetch_failed.clone()))?;
        registry.register(Box::new(self.expiry.clone()))?;
        registry.register(Box::new(self.anchors.clone()))
    }

    pub(crate) fn fetched(&self, first: bool, expires: SystemTime) {
        let counter = if first { &self.initialised } else { &self.renewed };
        counter.inc();
        let seconds = expires.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.expiry.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    pub(crate) fn failed(&self, first: bool, error: &FetchError) {
        let reason = [error.metric_reason()];
        if first {
            self.init_failed.with_label_values(&reason).inc();
        }
        self.fetch_failed.with_label_values(&reason).inc();
    }

    /// `result` is `changed` or `failed`.
    pub(crate) fn anchors(&self, result: &str) {
        self.anchors.with_label_values(&[result]).inc();
    }
}
