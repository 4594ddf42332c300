//! Pods in, patched pods out, through a real API server: `tests/golden/pods.yaml` has what goes in. `UPDATE_GOLDEN=1` writes
//! what comes out.

use std::{collections::BTreeMap, fs, path::PathBuf};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::PostParams};
use outrigger_injector::{
    annotations::TABLE,
    cluster::{Cluster, components},
};
use outrigger_testkit::{ApiServer, eventually};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    cluster::{api, component, server},
    support::{Injector, Registered, chart, clients, install, turn},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    injector: BTreeMap<String, String>,
    #[serde(default)]
    spec: Map<String, Value>,
}

impl Case {
    fn pod(&self) -> Pod {
        let mut annotations = json!({"dapr.io/enabled": "true"});
        for (key, value) in &self.annotations {
            annotations[format!("dapr.io/{key}")] = value.as_str().into();
        }
        let mut spec = json!({"containers": [{"name": "main", "image": "app"}]});
        for (field, value) in &self.spec {
            spec[field] = value.clone();
        }
        serde_json::from_value(json!({"metadata": {"name": self.name, "annotations": annotations}, "spec": spec}))
            .unwrap()
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// What the patch can have touched, without what the API server adds to every pod.
fn essence(pod: &Pod, anchors: &str) -> Value {
    let pod = serde_json::to_value(pod).unwrap();
    let mut spec = pod["spec"].clone();
    let ours = ["containers", "initContainers", "volumes"];
    spec.as_object_mut()
        .unwrap()
        .retain(|field, _| ours.contains(&field.as_str()));
    let account = |item: &Value| {
        item["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("kube-api-access-"))
    };
    if let Some(volumes) = spec["volumes"].as_array_mut() {
        volumes.retain(|volume| !account(volume));
    }
    for list in ["containers", "initContainers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            let container = container.as_object_mut().unwrap();
            container.remove("terminationMessagePath");
            container.remove("terminationMessagePolicy");
            if let Some(mounts) = container.get_mut("volumeMounts").and_then(Value::as_array_mut) {
                mounts.retain(|mount| !account(mount));
            }
            container.retain(|_, value| *value != json!([]));
        }
    }
    spec.as_object_mut()
        .unwrap()
        .retain(|_, value| *value != json!([]) && !value.is_null());
    let text = json!({"labels": pod["metadata"]["labels"], "spec": spec}).to_string();
    let anchors = serde_json::to_string(anchors).unwrap();
    let namespace = serde_json::to_string(&pod["metadata"]["namespace"]).unwrap();
    let text = text
        .replace(&anchors, "\"the trust anchors\"")
        .replace(&namespace, "\"the namespace\"");
    serde_json::from_str(&text).unwrap()
}

/// A served and registered injector with this environment.
async fn injector(
    client: &Client,
    namespace: &str,
    cluster: &Cluster,
    variables: &BTreeMap<String, String>,
) -> (Injector, Registered) {
    let mut env = chart();
    env.extend(variables.clone());
    let injector = Injector::start(cluster.clone(), &env).await;
    install(client, &injector.url, namespace).await;
    let registered = Registered::start(client, injector.anchors.clone());
    registered.ready().await;
    (injector, registered)
}

#[tokio::test]
async fn pods_become_what_they_became() {
    let _turn = turn().await;
    let server: &ApiServer = server().await;
    let (client, namespace) = (server.client(), server.namespace("golden").await.unwrap());
    let container = json!({"image": "brought", "volumeMounts": [{"name": "cache", "mountPath": "/cache"}]});
    let brought = component("brought", &container.to_string());
    api(&client, "Component", &namespace)
        .create(&PostParams::default(), &brought)
        .await
        .unwrap();
    let cluster = Cluster::default();
    cluster.set_mtls(true);
    let following = tokio::spawn(components::follow(clients(&client), namespace.clone(), cluster.clone()));
    eventually("the Component is known", async || {
        cluster
            .component_containers(&namespace)
            .ok()
            .filter(|list| !list.is_empty())
    })
    .await;

    let text = fs::read_to_string(folder().join("pods.yaml")).unwrap();
    let cases: Vec<Case> = serde_saphyr::from_str(&text).unwrap();
    assert!(cases.len() >= 60, "{}", cases.len());
    let keys = TABLE
        .iter()
        .filter_map(|annotation| annotation.key.strip_prefix("dapr.io/"));
    let is_missing = |key: &&str| !cases.iter().any(|case| case.annotations.contains_key(*key));
    // All pods have the one that asks for a sidecar.
    assert_eq!(keys.filter(is_missing).collect::<Vec<_>>(), ["enabled"]);
    let mut by_injector: BTreeMap<BTreeMap<String, String>, Vec<&Case>> = BTreeMap::new();
    for case in &cases {
        by_injector.entry(case.injector.clone()).or_default().push(case);
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let mut failures = Vec::new();
    for (variables, cases) in by_injector {
        let (injector, _registered) = injector(&client, &namespace, &cluster, &variables).await;
        let anchors = injector.anchors.pem();
        for case in cases {
            // The API server takes a moment to see a new registration.
            let patched = eventually(&case.name, async || {
                let pod = pods.create(&dry, &case.pod()).await.ok()?;
                let text = serde_json::to_string(&pod).unwrap();
                text.contains(&serde_json::to_string(anchors).unwrap()).then_some(pod)
            })
            .await;
            failures.extend(compare(&case.name, &essence(&patched, anchors)));
        }
    }
    following.abort();
    assert!(
        failures.is_empty(),
        "UPDATE_GOLDEN=1 accepts these:\n{}",
        failures.join("\n")
    );
}

/// What differs from the stored pod, if anything.
fn compare(name: &str, patched: &Value) -> Option<String> {
    let file = folder().join(format!("{name}.yaml"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&file, serde_saphyr::to_string(patched).unwrap()).unwrap();
    }
    let stored = fs::read_to_string(&file).unwrap_or_default();
    let stored: Value = serde_saphyr::from_str(&stored).unwrap_or_default();
    (stored != *patched).then(|| format!("{name}: expected {stored}\n found {patched}"))
}
