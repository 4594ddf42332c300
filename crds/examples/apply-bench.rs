//! What our rules cost when Components are applied: 1,000 of them are created under definitions with our rules, and as many
//! under the same definitions without, taking turns on one real API server.
//!
//! `cargo run -p outrigger-crds --example apply-bench`

#![allow(clippy::unwrap_used, reason = "a benchmark ends at the first failure")]

use std::time::{Duration, Instant};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::PostParams,
    runtime::wait::{await_condition, conditions},
};
use outrigger_crds::definition::{self, Definitions};
use outrigger_testkit::ApiServer;
use serde_json::{Value, json};

const OBJECTS: usize = 1_000;
/// Requests of each kind before the measurement.
const WARM_UP: usize = 100;
/// Groups under which the two definitions are served beside each other.
const GROUPS: [&str; 2] = ["plain.dapr.io", "dapr.io"];

#[tokio::main]
async fn main() {
    let server = ApiServer::shared().await;
    let client = server.client();
    let namespace = server.namespace("bench").await.unwrap();
    install(&client, GROUPS[0], definition::definitions_without_our_rules().unwrap()).await;
    install(&client, GROUPS[1], definition::definitions().unwrap()).await;

    let mut times = [Vec::new(), Vec::new()];
    for index in 0..WARM_UP + OBJECTS {
        for (group, times) in GROUPS.iter().zip(&mut times) {
            let took = create(&client, group, &namespace, index).await;
            if index >= WARM_UP {
                times.push(took);
            }
        }
    }
    println!("{OBJECTS} Components created, with full validation       p50      p99");
    let [plain, ours] = times.map(percentiles);
    for (what, (p50, p99)) in [("upstream's rules", plain), ("upstream's rules and ours", ours)] {
        println!("  {what:<44}{:>6.2} ms{:>6.2} ms", milliseconds(p50), milliseconds(p99));
    }
    let ratio = |ours: Duration, plain: Duration| ours.as_secs_f64() / plain.as_secs_f64();
    println!(
        "  {:<44}{:>9.2}{:>9.2}",
        "ratio",
        ratio(ours.0, plain.0),
        ratio(ours.1, plain.1)
    );
}

/// The definition of Component, under a group of its own.
async fn install(client: &Client, group: &str, definitions: Definitions) {
    let (_, mut definition) = definitions.into_iter().next().unwrap();
    let name = format!("components.{group}");
    definition.metadata.name = Some(name.clone());
    definition.spec.group = group.to_owned();
    // Names of the other group must stay free.
    definition.spec.names.short_names = None;
    let all = Api::<CustomResourceDefinition>::all(client.clone());
    all.create(&PostParams::default(), &definition).await.unwrap();
    await_condition(all, &name, conditions::is_crd_established())
        .await
        .unwrap();
}

/// Sends what `kubectl apply` sends for a new object, and waits for the answer.
async fn create(client: &Client, group: &str, namespace: &str, index: usize) -> Duration {
    let settings: Vec<Value> = (0..10)
        .map(|item| json!({ "name": format!("setting{item}"), "value": format!("value {item}") }))
        .collect();
    let manifest = json!({
        "apiVersion": format!("{group}/v1alpha1"), "kind": "Component", "metadata": { "name": format!("store-{index}") },
        "spec": { "type": "state.redis", "version": "v1", "initTimeout": "10s", "metadata": settings },
        "scopes": ["checkout", "billing"],
    });
    let path = format!(
        "/apis/{group}/v1alpha1/namespaces/{namespace}/components?fieldManager=kubectl-client-side-apply&fieldValidation=Strict"
    );
    let request = http::Request::post(path)
        .header("content-type", "application/json")
        .body(serde_json::to_vec(&manifest).unwrap())
        .unwrap();
    let began = Instant::now();
    client.request_text(request).await.unwrap();
    began.elapsed()
}

fn percentiles(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    (at(50), at(99))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
