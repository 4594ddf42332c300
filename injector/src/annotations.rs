//! Every annotation that controls injection, with the kind of value it expects: the keys that [`crate::sidecar`] reads and the
//! table that [`crate::warnings`] checks pods against.

use outrigger_core::markdown::{HEADER, table};

/// A known annotation.
#[derive(Debug, Clone, Copy)]
pub struct Annotation {
    pub key: &'static str,
    pub kind: Kind,
    /// What holds without it, in Markdown; empty for nothing.
    pub default: &'static str,
    /// What it does, in Markdown.
    pub effect: &'static str,
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

impl Kind {
    /// What a value has to be, in Markdown.
    fn expected(self) -> String {
        match self {
            Self::Gate => "`true`".to_owned(),
            Self::Text => "text".to_owned(),
            Self::Bool => "`true` or `false`".to_owned(),
            Self::Int32 | Self::Int => "integer".to_owned(),
            Self::Port => "port".to_owned(),
            Self::Duration => "duration: `30s`".to_owned(),
            Self::Quantity => "quantity: `128Mi`".to_owned(),
            Self::Word(words) => words
                .iter()
                .map(|word| format!("`{word}`"))
                .collect::<Vec<_>>()
                .join(", "),
            Self::Assignments => "`NAME=value, …`".to_owned(),
            Self::Mounts => "`volume:/path, …`".to_owned(),
            Self::OnComponents => "container as JSON".to_owned(),
        }
    }
}

/// The page of the documentation that lists all annotations.
pub fn reference() -> String {
    let rows: Vec<_> = TABLE
        .iter()
        .map(|annotation| {
            let key = annotation.key.trim_start_matches(PREFIX);
            [
                format!("`{key}`"),
                annotation.kind.expected(),
                annotation.default.to_owned(),
                annotation.effect.to_owned(),
            ]
        })
        .collect();
    format!(
        "{HEADER}# Annotations of pods\n\n\
         All start with `{PREFIX}` and belong on the pod, which for a Deployment is `spec.template.metadata.annotations`. What cannot be read is ignored \
         or passed on, as stock Dapr does, and whoever creates the pod gets a warning; in strict mode the pod is refused.\n\n{}",
        table(["Annotation", "Value", "Without it", "Effect"], &rows)
    )
}

/// Protocols of apps.
pub const PROTOCOLS: &[&str] = &["http", "https", "grpc", "grpcs", "h2c"];
const LOG_LEVELS: &[&str] = &["debug", "info", "warn", "error", "fatal"];

macro_rules! annotations {
    ($($name:ident = $key:literal: $kind:expr, $default:literal, $effect:literal;)*) => {
        $(pub const $name: &str = concat!("dapr.io/", $key);)*
        /// All of them.
        pub const TABLE: &[Annotation] = &[$(Annotation {
            key: $name,
            kind: $kind,
            default: $default,
            effect: $effect,
        }),*];
    };
}

annotations! {
    ENABLED = "enabled": Kind::Gate, "",
        "Asks for a sidecar: `true` in any case, nothing else.";
    APP_ID = "app-id": Kind::Text, "the pod's name",
        "Name of the app: what others call it by, and part of its certificate. Pods made from a template have no name when it is needed, so they must set it.";
    APP_PORT = "app-port": Kind::Port, "",
        "Where the app listens. Without it the sidecar does not call the app.";
    APP_PROTOCOL = "app-protocol": Kind::Word(PROTOCOLS), "`http`",
        "What the app speaks.";
    APP_SSL = "app-ssl": Kind::Bool, "`false`",
        "Deprecated: use `https` or `grpcs` as the protocol.";
    APP_CHANNEL_ADDRESS = "app-channel-address": Kind::Text, "`127.0.0.1`",
        "Host of the app, where it is not in the pod.";
    APP_MAX_CONCURRENCY = "app-max-concurrency": Kind::Int, "unlimited",
        "Calls to the app at one time.";
    APP_TOKEN_SECRET = "app-token-secret": Kind::Text, "",
        "Secret with the token (key `token`) that the sidecar presents to the app.";
    API_TOKEN_SECRET = "api-token-secret": Kind::Text, "",
        "Secret with the token (key `token`) that callers of the sidecar's API need.";
    APP_BINDING_OPTIONS_TIMEOUT = "app-binding-options-timeout": Kind::Duration, "",
        "How long the app may take to say which bindings it takes.";
    CONFIG = "config": Kind::Text, "",
        "Configuration in the pod's namespace that the sidecar uses.";
    LOG_LEVEL = "log-level": Kind::Word(LOG_LEVELS), "`info`",
        "Of the sidecar.";
    LOG_AS_JSON = "log-as-json": Kind::Bool, "`false`",
        "Log lines as JSON.";
    ENABLE_API_LOGGING = "enable-api-logging": Kind::Bool, "as the Configuration says",
        "Logs calls to the sidecar's API.";
    ENABLE_PROFILING = "enable-profiling": Kind::Bool, "`false`",
        "Serves the sidecar's profiles.";
    ENABLE_METRICS = "enable-metrics": Kind::Bool, "`true`",
        "Serves metrics. Switched off, stock sidecars still serve them on port 9090.";
    METRICS_PORT = "metrics-port": Kind::Port, "`9090`",
        "Where metrics are served.";
    ENABLE_DEBUG = "enable-debug": Kind::Bool, "`false`",
        "Starts the sidecar under the debugger `dlv`, which its image must have.";
    DEBUG_PORT = "debug-port": Kind::Port, "`40000`",
        "Where the debugger listens.";
    ENV = "env": Kind::Assignments, "",
        "Variables of the sidecar. A comma separates where an identifier and `=` follow.";
    ENV_FROM_SECRET = "env-from-secret": Kind::Assignments, "",
        "Variables of the sidecar from Secrets: `NAME=secret:key`, or `NAME=secret` where the key is named like the Secret.";
    GRPC_PORT = "grpc-port": Kind::Port, "`50001`",
        "The sidecar's gRPC API.";
    INTERNAL_GRPC_PORT = "internal-grpc-port": Kind::Port, "`50002`",
        "What sidecars call each other on.";
    SIDECAR_LISTEN_ADDRESSES = "sidecar-listen-addresses": Kind::Text, "`[::1],127.0.0.1`",
        "Where the sidecar's APIs listen.";
    SIDECAR_IMAGE = "sidecar-image": Kind::Text, "the chart's",
        "Image of the sidecar.";
    SIDECAR_CPU_REQUEST = "sidecar-cpu-request": Kind::Quantity, "",
        "Of the sidecar. One of the four that cannot be read switches off all.";
    SIDECAR_CPU_LIMIT = "sidecar-cpu-limit": Kind::Quantity, "",
        "Of the sidecar.";
    SIDECAR_MEMORY_REQUEST = "sidecar-memory-request": Kind::Quantity, "",
        "Of the sidecar.";
    SIDECAR_MEMORY_LIMIT = "sidecar-memory-limit": Kind::Quantity, "",
        "Of the sidecar.";
    LIVENESS_DELAY = "sidecar-liveness-probe-delay-seconds": Kind::Int32, "`180`",
        "Liveness probe of the sidecar.";
    LIVENESS_TIMEOUT = "sidecar-liveness-probe-timeout-seconds": Kind::Int32, "`3`",
        "Liveness probe of the sidecar.";
    LIVENESS_PERIOD = "sidecar-liveness-probe-period-seconds": Kind::Int32, "`10`",
        "Liveness probe of the sidecar.";
    LIVENESS_THRESHOLD = "sidecar-liveness-probe-threshold": Kind::Int32, "`5`",
        "Failures until the sidecar is restarted.";
    READINESS_DELAY = "sidecar-readiness-probe-delay-seconds": Kind::Int32, "`1`",
        "Readiness probe of the sidecar.";
    READINESS_TIMEOUT = "sidecar-readiness-probe-timeout-seconds": Kind::Int32, "`1`",
        "Readiness probe of the sidecar.";
    READINESS_PERIOD = "sidecar-readiness-probe-period-seconds": Kind::Int32, "`1`",
        "Readiness probe of the sidecar.";
    READINESS_THRESHOLD = "sidecar-readiness-probe-threshold": Kind::Int32, "`5`",
        "Failures until the pod is not ready.";
    SECCOMP_PROFILE_TYPE = "sidecar-seccomp-profile-type": Kind::Text, "the chart's",
        "Seccomp profile of the sidecar, for example `RuntimeDefault`.";
    HTTP_MAX_REQUEST_SIZE = "http-max-request-size": Kind::Int, "`4`",
        "MB of a request's body. Older form of `max-body-size`.";
    MAX_BODY_SIZE = "max-body-size": Kind::Quantity, "`4Mi`",
        "Of a request's body.";
    HTTP_READ_BUFFER_SIZE = "http-read-buffer-size": Kind::Int, "`4`",
        "KB of a request's header. Older form of `read-buffer-size`.";
    READ_BUFFER_SIZE = "read-buffer-size": Kind::Quantity, "`4Ki`",
        "Of a request's header.";
    GRACEFUL_SHUTDOWN_SECONDS = "graceful-shutdown-seconds": Kind::Int, "the sidecar's own",
        "How long calls in flight get when the sidecar stops.";
    BLOCK_SHUTDOWN_DURATION = "block-shutdown-duration": Kind::Duration, "",
        "How long the sidecar goes on serving a live app after it was told to stop.";
    UNIX_DOMAIN_SOCKET_PATH = "unix-domain-socket-path": Kind::Text, "",
        "Folder in the app's containers with sockets of the sidecar's APIs, in place of ports.";
    VOLUME_MOUNTS = "volume-mounts": Kind::Mounts, "",
        "Volumes of the pod that the sidecar may read.";
    VOLUME_MOUNTS_RW = "volume-mounts-rw": Kind::Mounts, "",
        "Volumes of the pod that the sidecar may read and write.";
    DISABLE_BUILTIN_SECRET_STORE = "disable-builtin-k8s-secret-store": Kind::Bool, "`false`",
        "No secret store `kubernetes` in the sidecar.";
    ENABLE_APP_HEALTH_CHECK = "enable-app-health-check": Kind::Bool, "`false`",
        "The sidecar asks the app whether it is well, and holds back work while it is not.";
    APP_HEALTH_CHECK_PATH = "app-health-check-path": Kind::Text, "`/healthz`",
        "What it asks an HTTP app for.";
    APP_HEALTH_PROBE_INTERVAL = "app-health-probe-interval": Kind::Int32, "`5`",
        "Seconds between two questions.";
    APP_HEALTH_PROBE_TIMEOUT = "app-health-probe-timeout": Kind::Int32, "`500`",
        "Milliseconds for an answer.";
    APP_HEALTH_THRESHOLD = "app-health-threshold": Kind::Int32, "`3`",
        "Failures until the app counts as not well.";
    PLACEMENT_HOST_ADDRESS = "placement-host-address": Kind::Text, "the chart's",
        "Placement service for actors; empty for none.";
    ACTORS_DISSEMINATE_TIMEOUT = "actors-disseminate-timeout": Kind::Duration, "",
        "How long a new placement of actors may take to be taken in.";
    SCHEDULER_HOST_ADDRESS = "scheduler-host-address": Kind::Text, "the chart's",
        "Scheduler; empty for none.";
    PLUGGABLE_COMPONENTS = "pluggable-components": Kind::Text, "",
        "Containers of the pod that are components, by name, not trimmed.";
    PLUGGABLE_COMPONENTS_SOCKETS_FOLDER = "pluggable-components-sockets-folder": Kind::Text, "`/tmp/dapr-components-sockets`",
        "Where the sockets of component containers are.";
    COMPONENT_CONTAINER = "component-container": Kind::OnComponents, "",
        "On Components: the container that serves the component, as JSON.";
    INJECT_PLUGGABLE_COMPONENTS = "inject-pluggable-components": Kind::Bool, "`false`",
        "Adds the containers that Components of the namespace bring.";
    SENTRY_REQUEST_JWT_AUDIENCES = "sentry-request-jwt-audiences": Kind::Text, "",
        "Audiences of the JWT in the sidecar's identity.";
    SIDECAR_SVC_ANNOTATIONS = "sidecar-svc-annotations": Kind::Text, "",
        "Annotations for the app's Service: `key=value` entries. Read by the operator.";
    DISABLE_INIT_ENDPOINTS = "disable-init-endpoints": Kind::Text, "",
        "APIs that the sidecar does not serve.";
    ENABLE_NATIVE_SIDECAR = "enable-native-sidecar": Kind::Bool, "the chart's",
        "A native sidecar: an init container that starts before all others and ends after the app.";
}

/// The prefix that all have.
pub const PREFIX: &str = "dapr.io/";

/// Keys with the prefix that other parts of the control plane put on pods.
pub const OF_OTHERS: [&str; 1] = [outrigger_core::annotations::CONTROL_PLANE];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_the_documentation_is_current() {
        outrigger_testkit::docs::assert_current("annotations.md", &reference());
    }

    #[test]
    fn the_table_has_64_different_keys() {
        let keys: std::collections::HashSet<_> = TABLE.iter().map(|annotation| annotation.key).collect();
        assert_eq!((TABLE.len(), keys.len()), (64, 64));
        assert_eq!(ENABLED, outrigger_core::annotations::ENABLED);
        assert_eq!(APP_ID, outrigger_core::annotations::APP_ID);
        assert_eq!(CONFIG, outrigger_core::annotations::CONFIG);
    }
}
