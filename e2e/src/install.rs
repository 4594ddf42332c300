//! A cluster of its own with the chart installed, for tests and measurements.

use std::time::Duration;

use anyhow::Context;

use crate::{Access, Cluster, cluster::Options, command, release, toolchain};

/// How the chart is installed, from the root of the checkout.
pub const HELM_ARGS: [&str; 11] = [
    "install",
    "dapr",
    "charts/dapr",
    "-n",
    "dapr-system",
    "--create-namespace",
    "--wait",
    "--timeout",
    "3m",
    "-f",
    "e2e/demo/values.yaml",
];

/// Starts a new cluster of this name with everything built, and installs the chart with the demo's values. What an earlier
/// run left behind is removed first.
///
/// # Errors
/// The step that failed; a failed install shows what its pods say.
pub async fn fresh(name: &str) -> anyhow::Result<Access> {
    install(name, false, &[]).await
}

/// The same, on an API server that logs every request.
///
/// # Errors
/// The step that failed; a failed install shows what its pods say.
pub async fn fresh_audited(name: &str) -> anyhow::Result<Access> {
    install(name, true, &[]).await
}

/// The same with further values, each as `--set-json` takes it: `--set` makes texts of fractions.
///
/// # Errors
/// The step that failed; a failed install shows what its pods say.
pub async fn fresh_with(name: &str, values: &[&str]) -> anyhow::Result<Access> {
    install(name, false, values).await
}

async fn install(name: &str, audit: bool, values: &[&str]) -> anyhow::Result<Access> {
    Cluster::down(name, false).await?;
    toolchain::build(&mut |line| println!("{line}"))?;
    let archives = release::build().await?;
    let options = Options {
        name: name.to_owned(),
        port: None,
        audit,
        deadline: Duration::from_secs(180),
    };
    let cluster = Cluster::up(&options, &mut |_| {}).await?;
    for archive in &archives {
        cluster.import_image(&archive.path).await?;
    }
    let access = cluster.access();
    let mut helm = access.helm_command(HELM_ARGS);
    helm.args(values.iter().flat_map(|value| ["--set-json", value]));
    helm.current_dir(release::workspace());
    if let Err(error) = command::run(helm).await {
        println!("{}", describe(&access, "dapr-system").await);
        return Err(error).context("helm install");
    }
    Ok(access)
}

/// What people would look at first in a namespace where something is wrong.
pub async fn describe(access: &Access, namespace: &str) -> String {
    let all = ["get", "pods,components,events", "-n", namespace, "-o", "wide"];
    let mut text = format!("---- namespace {namespace}\n");
    text.push_str(&access.kubectl(all).await.unwrap_or_else(|error| error.to_string()));
    let pods = access
        .kubectl(["get", "pods", "-n", namespace, "-o", "name"])
        .await
        .unwrap_or_default();
    for pod in pods.lines() {
        let logs = access
            .kubectl(["logs", "-n", namespace, pod, "--all-containers", "--tail=40"])
            .await;
        text.push_str(&format!(
            "\n---- {pod}\n{}",
            logs.unwrap_or_else(|error| error.to_string())
        ));
    }
    text
}
