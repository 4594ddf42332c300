//! The control plane stops and starts under running apps.

use anyhow::ensure;
use outrigger_e2e::injector;

use crate::frame::{World, component, sample_app, tests};

tests![
    sidecars_follow_a_new_operator,
    the_webhook_heals,
    the_watchdog_recreates_a_pod_that_missed_injection,
];

const SYSTEM: [&str; 2] = ["-n", "dapr-system"];

async fn sidecars_follow_a_new_operator(world: World) -> anyhow::Result<()> {
    let pod = world.deploy("cart").await?;
    world
        .access
        .kubectl([&SYSTEM[..], &["delete", "pod", "-l", "app=dapr-operator", "--wait"]].concat())
        .await?;
    // While it is away, or just after: nothing may be lost.
    world.apply(&component("late", "state.in-memory", "")).await?;
    world.seen.until_components(&pod, |names| names == ["late"]).await?;
    ensure!(world.seen.restarts(&pod).await? == 0);
    Ok(())
}

async fn the_webhook_heals(world: World) -> anyhow::Result<()> {
    let empty = r#"[{"op":"replace","path":"/webhooks/0/clientConfig/caBundle","value":""}]"#;
    world
        .access
        .kubectl([
            "patch",
            "mutatingwebhookconfiguration",
            "dapr-sidecar-injector",
            "--type",
            "json",
            "-p",
            empty,
        ])
        .await?;
    let bundle = [
        "get",
        "mutatingwebhookconfiguration",
        "dapr-sidecar-injector",
        "-o",
        "jsonpath={.webhooks[0].clientConfig.caBundle}",
    ];
    outrigger_e2e::observe::within("the injector to write its caBundle again", async || {
        Ok((!world.access.kubectl(bundle).await?.is_empty()).then_some(()))
    })
    .await?;
    world.deploy("cart").await?;
    Ok(())
}

async fn the_watchdog_recreates_a_pod_that_missed_injection(world: World) -> anyhow::Result<()> {
    injector::scale(&world.seen.client, 0).await?;
    world.apply(&sample_app("missed", "")).await?;
    world
        .kubectl(&["rollout", "status", "deployment/missed", "--timeout=120s"])
        .await?;
    let names = [
        "get",
        "pods",
        "-l",
        "app=missed",
        "-o",
        "jsonpath={.items[*].spec.containers[*].name}",
    ];
    ensure!(world.kubectl(&names).await? == "app", "no sidecar without an injector");
    injector::scale(&world.seen.client, 1).await?;
    world.seen.pod_with_sidecar("missed").await?;
    Ok(())
}
