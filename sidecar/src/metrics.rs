//! The sidecar's own metrics. Names and labels are upstream's, verbatim; every series has the label `app_id`.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

/// Milliseconds.
const LATENCY_BUCKETS: [f64; 34] = [
    1., 2., 3., 4., 5., 6., 8., 10., 13., 16., 20., 25., 30., 40., 50., 65., 80., 100., 130., 160., 200., 250., 300.,
    400., 500., 650., 800., 1000., 2000., 5000., 10_000., 20_000., 50_000., 100_000.,
];

/// Counters and histograms; clones share them.
#[derive(Clone)]
pub struct Metrics {
    namespace: String,
    component_init: IntCounterVec,
    component_init_failed: IntCounterVec,
    state_count: IntCounterVec,
    state_latency: HistogramVec,
    http_count: IntCounterVec,
    http_latency: HistogramVec,
    grpc_count: IntCounterVec,
    grpc_latency: HistogramVec,
    invocation_sent: IntCounterVec,
    invocation_received: IntCounterVec,
}

impl Metrics {
    /// Registers all series in `registry`.
    ///
    /// # Errors
    /// When the app id is not a legal label value or a name is taken.
    pub fn new(registry: &Registry, app_id: &str, namespace: &str) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help).const_label("app_id", app_id), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let histogram = |name: &str, help: &str, labels: &[&str]| {
            let options = HistogramOpts::new(name, help)
                .const_label("app_id", app_id)
                .buckets(LATENCY_BUCKETS.to_vec());
            let histogram = HistogramVec::new(options, labels)?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, prometheus::Error>(histogram)
        };
        let operation = ["component", "namespace", "operation", "success"];
        let http = ["method", "path", "status"];
        let grpc = ["grpc_server_method", "grpc_server_status"];
        Ok(Self {
            namespace: namespace.to_owned(),
            component_init: counter(
                "dapr_runtime_component_init_total",
                "Components that were built.",
                &["component"],
            )?,
            component_init_failed: counter(
                "dapr_runtime_component_init_fail_total",
                "Components that could not be built.",
                &["component", "reason", "componentName"],
            )?,
            state_count: counter("dapr_component_state_count", "Operations on state stores.", &operation)?,
            state_latency: histogram(
                "dapr_component_state_latencies",
                "Time of operations on state stores, in ms.",
                &operation,
            )?,
            http_count: counter("dapr_http_server_request_count", "Requests to the HTTP API.", &http)?,
            http_latency: histogram(
                "dapr_http_server_latency",
                "Time of requests to the HTTP API, in ms.",
                &http,
            )?,
            grpc_count: counter("dapr_grpc_io_server_completed_rpcs", "Calls of the gRPC API.", &grpc)?,
            grpc_latency: histogram(
                "dapr_grpc_io_server_server_latency",
                "Time of calls of the gRPC API, in ms.",
                &grpc,
            )?,
            invocation_sent: counter(
                "dapr_runtime_service_invocation_req_sent_total",
                "Calls to other applications.",
                &["dst_app_id", "type"],
            )?,
            invocation_received: counter(
                "dapr_runtime_service_invocation_req_recv_total",
                "Calls from other applications.",
                &["src_app_id"],
            )?,
        })
    }

    pub fn component_built(&self, kind: &str) {
        self.component_init.with_label_values(&[kind]).inc();
    }

    pub fn component_failed(&self, kind: &str, reason: &str, name: &str) {
        self.component_init_failed
            .with_label_values(&[kind, reason, name])
            .inc();
    }

    pub fn state(&self, store: &str, operation: &str, success: bool, took: Duration) {
        let labels = [
            store,
            self.namespace.as_str(),
            operation,
            if success { "true" } else { "false" },
        ];
        self.state_count.with_label_values(&labels).inc();
        self.state_latency
            .with_label_values(&labels)
            .observe(milliseconds(took));
    }

    pub fn http(&self, method: &str, path: &str, status: u16, took: Duration) {
        let status = status.to_string();
        let labels = [method, path, status.as_str()];
        self.http_count.with_label_values(&labels).inc();
        self.http_latency.with_label_values(&labels).observe(milliseconds(took));
    }

    pub fn grpc(&self, method: &str, status: &str, took: Duration) {
        self.grpc_count.with_label_values(&[method, status]).inc();
        self.grpc_latency
            .with_label_values(&[method, status])
            .observe(milliseconds(took));
    }

    pub fn invocation_sent(&self, app: &str, streaming: bool) {
        self.invocation_sent
            .with_label_values(&[app, if streaming { "streaming" } else { "unary" }])
            .inc();
    }

    pub fn invocation_received(&self, app: &str) {
        self.invocation_received.with_label_values(&[app]).inc();
    }
}

fn milliseconds(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}
