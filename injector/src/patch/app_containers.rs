//! What the pod's own containers get: the sidecar's ports, the app's protocol, the sockets.

use k8s_openapi::api::core::v1::{EnvVar, VolumeMount};

use super::{HTTP_PORT, env, operations::Operations, volumes};
use crate::{pod::Container, sidecar::Sidecar};

/// Variables for every app container.
pub(super) fn variables(sidecar: &Sidecar<'_>) -> Vec<EnvVar> {
    let mut variables = vec![
        env::variable("DAPR_HTTP_PORT", &HTTP_PORT.to_string()),
        env::variable("DAPR_GRPC_PORT", &sidecar.grpc_port.to_string()),
    ];
    variables.extend(
        sidecar
            .normalised_protocol()
            .map(|protocol| env::variable("APP_PROTOCOL", protocol)),
    );
    variables
}

/// The mount of the sidecar's sockets, when the app wants them.
pub(super) fn sockets_mount(sidecar: &Sidecar<'_>) -> Option<VolumeMount> {
    (!sidecar.unix_domain_socket_path.is_empty())
        .then(|| volumes::mount(volumes::SOCKETS, sidecar.unix_domain_socket_path))
}

/// Adds variables that the container at `path` does not set itself.
pub(super) fn add_env(operations: &mut Operations, path: &str, container: &Container<'_>, variables: &[EnvVar]) {
    let new: Vec<&EnvVar> = variables
        .iter()
        .filter(|variable| !container.has_env(&variable.name))
        .collect();
    let list = format!("{path}/env");
    operations.append(&list, container.env.is_empty(), &new);
}

/// Adds a mount unless the container at `path` has one of that name or at that mount path.
pub(super) fn add_mount(operations: &mut Operations, path: &str, container: &Container<'_>, mount: &VolumeMount) {
    let mut existing = container.volume_mounts.iter();
    if existing.any(|other| *other.name == *mount.name || *other.mount_path == *mount.mount_path) {
        return;
    }
    let list = format!("{path}/volumeMounts");
    operations.append(&list, container.volume_mounts.is_empty(), &[mount]);
}
