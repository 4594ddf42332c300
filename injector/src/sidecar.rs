//! What one sidecar is to be: built-in defaults, then the injector's settings, then the pod's annotations. An annotation that
//! exists is applied even when it is empty.

use std::{collections::HashSet, ops::Deref};

use outrigger_core::annotations::truthy;

use crate::{
    annotations as key,
    pod::{Map, Pod},
    settings::Settings,
};

/// A sidecar's settings. Optional fields tell "not set" from every value.
#[derive(Debug, Clone)]
pub struct Sidecar<'a> {
    pub app_id: &'a str,
    pub app_port: i32,
    /// As written; see [`Sidecar::normalised_protocol`].
    pub app_protocol: &'a str,
    pub app_ssl: bool,
    pub app_channel_address: &'a str,
    pub app_max_concurrency: Option<i64>,
    pub app_token_secret: &'a str,
    pub api_token_secret: &'a str,
    pub app_binding_options_timeout: Option<&'a str>,
    pub config: &'a str,
    pub log_level: &'a str,
    pub log_as_json: bool,
    pub api_logging: Option<bool>,
    pub profiling: bool,
    pub metrics: bool,
    pub metrics_port: i32,
    /// The port of the debugger, when there is to be one.
    pub debug_port: Option<i32>,
    pub env: &'a str,
    pub env_from_secret: &'a str,
    pub grpc_port: i32,
    pub internal_grpc_port: i32,
    pub listen_addresses: &'a str,
    pub image: &'a str,
    pub cpu_request: &'a str,
    pub cpu_limit: &'a str,
    pub memory_request: &'a str,
    pub memory_limit: &'a str,
    pub liveness: Probe,
    pub readiness: Probe,
    pub seccomp_profile_type: &'a str,
    pub http_max_request_size: Option<i64>,
    pub max_body_size: &'a str,
    pub http_read_buffer_size: Option<i64>,
    pub read_buffer_size: &'a str,
    pub graceful_shutdown_seconds: i64,
    pub block_shutdown_duration: Option<&'a str>,
    /// Where app containers see the sockets; empty without sockets.
    pub unix_domain_socket_path: &'a str,
    pub volume_mounts: &'a str,
    pub volume_mounts_rw: &'a str,
    pub disable_builtin_secret_store: bool,
    pub app_health: Option<AppHealth<'a>>,
    pub placement_host_address: &'a str,
    pub actors_disseminate_timeout: Option<&'a str>,
    /// Empty disables the scheduler, `None` passes nothing.
    pub scheduler_host_address: Option<&'a str>,
    pub pluggable_components: &'a str,
    pub component_sockets_folder: &'a str,
    pub inject_pluggable_components: bool,
    pub jwt_audiences: &'a str,
    pub disable_init_endpoints: Option<&'a str>,
    pub native: bool,
}

/// The numbers of a probe, in seconds but for the threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    pub delay: i32,
    pub timeout: i32,
    pub period: i32,
    pub threshold: i32,
}

/// How the sidecar checks the app.
#[derive(Debug, Clone, Copy)]
pub struct AppHealth<'a> {
    pub path: &'a str,
    /// Seconds.
    pub interval: i32,
    /// Milliseconds.
    pub timeout: i32,
    pub threshold: i32,
}

impl<'a> Sidecar<'a> {
    pub fn resolve(pod: &'a Pod<'a>, settings: &'a Settings) -> Self {
        let from = Reader(&pod.metadata.annotations);
        Self {
            app_id: pod.app_id(),
            app_port: from.int32(key::APP_PORT, 0),
            app_protocol: from.text(key::APP_PROTOCOL, "http"),
            app_ssl: from.flag(key::APP_SSL, false),
            app_channel_address: from.text(key::APP_CHANNEL_ADDRESS, ""),
            app_max_concurrency: from.int(key::APP_MAX_CONCURRENCY),
            app_token_secret: from.text(key::APP_TOKEN_SECRET, ""),
            api_token_secret: from.text(key::API_TOKEN_SECRET, ""),
            app_binding_options_timeout: from.get(key::APP_BINDING_OPTIONS_TIMEOUT),
            config: from.text(key::CONFIG, ""),
            log_level: from.text(key::LOG_LEVEL, "info"),
            log_as_json: from.flag(key::LOG_AS_JSON, false),
            api_logging: from.get(key::ENABLE_API_LOGGING).map(truthy),
            profiling: from.flag(key::ENABLE_PROFILING, false),
            metrics: from.flag(key::ENABLE_METRICS, true),
            metrics_port: from.int32(key::METRICS_PORT, 9090),
            debug_port: from
                .flag(key::ENABLE_DEBUG, false)
                .then(|| from.int32(key::DEBUG_PORT, 40000)),
            env: from.text(key::ENV, ""),
            env_from_secret: from.text(key::ENV_FROM_SECRET, ""),
            grpc_port: from.int32(key::GRPC_PORT, 50001),
            internal_grpc_port: from.int32(key::INTERNAL_GRPC_PORT, 50002),
            listen_addresses: from.text(key::SIDECAR_LISTEN_ADDRESSES, "[::1],127.0.0.1"),
            image: from.text(key::SIDECAR_IMAGE, &settings.image),
            cpu_request: from.text(key::SIDECAR_CPU_REQUEST, ""),
            cpu_limit: from.text(key::SIDECAR_CPU_LIMIT, ""),
            memory_request: from.text(key::SIDECAR_MEMORY_REQUEST, ""),
            memory_limit: from.text(key::SIDECAR_MEMORY_LIMIT, ""),
            liveness: Probe {
                delay: from.int32(key::LIVENESS_DELAY, 180),
                timeout: from.int32(key::LIVENESS_TIMEOUT, 3),
                period: from.int32(key::LIVENESS_PERIOD, 10),
                threshold: from.int32(key::LIVENESS_THRESHOLD, 5),
            },
            readiness: Probe {
                delay: from.int32(key::READINESS_DELAY, 1),
                timeout: from.int32(key::READINESS_TIMEOUT, 1),
                period: from.int32(key::READINESS_PERIOD, 1),
                threshold: from.int32(key::READINESS_THRESHOLD, 5),
            },
            seccomp_profile_type: from.text(key::SECCOMP_PROFILE_TYPE, &settings.security.seccomp_profile_type),
            http_max_request_size: from.int(key::HTTP_MAX_REQUEST_SIZE),
            max_body_size: from.text(key::MAX_BODY_SIZE, ""),
            http_read_buffer_size: from.int(key::HTTP_READ_BUFFER_SIZE),
            read_buffer_size: from.text(key::READ_BUFFER_SIZE, ""),
            graceful_shutdown_seconds: from.int(key::GRACEFUL_SHUTDOWN_SECONDS).unwrap_or(-1),
            block_shutdown_duration: from.get(key::BLOCK_SHUTDOWN_DURATION),
            unix_domain_socket_path: from.text(key::UNIX_DOMAIN_SOCKET_PATH, ""),
            volume_mounts: from.text(key::VOLUME_MOUNTS, ""),
            volume_mounts_rw: from.text(key::VOLUME_MOUNTS_RW, ""),
            disable_builtin_secret_store: from.flag(key::DISABLE_BUILTIN_SECRET_STORE, false),
            app_health: from.flag(key::ENABLE_APP_HEALTH_CHECK, false).then(|| AppHealth {
                path: from.text(key::APP_HEALTH_CHECK_PATH, "/healthz"),
                interval: from.int32(key::APP_HEALTH_PROBE_INTERVAL, 5),
                timeout: from.int32(key::APP_HEALTH_PROBE_TIMEOUT, 500),
                threshold: from.int32(key::APP_HEALTH_THRESHOLD, 3),
            }),
            placement_host_address: from
                .get(key::PLACEMENT_HOST_ADDRESS)
                .map_or(&settings.placement_address, unquoted),
            actors_disseminate_timeout: from.get(key::ACTORS_DISSEMINATE_TIMEOUT),
            scheduler_host_address: from
                .get(key::SCHEDULER_HOST_ADDRESS)
                .map(unquoted)
                .or(settings.scheduler_address.as_deref()),
            pluggable_components: from.text(key::PLUGGABLE_COMPONENTS, ""),
            component_sockets_folder: match from.text(key::PLUGGABLE_COMPONENTS_SOCKETS_FOLDER, "") {
                "" => &settings.component_sockets_folder,
                folder => folder,
            },
            inject_pluggable_components: from.flag(key::INJECT_PLUGGABLE_COMPONENTS, false),
            jwt_audiences: from.text(key::SENTRY_REQUEST_JWT_AUDIENCES, ""),
            disable_init_endpoints: from.get(key::DISABLE_INIT_ENDPOINTS),
            native: from.flag(key::ENABLE_NATIVE_SIDECAR, settings.native_sidecar),
        }
    }

    /// The protocol as app containers see it, with the deprecated TLS switch folded in; `None` when it is unknown.
    pub fn normalised_protocol(&self) -> Option<&'static str> {
        match self.app_protocol.to_lowercase().as_str() {
            "" | "http" if self.app_ssl => Some("https"),
            "" | "http" => Some("http"),
            "grpc" if self.app_ssl => Some("grpcs"),
            "grpc" => Some("grpc"),
            "https" => Some("https"),
            "grpcs" => Some("grpcs"),
            "h2c" => Some("h2c"),
            _ => None,
        }
    }

    /// Containers of the pod that are pluggable components. Names are not trimmed, as upstream has it.
    pub fn component_containers(&self) -> HashSet<&'a str> {
        if self.pluggable_components.is_empty() {
            return HashSet::new();
        }
        self.pluggable_components.split(',').collect()
    }
}

/// Strips quotes, then white space: values that mean "empty" in templates.
fn unquoted(value: &str) -> &str {
    value.trim_matches(['"', '\'']).trim()
}

/// Reads typed values. What cannot be read counts as absent; [`crate::warnings`] tells the user.
struct Reader<'a>(&'a Map<'a>);

impl<'a> Reader<'a> {
    fn get(&self, key: &str) -> Option<&'a str> {
        self.0.get(key).map(Deref::deref)
    }

    fn text(&self, key: &str, default: &'a str) -> &'a str {
        self.get(key).unwrap_or(default)
    }

    fn flag(&self, key: &str, default: bool) -> bool {
        self.get(key).map_or(default, truthy)
    }

    fn int(&self, key: &str) -> Option<i64> {
        self.get(key)?.parse().ok()
    }

    fn int32(&self, key: &str, default: i32) -> i32 {
        self.get(key).and_then(|value| value.parse().ok()).unwrap_or(default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_empty_values_are_empty() {
        for empty in ["", "''", "\"\"", " ", "\" \"", "\"''\""] {
            assert_eq!(unquoted(empty), "", "{empty:?}");
        }
        assert_eq!(unquoted("'host:1'"), "host:1");
    }

    #[test]
    fn integers_follow_go() {
        let map: Map<'_> = [
            ("a", "+5"),
            ("b", "-5"),
            ("c", " 5"),
            ("d", "1_0"),
            ("e", ""),
            ("f", "2147483648"),
        ]
        .map(|(key, value)| (key.into(), value.into()))
        .into();
        let from = Reader(&map);
        assert_eq!((from.int("a"), from.int("b"), from.int("c")), (Some(5), Some(-5), None));
        assert_eq!(
            (from.int("d"), from.int("e"), from.int("f")),
            (None, None, Some(2_147_483_648))
        );
        assert_eq!(from.int32("f", 7), 7, "an overflow is a mistake, not another number");
    }
}
