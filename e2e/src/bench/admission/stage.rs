//! A real API server, a sentry that certifies whoever asks, and the injector's binary as a process of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::Context;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::{Api, api::PostParams};
use outrigger_core::{
    TrustDomain,
    control_plane::{SIDECAR_INJECTOR, Service},
};
use outrigger_testkit::{ApiServer, Workloads};
use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::client::{Client, Protocol};
use crate::{bench::process::Process, ports::Serving};

const CONTROL_PLANE: &str = "admission-system";
const TRUST_DOMAIN: &str = "cluster.local";

/// What stays the same for all processes that are measured.
pub(super) struct Stage {
    workloads: Workloads,
    kubeconfig: PathBuf,
    sentry: String,
    folder: TempDir,
    _stop: DropGuard,
}

/// A running injector; it ends with this.
pub(super) struct Injector {
    process: Process,
    pub(super) pid: u32,
    port: u16,
}

impl Stage {
    /// Starts the API server and sentry, and installs the definitions and the webhook's registration, for which no pod is created.
    pub(super) async fn prepare() -> anyhow::Result<Self> {
        let server = ApiServer::shared().await;
        server
            .apply_crds(&crate::release::workspace().join("charts/dapr/crds"))
            .await?;
        let registration: MutatingWebhookConfiguration = serde_json::from_value(json!({
            "metadata": {"name": SIDECAR_INJECTOR},
            "webhooks": [{
                "name": "sidecar-injector.dapr.io",
                "clientConfig": {"service": {"namespace": CONTROL_PLANE, "name": SIDECAR_INJECTOR, "path": "/mutate"}},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
            }],
        }))?;
        let registrations: Api<MutatingWebhookConfiguration> = Api::all(server.client());
        registrations
            .create(&PostParams::default(), &registration)
            .await
            .context("register the webhook")?;

        let workloads = Workloads::new()?;
        let stop = CancellationToken::new();
        let id = Service::Sentry.spiffe_id(&TrustDomain::new(TRUST_DOMAIN)?, CONTROL_PLANE)?;
        let sentry = workloads.serve_sentry(id, &stop).await?.to_string();
        let stage = Self {
            workloads,
            kubeconfig: server.kubeconfig(),
            sentry,
            folder: tempfile::tempdir()?,
            _stop: stop.drop_guard(),
        };
        fs::write(stage.anchors(), stage.workloads.anchors())?;
        Ok(stage)
    }

    fn anchors(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// Starts a binary with the chart's settings and waits until it is ready. Its log goes nowhere, but is written.
    pub(super) async fn start(&self, binary: &Path) -> anyhow::Result<Injector> {
        let serving = Serving::new()?;
        let mut command = Command::new(binary);
        command
            .env_clear()
            .envs([
                ("NAMESPACE", CONTROL_PLANE),
                ("DAPR_CONTROL_PLANE_TRUST_DOMAIN", TRUST_DOMAIN),
                ("DAPR_SENTRY_ADDRESS", &self.sentry),
                ("DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK", "true"),
                ("KUBE_CLUSTER_DOMAIN", "cluster.local"),
                ("SIDECAR_IMAGE", "localhost/outrigger/daprd:1"),
                ("SIDECAR_IMAGE_PULL_POLICY", "IfNotPresent"),
                ("SIDECAR_DROP_ALL_CAPABILITIES", "true"),
                ("SIDECAR_SECCOMP_PROFILE_TYPE", "RuntimeDefault"),
                ("TRUST_DISTRIBUTION_ENABLED", "true"),
            ])
            .env("DAPR_TRUST_ANCHORS_FILE", self.anchors())
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(serving.flags())
            .stdout(Stdio::null());
        let process = Process::start(&mut command, serving.healthz).await?;
        Ok(Injector {
            pid: process.pid,
            process,
            port: serving.port,
        })
    }

    /// What talks to the injector as an API server does.
    pub(super) fn client(&self, injector: &Injector, protocol: Protocol) -> anyhow::Result<Client> {
        let name = format!("{SIDECAR_INJECTOR}.{CONTROL_PLANE}.svc");
        Client::new(injector.port, name, &self.workloads.anchor(), protocol)
    }
}

impl Injector {
    /// Ends it and waits.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.process.stop().await
    }
}
