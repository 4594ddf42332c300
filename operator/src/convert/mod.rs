//! The webhook with which the API server converts Subscriptions between their versions.
//!
//! It needs nothing but its certificate: neither the caches, whose lists may themselves wait for a conversion, nor the lease.
//! Every replica serves, and every replica keeps the registration in the CustomResourceDefinition as it should be.

mod registration;
mod review;
mod webhook;

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

pub use registration::Registration;
pub use webhook::router;

/// What is counted. Upstream counts nothing here.
#[derive(Clone)]
pub struct Metrics {
    conversions: IntCounterVec,
    writes: IntCounterVec,
    registered: IntGauge,
}

impl Metrics {
    /// # Errors
    /// When the registry has metrics of these names already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let name = |name: &str| format!("dapr_operator_conversion{name}");
        let counter = |what: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name(what), help), labels);
        let metrics = Self {
            conversions: counter(
                "s_total",
                "Subscriptions converted, by version converted to and result. A failure fails its whole review.",
                &["version", "result"],
            )?,
            writes: counter(
                "_registration_writes_total",
                "Attempts to write the CA bundle and the namespace of the conversion webhook into its definition, by result.",
                &["result"],
            )?,
            registered: IntGauge::new(
                name("_registered"),
                "Whether the definition of Subscriptions names the conversion webhook with the current trust anchors.",
            )?,
        };
        registry.register(Box::new(metrics.conversions.clone()))?;
        registry.register(Box::new(metrics.writes.clone()))?;
        registry.register(Box::new(metrics.registered.clone()))?;
        Ok(metrics)
    }
}
