//! Prometheus metrics. Names are upstream's, verbatim.

use axum::{Router, extract::State, http::header, response::IntoResponse};
use prometheus::{Encoder, Registry, TextEncoder};
use tokio_util::sync::CancellationToken;

use crate::{health::Health, http};

/// Flags that every process has.
#[derive(clap::Args, Debug, Clone)]
pub struct MetricsArgs {
    /// Serve metrics.
    #[arg(long, default_value_t = true)]
    pub enable_metrics: bool,
    /// Port of the metrics server.
    #[arg(long, default_value = "9090")]
    pub metrics_port: u16,
    /// Address of the metrics server.
    #[arg(long, default_value = "0.0.0.0")]
    pub metrics_listen_address: String,
}

/// A registry that also has the standard `process_*` series.
///
/// # Panics
/// Never: the collector is registered once, in a registry of its own.
pub fn registry() -> Registry {
    let registry = Registry::new();
    let collector = prometheus::process_collector::ProcessCollector::for_self();
    registry
        .register(Box::new(collector))
        .expect("first collector of a new registry");
    registry
}

/// Serves the registry on every path, as upstream does, until `stop`. Readiness target `metrics-exporter`.
///
/// # Errors
/// When the port cannot be bound or accepting fails.
pub async fn serve(
    args: MetricsArgs,
    registry: Registry,
    health: Health,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let target = health.target("metrics-exporter");
    if !args.enable_metrics {
        target.ready();
        stop.cancelled().await;
        return Ok(());
    }
    let listener = http::bind(&args.metrics_listen_address, args.metrics_port, "metrics").await?;
    target.ready();
    http::serve(listener, Router::new().fallback(scrape).with_state(registry), stop).await?;
    Ok(())
}

async fn scrape(State(registry): State<Registry>) -> impl IntoResponse {
    let encoder = TextEncoder::new();
    let mut body = Vec::new();
    if let Err(error) = encoder.encode(&registry.gather(), &mut body) {
        tracing::error!(%error, "metrics cannot be encoded");
    }
    ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], body)
}
