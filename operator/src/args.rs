//! Flags, as upstream's.

use std::path::PathBuf;

use clap::Parser;
use outrigger_core::{GoDuration, control_plane::SYSTEM_CONFIGURATION};
use outrigger_process::{flags, logs::LogArgs, metrics::MetricsArgs};

/// Serves resources to sidecars.
#[derive(Parser, Debug, Clone)]
#[command(name = "operator")]
pub struct Args {
    /// Name of the Configuration of the control plane, in its own namespace.
    #[arg(long, default_value = SYSTEM_CONFIGURATION)]
    pub config: String,
    /// How often the watchdog looks for pods without their sidecar: a duration of at least 1s, `once`, or 0 for never.
    #[arg(long, default_value = "0")]
    pub watch_interval: String,
    /// Pods that the watchdog evicts in a minute, at most; 0 or less means no limit.
    #[arg(long, default_value_t = 20)]
    pub max_pod_restarts_per_minute: i64,
    /// Write without holding the Lease. Only for a single replica.
    #[arg(long)]
    pub disable_leader_election: bool,
    /// Create no Services for apps.
    #[arg(long)]
    pub disable_service_reconciler: bool,
    /// Watch this namespace only; empty means all.
    #[arg(long, default_value = "")]
    pub watch_namespace: String,
    /// Create Services for Argo Rollouts too.
    #[arg(long)]
    pub enable_argo_rollout_service_reconciler: bool,
    /// Let the watchdog label the pods that have a sidecar, so that it need not look at them again.
    #[arg(long)]
    pub watchdog_can_patch_pod_labels: bool,
    /// PEM file with the trust anchors.
    #[arg(long, default_value = "/var/run/secrets/dapr.io/tls/ca.crt")]
    pub trust_anchors_file: PathBuf,
    /// Keep a ConfigMap with the trust anchors in every namespace that has pods with sidecars.
    #[arg(long)]
    pub trust_distribution: bool,
    /// Name of that ConfigMap.
    #[arg(long, default_value = "dapr-root-ca.crt")]
    pub trust_anchors_configmap_name: String,
    /// Port of the gRPC API.
    #[arg(long, default_value_t = 6500)]
    pub port: u16,
    /// Address of the gRPC API; empty means all.
    #[arg(long, default_value = "")]
    pub listen_address: String,
    /// Port of the health checks.
    #[arg(long, default_value_t = 8080)]
    pub healthz_port: u16,
    /// Address of the health checks; empty means all.
    #[arg(long, default_value = "")]
    pub healthz_listen_address: String,
    /// Port of the conversion webhook.
    #[arg(long, default_value_t = 19443)]
    pub webhook_server_port: u16,
    /// Address of the conversion webhook; empty means all.
    #[arg(long, default_value = "")]
    pub webhook_server_listen_address: String,
    /// Accepted for compatibility: nothing is resynchronised, since no change is lost.
    #[arg(long, default_value = "0", value_parser = flags::duration)]
    pub cache_sync_period: GoDuration,
    /// Kubeconfig to use instead of the in-cluster configuration.
    #[arg(long, default_value = "")]
    pub kubeconfig: String,
    #[command(flatten)]
    pub logs: LogArgs,
    #[command(flatten)]
    pub metrics: MetricsArgs,
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    #[test]
    fn takes_what_the_chart_passes() {
        let words = "operator --watch-interval 30s --max-pod-restarts-per-minute -1 --log-level debug \
            --trust-anchors-file /ca.crt --log-as-json --enable-metrics --metrics-port 9090 --watch-namespace shop \
            --disable-service-reconciler --watchdog-can-patch-pod-labels --trust-distribution";
        let words = words.split_whitespace().map(OsString::from);
        let args: Args = flags::parse(flags::Style::GoFlag, words).unwrap();
        assert_eq!(args.watch_interval, "30s");
        assert_eq!(args.max_pod_restarts_per_minute, -1);
        assert_eq!(args.watch_namespace, "shop");
        assert!(args.disable_service_reconciler && args.watchdog_can_patch_pod_labels && args.logs.log_as_json);
        assert!(args.trust_distribution);
        assert_eq!(args.trust_anchors_configmap_name, "dapr-root-ca.crt");
        assert_eq!((args.port, args.healthz_port), (6500, 8080));
    }
}
