//! Pods that are created while no injector runs: each gets its sidecar once one does, budgets hold, and none is lost.

use std::{collections::BTreeSet, time::Instant};

use anyhow::{Context, ensure};
use k8s_openapi::api::{core::v1::Pod, events::v1::Event};
use kube::{Api, ResourceExt, api::ListParams};
use outrigger_core::annotations::LABEL_INJECTED;
use serde_json::json;
use tokio::time::sleep;

use super::{PACE, World, deployment, sidecar};
use crate::{
    injector,
    observe::{has_ready_sidecar, within},
    sample::container,
};

const DEPLOYMENTS: usize = 5;
const REPLICAS: usize = 10;
/// Pods of a Deployment of which one may be away.
const BUDGETED: usize = 6;

pub(super) async fn prove(world: &World) -> anyhow::Result<()> {
    injector::scale(&world.seen.client, 0).await?;
    for number in 0..DEPLOYMENTS {
        world
            .apply(&deployment(&format!("free-{number}"), REPLICAS, &json!({}), &[]))
            .await?;
    }
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "budgeted"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "budgeted"}}},
    });
    world.apply(&budget).await?;
    world.apply(&deployment("budgeted", BUDGETED, &json!({}), &[])).await?;
    let bare = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "bare", "labels": {"app": "bare"}, "annotations": sidecar("bare", &json!({}))},
        "spec": {"containers": [container("app", &[])]},
    });
    world.apply(&bare).await?;
    let pods = within("pods without sidecars", async || {
        sleep(PACE).await;
        let pods = list(world, &ListParams::default()).await?;
        let ready = pods.iter().all(|pod| is_ready(pod) && !is_injected(pod));
        Ok((ready && pods.len() == DEPLOYMENTS * REPLICAS + BUDGETED + 1).then_some(pods))
    })
    .await?;
    let missed: BTreeSet<_> = pods
        .iter()
        .filter(|pod| is_free(pod))
        .filter_map(ResourceExt::uid)
        .collect();
    let bare = pods
        .iter()
        .find(|pod| pod.name_any() == "bare")
        .context("the bare pod")?;

    injector::scale(&world.seen.client, 2).await?;
    let returned = Instant::now();
    let of_budget = ListParams::default().labels("app=budgeted");
    let (mut requested, mut restored, mut fewest) = (None, None, BUDGETED);
    within("sidecars in all pods that are replaced", async || {
        sleep(PACE).await;
        let budgeted = list(world, &of_budget).await?;
        fewest = fewest.min(budgeted.iter().filter(|pod| is_ready(pod)).count());
        if requested.is_none() {
            let staying = remaining(world).await?;
            if missed.is_disjoint(&staying) {
                requested = Some(returned.elapsed());
            }
        } else if restored.is_none() {
            let pods = list(world, &ListParams::default()).await?;
            if count_restored(pods.iter().filter(|pod| is_free(pod))) == missed.len() {
                restored = Some(returned.elapsed());
            }
        }
        let done = restored.is_some() && count_restored(budgeted.iter()) == BUDGETED;
        Ok(done.then_some(()))
    })
    .await?;
    let seconds = |at: Option<std::time::Duration>| at.unwrap_or_default().as_secs_f64();
    println!(
        "  {} pods: the last eviction was requested {:.1} s after the injector's return, all had sidecars after {:.1} s",
        missed.len(),
        seconds(requested),
        seconds(restored)
    );
    println!(
        "  {BUDGETED} pods with a budget: {fewest} were ready at the least, all had sidecars after {:.1} s",
        returned.elapsed().as_secs_f64()
    );
    ensure!(fewest >= BUDGETED - 1, "the budget was violated");
    stays(world, bare).await
}

/// The bare pod is where it was, and its Event says why.
async fn stays(world: &World, bare: &Pod) -> anyhow::Result<()> {
    let now = world.seen.pods().get(&bare.name_any()).await?;
    ensure!(now.uid() == bare.uid() && is_ready(&now) && now.metadata.deletion_timestamp.is_none());
    let events: Api<Event> = world.api();
    let name = format!("missing-sidecar.{}", bare.uid().unwrap_or_default());
    let told = events.get(&name).await.context("the Event about the bare pod")?;
    println!(
        "  the bare pod is still there, with the Event {}",
        told.reason.unwrap_or_default()
    );
    Ok(())
}

/// Uids of the pods whose end nobody requested. Their metadata only: who looks on is not to be what keeps the cluster busy.
async fn remaining(world: &World) -> anyhow::Result<BTreeSet<String>> {
    let pods = world.seen.pods().list_metadata(&ListParams::default()).await?;
    let staying = pods
        .items
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none());
    Ok(staying.filter_map(ResourceExt::uid).collect())
}

fn count_restored<'a>(pods: impl Iterator<Item = &'a Pod>) -> usize {
    pods.filter(|pod| has_ready_sidecar(pod)).count()
}

async fn list(world: &World, which: &ListParams) -> anyhow::Result<Vec<Pod>> {
    Ok(world.seen.pods().list(which).await?.items)
}

fn app(pod: &Pod) -> &str {
    pod.labels().get("app").map_or("", String::as_str)
}

/// Of a Deployment without a budget.
fn is_free(pod: &Pod) -> bool {
    app(pod).starts_with("free-")
}

fn is_injected(pod: &Pod) -> bool {
    pod.labels().contains_key(LABEL_INJECTED)
}

/// As a budget counts.
fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready" && condition.status == "True");
    pod.metadata.deletion_timestamp.is_none() && ready.next().is_some()
}
