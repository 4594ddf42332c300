//! Native sidecars serve the first call of an app, and end after it.

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::Job,
    core::v1::{ContainerStateTerminated, ContainerStatus, Pod},
};
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::json;
use tokio::time::sleep;

use super::{PACE, World, deployment, sidecar};
use crate::{observe::within, sample::container};

/// Jobs, and pods with an app port.
const TIMES: usize = 20;
/// Jobs that run at one time.
const JOBS: usize = 4;
const FIRST: [&str; 2] = ["--first", "state/store/first"];

pub(super) async fn prove(world: &World) -> anyhow::Result<()> {
    let store = json!({
        "apiVersion": "dapr.io/v1alpha1", "kind": "Component", "metadata": {"name": "store"},
        "spec": {"type": "state.in-memory", "version": "v1", "metadata": []},
    });
    world.apply(&store).await?;
    let numbers = stream::iter(0..TIMES).map(|number| job(world, format!("job-{number}")));
    numbers.buffer_unordered(JOBS).try_collect::<()>().await?;
    println!("  {TIMES} of {TIMES} Jobs completed after their first call, their sidecars ended after them and with 0");
    with_app_port(world).await
}

/// Fails at once when the only call that it makes does.
async fn job(world: &World, name: String) -> anyhow::Result<()> {
    let native = json!({"dapr.io/enable-native-sidecar": "true"});
    let args = [FIRST[0], FIRST[1], "--once"];
    let manifest = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": {
            "metadata": {"annotations": sidecar(&name, &native)},
            "spec": {"restartPolicy": "Never", "containers": [container("app", &args)]},
        }},
    });
    world.apply(&manifest).await?;
    let jobs: Api<Job> = world.api();
    let outcome = within(&format!("the end of {name}"), async || {
        sleep(PACE).await;
        let conditions = jobs.get(&name).await?.status.and_then(|status| status.conditions);
        let held = |type_: &str| {
            let mut conditions = conditions.iter().flatten();
            conditions.any(|condition| condition.type_ == type_ && condition.status == "True")
        };
        Ok(held("Complete")
            .then_some(true)
            .or_else(|| held("Failed").then_some(false)))
    })
    .await?;
    ensure!(outcome, "{name} failed");
    let pods = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={name}"));
    let pod = world
        .seen
        .pods()
        .list(&pods)
        .await?
        .items
        .pop()
        .context("a Job's pod")?;
    ends_in_order(&pod).with_context(|| pod.name_any())
}

fn ends_in_order(pod: &Pod) -> anyhow::Result<()> {
    let status = pod.status.as_ref().context("no status")?;
    let app = ended(status.container_statuses.as_deref(), "app")?;
    let daprd = ended(status.init_container_statuses.as_deref(), "daprd")?;
    ensure!(app.exit_code == 0 && daprd.exit_code == 0, "{app:?} {daprd:?}");
    ensure!(app.finished_at <= daprd.finished_at, "{app:?} {daprd:?}");
    Ok(())
}

fn ended<'a>(all: Option<&'a [ContainerStatus]>, name: &str) -> anyhow::Result<&'a ContainerStateTerminated> {
    let mut statuses = all.into_iter().flatten();
    let container = statuses.find(|status| status.name == name);
    let state = container.and_then(|status| status.state.as_ref()?.terminated.as_ref());
    state.with_context(|| format!("{name} has not ended"))
}

/// The sidecar is ready only when the app listens, and the app listens only after its first call.
async fn with_app_port(world: &World) -> anyhow::Result<()> {
    let name = "first";
    let native = json!({"dapr.io/enable-native-sidecar": "true", "dapr.io/app-port": "3000"});
    world.apply(&deployment(name, TIMES, &native, &FIRST)).await?;
    let deployments: Api<Deployment> = world.api();
    within("pods that made their first call", async || {
        sleep(PACE).await;
        let ready = deployments
            .get(name)
            .await?
            .status
            .and_then(|status| status.ready_replicas);
        Ok((ready.and_then(|ready| usize::try_from(ready).ok()) == Some(TIMES)).then_some(()))
    })
    .await?;
    let pods = world
        .seen
        .pods()
        .list(&ListParams::default().labels("app=first"))
        .await?;
    for pod in pods.items.iter().map(ResourceExt::name_any) {
        ensure!(world.seen.restarts(&pod).await? == 0, "{pod}: its first call failed");
    }
    println!(
        "  {TIMES} of {TIMES} apps with an app port, all started at once, made their first call without a restart"
    );
    Ok(())
}
