//! The operator's metrics. Names that upstream has are upstream's.

use outrigger_crds::DaprResource;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// Everything that is counted.
#[derive(Clone)]
pub struct Metrics {
    pub service_created: IntCounterVec,
    pub service_updated: IntCounterVec,
    pub service_deleted: IntCounterVec,
    pub service_refused: IntCounterVec,
    streams: IntGaugeVec,
    stream_events: IntCounterVec,
    invalid_objects: IntGaugeVec,
    pub denied: IntCounterVec,
    pub secret_reads: IntCounterVec,
    pub status_writes: IntCounterVec,
    pub status_refused: IntGaugeVec,
    pub watchdog_pods: IntCounterVec,
    pub kubernetes_events: IntCounterVec,
    pub trust_writes: IntCounterVec,
}

/// The series of one kind.
#[derive(Clone)]
pub struct KindMetrics {
    pub streams: IntGauge,
    pub sent: IntCounter,
    pub coalesced: IntCounter,
    pub suppressed: IntCounter,
    pub invalid_objects: IntGauge,
}

impl Metrics {
    /// Registers the operator's series.
    ///
    /// # Errors
    /// When the registry has one of the names already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(Self {
            service_created: counter(
                "dapr_operator_service_created_total",
                "The total number of dapr services created.",
                &["app_id"],
            )?,
            service_updated: counter(
                "dapr_operator_service_updated_total",
                "The total number of dapr services updated.",
                &["app_id"],
            )?,
            service_deleted: counter(
                "dapr_operator_service_deleted_total",
                "The total number of dapr services deleted.",
                &["app_id"],
            )?,
            service_refused: counter(
                "dapr_operator_service_refused_total",
                "App Services that were not written, by reason.",
                &["reason"],
            )?,
            streams: gauge("dapr_operator_streams", "Open update streams.", &["kind"])?,
            stream_events: counter(
                "dapr_operator_stream_events_total",
                "Events for update streams: sent, coalesced with a waiting one, or suppressed for want of a difference.",
                &["kind", "outcome"],
            )?,
            invalid_objects: gauge(
                "dapr_operator_invalid_objects",
                "Objects that cannot be decoded; their last good version is served, if there was one.",
                &["kind"],
            )?,
            denied: counter(
                "dapr_operator_denied_requests_total",
                "Requests of sidecars that were denied, by reason.",
                &["reason"],
            )?,
            secret_reads: counter(
                "dapr_operator_secret_reads_total",
                "Secrets read from the API server, by result.",
                &["result"],
            )?,
            status_writes: counter(
                "dapr_operator_status_writes_total",
                "Writes of the status of resources, by result.",
                &["kind", "result"],
            )?,
            status_refused: gauge(
                "dapr_operator_status_refused",
                "1 while the status of a kind is not written because the API server refuses it, by reason.",
                &["kind", "reason"],
            )?,
            watchdog_pods: counter(
                "dapr_operator_watchdog_pods_total",
                "What the watchdog did about pods without a sidecar, and why.",
                &["action", "reason"],
            )?,
            trust_writes: counter(
                "dapr_operator_trust_anchors_writes_total",
                "Writes of ConfigMaps with the trust anchors, by result.",
                &["result"],
            )?,
            kubernetes_events: counter(
                "dapr_operator_kubernetes_events_total",
                "Kubernetes Events published, by result.",
                &["result"],
            )?,
        })
    }

    /// The series of kind `K`.
    pub fn kind<K: DaprResource>(&self) -> KindMetrics {
        let outcome = |outcome| self.stream_events.with_label_values(&[K::KIND, outcome]);
        KindMetrics {
            streams: self.streams.with_label_values(&[K::KIND]),
            sent: outcome("sent"),
            coalesced: outcome("coalesced"),
            suppressed: outcome("suppressed"),
            invalid_objects: self.invalid_objects.with_label_values(&[K::KIND]),
        }
    }
}
