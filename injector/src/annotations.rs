//! Every annotation that controls injection, with the kind of value it expects: the keys that [`crate::sidecar`] reads and the
//! table that [`crate::warnings`] checks pods against.

/// A known annotation.
#[derive(Debug, Clone, Copy)]
pub struct Annotation {
    pub key: &'static str,
    pub kind: Kind,
}

/// What a value has to be. Upstream ignores or passes on what is not; we do the same, and say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Decides whether there is a sidecar at all: `true` in any case, nothing else.
    Gate,
    Text,
    Bool,
    /// A 32-bit integer.
    Int32,
    /// A 64-bit integer.
    Int,
    /// A port of the app or the sidecar.
    Port,
    /// Go's duration syntax.
    Duration,
    /// A Kubernetes quantity.
    Quantity,
    /// One of these words, in any case.
    Word(&'static [&'static str]),
    /// `name=value` entries.
    Assignments,
    /// `volume:path` entries.
    Mounts,
    /// Means something on Component resources, and nothing on pods.
    OnComponents,
}

/// Protocols of apps.
pub const PROTOCOLS: &[&str] = &["http", "https", "grpc", "grpcs", "h2c"];
const LOG_LEVELS: &[&str] = &["debug", "info", "warn", "error", "fatal"];

macro_rules! annotations {
    ($($name:ident = $key:literal: $kind:expr;)*) => {
        $(pub const $name: &str = concat!("dapr.io/", $key);)*
        /// All of them.
        pub const TABLE: &[Annotation] = &[$(Annotation { key: $name, kind: $kind }),*];
    };
}

annotations! {
    ENABLED = "enabled": Kind::Gate;
    APP_ID = "app-id": Kind::Text;
    APP_PORT = "app-port": Kind::Port;
    APP_PROTOCOL = "app-protocol": Kind::Word(PROTOCOLS);
    APP_SSL = "app-ssl": Kind::Bool;
    APP_CHANNEL_ADDRESS = "app-channel-address": Kind::Text;
    APP_MAX_CONCURRENCY = "app-max-concurrency": Kind::Int;
    APP_TOKEN_SECRET = "app-token-secret": Kind::Text;
    API_TOKEN_SECRET = "api-token-secret": Kind::Text;
    APP_BINDING_OPTIONS_TIMEOUT = "app-binding-options-timeout": Kind::Duration;
    CONFIG = "config": Kind::Text;
    LOG_LEVEL = "log-level": Kind::Word(LOG_LEVELS);
    LOG_AS_JSON = "log-as-json": Kind::Bool;
    ENABLE_API_LOGGING = "enable-api-logging": Kind::Bool;
    ENABLE_PROFILING = "enable-profiling": Kind::Bool;
    ENABLE_METRICS = "enable-metrics": Kind::Bool;
    METRICS_PORT = "metrics-port": Kind::Port;
    ENABLE_DEBUG = "enable-debug": Kind::Bool;
    DEBUG_PORT = "debug-port": Kind::Port;
    ENV = "env": Kind::Assignments;
    ENV_FROM_SECRET = "env-from-secret": Kind::Assignments;
    GRPC_PORT = "grpc-port": Kind::Port;
    INTERNAL_GRPC_PORT = "internal-grpc-port": Kind::Port;
    SIDECAR_LISTEN_ADDRESSES = "sidecar-listen-addresses": Kind::Text;
    SIDECAR_IMAGE = "sidecar-image": Kind::Text;
    SIDECAR_CPU_REQUEST = "sidecar-cpu-request": Kind::Quantity;
    SIDECAR_CPU_LIMIT = "sidecar-cpu-limit": Kind::Quantity;
    SIDECAR_MEMORY_REQUEST = "sidecar-memory-request": Kind::Quantity;
    SIDECAR_MEMORY_LIMIT = "sidecar-memory-limit": Kind::Quantity;
    LIVENESS_DELAY = "sidecar-liveness-probe-delay-seconds": Kind::Int32;
    LIVENESS_TIMEOUT = "sidecar-liveness-probe-timeout-seconds": Kind::Int32;
    LIVENESS_PERIOD = "sidecar-liveness-probe-period-seconds": Kind::Int32;
    LIVENESS_THRESHOLD = "sidecar-liveness-probe-threshold": Kind::Int32;
    READINESS_DELAY = "sidecar-readiness-probe-delay-seconds": Kind::Int32;
    READINESS_TIMEOUT = "sidecar-readiness-probe-timeout-seconds": Kind::Int32;
    READINESS_PERIOD = "sidecar-readiness-probe-period-seconds": Kind::Int32;
    READINESS_THRESHOLD = "sidecar-readiness-probe-threshold": Kind::Int32;
    SECCOMP_PROFILE_TYPE = "sidecar-seccomp-profile-type": Kind::Text;
    HTTP_MAX_REQUEST_SIZE = "http-max-request-size": Kind::Int;
    MAX_BODY_SIZE = "max-body-size": Kind::Quantity;
    HTTP_READ_BUFFER_SIZE = "http-read-buffer-size": Kind::Int;
    READ_BUFFER_SIZE = "read-buffer-size": Kind::Quantity;
    GRACEFUL_SHUTDOWN_SECONDS = "graceful-shutdown-seconds": Kind::Int;
    BLOCK_SHUTDOWN_DURATION = "block-shutdown-duration": Kind::Duration;
    UNIX_DOMAIN_SOCKET_PATH = "unix-domain-socket-path": Kind::Text;
    VOLUME_MOUNTS = "volume-mounts": Kind::Mounts;
    VOLUME_MOUNTS_RW = "volume-mounts-rw": Kind::Mounts;
    DISABLE_BUILTIN_SECRET_STORE = "disable-builtin-k8s-secret-store": Kind::Bool;
    ENABLE_APP_HEALTH_CHECK = "enable-app-health-check": Kind::Bool;
    APP_HEALTH_CHECK_PATH = "app-health-check-path": Kind::Text;
    APP_HEALTH_PROBE_INTERVAL = "app-health-probe-interval": Kind::Int32;
    APP_HEALTH_PROBE_TIMEOUT = "app-health-probe-timeout": Kind::Int32;
    APP_HEALTH_THRESHOLD = "app-health-threshold": Kind::Int32;
    PLACEMENT_HOST_ADDRESS = "placement-host-address": Kind::Text;
    ACTORS_DISSEMINATE_TIMEOUT = "actors-disseminate-timeout": Kind::Duration;
    SCHEDULER_HOST_ADDRESS = "scheduler-host-address": Kind::Text;
    PLUGGABLE_COMPONENTS = "pluggable-components": Kind::Text;
    PLUGGABLE_COMPONENTS_SOCKETS_FOLDER = "pluggable-components-sockets-folder": Kind::Text;
    COMPONENT_CONTAINER = "component-container": Kind::OnComponents;
    INJECT_PLUGGABLE_COMPONENTS = "inject-pluggable-components": Kind::Bool;
    SENTRY_REQUEST_JWT_AUDIENCES = "sentry-request-jwt-audiences": Kind::Text;
    SIDECAR_SVC_ANNOTATIONS = "sidecar-svc-annotations": Kind::Text;
    DISABLE_INIT_ENDPOINTS = "disable-init-endpoints": Kind::Text;
    ENABLE_NATIVE_SIDECAR = "enable-native-sidecar": Kind::Bool;
}

/// The prefix that all have.
pub const PREFIX: &str = "dapr.io/";

/// Keys with the prefix that other parts of the control plane put on pods.
pub const OF_OTHERS: [&str; 1] = [outrigger_core::annotations::CONTROL_PLANE];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_64_different_keys() {
        let keys: std::collections::HashSet<_> = TABLE.iter().map(|annotation| annotation.key).collect();
        assert_eq!((TABLE.len(), keys.len()), (64, 64));
        assert_eq!(ENABLED, outrigger_core::annotations::ENABLED);
        assert_eq!(APP_ID, outrigger_core::annotations::APP_ID);
        assert_eq!(CONFIG, outrigger_core::annotations::CONFIG);
    }
}
