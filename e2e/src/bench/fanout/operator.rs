//! The operator's release binary as a process of its own, against a real API server and a sentry that certifies whoever asks.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::Context;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams},
};
use outrigger_core::{
    TrustDomain,
    control_plane::{SYSTEM_CONFIGURATION, Service},
};
use outrigger_testkit::{ApiServer, Workloads};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::super::process::{Process, get};
use crate::ports::Serving;

/// Where the sidecars of the measurement live.
pub(super) const NAMESPACE: &str = "fanout";
/// Where they list.
pub(super) const LISTED: &str = "fanout-lists";
const CONTROL_PLANE: &str = "fanout-system";
const TRUST_DOMAIN: &str = "cluster.local";

/// What stays the same for all processes that are measured.
pub(super) struct Stage {
    pub(super) client: Client,
    pub(super) workloads: Workloads,
    kubeconfig: PathBuf,
    folder: TempDir,
    stop: CancellationToken,
}

/// A running operator; it ends with this.
pub(super) struct Operator {
    pub(super) process: Process,
    pub(super) address: SocketAddr,
    metrics: u16,
}

impl Stage {
    /// Starts the API server, installs the definitions, and starts sentry.
    pub(super) async fn prepare() -> anyhow::Result<Self> {
        let server = ApiServer::shared().await;
        let crds = crate::release::workspace().join("charts/dapr/crds");
        server.apply_crds(&crds).await?;
        let stage = Self {
            client: server.client(),
            workloads: Workloads::new()?,
            kubeconfig: server.kubeconfig(),
            folder: tempfile::tempdir()?,
            stop: CancellationToken::new(),
        };
        for name in [NAMESPACE, LISTED, CONTROL_PLANE] {
            stage
                .apply("v1", "Namespace", "namespaces", None, name, json!({}))
                .await?;
        }
        let sentry = Service::Sentry.spiffe_id(&TrustDomain::new(TRUST_DOMAIN)?, CONTROL_PLANE)?;
        let sentry = stage.workloads.serve_sentry(sentry, &stage.stop).await?;
        let mtls =
            json!({"enabled": true, "controlPlaneTrustDomain": TRUST_DOMAIN, "sentryAddress": sentry.to_string()});
        let spec = json!({"spec": {"mtls": mtls}});
        let (version, kind) = ("dapr.io/v1alpha1", "Configuration");
        stage
            .apply(
                version,
                kind,
                "configurations",
                Some(CONTROL_PLANE),
                SYSTEM_CONFIGURATION,
                spec,
            )
            .await?;
        fs::write(stage.anchors(), stage.workloads.anchors())?;
        Ok(stage)
    }

    fn anchors(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// Applies an object as `bench`.
    pub(super) async fn apply(
        &self,
        version: &str,
        kind: &str,
        plural: &str,
        namespace: Option<&str>,
        name: &str,
        mut object: Value,
    ) -> anyhow::Result<()> {
        let (group, bare) = version.split_once('/').unwrap_or(("", version));
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, bare, kind), plural);
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        object["apiVersion"] = version.into();
        object["kind"] = kind.into();
        object["metadata"]["name"] = name.into();
        api.patch(name, &PatchParams::apply("bench").force(), &Patch::Apply(&object))
            .await
            .with_context(|| format!("apply {kind} {name}"))?;
        Ok(())
    }

    /// Starts a binary and waits until it is ready.
    pub(super) async fn start(&self, binary: &Path) -> anyhow::Result<Operator> {
        let serving = Serving::new()?;
        let mut command = Command::new(binary);
        command
            .env_clear()
            .env("NAMESPACE", CONTROL_PLANE)
            .env("DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK", "true")
            .arg("-kubeconfig")
            .arg(&self.kubeconfig)
            .args(["--log-level", "warn"])
            .args(serving.flags())
            .arg("--trust-anchors-file")
            .arg(self.anchors())
            .env("ENABLE_WEBHOOKS", "false");
        Ok(Operator {
            process: Process::start(&mut command, serving.healthz).await?,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, serving.port)),
            metrics: serving.metrics,
        })
    }
}

impl Operator {
    /// The series of a metric: labels as written, and value.
    pub(super) async fn series(&self, name: &str) -> anyhow::Result<Vec<(String, f64)>> {
        let text = get(self.metrics, "/").await?;
        let lines = text.lines().filter_map(|line| line.strip_prefix(name));
        Ok(lines
            .filter(|rest| rest.starts_with(['{', ' ']))
            .filter_map(|rest| {
                let (labels, value) = rest.rsplit_once(' ')?;
                Some((labels.to_owned(), value.parse().ok()?))
            })
            .collect())
    }
}
