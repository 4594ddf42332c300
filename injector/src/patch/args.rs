//! The sidecar's arguments, in upstream's order.

use super::{HTTP_PORT, PUBLIC_PORT, volumes::SOCKETS_IN_SIDECAR};
use crate::{settings::Settings, sidecar::Sidecar};

/// All arguments but the program's name. `mtls` is what the control plane's Configuration says.
pub(super) fn args(sidecar: &Sidecar<'_>, settings: &Settings, mtls: bool) -> Vec<String> {
    let mut args = Args::default();
    args.pair("--dapr-http-port", HTTP_PORT);
    args.pair("--dapr-grpc-port", sidecar.grpc_port);
    args.pair("--dapr-internal-grpc-port", sidecar.internal_grpc_port);
    args.pair("--dapr-listen-addresses", sidecar.listen_addresses);
    args.pair("--dapr-public-port", PUBLIC_PORT);
    args.pair("--app-id", sidecar.app_id);
    args.pair("--app-protocol", sidecar.app_protocol);
    args.pair("--log-level", sidecar.log_level);
    args.pair("--dapr-graceful-shutdown-seconds", sidecar.graceful_shutdown_seconds);
    args.pair("--mode", "kubernetes");
    args.pair("--control-plane-address", &settings.operator_address);
    args.pair("--sentry-address", &settings.sentry_address);
    args.pair_if("--app-port", (sidecar.app_port > 0).then_some(sidecar.app_port));
    if sidecar.metrics {
        args.flag("--enable-metrics", true);
        args.pair("--metrics-port", sidecar.metrics_port);
    }
    args.text("--config", sidecar.config);
    args.text("--app-channel-address", sidecar.app_channel_address);
    if sidecar.placement_host_address.is_empty() {
        args.pair_if("--actors-service", settings.actors_service.as_deref());
    } else {
        args.pair("--placement-host-address", sidecar.placement_host_address);
    }
    args.pair_if("--reminders-service", settings.reminders_service.as_deref());
    args.text("--sentry-request-jwt-audiences", sidecar.jwt_audiences);
    if let Some(on) = sidecar.api_logging {
        args.0.push(format!("--enable-api-logging={on}"));
    }
    args.flag(
        "--disable-builtin-k8s-secret-store",
        sidecar.disable_builtin_secret_store,
    );
    if let Some(health) = sidecar.app_health {
        args.flag("--enable-app-health-check", true);
        args.pair("--app-health-check-path", health.path);
        args.pair("--app-health-probe-interval", health.interval);
        args.pair("--app-health-probe-timeout", health.timeout);
        args.pair("--app-health-threshold", health.threshold);
    }
    args.pair_if("--app-binding-options-timeout", sidecar.app_binding_options_timeout);
    args.flag("--log-as-json", sidecar.log_as_json);
    args.flag("--enable-profiling", sidecar.profiling);
    args.flag("--enable-mtls", mtls);
    args.flag("--app-ssl", sidecar.app_ssl);
    args.pair_if("--app-max-concurrency", sidecar.app_max_concurrency);
    args.pair_if("--dapr-http-max-request-size", sidecar.http_max_request_size);
    args.text("--max-body-size", sidecar.max_body_size);
    args.pair_if("--dapr-http-read-buffer-size", sidecar.http_read_buffer_size);
    args.text("--read-buffer-size", sidecar.read_buffer_size);
    if !sidecar.unix_domain_socket_path.is_empty() {
        args.pair("--unix-domain-socket", SOCKETS_IN_SIDECAR);
    }
    args.pair_if("--dapr-block-shutdown-duration", sidecar.block_shutdown_duration);
    args.pair_if("--actors-disseminate-timeout", sidecar.actors_disseminate_timeout);
    args.pair_if("--scheduler-host-address", sidecar.scheduler_host_address);
    args.pair_if("--disable-init-endpoints", sidecar.disable_init_endpoints);
    args.0
}

#[derive(Default)]
struct Args(Vec<String>);

impl Args {
    /// Name and value are two arguments.
    fn pair(&mut self, name: &str, value: impl ToString) {
        self.0.extend([name.to_owned(), value.to_string()]);
    }

    fn pair_if(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.pair(name, value);
        }
    }

    /// Only when there is a text.
    fn text(&mut self, name: &str, value: &str) {
        self.pair_if(name, Some(value).filter(|value| !value.is_empty()));
    }

    fn flag(&mut self, name: &str, on: bool) {
        if on {
            self.0.push(name.to_owned());
        }
    }
}
