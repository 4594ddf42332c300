//! With failure policy `Fail`: the power fails, everything starts again, and once more with all pods of the cluster to be
//! created anew.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::sleep;

use super::{CLUSTER, PACE, SYSTEM, World, deployment};
use crate::{Cluster, command, observe::within, release};

const DEADLINE: Duration = Duration::from_secs(180);
const FAIL: [&str; 9] = [
    "upgrade",
    "dapr",
    "charts/dapr",
    "-n",
    SYSTEM,
    "--reuse-values",
    "--wait",
    "--set",
    "dapr_sidecar_injector.webhookFailurePolicy=Fail",
];

pub(super) async fn prove(world: &World) -> anyhow::Result<()> {
    let mut helm = world.access.helm_command(FAIL);
    helm.current_dir(release::workspace());
    command::run(helm).await?;
    let port = json!({"dapr.io/app-port": "3000"});
    let native = json!({"dapr.io/app-port": "3000", "dapr.io/enable-native-sidecar": "true"});
    for (app, annotations) in [("ordinary", &port), ("native", &native)] {
        world.apply(&deployment(app, 1, annotations, &[])).await?;
    }
    serves(world).await?;
    println!("  failure policy Fail, two apps serve");
    power_fails(world, "every-pod-stays").await?;
    // Nothing but the API server's own objects is left: the control plane's pods have to be admitted as well.
    let all = [
        "delete",
        "pods",
        "--all",
        "--all-namespaces",
        "--force",
        "--grace-period=0",
    ];
    world.access.kubectl(all).await?;
    power_fails(world, "every-pod-is-new").await
}

/// `new` is an app that comes afterwards.
async fn power_fails(world: &World, new: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    let seconds = |since: Instant| since.elapsed().as_secs_f64();
    Cluster::connect(CLUSTER)?.restart(DEADLINE).await?;
    let node = seconds(began);
    let created = Instant::now();
    world.apply(&deployment(new, 1, &json!({}), &[])).await?;
    world.seen.pod_with_sidecar(new).await?;
    let admitted = seconds(created);
    serves(world).await?;
    println!(
        "  {new}: the node was ready after {node:.1} s, a new pod had its sidecar {admitted:.1} s later, all apps served after {:.1} s",
        seconds(began)
    );
    Ok(())
}

/// Apps call each other. What the API server says of pods is old after a restart, so calls tell.
async fn serves(world: &World) -> anyhow::Result<()> {
    for (from, to) in [("ordinary", "native"), ("native", "ordinary")] {
        within(&format!("a call from {from} to {to}"), async || {
            let pod = world.seen.pod_with_sidecar(from).await?;
            let answer = world.seen.get(&pod, 3000, &format!("/call/{to}/hello")).await;
            sleep(PACE).await;
            Ok(answer.is_ok_and(|answer| answer.contains(to)).then_some(()))
        })
        .await?;
    }
    Ok(())
}
