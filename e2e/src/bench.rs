//! Measurements on a real cluster. Machines differ and are noisy: what counts is each figure beside the API server's own, taken
//! in the same run.

pub mod admission;
pub mod fanout;
mod process;
pub mod signing;

use std::time::{Duration, Instant};

use anyhow::Context;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams},
};
use serde_json::json;

use crate::{Access, Cluster, install, observe::Observer, release};

/// Name of the cluster that is measured.
const NAME: &str = "bench";
const NAMESPACE: &str = "bench";
/// Edits that are timed.
const EDITS: usize = 60;
/// Processes whose memory is read.
const PROCESSES: [&str; 4] = ["operator", "injector", "sentry", "daprd"];

/// Measures and prints, on a cluster that is removed afterwards.
///
/// # Errors
/// The step that failed.
pub async fn run() -> anyhow::Result<()> {
    let started = Instant::now();
    let access = install::fresh(NAME).await?;
    println!("cluster and install: {:.1} s", started.elapsed().as_secs_f64());
    let measured = measure(&access).await;
    Cluster::down(NAME, false).await?;
    measured
}

async fn measure(access: &Access) -> anyhow::Result<()> {
    access.kubectl(["create", "namespace", NAMESPACE]).await?;
    let demo = release::workspace().join("e2e/demo");
    for manifest in ["statestore.yaml", "cart.yaml"] {
        access.apply_in(NAMESPACE, &demo.join(manifest)).await?;
    }
    let seen = Observer::new(access.client().await?, NAMESPACE);
    let pod = seen.pod_with_sidecar("cart").await?;

    println!("\nidle memory, MB         resident  anonymous");
    for process in PROCESSES {
        let (resident, anonymous) = memory(process).await?;
        println!("  {process:<22}{resident:>8.1}{anonymous:>11.1}");
    }

    let edits = reload(&seen, &pod).await?;
    println!("\na component's edit, {EDITS} times           median      p95");
    let patch = percentiles(edits.iter().map(|edit| edit.patch).collect());
    let after = percentiles(edits.iter().map(|edit| edit.after).collect());
    print_row("PATCH at the API server", patch);
    print_row("then, until the sidecar has it", after);
    println!(
        "  ratio of the medians: {:.2}",
        after.0.as_secs_f64() / patch.0.as_secs_f64()
    );
    Ok(())
}

struct Edit {
    patch: Duration,
    /// From the answer to the PATCH until the metadata API shows the edit.
    after: Duration,
}

/// Puts the app out of a component's scope and back.
async fn reload(seen: &Observer, pod: &str) -> anyhow::Result<Vec<Edit>> {
    let resource =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("dapr.io", "v1alpha1", "Component"), "components");
    let components: Api<DynamicObject> = Api::namespaced_with(seen.client.clone(), NAMESPACE, &resource);
    let mut edits = Vec::with_capacity(EDITS);
    for edit in 0..EDITS {
        let visible = edit % 2 == 1;
        let scope = if visible { "cart" } else { "somebody-else" };
        let began = Instant::now();
        components
            .patch(
                "statestore",
                &PatchParams::default(),
                &Patch::Merge(json!({"scopes": [scope]})),
            )
            .await?;
        let answered = Instant::now();
        let (shown, _) = seen
            .until_components(pod, |names| names.iter().any(|name| name == "statestore") == visible)
            .await?;
        edits.push(Edit {
            patch: answered - began,
            after: shown.saturating_duration_since(answered),
        });
    }
    Ok(edits)
}

fn percentiles(mut values: Vec<Duration>) -> (Duration, Duration) {
    values.sort();
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    (at(0.5), at(0.95))
}

/// The value that this share of sorted ones is not above, in milliseconds.
fn milliseconds(sorted: &[Duration], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let at = (last as f64 * share).round() as usize;
    sorted.get(at).map_or(f64::NAN, |value| value.as_secs_f64() * 1e3)
}

fn print_row(what: &str, (median, p95): (Duration, Duration)) {
    let milliseconds = |duration: Duration| duration.as_secs_f64() * 1e3;
    println!(
        "  {what:<34}{:>6.1} ms{:>6.1} ms",
        milliseconds(median),
        milliseconds(p95)
    );
}

/// Resident and anonymous memory of the newest process of a name inside the node, in MB.
async fn memory(process: &str) -> anyhow::Result<(f64, f64)> {
    let cluster = Cluster::connect(NAME)?;
    let mut command = cluster.inside("sh");
    command.args(["-c", &format!("cat /proc/$(pgrep -nx {process})/status")]);
    let status = crate::command::run(command).await?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim()
            .trim_end_matches(" kB")
            .trim()
            .parse::<f64>()
            .ok()
            .map(|kilobytes| kilobytes / 1024.0)
    };
    let missing = || format!("no memory figures of {process}");
    Ok((
        field("VmRSS:").with_context(missing)?,
        field("RssAnon:").with_context(missing)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(
            percentiles(values),
            (Duration::from_millis(51), Duration::from_millis(95))
        );
        assert_eq!(
            percentiles(vec![Duration::from_secs(1)]),
            (Duration::from_secs(1), Duration::from_secs(1))
        );
    }
}
