//! The Service that a workload's annotations ask for.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use kube::Resource;
use outrigger_core::{annotations, app_id};
use outrigger_process::kubernetes::watch::ObjectKey;

use super::workload::{Kind, Owner, Workload};

const GRPC_PORT: &str = "dapr.io/grpc-port";
const INTERNAL_GRPC_PORT: &str = "dapr.io/internal-grpc-port";
const METRICS_PORT: &str = "dapr.io/metrics-port";
const ENABLE_METRICS: &str = "dapr.io/enable-metrics";
const CUSTOM_ANNOTATIONS: &str = "dapr.io/sidecar-svc-annotations";

/// A Service to be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Desired {
    pub(super) owner: Owner,
    pub(super) app_id: String,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) selector: BTreeMap<String, String>,
    /// In upstream's order.
    pub(super) ports: Vec<Port>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) name: &'static str,
    pub(super) port: i32,
    pub(super) target: i32,
    pub(super) app_protocol: &'static str,
}

/// What a workload asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Wanted {
    /// No sidecar, so no Service.
    Nothing,
    /// A Service that cannot be, and why.
    Invalid(String),
    Service(Box<Desired>),
}

/// Reads a workload's annotations.
pub(super) fn wanted<K: Resource<DynamicType = ()>>(kind: Kind, workload: &Workload<K>, mtls: bool) -> Wanted {
    let given = &workload.spec.template.metadata.annotations;
    let enabled = given
        .get(annotations::ENABLED)
        .is_some_and(|value| annotations::truthy(value));
    if !enabled || workload.metadata.deletion_timestamp.is_some() {
        return Wanted::Nothing;
    }
    let app = given.get(annotations::APP_ID).map(String::as_str).unwrap_or_default();
    if let Err(error) = app_id::validate(app) {
        return Wanted::Invalid(error.to_string());
    }
    // What is no number falls back silently, as in upstream: the injector reports it.
    let number = |key, default| given.get(key).and_then(|text| text.parse().ok()).unwrap_or(default);
    let metrics_port = number(METRICS_PORT, 9090);
    let desired = Desired {
        owner: Owner::of(kind, workload),
        app_id: app.to_owned(),
        annotations: service_annotations(given, app, metrics_port),
        selector: workload.spec.selector.match_labels.clone(),
        ports: ports(
            number(GRPC_PORT, 50001),
            number(INTERNAL_GRPC_PORT, 50002),
            metrics_port,
            mtls,
        ),
    };
    match clash(&desired.ports) {
        Some(clash) => Wanted::Invalid(clash),
        None => Wanted::Service(Box::new(desired)),
    }
}

fn service_annotations(given: &BTreeMap<String, String>, app: &str, metrics_port: i32) -> BTreeMap<String, String> {
    let mut all = BTreeMap::from([(annotations::APP_ID.to_owned(), app.to_owned())]);
    let metrics = given.get(ENABLE_METRICS).map(String::as_str).unwrap_or_default();
    if annotations::truthy_default_true(metrics) {
        for (key, value) in [
            ("probe", "true".to_owned()),
            ("scrape", "true".to_owned()),
            ("port", metrics_port.to_string()),
            ("path", "/".to_owned()),
        ] {
            all.insert(format!("prometheus.io/{key}"), value);
        }
    }
    let custom = given.get(CUSTOM_ANNOTATIONS).map(String::as_str).unwrap_or_default();
    for (key, value) in custom.split(',').filter_map(|entry| entry.trim().split_once('=')) {
        let (key, value) = (key.trim(), value.trim());
        if !key.is_empty() {
            // What is there already stays: the operator's own, and the first of duplicates.
            all.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    all
}

fn ports(grpc: i32, internal: i32, metrics: i32, mtls: bool) -> Vec<Port> {
    let port = |name, port, target, app_protocol| Port {
        name,
        port,
        target,
        app_protocol,
    };
    vec![
        port("dapr-http", 80, 3500, "http"),
        port("dapr-grpc", grpc, grpc, "grpc"),
        port("dapr-internal", internal, internal, if mtls { "tls" } else { "grpc" }),
        port("dapr-metrics", metrics, metrics, "http"),
    ]
}

/// The API server refuses a port that is used twice, or is none.
fn clash(ports: &[Port]) -> Option<String> {
    for (index, port) in ports.iter().enumerate() {
        if !(1..=65535).contains(&port.port) {
            return Some(format!(
                "port {} of {} is not between 1 and 65535",
                port.port, port.name
            ));
        }
        if let Some(other) = ports[..index].iter().find(|other| other.port == port.port) {
            return Some(format!("{} and {} both have port {}", other.name, port.name, port.port));
        }
    }
    None
}

impl Desired {
    /// Namespace and name of the Service.
    pub(super) fn key(&self) -> ObjectKey {
        ObjectKey::new(self.owner.key.namespace.clone(), app_id::service_name(&self.app_id))
    }

    /// The object to apply.
    pub(super) fn object(&self) -> Service {
        let key = self.key();
        Service {
            metadata: ObjectMeta {
                name: Some(key.name),
                namespace: Some(key.namespace),
                labels: Some(BTreeMap::from([(annotations::ENABLED.to_owned(), "true".to_owned())])),
                annotations: Some(self.annotations.clone()),
                owner_references: Some(vec![self.owner.reference()]),
                ..Default::default()
            },
            spec: Some(ServiceSpec {
                cluster_ip: Some("None".to_owned()),
                selector: Some(self.selector.clone()),
                ports: Some(self.ports.iter().map(Port::object).collect()),
                ..Default::default()
            }),
            status: None,
        }
    }
}

impl Port {
    fn object(&self) -> ServicePort {
        ServicePort {
            name: Some(self.name.to_owned()),
            port: self.port,
            target_port: Some(IntOrString::Int(self.target)),
            protocol: Some("TCP".to_owned()),
            app_protocol: Some(self.app_protocol.to_owned()),
            node_port: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use serde_json::json;

    use super::*;

    fn workload(annotations: &serde_json::Value) -> Workload<Deployment> {
        serde_json::from_value(json!({
            "metadata": {"name": "cart", "namespace": "shop", "uid": "u1"},
            "spec": {
                "selector": {"matchLabels": {"app": "cart"}},
                "template": {"metadata": {"annotations": annotations}, "spec": {"containers": []}},
            },
        }))
        .unwrap()
    }

    fn service(annotations: &serde_json::Value) -> Desired {
        match wanted(Kind::DEPLOYMENT, &workload(annotations), true) {
            Wanted::Service(desired) => *desired,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_object_is_upstreams() {
        let desired = service(&json!({"dapr.io/enabled": "true", "dapr.io/app-id": "cart"}));
        let object = serde_json::to_value(desired.object()).unwrap();
        let port = |name: &str, port: i32, target: i32, protocol: &str| json!({"name": name, "port": port, "targetPort": target, "protocol": "TCP", "appProtocol": protocol});
        let expected = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": "cart-dapr",
                "namespace": "shop",
                "labels": {"dapr.io/enabled": "true"},
                "annotations": {
                    "dapr.io/app-id": "cart",
                    "prometheus.io/path": "/",
                    "prometheus.io/port": "9090",
                    "prometheus.io/probe": "true",
                    "prometheus.io/scrape": "true",
                },
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "Deployment", "name": "cart", "uid": "u1",
                    "controller": true, "blockOwnerDeletion": true,
                }],
            },
            "spec": {
                "clusterIP": "None",
                "selector": {"app": "cart"},
                "ports": [
                    port("dapr-http", 80, 3500, "http"),
                    port("dapr-grpc", 50001, 50001, "grpc"),
                    port("dapr-internal", 50002, 50002, "tls"),
                    port("dapr-metrics", 9090, 9090, "http"),
                ],
            },
        });
        assert_eq!(object, expected);
    }

    #[test]
    fn annotations_change_ports_and_annotations() {
        let desired = service(&json!({
            "dapr.io/enabled": "on", "dapr.io/app-id": "cart", "dapr.io/grpc-port": "6001",
            "dapr.io/internal-grpc-port": "x", "dapr.io/enable-metrics": "false",
            "dapr.io/sidecar-svc-annotations": " a = 1 ,b,=2, a=3, dapr.io/app-id=other ,prometheus.io/port=7",
        }));
        let ports: Vec<_> = desired.ports.iter().map(|port| port.port).collect();
        assert_eq!(ports, [80, 6001, 50002, 9090]);
        let expected = [("a", "1"), ("dapr.io/app-id", "cart"), ("prometheus.io/port", "7")];
        let annotations: Vec<_> = desired
            .annotations
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        assert_eq!(annotations, expected);
    }

    #[test]
    fn what_cannot_be_is_explained() {
        let wanted = |annotations| wanted(Kind::DEPLOYMENT, &workload(&annotations), true);
        assert_eq!(wanted(json!({"dapr.io/app-id": "cart"})), Wanted::Nothing);
        assert_eq!(
            wanted(json!({"dapr.io/enabled": "true"})),
            Wanted::Invalid("value for the dapr.io/app-id annotation is empty".into())
        );
        assert_eq!(
            wanted(json!({"dapr.io/enabled": "true", "dapr.io/app-id": "cart", "dapr.io/metrics-port": "80"})),
            Wanted::Invalid("dapr-http and dapr-metrics both have port 80".into())
        );
        assert_eq!(
            wanted(json!({"dapr.io/enabled": "true", "dapr.io/app-id": "cart", "dapr.io/grpc-port": "70000"})),
            Wanted::Invalid("port 70000 of dapr-grpc is not between 1 and 65535".into())
        );
    }
}
