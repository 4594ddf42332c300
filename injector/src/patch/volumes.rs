//! Volumes of the pod, and the sidecar's mounts.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, EmptyDirVolumeSource, ProjectedVolumeSource, ServiceAccountTokenProjection, Volume,
    VolumeMount, VolumeProjection,
};
use outrigger_core::control_plane::Service;

use super::operations::Operations;
use crate::{pod::Pod, settings::Settings, sidecar::Sidecar};

/// Volume with the sidecar's API sockets, and where the sidecar sees it.
pub const SOCKETS: &str = "dapr-unix-domain-socket";
pub const SOCKETS_IN_SIDECAR: &str = "/var/run/dapr-sockets";
/// Volume with the sockets of pluggable components.
pub const COMPONENT_SOCKETS: &str = "dapr-components-unix-domain-socket";
const TOKEN: &str = "dapr-identity-token";
const TOKEN_IN_SIDECAR: &str = "/var/run/secrets/dapr.io/sentrytoken";
/// Volume with the trust anchors.
const TRUST_ANCHORS: &str = "dapr-root-ca";
/// Mounted as a folder: a file of its own would never change.
const TRUST_ANCHORS_IN_SIDECAR: &str = "/var/run/secrets/dapr.io/root-ca";
/// Where the sidecar reads them.
pub const TRUST_ANCHORS_FILE: &str = "/var/run/secrets/dapr.io/root-ca/ca.crt";
/// Upstream's; the kubelet replaces the token in good time.
const TOKEN_SECONDS: i64 = 7200;

/// Adds volumes to a pod, each name once.
pub struct Volumes {
    names: HashSet<String>,
    /// The pod has no list of volumes so far.
    absent: bool,
}

impl Volumes {
    pub fn new(pod: &Pod<'_>) -> Self {
        Self {
            names: pod.spec.volumes.iter().map(|volume| volume.name.to_string()).collect(),
            absent: pod.spec.volumes.is_empty(),
        }
    }

    /// Adds those whose names are not in use yet.
    pub fn add(&mut self, operations: &mut Operations, volumes: impl IntoIterator<Item = Volume>) {
        let new: Vec<Volume> = volumes
            .into_iter()
            .filter(|volume| self.names.insert(volume.name.clone()))
            .collect();
        let absent = self.absent;
        self.absent &= new.is_empty();
        operations.append("/spec/volumes", absent, &new);
    }
}

/// The volumes that the sidecar itself needs.
pub fn of_sidecar(sidecar: &Sidecar<'_>, settings: &Settings) -> Vec<Volume> {
    let mut volumes = Vec::new();
    if !sidecar.unix_domain_socket_path.is_empty() {
        volumes.push(Volume {
            name: SOCKETS.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource {
                medium: Some("Memory".to_owned()),
                ..EmptyDirVolumeSource::default()
            }),
            ..Volume::default()
        });
    }
    if settings.token_volume {
        volumes.push(token(settings));
    }
    volumes.extend(settings.trust_anchors_config_map.as_deref().map(trust_anchors));
    volumes
}

/// Optional, so that a pod need not wait for its namespace's first ConfigMap: the kubelet fills the folder later.
fn trust_anchors(config_map: &str) -> Volume {
    Volume {
        name: TRUST_ANCHORS.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: config_map.to_owned(),
            optional: Some(true),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn token(settings: &Settings) -> Volume {
    // Written out: the namespace comes from our own pod, so it needs no check here.
    let audience = format!(
        "spiffe://{}/ns/{}/{}",
        settings.trust_domain,
        settings.namespace,
        Service::Sentry.app_id()
    );
    let source = VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            audience: Some(audience),
            expiration_seconds: Some(TOKEN_SECONDS),
            path: "token".to_owned(),
        }),
        ..VolumeProjection::default()
    };
    Volume {
        name: TOKEN.to_owned(),
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(0o644),
            sources: Some(vec![source]),
        }),
        ..Volume::default()
    }
}

pub fn empty_dir(name: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    }
}

/// The sidecar's mounts: the user's first.
pub fn mounts(sidecar: &Sidecar<'_>, settings: &Settings, pod: &Pod<'_>, component_sockets: bool) -> Vec<VolumeMount> {
    let mut mounts = Vec::new();
    let volumes = pod.volume_names();
    for (list, read_only) in [(sidecar.volume_mounts, Some(true)), (sidecar.volume_mounts_rw, None)] {
        for (name, path) in entries(list).filter_map(Result::ok) {
            if volumes.contains(name) {
                mounts.push(VolumeMount {
                    read_only,
                    ..mount(name, path)
                });
            }
        }
    }
    if !sidecar.unix_domain_socket_path.is_empty() {
        mounts.push(mount(SOCKETS, SOCKETS_IN_SIDECAR));
    }
    if settings.token_volume {
        mounts.push(VolumeMount {
            read_only: Some(true),
            ..mount(TOKEN, TOKEN_IN_SIDECAR)
        });
    }
    if settings.trust_anchors_config_map.is_some() {
        mounts.push(VolumeMount {
            read_only: Some(true),
            ..mount(TRUST_ANCHORS, TRUST_ANCHORS_IN_SIDECAR)
        });
    }
    if component_sockets {
        mounts.push(mount(COMPONENT_SOCKETS, sidecar.component_sockets_folder));
    }
    mounts
}

pub fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        ..VolumeMount::default()
    }
}

/// Volume and path of each `volume:path`; what is not exactly that is an error, with the entry.
pub fn entries(list: &str) -> impl Iterator<Item = Result<(&str, &str), &str>> {
    list.split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .map(|entry| match entry.split_once(':') {
            Some((name, path)) if !path.contains(':') => Ok((name, path)),
            _ => Err(entry),
        })
}
