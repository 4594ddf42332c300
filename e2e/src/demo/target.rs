//! Where the demo runs: the local cluster, or a context that was named. Never the ambient one.

use std::{env, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use tokio::process::Command;

use super::narrator::Narrator;
use crate::{
    Access, Cluster,
    cluster::{DEFAULT_NAME, Options},
    command, release, toolchain,
};

/// The cluster to use.
#[derive(Debug, Clone)]
pub enum Target {
    /// A node on this machine, which is started when it does not run.
    Local,
    /// A context of the user's kubeconfig.
    Context(String),
}

/// A cluster that is up and has the images.
pub(super) struct Ready {
    pub(super) access: Access,
    /// Flags that make kubectl and helm use this cluster, as people type them.
    pub(super) context: Option<String>,
    local: Option<Cluster>,
}

impl Target {
    pub(super) async fn prepare(&self, narrator: &mut Narrator) -> anyhow::Result<Ready> {
        let ready = match self {
            Self::Local => local(narrator).await?,
            Self::Context(context) => named(narrator, context).await?,
        };
        images(narrator, self, &ready).await?;
        Ok(ready)
    }
}

async fn local(narrator: &mut Narrator) -> anyhow::Result<Ready> {
    // Building shows its own progress, a line for each program, so it is not a step of the story.
    toolchain::build(&mut |line| println!("    {line}"))?;
    let mut step = narrator.begin("a real Kubernetes on this machine");
    let options = Options {
        name: DEFAULT_NAME.to_owned(),
        port: None,
        audit: false,
        deadline: Duration::from_secs(180),
    };
    let cluster = Cluster::up(&options, &mut |_| {}).await?;
    step.ran("make cluster");
    let version = cluster.access().kubectl(["get", "nodes", "--no-headers"]).await?;
    step.ran("kubectl get nodes");
    step.printed(version.trim_end());
    let state = if cluster.is_new() { "started" } else { "it ran already" };
    narrator.done(
        step,
        &[format!("{state}; API server on https://127.0.0.1:{}", cluster.port())],
    );
    Ok(Ready {
        access: cluster.access(),
        context: None,
        local: Some(cluster),
    })
}

async fn named(narrator: &mut Narrator, context: &str) -> anyhow::Result<Ready> {
    let toolchain = toolchain::build(&mut |line| println!("    {line}"))?;
    let mut step = narrator.begin(&format!("the cluster of context {context}"));
    let kubeconfig = kubeconfig().context("CONTEXT was given, but no kubeconfig was found")?;
    let access = Access::new(toolchain, kubeconfig, Some(context.to_owned()));
    let nodes = access
        .kubectl(["get", "nodes", "--no-headers"])
        .await
        .with_context(|| format!("the cluster of context {context} cannot be used"))?;
    step.ran(format!("kubectl --context {context} get nodes"));
    step.printed(nodes.trim_end());
    narrator.done(step, &[]);
    Ok(Ready {
        access,
        context: Some(context.to_owned()),
        local: None,
    })
}

/// The file of `KUBECONFIG`, which may be a list, or the one in the home folder.
fn kubeconfig() -> anyhow::Result<PathBuf> {
    let listed = env::var_os("KUBECONFIG")
        .map(|list| env::split_paths(&list).collect::<Vec<_>>())
        .unwrap_or_default();
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
    match listed.into_iter().chain(home).find(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => bail!("neither KUBECONFIG nor ~/.kube/config names a file that exists"),
    }
}

async fn images(narrator: &mut Narrator, target: &Target, ready: &Ready) -> anyhow::Result<()> {
    let kind = match target {
        Target::Local => None,
        Target::Context(context) => match context.strip_prefix("kind-") {
            Some(cluster) => Some(cluster),
            None => {
                println!("    images come from the registry that the chart's values name");
                return Ok(());
            }
        },
    };
    let mut step = narrator.begin("images without Docker: static binaries, each alone in its image");
    let archives = release::build().await?;
    step.ran("make images");
    let mut changed = Vec::new();
    for archive in &archives {
        match (&ready.local, kind) {
            (Some(cluster), _) => cluster.import_image(&archive.path).await?,
            (None, Some(cluster)) => load_into_kind(cluster, &archive.path).await?,
            (None, None) => {}
        }
        let state = if archive.fresh { "packed" } else { "unchanged" };
        changed.push(format!(
            "{:<40} {:>5.1} MB  {state}",
            archive.image,
            archive.binary_size as f64 / 1e6
        ));
    }
    narrator.done(step, &changed);
    Ok(())
}

async fn load_into_kind(cluster: &str, archive: &std::path::Path) -> anyhow::Result<()> {
    let mut kind = Command::new("kind");
    kind.args(["load", "image-archive"])
        .arg(archive)
        .args(["--name", cluster]);
    command::run(kind)
        .await
        .context("the context is one of kind, whose command loads the images")?;
    Ok(())
}

impl Ready {
    /// How to go on with the cluster, and how to end it.
    pub(super) fn farewell(&self) -> Vec<String> {
        match (&self.local, &self.context) {
            (Some(cluster), _) => vec![
                format!("export KUBECONFIG={}", cluster.folder().kubeconfig().display()),
                format!(
                    "export PATH=\"$PATH:{}\"        # kubectl and helm",
                    cluster.programs().display()
                ),
                "kubectl get components -A".to_owned(),
                "make cluster-down                   # stops it and removes everything".to_owned(),
            ],
            (None, context) => {
                let context = context.as_deref().unwrap_or_default();
                vec![
                    format!("kubectl --context {context} get components -A"),
                    format!(
                        "helm --kube-context {context} uninstall dapr -n dapr-system   # removes the control plane"
                    ),
                    format!(
                        "kubectl --context {context} delete namespace {}",
                        super::story::NAMESPACE
                    ),
                ]
            }
        }
    }
}
