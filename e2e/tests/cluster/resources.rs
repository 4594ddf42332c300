//! Resources come, change and go while sidecars run.

use anyhow::ensure;
use outrigger_e2e::observe::within;

use crate::frame::{World, component, tests};

tests![
    components_are_loaded_changed_and_removed_without_a_restart,
    a_bad_edit_keeps_the_last_good_component,
    a_changed_secret_reaches_sidecars_that_run,
    an_unknown_type_is_named_and_harms_nobody_else,
    resources_have_columns_and_can_be_waited_for,
    resources_of_every_kind_have_a_status,
    scopes_decide_who_sees_a_component,
    statuses_say_what_sidecars_made_of_a_component,
];

async fn components_are_loaded_changed_and_removed_without_a_restart(world: World) -> anyhow::Result<()> {
    world.apply(&component("first", "state.in-memory", "")).await?;
    let pod = world.deploy("cart").await?;
    ensure!(world.seen.components(&pod).await? == ["first"]);
    world.seen.post(&pod, 3000, "/save/first/key", "1").await?;

    world.apply(&component("second", "state.in-memory", "")).await?;
    world
        .seen
        .until_components(&pod, |names| names == ["first", "second"])
        .await?;
    world.seen.post(&pod, 3000, "/save/second/key", "2").await?;

    world.kubectl(&["delete", "component", "second"]).await?;
    world.seen.until_components(&pod, |names| names == ["first"]).await?;
    ensure!(
        world.seen.post(&pod, 3000, "/save/second/key", "3").await.is_err(),
        "the store is gone"
    );
    ensure!(
        world.seen.get(&pod, 3000, "/read/first/key").await?.trim() == "1",
        "the other one kept its state"
    );
    ensure!(world.seen.restarts(&pod).await? == 0);
    Ok(())
}

async fn a_bad_edit_keeps_the_last_good_component(world: World) -> anyhow::Result<()> {
    world.apply(&component("store", "state.in-memory", "")).await?;
    let pod = world.deploy("cart").await?;
    world.seen.post(&pod, 3000, "/save/store/key", "\"before\"").await?;
    world.apply(&component("store", "state.in-memroy", "")).await?;
    let line = world.seen.until_log(&pod, "state.in-memroy").await?;
    ensure!(
        line.contains("store") && line.contains("state.in-memory"),
        "names the component and what exists: {line}"
    );
    ensure!(world.seen.get(&pod, 3000, "/read/store/key").await?.contains("before"));
    ensure!(world.seen.restarts(&pod).await? == 0);
    Ok(())
}

async fn a_changed_secret_reaches_sidecars_that_run(world: World) -> anyhow::Result<()> {
    let secret = |value: &str| {
        format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: prefix}}\nstringData: {{value: {value}}}\n")
    };
    world.apply(&secret("first")).await?;
    let store = component("store", "state.in-memory", "");
    let property = "{name: keyPrefix, secretKeyRef: {name: prefix, key: value}}";
    world
        .apply(&store.replace("metadata: []", &format!("metadata: [{property}]")))
        .await?;
    let pod = world.deploy("cart").await?;
    world.seen.post(&pod, 3000, "/save/store/key", "1").await?;
    ensure!(world.seen.get(&pod, 3000, "/read/store/key").await?.trim() == "1");
    world.apply(&secret("second")).await?;
    // A value under another prefix.
    within("the key to be another one", async || {
        Ok(world.seen.get(&pod, 3000, "/read/store/key").await.err())
    })
    .await?;
    ensure!(world.seen.restarts(&pod).await? == 0);
    Ok(())
}

async fn an_unknown_type_is_named_and_harms_nobody_else(world: World) -> anyhow::Result<()> {
    world.apply(&component("good", "state.in-memory", "")).await?;
    world
        .apply(&component("bad", "state.nowhere", "  ignoreErrors: true"))
        .await?;
    let pod = world.deploy("cart").await?;
    ensure!(world.seen.components(&pod).await? == ["good"]);
    let line = world.seen.until_log(&pod, "state.nowhere").await?;
    ensure!(line.contains("bad"), "{line}");
    Ok(())
}

async fn resources_have_columns_and_can_be_waited_for(world: World) -> anyhow::Result<()> {
    world
        .apply(&component("store", "state.in-memory", "scopes: [cart]"))
        .await?;
    world
        .kubectl(&["wait", "--for=condition=Ready", "component/store", "--timeout=60s"])
        .await?;
    let table = world.kubectl(&["get", "components"]).await?;
    for text in [
        "NAME",
        "TYPE",
        "VERSION",
        "READY",
        "AGE",
        "store",
        "state.in-memory",
        "True",
    ] {
        ensure!(table.contains(text), "{text} is missing in\n{table}");
    }
    let generations = [
        "get",
        "component",
        "store",
        "-o",
        "jsonpath={.metadata.generation} {.status.observedGeneration}",
    ];
    world
        .apply(&component("store", "state.in-memory", "scopes: [cart, orders]"))
        .await?;
    within("the status to follow the edit", async || {
        let text = world.kubectl(&generations).await?;
        Ok(text
            .split_once(' ')
            .is_some_and(|(spec, observed)| spec == observed && spec == "2")
            .then_some(()))
    })
    .await
}

async fn resources_of_every_kind_have_a_status(world: World) -> anyhow::Result<()> {
    let files = [
        "component/bindings-cron",
        "configuration/daprsystem",
        "httpendpoint/minimal",
        "mcpserver/minimal",
        "resiliency/actors",
        "subscription-v1alpha1/minimal",
        "subscription-v2alpha1/minimal",
        "workflowaccesspolicy/workflows-and-activities",
    ];
    for file in files {
        let file = format!("crds/tests/corpus/valid/{file}.yaml");
        world.kubectl(&["apply", "-f", &file]).await?;
        world
            .kubectl(&["wait", "--for=condition=Accepted", "-f", &file, "--timeout=60s"])
            .await?;
    }
    Ok(())
}

async fn scopes_decide_who_sees_a_component(world: World) -> anyhow::Result<()> {
    world
        .apply(&component("mine", "state.in-memory", "scopes: [cart]"))
        .await?;
    world
        .apply(&component("theirs", "state.in-memory", "scopes: [orders]"))
        .await?;
    let pod = world.deploy("cart").await?;
    ensure!(world.seen.components(&pod).await? == ["mine"]);
    world
        .apply(&component("theirs", "state.in-memory", "scopes: [orders, cart]"))
        .await?;
    world
        .seen
        .until_components(&pod, |names| names == ["mine", "theirs"])
        .await?;
    world
        .apply(&component("mine", "state.in-memory", "scopes: [orders]"))
        .await?;
    world.seen.until_components(&pod, |names| names == ["theirs"]).await?;
    Ok(())
}

async fn statuses_say_what_sidecars_made_of_a_component(world: World) -> anyhow::Result<()> {
    world.apply(&component("store", "state.in-memory", "")).await?;
    let pod = world.deploy("cart").await?;
    let until = async |expected: &str| {
        let fields = r#"{.status.sidecars.matching}/{.status.sidecars.loaded}/{.status.sidecars.rejected} {.status.conditions[?(@.type=="Ready")].reason}"#;
        let path = format!("jsonpath={fields}");
        within(expected, async || {
            let text = world.kubectl(&["get", "component", "store", "-o", &path]).await?;
            Ok((text.trim() == expected).then_some(()))
        })
        .await
    };
    until("1/1/0 Loaded").await?;

    world.apply(&component("store", "state.in-memroy", "")).await?;
    let wait = [
        "wait",
        "--for=condition=Ready=False",
        "component/store",
        "--timeout=60s",
    ];
    world.kubectl(&wait).await?;
    until("1/0/1 Rejected").await?;
    let fields = "jsonpath={.status.rejections[0].pod} {.status.rejections[0].app} {.status.rejections[0].reason} {.status.rejections[0].message}";
    let rejection = world.kubectl(&["get", "component", "store", "-o", fields]).await?;
    ensure!(
        rejection.starts_with(&format!(
            "{pod} cart UnknownType couldn't find state store state.in-memroy/v1"
        )),
        "{rejection}"
    );
    ensure!(
        rejection.contains("goes on serving: store (state.in-memory/v1)"),
        "{rejection}"
    );

    world.apply(&component("store", "state.in-memory", "")).await?;
    world
        .kubectl(&["wait", "--for=condition=Ready", "component/store", "--timeout=60s"])
        .await?;
    until("1/1/0 Loaded").await
}
