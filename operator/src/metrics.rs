//! The operator's metrics. Names that upstream has are upstream's.

use outrigger_crds::DaprResource;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// In seconds; the target is 15 ms for the last of a thousand sidecars.
const PROPAGATION_BUCKETS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.5, 2.5, 10.0,
];

/// Everything that is counted.
#[derive(Clone)]
pub struct Metrics {
    pub service_created: IntCounterVec,
    pub service_updated: IntCounterVec,
    pub service_deleted: IntCounterVec,
    pub service_refused: IntCounterVec,
    /// Connections of sidecars.
    pub subscribers: IntGauge,
    pub stalled: IntCounter,
    pub propagation: Histogram,
    streams: IntGaugeVec,
    pending: IntGaugeVec,
    encoded: IntCounterVec,
    stream_events: IntCounterVec,
    invalid_objects: IntGaugeVec,
    pub denied: IntCounterVec,
    pub secret_reads: IntCounterVec,
    pub status_writes: IntCounterVec,
    pub status_refused: IntGaugeVec,
    pub watchdog_pods: IntCounterVec,
    /// Pods that the watchdog leaves as they are for now, by reason.
    pub watchdog_held: IntGaugeVec,
    pub missing_sidecars: IntCounterVec,
    pub kubernetes_events: IntCounterVec,
    pub refusals: IntCounterVec,
    pub trust_writes: IntCounterVec,
    pub verdicts: IntCounterVec,
    pub relay_refused: IntGaugeVec,
}

/// The series of one kind.
#[derive(Clone)]
pub struct KindMetrics {
    pub streams: IntGauge,
    pub pending: IntGauge,
    pub encoded: IntCounter,
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
        let propagation = HistogramOpts::new(
            "dapr_operator_propagation_seconds",
            "From the watch event to the write on a sidecar's connection.",
        );
        let propagation = Histogram::with_opts(propagation.buckets(PROPAGATION_BUCKETS.to_vec()))?;
        registry.register(Box::new(propagation.clone()))?;
        let subscribers = IntGauge::new("dapr_operator_subscribers", "Connections of sidecars.")?;
        registry.register(Box::new(subscribers.clone()))?;
        let stalled = IntCounter::new(
            "dapr_operator_stalled_connections_total",
            "Connections that were cut because nothing came from the sidecar.",
        )?;
        registry.register(Box::new(stalled.clone()))?;
        Ok(Self {
            propagation,
            subscribers,
            stalled,
            pending: gauge(
                "dapr_operator_pending_events",
                "Events that wait to be sent on update streams.",
                &["kind"],
            )?,
            encoded: counter(
                "dapr_operator_encoded_bytes_total",
                "Bytes of encoded objects; an object is encoded once for all sidecars.",
                &["kind"],
            )?,
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
                "Namespaces in which the status of a kind is not written because the API server refuses it, by reason; 1 for no_status, which \
                holds everywhere.",
                &["kind", "reason"],
            )?,
            watchdog_pods: counter(
                "dapr_operator_watchdog_pods_total",
                "What the watchdog did about pods without a sidecar, and why.",
                &["action", "reason"],
            )?,
            watchdog_held: gauge(
                "dapr_operator_watchdog_held_pods",
                "Pods without a sidecar that the watchdog does not evict now, by what stands in the way.",
                &["reason"],
            )?,
            missing_sidecars: counter(
                "dapr_operator_missing_sidecars_total",
                "Pods that ask for a sidecar and have none, by reason.",
                &["reason"],
            )?,
            trust_writes: counter(
                "dapr_operator_trust_anchors_writes_total",
                "Writes of ConfigMaps with the trust anchors, by result.",
                &["result"],
            )?,
            verdicts: counter(
                "dapr_operator_sidecar_verdicts_total",
                "What sidecars reported of resources: loaded, rejected or removed.",
                &["kind", "state"],
            )?,
            relay_refused: gauge(
                "dapr_operator_report_relay_refused",
                "1 while this replica cannot share what its sidecars report with the leader, by reason.",
                &["reason"],
            )?,
            refusals: counter(
                "dapr_operator_injection_refusals_total",
                "Pods without a sidecar that injectors told of, by what became of it: taken for an Event, or dropped.",
                &["result"],
            )?,
            kubernetes_events: counter(
                "dapr_operator_kubernetes_events_total",
                "Kubernetes Events published, by result.",
                &["result"],
            )?,
        })
    }

    /// Counts an encoded object.
    pub fn encoded<K: DaprResource>(&self, bytes: usize) {
        self.encoded.with_label_values(&[K::KIND]).inc_by(bytes as u64);
    }

    /// The series of kind `K`.
    pub fn kind<K: DaprResource>(&self) -> KindMetrics {
        let outcome = |outcome| self.stream_events.with_label_values(&[K::KIND, outcome]);
        KindMetrics {
            streams: self.streams.with_label_values(&[K::KIND]),
            pending: self.pending.with_label_values(&[K::KIND]),
            encoded: self.encoded.with_label_values(&[K::KIND]),
            sent: outcome("sent"),
            coalesced: outcome("coalesced"),
            suppressed: outcome("suppressed"),
            invalid_objects: self.invalid_objects.with_label_values(&[K::KIND]),
        }
    }
}
