//! Pluggable components: containers of the pod that are components, and containers that Component resources bring along.

use std::collections::HashSet;

use outrigger_core::scopes;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{ALWAYS, app_containers, env, operations::Operations, volumes};
use crate::{
    pod::{Container, Pod},
    sidecar::Sidecar,
};

/// A Component that brings a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentContainer {
    pub component: String,
    pub scopes: Vec<String>,
    /// The annotation as it is on the Component.
    pub json: String,
}

/// The pluggable components of one pod.
#[derive(Debug, Default)]
pub struct Components {
    /// Indexes of the pod's containers that are components.
    in_pod: Vec<usize>,
    /// Indexes of its native sidecars that are components; only a native daprd comes after them.
    native_in_pod: Vec<usize>,
    /// Containers to add.
    injected: Vec<Map<String, Value>>,
}

/// Field names of a container; upstream reads them in any case.
const FIELDS: [&str; 25] = [
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "ports",
    "envFrom",
    "env",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "volumeMounts",
    "volumeDevices",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "imagePullPolicy",
    "securityContext",
    "stdin",
    "stdinOnce",
    "tty",
];

impl Components {
    /// `brought` are the containers of Components in the pod's namespace; those of other apps are passed over, and so is a
    /// second one of the same image. What cannot be read is skipped with a warning.
    pub fn select(
        pod: &Pod<'_>,
        sidecar: &Sidecar<'_>,
        brought: &[ComponentContainer],
        warnings: &mut Vec<String>,
    ) -> Self {
        let listed = sidecar.component_containers();
        let is_component = |container: &Container<'_>| listed.contains(&*container.name);
        let in_pod = indexes(&pod.spec.containers, is_component);
        let native_in_pod = indexes(&pod.spec.init_containers, |container| {
            sidecar.native && &*container.restart_policy == ALWAYS && is_component(container)
        });
        let mut images = HashSet::new();
        let mut injected = Vec::new();
        for component in brought {
            let mut container = match parse(&component.json) {
                Ok(Some(container)) => container,
                // The annotation is `null`.
                Ok(None) => continue,
                Err(error) => {
                    warnings.push(format!(
                        "Component {:?}: annotation dapr.io/component-container is not a container: {error}",
                        component.component
                    ));
                    continue;
                }
            };
            let image = text(&container, "image").to_owned();
            if images.contains(&image) || !scopes::in_scope(&component.scopes, sidecar.app_id) {
                continue;
            }
            images.insert(image);
            if text(&container, "name").is_empty() {
                container.insert("name".to_owned(), component.component.clone().into());
            }
            injected.push(container);
        }
        Self {
            in_pod,
            native_in_pod,
            injected,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.in_pod.is_empty() && self.native_in_pod.is_empty() && self.injected.is_empty()
    }

    /// Where among the init containers a native daprd belongs: before all of the app's, so that they can use it, and after
    /// its components, whose sockets it opens when it starts.
    pub fn native_position(&self) -> usize {
        self.native_in_pod.last().map_or(0, |last| last + 1)
    }

    /// Adds the volume with the sockets, tells the pod's component containers of it, and adds the others. Beside a native
    /// daprd they all become native sidecars in front of it: they have to run when it starts, and must not keep a Job from
    /// completing.
    pub fn apply(
        self,
        operations: &mut Operations,
        volumes: &mut volumes::Volumes,
        pod: &Pod<'_>,
        sidecar: &Sidecar<'_>,
    ) {
        if self.is_empty() {
            return;
        }
        let folder = sidecar.component_sockets_folder;
        let variable = env::variable(env::COMPONENT_SOCKETS_FOLDER, folder);
        let mount = volumes::mount(volumes::COMPONENT_SOCKETS, folder);
        volumes.add(operations, [volumes::empty_dir(volumes::COMPONENT_SOCKETS)]);
        let position = self.native_position();
        let in_pod = self
            .in_pod
            .iter()
            .map(|&index| ("containers", index, &pod.spec.containers));
        let native = self.native_in_pod.iter();
        let native = native.map(|&index| ("initContainers", index, &pod.spec.init_containers));
        for (list, index, containers) in in_pod.chain(native) {
            let path = format!("/spec/{list}/{index}");
            app_containers::add_env(operations, &path, &containers[index], std::slice::from_ref(&variable));
            app_containers::add_mount(operations, &path, &containers[index], &mount);
        }
        let mut next = position;
        for mut container in self.injected {
            for name in mounted_volumes(&container) {
                volumes.add(operations, [volumes::empty_dir(&name)]);
            }
            push(&mut container, "env", &variable);
            push(&mut container, "volumeMounts", &mount);
            container.entry("resources").or_insert_with(|| Map::new().into());
            if sidecar.native {
                container.insert("restartPolicy".to_owned(), ALWAYS.into());
                operations.add(&native_path(next), &container);
                next += 1;
            } else {
                operations.add("/spec/containers/-", &container);
            }
        }
        // A pod needs a container that is no sidecar.
        if sidecar.native && self.in_pod.len() < pod.spec.containers.len() {
            // From the last to the first, so that the indexes of the others stay what they are.
            for index in self.in_pod.into_iter().rev() {
                operations.relocate(&format!("/spec/containers/{index}"), &native_path(next));
                operations.add(&format!("{}/restartPolicy", native_path(next)), ALWAYS);
            }
        }
    }
}

fn native_path(index: usize) -> String {
    format!("/spec/initContainers/{index}")
}

fn indexes(containers: &[Container<'_>], of: impl Fn(&Container<'_>) -> bool) -> Vec<usize> {
    let all = containers.iter().enumerate();
    all.filter(|(_, container)| of(container))
        .map(|(index, _)| index)
        .collect()
}

/// Reads a container, with its field names as Kubernetes spells them; `None` for `null`.
fn parse(json: &str) -> Result<Option<Map<String, Value>>, String> {
    let Some(read) = serde_json::from_str::<Option<Map<String, Value>>>(json).map_err(|error| error.to_string())?
    else {
        return Ok(None);
    };
    let spelled = |name: String| {
        let field = FIELDS.into_iter().find(|field| field.eq_ignore_ascii_case(&name));
        field.map_or(name, str::to_owned)
    };
    let container: Map<String, Value> = read
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (spelled(name), value))
        .collect();
    for field in ["name", "image"] {
        if container.get(field).is_some_and(|value| !value.is_string()) {
            return Err(format!("{field} is not a string"));
        }
    }
    for field in ["env", "volumeMounts"] {
        if container.get(field).is_some_and(|value| !value.is_array()) {
            return Err(format!("{field} is not a list"));
        }
    }
    Ok(Some(container))
}

fn text<'a>(container: &'a Map<String, Value>, field: &str) -> &'a str {
    container.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn mounted_volumes(container: &Map<String, Value>) -> Vec<String> {
    let mounts = container.get("volumeMounts").and_then(Value::as_array);
    mounts
        .into_iter()
        .flatten()
        .filter_map(|mount| mount.get("name")?.as_str().map(str::to_owned))
        .collect()
}

fn push(container: &mut Map<String, Value>, field: &str, value: &impl Serialize) {
    let value = serde_json::to_value(value).expect("Kubernetes types have string keys and finite numbers only");
    let list = container.entry(field).or_insert_with(|| Value::Array(Vec::new()));
    // Anything but a list was refused when the container was read.
    if let Some(list) = list.as_array_mut() {
        list.push(value);
    }
}
