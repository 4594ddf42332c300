//! The command line: every flag that upstream's sidecar accepts, so that nothing that starts a sidecar has to change.

use clap::Parser;
use outrigger_core::GoDuration;
use outrigger_process::{flags::duration, logs::LogArgs, metrics::MetricsArgs};

/// Runs beside an application and serves the Dapr APIs to it.
#[derive(Parser, Debug, Clone)]
#[command(name = "daprd", disable_version_flag = true)]
pub struct Args {
    /// Where resources come from: standalone or kubernetes.
    #[arg(long, default_value = "standalone")]
    pub mode: String,
    /// Unique name of the application.
    #[arg(long, default_value = "")]
    pub app_id: String,
    /// Port that the application listens on; empty when it does not listen.
    #[arg(long, default_value = "")]
    pub app_port: String,
    /// Protocol that the application speaks: http, https, h2c, grpc or grpcs.
    #[arg(long, default_value = "http")]
    pub app_protocol: String,
    /// Deprecated: makes http https, and grpc grpcs.
    #[arg(long)]
    pub app_ssl: bool,
    /// Host of the application.
    #[arg(long, default_value = "127.0.0.1")]
    pub app_channel_address: String,
    /// Most calls to the application at the same time; 0 or less is unlimited.
    #[arg(long, default_value_t = -1)]
    pub app_max_concurrency: i64,

    /// Port of the HTTP API.
    #[arg(long, default_value = "3500")]
    pub dapr_http_port: String,
    /// Port of the gRPC API.
    #[arg(long, default_value = "50001")]
    pub dapr_grpc_port: String,
    /// Port for other sidecars; empty or 0 picks a stable free one.
    #[arg(long, default_value = "")]
    pub dapr_internal_grpc_port: String,
    /// Address for other sidecars; empty means all interfaces.
    #[arg(long, default_value = "")]
    pub dapr_internal_grpc_listen_address: String,
    /// Addresses of the HTTP and gRPC API, separated by commas; empty means all interfaces.
    #[arg(long, default_value = "")]
    pub dapr_listen_addresses: String,
    /// Port that serves health and metadata only; empty for none.
    #[arg(long, default_value = "")]
    pub dapr_public_port: String,
    /// Address of the public port; empty means all interfaces.
    #[arg(long, default_value = "")]
    pub dapr_public_listen_address: String,
    /// Folder for Unix sockets that replace the ports of the HTTP and gRPC API.
    #[arg(long, default_value = "")]
    pub unix_domain_socket: String,
    /// Port of the profiler.
    #[arg(long, default_value = "7777")]
    pub profile_port: String,
    /// Serve the profiler.
    #[arg(long)]
    pub enable_profiling: bool,

    /// Folders with resource files (standalone mode).
    #[arg(long, value_delimiter = ',')]
    pub resources_path: Vec<String>,
    /// Deprecated name of --resources-path.
    #[arg(long, default_value = "")]
    pub components_path: String,
    /// Configuration: files in standalone mode, the name of the object in Kubernetes mode.
    #[arg(long, value_delimiter = ',')]
    pub config: Vec<String>,

    /// Address of the operator.
    #[arg(long, default_value = "")]
    pub control_plane_address: String,
    /// Address of the certificate authority.
    #[arg(long, default_value = "")]
    pub sentry_address: String,
    /// Trust domain of the control plane.
    #[arg(
        long,
        env = "DAPR_CONTROLPLANE_TRUST_DOMAIN",
        hide_env_values = true,
        default_value = "localhost"
    )]
    pub control_plane_trust_domain: String,
    /// Namespace of the control plane.
    #[arg(
        long,
        env = "DAPR_CONTROLPLANE_NAMESPACE",
        hide_env_values = true,
        default_value = "default"
    )]
    pub control_plane_namespace: String,
    /// Audiences of the tokens requested with the certificate.
    #[arg(long, value_delimiter = ',')]
    pub sentry_request_jwt_audiences: Vec<String>,
    /// Use mutual TLS between sidecars.
    #[arg(long)]
    pub enable_mtls: bool,

    /// Addresses of the placement service.
    #[arg(long, default_value = "")]
    pub placement_host_address: String,
    #[arg(long, default_value = "", hide = true)]
    pub actors_service: String,
    #[arg(long, default_value = "", hide = true)]
    pub reminders_service: String,
    /// Addresses of the scheduler.
    #[arg(
        long,
        env = "DAPR_SCHEDULER_HOST_ADDRESS_DNS_A",
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub scheduler_host_address: Vec<String>,
    /// Streams to each scheduler.
    #[arg(long, default_value_t = 3)]
    pub scheduler_job_streams: u32,
    /// Longest round of a placement dissemination.
    #[arg(long, value_parser = duration, default_value = "30s")]
    pub actors_disseminate_timeout: GoDuration,
    /// Time between full comparisons with the source of resources; 0 means 60s.
    #[arg(long, value_parser = duration, default_value = "0")]
    pub hot_reload_reconcile_interval: GoDuration,
    /// Time for the question which input bindings the application wants.
    #[arg(long, value_parser = duration, default_value = "3s")]
    pub app_binding_options_timeout: GoDuration,

    /// Origins that browsers may call from; empty switches CORS off.
    #[arg(long, default_value = "")]
    pub allowed_origins: String,
    /// Largest request body, as a quantity such as 4Mi.
    #[arg(long, allow_hyphen_values = true)]
    pub max_body_size: Option<String>,
    /// Deprecated: largest request body in MB.
    #[arg(long)]
    pub dapr_http_max_request_size: Option<i64>,
    /// Largest header, as a quantity such as 4Ki.
    #[arg(long, allow_hyphen_values = true)]
    pub read_buffer_size: Option<String>,
    /// Deprecated: largest header in KB.
    #[arg(long)]
    pub dapr_http_read_buffer_size: Option<i64>,
    /// Time for requests in flight at shutdown; negative means 5, 0 means without limit.
    #[arg(long, default_value_t = 5)]
    pub dapr_graceful_shutdown_seconds: i64,
    /// Keep serving this long after a signal, or until the application reports unhealthy.
    #[arg(long, value_parser = duration)]
    pub dapr_block_shutdown_duration: Option<GoDuration>,
    /// Log every API call; unset leaves it to the Configuration.
    #[arg(long)]
    pub enable_api_logging: Option<bool>,
    /// Do not offer the secret store `kubernetes`.
    #[arg(long)]
    pub disable_builtin_k8s_secret_store: bool,

    /// Probe the application.
    #[arg(long)]
    pub enable_app_health_check: bool,
    /// Path of the application's health endpoint.
    #[arg(long, default_value = "/healthz")]
    pub app_health_check_path: String,
    /// Seconds between probes.
    #[arg(long, default_value_t = 5)]
    pub app_health_probe_interval: i64,
    /// Milliseconds a probe may take.
    #[arg(long, default_value_t = 500)]
    pub app_health_probe_timeout: i64,
    /// Failed probes in a row that make the application unhealthy.
    #[arg(long, default_value_t = 3)]
    pub app_health_threshold: i64,
    /// Application endpoints that are not asked at start: config, subscribe.
    #[arg(long, value_delimiter = ',')]
    pub disable_init_endpoints: Vec<String>,

    #[command(flatten)]
    pub logs: LogArgs,
    #[command(flatten)]
    pub metrics: MetricsArgs,

    /// Print the version and exit.
    #[arg(long)]
    pub version: bool,
    /// Print version and commit and exit.
    #[arg(long)]
    pub build_info: bool,
    /// Wait until a sidecar on --dapr-http-port serves, then exit.
    #[arg(long)]
    pub wait: bool,
}
