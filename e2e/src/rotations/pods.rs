//! Rotations as users have them: the chart's sentry with a life of minutes, sidecars in pods, mounts that the kubelet refreshes.
//! Apps call each other over their sidecars all the time; with every change of the trust anchors a new pod joins them, with which
//! all others have to shake hands. One sidecar never hears of a new root.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, anyhow, bail, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, ResourceExt,
    api::{ListParams, LogParams},
};
use outrigger_core::control_plane::TRUST_BUNDLE;
use parking_lot::Mutex;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{MARGIN, PACE, ROTATIONS, Tally, probe};
use crate::{
    Access, Cluster, install,
    observe::{Observer, within},
    sample,
};

const CLUSTER: &str = "rotations";
const NAMESPACE: &str = "shop";
const SYSTEM: &str = "dapr-system";
/// Of an authority. The next root is announced after less than half of it, for longer than two refreshes of the kubelet.
const TTL: Duration = Duration::from_secs(360);
const VALUES: [&str; 5] = [
    r#"dapr_sentry.ca.ttl="360s""#,
    "dapr_sentry.ca.renewalThreshold=0.45",
    r#"dapr_sentry.ca.propagationGrace="150s""#,
    r#"global.mtls.allowedClockSkew="10s""#,
    r#"global.mtls.workloadCertTTL="2m""#,
];
/// Those that are there from the beginning; the last one knows the first root only.
const APPS: [&str; 3] = ["one", "two", "frozen"];
const FROZEN: &str = "dapr.io/env: DAPR_TRUST_ANCHORS_FILE=/nonexistent/ca.crt";

/// A pod that calls an app.
#[derive(Clone)]
struct Route {
    kind: &'static str,
    pod: String,
    app: String,
    /// Whether the first root has to be valid.
    first_root: bool,
}

/// Calls everybody, until it is told to stop.
struct Load {
    seen: Observer,
    routes: Mutex<Vec<Route>>,
    tally: Mutex<Tally>,
    first_expires: SystemTime,
}

/// Runs on a cluster of its own, which is removed afterwards.
///
/// # Errors
/// What failed.
pub async fn run() -> anyhow::Result<()> {
    println!("setting up a cluster (an authority lives for {} s)", TTL.as_secs());
    // From here on, so that a signal in the set-up counts once that is done.
    let (mut interrupted, mut terminated) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let result = match install::fresh_with(CLUSTER, &VALUES).await {
        Ok(access) => tokio::select! {
            result = rotate(&access) => result,
            _ = interrupted.recv() => Err(anyhow!("interrupted")),
            _ = terminated.recv() => Err(anyhow!("terminated")),
        },
        Err(error) => Err(error),
    };
    let removed = Cluster::down(CLUSTER, false).await;
    // What went wrong first is what counts.
    result?;
    removed.context("remove the cluster")?;
    Ok(())
}

async fn rotate(access: &Access) -> anyhow::Result<()> {
    let result = on(access).await;
    if result.is_err() {
        for namespace in [NAMESPACE, SYSTEM] {
            println!("{}", install::describe(access, namespace).await);
        }
    }
    result
}

async fn on(access: &Access) -> anyhow::Result<()> {
    access.kubectl(["create", "namespace", NAMESPACE]).await?;
    let seen = Observer::new(access.client().await?, NAMESPACE);
    let maps: Api<ConfigMap> = Api::namespaced(seen.client.clone(), SYSTEM);
    let anchors = async || {
        let data = maps.get(TRUST_BUNDLE).await?.data.unwrap_or_default();
        data.get("ca.crt").cloned().context("no anchors")
    };
    let mut known = anchors().await?;
    let load = Arc::new(Load {
        seen: seen.clone(),
        routes: Mutex::default(),
        tally: Mutex::default(),
        first_expires: probe::expiry(&known)?,
    });
    let mut pods = Vec::new();
    for app in APPS {
        let annotation = if app == "frozen" { FROZEN } else { "" };
        deploy(access, app, annotation).await?;
    }
    for app in APPS {
        pods.push(seen.pod_with_sidecar(app).await?);
    }
    for (from, to) in [(0, 1), (1, 0), (0, 2), (1, 2), (2, 0), (2, 1)] {
        let with_frozen = from == 2 || to == 2;
        load.join(Route {
            kind: match with_frozen {
                true => "calls with a sidecar that knows the first root only",
                false => "calls between sidecars that were there from the beginning",
            },
            pod: pods[from].clone(),
            app: APPS[to].to_owned(),
            first_root: with_frozen,
        })
        .await?;
    }
    ensure!(
        anchors().await? == known,
        "the set-up took longer than the first root was alone"
    );
    let stop = CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    let calling = tokio::spawn(load.clone().run(stop.clone()));
    println!("calls begin");

    let (began, mut dropped, mut joined) = (Instant::now(), 0, 0);
    let limit = TTL * u32::try_from(ROTATIONS + 2)?;
    while dropped < ROTATIONS {
        ensure!(
            began.elapsed() < limit,
            "only {dropped} roots were dropped in {limit:?}"
        );
        sleep(Duration::from_secs(1)).await;
        let now = anchors().await?;
        if now == known {
            continue;
        }
        let count = |text: &str| text.matches("BEGIN CERTIFICATE").count();
        dropped += usize::from(count(&now) < count(&known));
        println!(
            "{:>6.1} s: {} trust anchors; {}",
            began.elapsed().as_secs_f64(),
            count(&now),
            load.so_far()
        );
        known = now;
        joined += 1;
        load.newcomer(access, &format!("fresh-{joined}"), &pods).await?;
    }
    stop.cancel();
    calling.await?;

    let reloads = seen.pods().logs(&pods[0], &daprd_log()).await?;
    let reloads = reloads
        .lines()
        .filter(|line| line.contains("trust anchors changed"))
        .count();
    println!("  {reloads:>6} refreshed mounts that the first sidecar noticed");
    ensure!(
        reloads >= ROTATIONS,
        "the sidecar followed {reloads} changes of its mount only"
    );
    let restarts = restarts(&seen).await?;
    load.finish(restarts)
}

impl Load {
    /// Waits until the route works, which takes names and endpoints, and calls over it from then on.
    async fn join(&self, route: Route) -> anyhow::Result<()> {
        let what = format!("a call from {} to {}", route.pod, route.app);
        within(&what, async || {
            match self.call(&route).await {
                Ok(()) => return Ok(Some(())),
                // Not having found each other yet is no failure; not having trusted each other is.
                Err(error) => {
                    let text = format!("{error:#}").to_lowercase();
                    if ["certificate", "handshake", "issuer"]
                        .iter()
                        .any(|word| text.contains(word))
                    {
                        self.tally.lock().failures.push(format!("{what}: {text}"));
                    }
                }
            }
            sleep(PACE).await;
            Ok(None)
        })
        .await?;
        self.routes.lock().push(route);
        Ok(())
    }

    async fn call(&self, route: &Route) -> anyhow::Result<()> {
        let path = format!("/call/{}/hello", route.app);
        let answer = self.seen.get(&route.pod, 3000, &path).await?;
        ensure!(answer.contains(&route.app), "{answer}");
        Ok(())
    }

    fn first_root_holds(&self) -> bool {
        SystemTime::now() + MARGIN < self.first_expires
    }

    async fn run(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let routes = self.routes.lock().clone();
            for route in routes {
                if route.first_root && !self.first_root_holds() {
                    continue;
                }
                let result = self
                    .call(&route)
                    .await
                    .context(format!("{} to {}", route.pod, route.app));
                self.tally.lock().count(route.kind, result);
            }
            sleep(PACE).await;
        }
    }

    /// A new pod calls all others and is called by them.
    async fn newcomer(&self, access: &Access, app: &str, pods: &[String]) -> anyhow::Result<()> {
        deploy(access, app, "").await?;
        let fresh = self.seen.pod_with_sidecar(app).await?;
        for (pod, known) in pods.iter().zip(APPS) {
            let first_root = known == "frozen";
            let kind = match first_root {
                true => "calls between a new pod and a sidecar that knows the first root only",
                false => "calls between a new pod and those from the beginning",
            };
            for (pod, app) in [(pod, app), (&fresh, known)] {
                // It may end while the pod starts.
                if first_root && !self.first_root_holds() {
                    continue;
                }
                let (pod, app) = (pod.clone(), app.to_owned());
                self.join(Route {
                    kind,
                    pod,
                    app,
                    first_root,
                })
                .await?;
            }
        }
        Ok(())
    }

    fn so_far(&self) -> String {
        let tally = self.tally.lock();
        format!(
            "{} calls so far, {} failed",
            tally.calls.values().sum::<usize>(),
            tally.failures.len()
        )
    }

    fn finish(&self, restarts: i32) -> anyhow::Result<()> {
        let tally = self.tally.lock();
        for (kind, calls) in &tally.calls {
            println!("  {calls:>6} {kind}");
        }
        for failure in tally.failures.iter().take(20) {
            println!("  failed: {failure}");
        }
        if !tally.failures.is_empty() || restarts > 0 {
            bail!("{} calls failed, {restarts} containers restarted", tally.failures.len());
        }
        println!("{ROTATIONS} roots replaced under pods: 0 calls failed, 0 containers restarted");
        Ok(())
    }
}

async fn deploy(access: &Access, app: &str, annotation: &str) -> anyhow::Result<()> {
    access
        .apply_text(NAMESPACE, &sample::deployment(app, annotation))
        .await?;
    Ok(())
}

/// Of all containers of apps and control plane.
async fn restarts(seen: &Observer) -> anyhow::Result<i32> {
    let mut restarts = 0;
    for namespace in [NAMESPACE, SYSTEM] {
        let seen = Observer::new(seen.client.clone(), namespace);
        let pods: Vec<Pod> = seen.pods().list(&ListParams::default()).await?.items;
        for pod in pods {
            restarts += seen.restarts(&pod.name_any()).await?;
        }
    }
    Ok(restarts)
}

fn daprd_log() -> LogParams {
    LogParams {
        container: Some("daprd".to_owned()),
        ..LogParams::default()
    }
}
