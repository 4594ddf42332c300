//! The story: install, an app with its sidecar, resources that come and change, a pod that missed injection.

use std::{future::Future, time::Instant};

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use tokio::process::Command;

use super::{
    narrator::{Narrator, Step, milliseconds},
    target::Ready,
};
use crate::{command, install, observe::Observer, release};

/// Where the demo's apps live.
pub(super) const NAMESPACE: &str = "outrigger-demo";
/// Where the sample app listens.
const APP_PORT: u16 = 3000;
/// Marks the release, so that a second demo knows what it may replace.
const RELEASE_LABEL: &str = "installed-by=outrigger-demo";
pub(super) async fn tell(cluster: &Ready, narrator: &mut Narrator) -> anyhow::Result<()> {
    let story = Story {
        cluster,
        seen: Observer::new(cluster.access.client().await?, NAMESPACE),
    };
    story.clear_earlier_demo(narrator).await?;
    story.install(narrator).await?;
    let cart = story.deploy_app(narrator).await?;
    story.use_state(narrator, &cart).await?;
    story.change_components(narrator, &cart).await?;
    story.break_and_repair(narrator, &cart).await?;
    let orders = story.miss_injection(narrator).await?;
    story.invoke(narrator, &orders).await?;
    story.look_at_status(narrator).await
}

struct Story<'a> {
    cluster: &'a Ready,
    seen: Observer,
}

impl Story<'_> {
    /// Runs kubectl and notes it as people would type it.
    async fn kubectl(&self, step: &mut Step, args: &[&str]) -> anyhow::Result<String> {
        self.run(
            step,
            ("kubectl", "--context"),
            self.cluster.access.kubectl_command(args),
            args,
        )
        .await
    }

    async fn helm(&self, step: &mut Step, args: &[&str]) -> anyhow::Result<String> {
        self.run(
            step,
            ("helm", "--kube-context"),
            self.cluster.access.helm_command(args),
            args,
        )
        .await
    }

    async fn run(
        &self,
        step: &mut Step,
        (program, flag): (&str, &str),
        mut command: Command,
        args: &[&str],
    ) -> anyhow::Result<String> {
        let context = self
            .cluster
            .context
            .as_deref()
            .map(|name| format!("{flag} {name} "))
            .unwrap_or_default();
        step.ran(format!("{program} {context}{}", spelled(args)));
        command.current_dir(release::workspace());
        Ok(command::run(command).await?)
    }

    /// A second demo begins where the first did. A release of somebody else's is left alone.
    async fn clear_earlier_demo(&self, narrator: &mut Narrator) -> anyhow::Result<()> {
        let access = &self.cluster.access;
        let all = access.helm(["list", "-n", "dapr-system", "-q"]).await?;
        let ours = access
            .helm(["list", "-n", "dapr-system", "-q", "-l", RELEASE_LABEL])
            .await?;
        let namespaces: Api<Namespace> = Api::all(self.seen.client.clone());
        let has_namespace = namespaces.get_opt(NAMESPACE).await?.is_some();
        if all.lines().any(|name| name == "dapr") && !ours.lines().any(|name| name == "dapr") {
            bail!(
                "namespace dapr-system has a release named dapr that no demo installed; uninstall it first, or choose another cluster"
            );
        }
        if ours.trim().is_empty() && !has_namespace {
            return Ok(());
        }
        let mut step = narrator.begin("what an earlier demo left is removed");
        if has_namespace {
            self.kubectl(&mut step, &["delete", "namespace", NAMESPACE, "--wait"])
                .await?;
        }
        if !ours.trim().is_empty() {
            self.helm(&mut step, &["uninstall", "dapr", "-n", "dapr-system", "--wait"])
                .await?;
        }
        // Helm installs CRDs only where there are none.
        self.kubectl(
            &mut step,
            &["apply", "--server-side", "--force-conflicts", "-f", "charts/dapr/crds"],
        )
        .await?;
        narrator.done(step, &[]);
        Ok(())
    }

    async fn install(&self, narrator: &mut Narrator) -> anyhow::Result<()> {
        let mut step = narrator.begin("the control plane: operator, sentry, injector");
        self.helm(
            &mut step,
            &[&install::HELM_ARGS[..], &["--labels", RELEASE_LABEL]].concat(),
        )
        .await?;
        let pods = self.kubectl(&mut step, &["get", "pods", "-n", "dapr-system"]).await?;
        step.printed(pods.trim_end());
        narrator.done(step, &["CRDs, RBAC, trust bundle and webhook are in place".to_owned()]);
        Ok(())
    }

    async fn deploy_app(&self, narrator: &mut Narrator) -> anyhow::Result<String> {
        let mut step = narrator.begin("an app with a sidecar: annotations on its pods are all it takes");
        self.kubectl(&mut step, &["create", "namespace", NAMESPACE]).await?;
        self.kubectl(
            &mut step,
            &[
                "apply",
                "-n",
                NAMESPACE,
                "-f",
                "e2e/demo/statestore.yaml",
                "-f",
                "e2e/demo/cart.yaml",
            ],
        )
        .await?;
        self.kubectl(
            &mut step,
            &[
                "rollout",
                "status",
                "-n",
                NAMESPACE,
                "deployment/cart",
                "--timeout=180s",
            ],
        )
        .await?;
        let pods = self.kubectl(&mut step, &["get", "pods", "-n", NAMESPACE]).await?;
        step.printed(pods.trim_end());
        let pod = self.seen.pod_with_sidecar("cart").await?;
        narrator.done(
            step,
            &["the injector added daprd; it has a certificate, its resources and two open streams".to_owned()],
        );
        Ok(pod)
    }

    async fn use_state(&self, narrator: &mut Narrator, pod: &str) -> anyhow::Result<()> {
        let mut step = narrator.begin("the app saves and reads state through its sidecar");
        let (save, read) = (
            "/save/statestore/basket",
            self.seen.proxy(pod, APP_PORT, "/read/statestore/basket"),
        );
        let typed = self.seen.proxy(pod, APP_PORT, save);
        step.ran(format!("echo '\"three apples\"' | kubectl create --raw {typed} -f -"));
        self.seen
            .post(pod, APP_PORT, save, "\"three apples\"")
            .await
            .context("saving state through the sidecar")?;
        let read = self.kubectl(&mut step, &["get", "--raw", &read]).await?;
        if !read.contains("three apples") {
            bail!("saved \"three apples\", read {read:?}");
        }
        narrator.done(step, &[format!("read back: {}", read.trim())]);
        Ok(())
    }

    async fn change_components(&self, narrator: &mut Narrator, pod: &str) -> anyhow::Result<()> {
        let restarts = self.seen.restarts(pod).await?;
        let mut step = narrator.begin("a second component is applied: the running sidecar loads it");
        let apply = ["apply", "-n", NAMESPACE, "-f", "e2e/demo/sessions.yaml"];
        let seen = self
            .seen
            .until_components(pod, |names| names.iter().any(|name| name == "sessions"));
        let (first, first_names) = timed(self.kubectl(&mut step, &apply), seen).await?;
        narrator.done(
            step,
            &[
                first.describe(),
                format!("/v1.0/metadata lists {}", first_names.join(", ")),
            ],
        );

        let mut step = narrator.begin("the first one is edited, now for another app only: the sidecar drops it");
        let patch = [
            "patch",
            "component",
            "statestore",
            "-n",
            NAMESPACE,
            "--type",
            "merge",
            "-p",
            r#"{"scopes":["somebody-else"]}"#,
        ];
        let seen = self
            .seen
            .until_components(pod, |names| !names.iter().any(|name| name == "statestore"));
        let (second, _) = timed(self.kubectl(&mut step, &patch), seen).await?;
        let undo = [
            "patch",
            "component",
            "statestore",
            "-n",
            NAMESPACE,
            "--type",
            "json",
            "-p",
            r#"[{"op":"remove","path":"/scopes"}]"#,
        ];
        self.kubectl(&mut step, &undo).await?;
        let names = self
            .seen
            .until_components(pod, |names| names.iter().any(|name| name == "statestore"))
            .await?;
        if self.seen.restarts(pod).await? != restarts {
            bail!("the pod {pod} was restarted");
        }
        narrator.done(
            step,
            &[
                second.describe(),
                format!("and back: {}; no restart", names.1.join(", ")),
            ],
        );
        Ok(())
    }

    async fn break_and_repair(&self, narrator: &mut Narrator, pod: &str) -> anyhow::Result<()> {
        let mut step = narrator.begin("a bad edit harms nothing: the last good component goes on serving");
        let bad = [
            "patch",
            "component",
            "sessions",
            "-n",
            NAMESPACE,
            "--type",
            "merge",
            "-p",
            r#"{"spec":{"type":"state.in-memroy"}}"#,
        ];
        self.kubectl(&mut step, &bad).await?;
        let log = self.seen.until_log(pod, "state.in-memroy").await?;
        step.ran(format!("kubectl logs -n {NAMESPACE} {pod} -c daprd"));
        step.printed(log.trim_end());
        let written = self.seen.post(pod, APP_PORT, "/save/sessions/s1", "1").await;
        written.context("the component has to go on serving")?;
        self.kubectl(&mut step, &["apply", "-n", NAMESPACE, "-f", "e2e/demo/sessions.yaml"])
            .await?;
        narrator.done(step, &["sessions still took writes; now it is repaired".to_owned()]);
        Ok(())
    }

    async fn miss_injection(&self, narrator: &mut Narrator) -> anyhow::Result<String> {
        let injector = "deployment/dapr-sidecar-injector";
        let mut step = narrator.begin("a pod is created while the injector is down: it runs without a sidecar");
        self.kubectl(&mut step, &["scale", "-n", "dapr-system", injector, "--replicas=0"])
            .await?;
        self.kubectl(
            &mut step,
            &[
                "wait",
                "-n",
                "dapr-system",
                "--for=delete",
                "pod",
                "-l",
                "app=dapr-sidecar-injector",
                "--timeout=120s",
            ],
        )
        .await?;
        self.kubectl(&mut step, &["apply", "-n", NAMESPACE, "-f", "e2e/demo/orders.yaml"])
            .await?;
        self.kubectl(
            &mut step,
            &[
                "rollout",
                "status",
                "-n",
                NAMESPACE,
                "deployment/orders",
                "--timeout=120s",
            ],
        )
        .await?;
        let pods = self
            .kubectl(&mut step, &["get", "pods", "-n", NAMESPACE, "-l", "app=orders"])
            .await?;
        step.printed(pods.trim_end());
        narrator.done(step, &[]);

        let mut step = narrator.begin("the injector is back, and the watchdog has the pod created anew");
        self.kubectl(&mut step, &["scale", "-n", "dapr-system", injector, "--replicas=1"])
            .await?;
        self.kubectl(
            &mut step,
            &["rollout", "status", "-n", "dapr-system", injector, "--timeout=120s"],
        )
        .await?;
        let pod = self.seen.pod_with_sidecar("orders").await?;
        let pods = self
            .kubectl(&mut step, &["get", "pods", "-n", NAMESPACE, "-l", "app=orders"])
            .await?;
        step.printed(pods.trim_end());
        narrator.done(
            step,
            &["evicted through the Eviction API; its Deployment made a new one, with a sidecar".to_owned()],
        );
        Ok(pod)
    }

    async fn invoke(&self, narrator: &mut Narrator, orders: &str) -> anyhow::Result<()> {
        let mut step = narrator.begin("orders calls cart: sidecar to sidecar, over mTLS");
        let path = self.seen.proxy(orders, APP_PORT, "/call/cart/hello");
        let answer = self.kubectl(&mut step, &["get", "--raw", &path]).await?;
        narrator.done(step, &[format!("cart answered: {}", answer.trim())]);
        Ok(())
    }

    async fn look_at_status(&self, narrator: &mut Narrator) -> anyhow::Result<()> {
        let mut step = narrator.begin("resources say how they are");
        let wait = [
            "wait",
            "-n",
            NAMESPACE,
            "--for=condition=Ready",
            "component/statestore",
            "component/sessions",
            "--timeout=60s",
        ];
        let waited = self.kubectl(&mut step, &wait).await?;
        step.printed(waited.trim_end());
        let table = self.kubectl(&mut step, &["get", "components", "-n", NAMESPACE]).await?;
        step.printed(table.trim_end());
        narrator.done(step, &[]);
        Ok(())
    }
}

/// How long a change took to reach the sidecar.
struct Delay {
    began: Instant,
    returned: Instant,
    seen: Instant,
}

impl Delay {
    fn describe(&self) -> String {
        let total = milliseconds(self.seen - self.began);
        match self.seen.checked_duration_since(self.returned) {
            Some(after) => format!(
                "in the sidecar {} after kubectl returned, {total} after it began",
                milliseconds(after)
            ),
            None => format!("in the sidecar before kubectl returned, {total} after it began"),
        }
    }
}

/// Runs a command and, at the same time, waits for its effect.
async fn timed(
    command: impl Future<Output = anyhow::Result<String>>,
    effect: impl Future<Output = anyhow::Result<(Instant, Vec<String>)>>,
) -> anyhow::Result<(Delay, Vec<String>)> {
    let began = Instant::now();
    let command = async {
        command.await?;
        anyhow::Ok(Instant::now())
    };
    let (returned, (seen, names)) = tokio::try_join!(command, effect)?;
    Ok((Delay { began, returned, seen }, names))
}

/// Arguments as they are typed in a shell.
fn spelled(args: &[&str]) -> String {
    let quote = |word: &&str| match word
        .chars()
        .any(|c| c.is_whitespace() || "{}[]\"'$*?;&|<>()".contains(c))
    {
        true => format!("'{word}'"),
        false => (*word).to_owned(),
    };
    args.iter().map(quote).collect::<Vec<_>>().join(" ")
}
