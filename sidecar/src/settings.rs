//! Flags and environment, checked once and turned into types.

mod app;
mod values;

use std::{path::PathBuf, time::Duration};

use outrigger_core::{GoDuration, SpiffeId, TrustDomain, annotations::truthy, control_plane};

pub use app::{App, Probe, Protocol};
use values::{non_empty, optional_port, port, size, unbracketed, value};

use crate::args::Args;

/// Body limit when neither flag sets one.
const DEFAULT_BODY: usize = 4 << 20;
/// Header limit when neither flag sets one.
const DEFAULT_HEADER: usize = 4 << 10;
/// Time between full comparisons with the source of resources.
const DEFAULT_RECONCILE: Duration = Duration::from_secs(60);

/// Why the process cannot start with these flags.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("parameter app-id cannot be empty")]
    NoAppId,
    #[error("parameter app-id cannot contain a dot: {0:?}")]
    AppIdDot(String),
    #[error("invalid value for '--{flag}': {found:?} (expected {expected})")]
    Value {
        flag: &'static str,
        found: String,
        expected: String,
    },
    #[error("the '{flag}' argument value {port} conflicts with 'app-port'")]
    PortConflict { flag: &'static str, port: u16 },
    #[error("'--{0}' is required in Kubernetes mode")]
    Required(&'static str),
    #[error("the environment variable DAPR_TRUST_ANCHORS (PEM) or DAPR_TRUST_ANCHORS_FILE (path) is required {0}")]
    NoTrustAnchors(&'static str),
    #[error("value for 'health-probe-timeout' must be smaller than 'health-probe-interval'")]
    ProbeTimeout,
}

/// Where resources come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Standalone,
    Kubernetes,
}

/// The identity to ask for, and whom to trust.
#[derive(Debug, Clone)]
pub struct Identity {
    /// PEM from the environment.
    pub anchors: Option<String>,
    /// File that is followed beside it.
    pub anchors_file: Option<PathBuf>,
    pub jwt_audiences: Vec<String>,
}

/// Everything that the process knows when it starts.
#[derive(Debug, Clone)]
pub struct Settings {
    pub mode: Mode,
    pub app_id: String,
    /// Empty when the environment names none: then resources are not filtered by namespace.
    pub namespace: String,
    pub pod_name: Option<String>,
    pub app: Option<App>,

    pub http_port: u16,
    pub grpc_port: u16,
    /// 0 picks a stable free port.
    pub internal_port: u16,
    pub internal_address: String,
    /// One empty address means all interfaces.
    pub listen: Vec<String>,
    pub public: Option<(String, u16)>,
    pub socket_folder: Option<PathBuf>,
    pub max_body: usize,
    pub max_header: usize,
    /// Whether the HTTP API speaks HTTP/2 without TLS as well.
    pub h2c: bool,
    /// `None` leaves it to the Configuration.
    pub api_logging: Option<bool>,
    /// Callers of the API have to present it.
    pub api_token: Option<String>,

    pub resources: Vec<PathBuf>,
    pub config: Vec<String>,
    pub reconcile: Duration,
    /// Names that `envRef` may use; `None` allows all but the reserved ones.
    pub env_keys: Option<Vec<String>>,

    pub operator: String,
    pub sentry: String,
    pub trust_domain: String,
    pub control_plane_namespace: String,
    /// `None` in standalone mode without mutual TLS.
    pub identity: Option<Identity>,
    /// Between sidecars.
    pub mtls: bool,

    /// `None` waits without limit.
    pub grace: Option<Duration>,
    pub block_shutdown: Option<Duration>,
    pub host_ip: Option<String>,
}

impl Settings {
    /// Checks `args`; `env` looks up an environment variable.
    ///
    /// # Errors
    /// Names the first flag or variable that cannot be used, what was found and what was expected.
    pub fn new(args: &Args, env: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let set = |name: &str| env(name).filter(|value| !value.is_empty());
        let mode = match args.mode.as_str() {
            "standalone" => Mode::Standalone,
            "kubernetes" => Mode::Kubernetes,
            other => return Err(value("mode", other, "standalone or kubernetes")),
        };
        if args.app_id.is_empty() {
            return Err(Error::NoAppId);
        }
        if args.app_id.contains('.') {
            return Err(Error::AppIdDot(args.app_id.clone()));
        }
        let http_port = port("dapr-http-port", &args.dapr_http_port)?;
        let grpc_port = port("dapr-grpc-port", &args.dapr_grpc_port)?;
        let app = app::app(args, set("APP_API_TOKEN"))?;
        if let Some(app) = &app {
            for (flag, port) in [("dapr-http-port", http_port), ("dapr-grpc-port", grpc_port)] {
                if port == app.port {
                    return Err(Error::PortConflict { flag, port });
                }
            }
        }
        check_unused(args)?;
        let identity = (mode == Mode::Kubernetes || args.enable_mtls).then(|| Identity {
            anchors: set("DAPR_TRUST_ANCHORS"),
            anchors_file: set("DAPR_TRUST_ANCHORS_FILE").map(PathBuf::from),
            jwt_audiences: non_empty(&args.sentry_request_jwt_audiences),
        });
        if let Some(identity) = &identity {
            if identity.anchors.is_none() && identity.anchors_file.is_none() {
                let when = if args.enable_mtls {
                    "with --enable-mtls"
                } else {
                    "in Kubernetes mode"
                };
                return Err(Error::NoTrustAnchors(when));
            }
            if args.sentry_address.is_empty() {
                return Err(Error::Required("sentry-address"));
            }
            let domain = TrustDomain::new(&args.control_plane_trust_domain).map_err(|error| {
                let found = &args.control_plane_trust_domain;
                value("control-plane-trust-domain", found, &error.to_string())
            })?;
            for (flag, segment) in [
                ("control-plane-namespace", &args.control_plane_namespace),
                ("app-id", &args.app_id),
            ] {
                SpiffeId::new(domain.clone(), segment, segment)
                    .map_err(|error| value(flag, segment, &error.to_string()))?;
            }
        }
        if mode == Mode::Kubernetes && args.control_plane_address.is_empty() {
            return Err(Error::Required("control-plane-address"));
        }
        let mut resources = non_empty(&args.resources_path);
        if resources.is_empty() {
            resources = non_empty(std::slice::from_ref(&args.components_path));
        }
        let reconcile = args.hot_reload_reconcile_interval.as_std();
        Ok(Self {
            mode,
            app_id: args.app_id.clone(),
            namespace: set("NAMESPACE").unwrap_or_default(),
            pod_name: set("POD_NAME"),
            app,
            http_port,
            grpc_port,
            internal_port: optional_port("dapr-internal-grpc-port", &args.dapr_internal_grpc_port)?,
            internal_address: unbracketed(&args.dapr_internal_grpc_listen_address),
            listen: args.dapr_listen_addresses.split(',').map(unbracketed).collect(),
            public: match args.dapr_public_port.as_str() {
                "" => None,
                text => Some((
                    unbracketed(&args.dapr_public_listen_address),
                    port("dapr-public-port", text)?,
                )),
            },
            socket_folder: Some(args.unix_domain_socket.trim())
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
            max_body: size(
                "max-body-size",
                args.max_body_size.as_deref(),
                args.dapr_http_max_request_size,
                1 << 20,
                DEFAULT_BODY,
            )?,
            max_header: size(
                "read-buffer-size",
                args.read_buffer_size.as_deref(),
                args.dapr_http_read_buffer_size,
                1 << 10,
                DEFAULT_HEADER,
            )?,
            h2c: !env("DAPR_HTTP_DISABLE_H2C").is_some_and(|value| truthy(&value)),
            api_logging: args.enable_api_logging,
            api_token: set("DAPR_API_TOKEN"),
            resources: resources.into_iter().map(PathBuf::from).collect(),
            config: non_empty(&args.config),
            reconcile: if reconcile.is_zero() {
                DEFAULT_RECONCILE
            } else {
                reconcile
            },
            env_keys: env("DAPR_ENV_KEYS").map(|keys| keys.split(' ').map(str::to_owned).collect()),
            operator: args.control_plane_address.clone(),
            sentry: args.sentry_address.clone(),
            trust_domain: args.control_plane_trust_domain.clone(),
            control_plane_namespace: args.control_plane_namespace.clone(),
            identity,
            mtls: args.enable_mtls,
            grace: match args.dapr_graceful_shutdown_seconds {
                0 => None,
                n => Some(Duration::from_secs(u64::try_from(n).unwrap_or(5))),
            },
            block_shutdown: args.dapr_block_shutdown_duration.map(GoDuration::as_std),
            host_ip: set("DAPR_HOST_IP"),
        })
    }

    /// The namespace of this workload's identity: upstream falls back to `default` here, and nowhere else.
    pub fn identity_namespace(&self) -> &str {
        match self.namespace.as_str() {
            "" => control_plane::DEFAULT_NAMESPACE,
            namespace => namespace,
        }
    }
}

/// Flags of parts that this release does not have are still checked, so that a mistake in them is not found later.
fn check_unused(args: &Args) -> Result<(), Error> {
    if args.scheduler_job_streams < 1 {
        return Err(value("scheduler-job-streams", "0", "at least 1"));
    }
    if args.actors_disseminate_timeout.nanos() <= 0 {
        return Err(value(
            "actors-disseminate-timeout",
            &args.actors_disseminate_timeout.to_string(),
            "a positive duration",
        ));
    }
    for endpoint in &args.disable_init_endpoints {
        let name = endpoint.trim();
        if !(name.is_empty() || name.eq_ignore_ascii_case("config") || name.eq_ignore_ascii_case("subscribe")) {
            return Err(value("disable-init-endpoints", name, "config, subscribe or both"));
        }
    }
    port("profile-port", &args.profile_port).map(|_| ())
}

#[cfg(test)]
mod tests;
