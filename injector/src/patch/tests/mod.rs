//! Pods in, patched pods out.

mod apps;
mod components;
mod container;
mod golden;
mod volumes;

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{Injection, components::ComponentContainer, patch};
use crate::{environment::Environment, pod::Pod, settings::Settings, sidecar::Sidecar};

/// As the chart renders it with defaults.
const CHART: [(&str, &str); 15] = [
    ("DAPR_TRUST_ANCHORS_FILE", "/var/run/secrets/dapr.io/tls/ca.crt"),
    ("DAPR_CONTROL_PLANE_TRUST_DOMAIN", "cluster.local"),
    ("DAPR_SENTRY_ADDRESS", "dapr-sentry.dapr-system.svc.cluster.local:443"),
    ("KUBE_CLUSTER_DOMAIN", "cluster.local"),
    ("SIDECAR_IMAGE", "ghcr.io/dapr/daprd:1.0"),
    ("SIDECAR_IMAGE_PULL_POLICY", "IfNotPresent"),
    ("SIDECAR_RUN_AS_NON_ROOT", "true"),
    ("ENABLE_K8S_DOWNWARD_APIS", "false"),
    ("SIDECAR_DROP_ALL_CAPABILITIES", "false"),
    ("SIDECAR_READ_ONLY_ROOT_FILESYSTEM", "true"),
    ("NATIVE_SIDECAR_ENABLED", "false"),
    ("NAMESPACE", "dapr-system"),
    ("ACTORS_ENABLED", "true"),
    ("ACTORS_SERVICE_NAME", "placement"),
    ("ACTORS_SERVICE_ADDRESS", "dapr-placement-server:50005"),
];

/// The chart's settings.
pub(crate) fn settings() -> Settings {
    settings_with(&[])
}

/// The chart's settings with other variables on top.
pub(crate) fn settings_with(variables: &[(&str, &str)]) -> Settings {
    let all: HashMap<String, String> = CHART
        .iter()
        .chain(variables)
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    Settings::new(&Environment::parse(&all).unwrap(), "cluster.local", true, true)
}

/// A pod with one container `main` and these annotations, which stand without their prefix.
fn pod(annotations: &[(&str, &str)]) -> Value {
    let annotations: serde_json::Map<String, Value> = annotations
        .iter()
        .map(|(key, value)| (format!("dapr.io/{key}"), (*value).into()))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "myapp-0", "labels": {"app": "x"}, "annotations": annotations},
        "spec": {"containers": [{"name": "main", "image": "app", "fieldOfTheFuture": {"a": 1}}]},
    })
}

/// What happened to a pod.
struct Patched {
    pod: Value,
    operations: Vec<Value>,
    warnings: Vec<String>,
}

impl Patched {
    fn paths(&self) -> Vec<&str> {
        self.operations
            .iter()
            .map(|operation| operation["path"].as_str().unwrap())
            .collect()
    }

    fn container(&self, name: &str) -> &Value {
        let lists = [&self.pod["spec"]["containers"], &self.pod["spec"]["initContainers"]];
        let mut containers = lists.into_iter().filter_map(Value::as_array).flatten();
        containers.find(|container| container["name"] == name).unwrap()
    }

    fn daprd(&self) -> &Value {
        self.container("daprd")
    }

    fn args(&self) -> Vec<&str> {
        strings(&self.daprd()["args"])
    }

    /// The argument behind this one.
    fn arg(&self, name: &str) -> Option<&str> {
        let args = self.args();
        let at = args.iter().position(|arg| *arg == name)?;
        args.get(at + 1).copied()
    }

    fn env(&self, container: &str, name: &str) -> &Value {
        let env = self.container(container)["env"].as_array().unwrap();
        env.iter()
            .find(|variable| variable["name"] == name)
            .unwrap_or(&Value::Null)
    }

    fn init_names(&self) -> Vec<&str> {
        let containers = self.pod["spec"]["initContainers"].as_array().unwrap();
        containers
            .iter()
            .map(|container| container["name"].as_str().unwrap())
            .collect()
    }

    fn volume_names(&self) -> Vec<&str> {
        let volumes = self.pod["spec"]["volumes"].as_array().unwrap();
        volumes.iter().map(|volume| volume["name"].as_str().unwrap()).collect()
    }
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|text| text.as_str().unwrap())
        .collect()
}

fn inject(pod: &Value) -> Patched {
    inject_with(pod, &settings(), &[])
}

/// Patches a pod of namespace `default`, applies the patch to it, and compares nothing.
fn inject_with(pod: &Value, settings: &Settings, components: &[ComponentContainer]) -> Patched {
    let json = pod.to_string();
    let decoded = Pod::decode(&json).unwrap();
    let injection = Injection {
        pod: &decoded,
        namespace: "default",
        settings,
        mtls: true,
        trust_anchors: "anchors",
        components,
    };
    let mut warnings = Vec::new();
    let operations = patch(&injection, &Sidecar::resolve(&decoded, settings), &mut warnings);
    let operations: Value = serde_json::from_slice(operations.as_json()).unwrap();
    let mut patched = pod.clone();
    let read: json_patch::Patch = serde_json::from_value(operations.clone()).unwrap();
    json_patch::patch(&mut patched, &read).unwrap();
    Patched {
        pod: patched,
        operations: operations.as_array().unwrap().clone(),
        warnings,
    }
}
