//! Apps with sidecars: injection, state, invocation.

use anyhow::ensure;
use outrigger_e2e::observe::within;

use crate::frame::{World, component, sample_app, tests};

tests![
    an_annotated_pod_gets_a_sidecar_and_keeps_state,
    apps_call_each_other_over_mtls,
    an_app_that_is_no_more_loses_its_service,
    mistakes_in_annotations_are_told_at_apply_time,
    a_pod_without_annotations_is_left_alone,
];

async fn an_annotated_pod_gets_a_sidecar_and_keeps_state(world: World) -> anyhow::Result<()> {
    world.apply(&component("store", "state.in-memory", "")).await?;
    let pod = world.deploy("cart").await?;
    world
        .seen
        .post(&pod, 3000, "/save/store/key", r#"{"b":1.0,"a":[1,2]}"#)
        .await?;
    let read = world.seen.get(&pod, 3000, "/read/store/key").await?;
    let value: serde_json::Value = serde_json::from_str(&read)?;
    ensure!(value == serde_json::json!({"b": 1.0, "a": [1, 2]}), "{read}");
    let missing = world
        .seen
        .get(&pod, 3000, "/read/nowhere/key")
        .await
        .err()
        .map(|error| format!("{error:#}"));
    ensure!(
        missing.is_some_and(|error| error.contains("nowhere")),
        "the error names the store"
    );

    let labels = world
        .kubectl(&["get", "pod", &pod, "-o", "jsonpath={.metadata.labels}"])
        .await?;
    for label in ["\"dapr.io/sidecar-injected\":\"true\"", "\"dapr.io/app-id\":\"cart\""] {
        ensure!(labels.contains(label), "{labels}");
    }
    Ok(())
}

async fn apps_call_each_other_over_mtls(world: World) -> anyhow::Result<()> {
    let _cart = world.deploy("cart").await?;
    let orders = world.deploy("orders").await?;
    let answer = world.seen.get(&orders, 3000, "/call/cart/hello").await?;
    ensure!(answer.contains("cart"), "{answer}");
    let nobody = world
        .seen
        .get(&orders, 3000, "/call/nobody/hello")
        .await
        .err()
        .map(|error| format!("{error:#}"));
    ensure!(
        nobody.is_some_and(|error| error.contains("nobody")),
        "the error names the app"
    );
    Ok(())
}

async fn an_app_that_is_no_more_loses_its_service(world: World) -> anyhow::Result<()> {
    let services = async || world.kubectl(&["get", "services", "-o", "name"]).await;
    world.apply(&sample_app("cart", "")).await?;
    within("a Service", async || {
        Ok(services().await?.contains("service/cart-dapr").then_some(()))
    })
    .await?;
    let no_app = r#"{"spec": {"replicas": 0, "template": {"metadata": {"annotations": {"dapr.io/enabled": null}}}}}"#;
    world.kubectl(&["patch", "deployment", "cart", "-p", no_app]).await?;
    within("no Service", async || Ok(services().await?.is_empty().then_some(()))).await
}

async fn mistakes_in_annotations_are_told_at_apply_time(world: World) -> anyhow::Result<()> {
    let pod = |annotations: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n  annotations:\n    dapr.io/enabled: \"true\"\n    {annotations}\nspec:\n  \
             containers:\n    - name: app\n      image: localhost/outrigger/sample-app:0.1.0\n"
        )
    };
    let dry_run = async |manifest: &str| -> anyhow::Result<String> {
        // Warnings are on standard error; one file has both.
        let file = std::env::temp_dir().join(format!("outrigger-pod-{}.yaml", std::process::id()));
        std::fs::write(&file, manifest)?;
        let mut command =
            world
                .access
                .kubectl_command(["-n", &world.seen.namespace, "apply", "--dry-run=server", "-f"]);
        let output = command.arg(&file).output().await?;
        std::fs::remove_file(&file)?;
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let said = dry_run(&pod("dapr.io/app-prot: \"3000\"")).await?;
    ensure!(
        said.contains("dapr.io/app-prot") && said.contains("dapr.io/app-port"),
        "names the nearest: {said}"
    );
    let said = dry_run(&pod("dapr.io/app-port: many")).await?;
    ensure!(said.contains("dapr.io/app-port") && said.contains("many"), "{said}");
    let said = dry_run(&pod("dapr.io/app-id: Not_An_Id")).await?;
    ensure!(said.contains("invalid app id (input: 'Not_An_Id'"), "{said}");
    Ok(())
}

async fn a_pod_without_annotations_is_left_alone(world: World) -> anyhow::Result<()> {
    let plain = sample_app("plain", "")
        .replace("dapr.io/enabled: \"true\"", "team: shop")
        .replace("dapr.io/", "example.com/");
    world.apply(&plain).await?;
    world
        .kubectl(&["rollout", "status", "deployment/plain", "--timeout=120s"])
        .await?;
    let containers = world
        .kubectl(&[
            "get",
            "pods",
            "-l",
            "app=plain",
            "-o",
            "jsonpath={.items[*].spec.containers[*].name}",
        ])
        .await?;
    ensure!(containers == "app", "{containers}");
    Ok(())
}
