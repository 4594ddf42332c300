//! From a pod to the JSON patch that gives it a sidecar. No I/O, no clock: everything that the patch depends on is in
//! [`Injection`].

mod app_containers;
mod args;
pub mod components;
mod container;
pub mod env;
mod operations;
mod probes;
pub mod quantity;
mod resources;
pub mod tolerations;
pub mod volumes;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;

use outrigger_core::annotations as names;

pub use self::operations::Operations;
use self::{
    components::{ComponentContainer, Components},
    volumes::Volumes,
};
use crate::{pod::Pod, settings::Settings, sidecar::Sidecar};

/// Port of the sidecar's HTTP API; not configurable.
const HTTP_PORT: i32 = 3500;
/// Port of its health endpoints that the kubelet reaches; not configurable.
const PUBLIC_PORT: i32 = 3501;

/// The restart policy that makes an init container a native sidecar.
const ALWAYS: &str = "Always";

/// All that a patch depends on.
#[derive(Debug, Clone, Copy)]
pub struct Injection<'a> {
    pub pod: &'a Pod<'a>,
    /// The pod's, from the request: the object itself may lack it.
    pub namespace: &'a str,
    pub settings: &'a Settings,
    /// Whether sidecars use mTLS among themselves.
    pub mtls: bool,
    /// PEM.
    pub trust_anchors: &'a str,
    /// Containers of Components in the pod's namespace; empty unless the pod asks for them.
    pub components: &'a [ComponentContainer],
}

/// The patch for a pod that is to get a sidecar. What a user asked for and does not get is added to `warnings`.
pub fn patch(injection: &Injection<'_>, sidecar: &Sidecar<'_>, warnings: &mut Vec<String>) -> Operations {
    let Injection { pod, settings, .. } = *injection;
    let components = Components::select(pod, sidecar, injection.components, warnings);
    let daprd = container::container(injection, sidecar, !components.is_empty());

    let mut operations = Operations::default();
    if pod.spec.containers.is_empty() {
        operations.add::<[(); 0]>("/spec/containers", &[]);
    }
    if pod.metadata.labels.is_empty() {
        operations.add("/metadata/labels", &BTreeMap::<(), ()>::new());
    }
    let mut volumes = Volumes::new(pod);
    let needed = volumes::of_sidecar(sidecar, settings);
    let of_pod = pod.volume_names();
    warnings.extend(
        needed
            .iter()
            .filter(|volume| of_pod.contains(volume.name.as_str()))
            .map(|volume| {
                format!(
                    "the pod has a volume named {} already; the sidecar uses it in place of its own",
                    volume.name
                )
            }),
    );
    volumes.add(&mut operations, needed);
    let position = components.native_position();
    match (sidecar.native, pod.spec.init_containers.is_empty()) {
        (false, _) => operations.add("/spec/containers/-", &daprd),
        (true, true) => operations.add("/spec/initContainers", &[daprd]),
        (true, false) => operations.add(&format!("/spec/initContainers/{position}"), &daprd),
    }
    for (label, value) in [
        (names::LABEL_INJECTED, "true"),
        (names::APP_ID, sidecar.app_id),
        (
            "dapr.io/metrics-enabled",
            if sidecar.metrics { "true" } else { "false" },
        ),
    ] {
        operations.add_key("/metadata/labels", label, value);
    }
    add_to_apps(&mut operations, pod, sidecar, position);
    components.apply(&mut operations, &mut volumes, pod, sidecar);
    operations
}

/// Tells the app's containers where the sidecar is. Its init containers as well when a native sidecar, at this `position`
/// among them, runs before they do; upstream tells them never.
fn add_to_apps(operations: &mut Operations, pod: &Pod<'_>, sidecar: &Sidecar<'_>, position: usize) {
    let containers = pod.spec.containers.iter().enumerate();
    let init = pod.spec.init_containers.iter().enumerate();
    let init = init.filter(|(index, _)| sidecar.native && *index >= position);
    let components = sidecar.component_containers();
    let apps: Vec<_> = containers
        .map(|(index, container)| (format!("/spec/containers/{index}"), container))
        .chain(init.map(|(index, container)| (format!("/spec/initContainers/{}", index + 1), container)))
        .filter(|(_, container)| !components.contains(&*container.name))
        .collect();
    let variables = app_containers::variables(sidecar);
    for (path, container) in &apps {
        app_containers::add_env(operations, path, container, &variables);
    }
    if let Some(mount) = app_containers::sockets_mount(sidecar) {
        for (path, container) in &apps {
            app_containers::add_mount(operations, path, container, &mount);
        }
    }
}
