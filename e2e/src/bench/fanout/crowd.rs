//! The operator among many pods and Secrets that are none of its business: its memory beside that in an empty cluster.

use std::path::Path;

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{Api, Resource, api::PostParams};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    super::process::Memory,
    SETTLE,
    operator::{NAMESPACE, Stage},
};

const PODS: usize = 20_000;
const SECRETS: usize = 10_000;
/// Objects that are created at the same time.
const CREATING: usize = 32;

/// Measures and prints.
pub(super) async fn run(stage: &Stage, binary: &Path) -> anyhow::Result<()> {
    let empty = steady(stage, binary).await?;
    let account = json!({});
    stage
        .apply(
            "v1",
            "ServiceAccount",
            "serviceaccounts",
            Some(NAMESPACE),
            "default",
            account,
        )
        .await?;
    fill::<Pod>(stage, PODS, pod).await?;
    fill::<Secret>(stage, SECRETS, secret).await?;
    let full = steady(stage, binary).await?;
    println!("\n{PODS} foreign pods and {SECRETS} Secrets");
    println!("  empty cluster        {}, at most {:.1} MiB", empty.0, empty.1);
    println!("  full cluster         {}, at most {:.1} MiB", full.0, full.1);
    println!(
        "  ratios               steady to empty {:.2}, peak to steady {:.2}",
        full.0.resident / empty.0.resident,
        full.1 / full.0.resident
    );
    Ok(())
}

/// Memory of an operator that has been ready for a while, and its peak in MiB.
async fn steady(stage: &Stage, binary: &Path) -> anyhow::Result<(Memory, f64)> {
    let operator = stage.start(binary).await?;
    sleep(SETTLE).await;
    let memory = Memory::of(operator.process.pid)?;
    let peak = Memory::peak(operator.process.pid)?;
    operator.process.stop().await?;
    Ok((memory, peak))
}

async fn fill<K>(stage: &Stage, count: usize, object: fn(usize) -> Value) -> anyhow::Result<()>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    K: Clone + std::fmt::Debug + Serialize + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(stage.client.clone(), NAMESPACE);
    stream::iter(0..count)
        .map(|number| {
            let api = api.clone();
            async move {
                let object = serde_json::from_value(object(number))?;
                api.create(&PostParams::default(), &object).await?;
                anyhow::Ok(())
            }
        })
        .buffer_unordered(CREATING)
        .try_collect::<()>()
        .await
        .with_context(|| format!("create {count} {}", K::plural(&())))
}

/// As a Deployment's pods look, without the kubelet's part.
fn pod(number: usize) -> Value {
    json!({
        "metadata": {
            "name": format!("web-7d4b9c6f5d-{number}"),
            "labels": {"app": "web", "pod-template-hash": "7d4b9c6f5d"},
            "annotations": {"prometheus.io/scrape": "true", "example.com/config-hash": "9f86d081884c7d659a2feaa0c55ad015"},
        },
        "spec": {"containers": [{
            "name": "web", "image": "registry.example.com/team/web:1.2.3",
            "env": [{"name": "LOG_LEVEL", "value": "info"}, {"name": "PORT", "value": "8080"}],
            "ports": [{"containerPort": 8080}],
        }]},
    })
}

fn secret(number: usize) -> Value {
    json!({"metadata": {"name": format!("secret-{number}")}, "stringData": {"value": "x".repeat(1024)}})
}
