//! The installed injector, as it comes and goes.

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;

use crate::observe::within;

const NAMESPACE: &str = "dapr-system";
const NAME: &str = "dapr-sidecar-injector";

/// Scales the injector, and waits until that many replicas are ready and no others are there: those that are ending still answer.
///
/// # Errors
/// What was waited for in vain, or the API server's.
pub async fn scale(client: &Client, replicas: i32) -> anyhow::Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    deployments.patch(NAME, &PatchParams::default(), &patch).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let list = ListParams::default().labels(&format!("app={NAME}"));
    within(&format!("{replicas} replicas of the injector"), async || {
        let status = deployments.get(NAME).await?.status.unwrap_or_default();
        let there = pods.list_metadata(&list).await?.items.len();
        let ready = status.ready_replicas.unwrap_or_default() == replicas;
        Ok((ready && i32::try_from(there) == Ok(replicas)).then_some(()))
    })
    .await
}
