//! The programs that run: sentries, operator, injector, sidecars, and the app behind these.

use std::process::Stdio;

use anyhow::Context;
use axum::{Router, routing::any};
use serde_json::json;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::{DOMAIN, GRACE, SIDECARS, Stage, THRESHOLD, TTL, loopback, named};
use crate::ports::{Serving, free_port};

impl Stage {
    fn start(&mut self, name: &str, program: &str, configure: impl FnOnce(&mut Command)) -> anyhow::Result<()> {
        let path = self.programs.join(program);
        let log = std::fs::File::create(self.folder.path().join(format!("{name}.log")))?;
        let mut command = Command::new(&path);
        command
            .env_clear()
            .env("DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK", "true")
            .stdout(log.try_clone()?)
            .stderr(log)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        configure(&mut command);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", path.display()))?;
        self.processes.push((name.to_owned(), child));
        Ok(())
    }

    pub(super) async fn start_sentries(&mut self) -> anyhow::Result<()> {
        let kubeconfig = self.kubeconfig("dapr-sentry").await?;
        for (number, port) in self.sentries.clone().into_iter().enumerate() {
            let (namespace, serving) = (self.control_plane.clone(), Serving::at(port)?.flags());
            self.start(&format!("sentry-{number}"), "sentry", |command| {
                command
                    .env("NAMESPACE", namespace)
                    .args(["--mode", "kubernetes", "--trust-domain", DOMAIN])
                    .args(serving)
                    .args([
                        format!("--ca-ttl={TTL}s"),
                        format!("--trust-anchor-propagation-grace={GRACE}s"),
                    ])
                    .args(["--ca-renewal-threshold", THRESHOLD, "--kubeconfig"])
                    .arg(&kubeconfig);
            })?;
        }
        Ok(())
    }

    pub(super) async fn start_operator(&mut self) -> anyhow::Result<()> {
        let kubeconfig = self.kubeconfig("dapr-operator").await?;
        let annotations = json!({"dapr.io/control-plane": "operator"});
        let token = self
            .pod(&self.control_plane, "dapr-operator", "dapr-operator", annotations)
            .await?;
        let anchors = self.folder.path().join("control-plane/ca.crt");
        let (namespace, serving, webhook) = (
            self.control_plane.clone(),
            Serving::at(self.operator)?.flags(),
            free_port()?,
        );
        self.start("operator", "operator", |command| {
            command
                .env("NAMESPACE", namespace)
                .env("DAPR_SENTRY_TOKEN_FILE", token)
                .args(serving)
                .args(["--trust-distribution", "--watch-interval", "10s"])
                .args(["--webhook-server-listen-address", "127.0.0.1"])
                .arg(format!("--webhook-server-port={webhook}"))
                .arg("--trust-anchors-file")
                .arg(anchors)
                .arg("--kubeconfig")
                .arg(kubeconfig);
        })
    }

    pub(super) async fn start_injector(&mut self) -> anyhow::Result<()> {
        let kubeconfig = self.kubeconfig("dapr-injector").await?;
        let annotations = json!({"dapr.io/control-plane": "injector"});
        let token = self
            .pod(&self.control_plane, "dapr-injector", "dapr-injector", annotations)
            .await?;
        let anchors = self.folder.path().join("control-plane/ca.crt");
        let (namespace, serving) = (self.control_plane.clone(), Serving::at(self.injector)?.flags());
        let sentry = named(self.sentries[1]);
        self.start("injector", "injector", |command| {
            command
                .env("NAMESPACE", namespace)
                .env("DAPR_SENTRY_TOKEN_FILE", token)
                .env("DAPR_TRUST_ANCHORS_FILE", anchors)
                .env("DAPR_SENTRY_ADDRESS", sentry)
                .env("SIDECAR_IMAGE", "daprd")
                .args(serving)
                .args(["--scheduler-enabled=false", "--kubeconfig"])
                .arg(kubeconfig);
        })
    }

    pub(super) async fn start_sidecars(&mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        let app = app(stop).await?;
        for (number, id) in SIDECARS.into_iter().enumerate() {
            let annotations = json!({"dapr.io/enabled": "true", "dapr.io/app-id": id, "dapr.io/config": "mesh"});
            let token = self
                .pod(&self.apps, &format!("app-{id}"), "default", annotations)
                .await?;
            let (http, internal) = (free_port()?, self.internal);
            let (namespace, control_plane) = (self.apps.clone(), self.control_plane.clone());
            let (operator, sentry) = (loopback(self.operator), loopback(self.sentries[number % 2]));
            let (anchors, file) = (self.first.clone(), self.sidecar_anchors());
            self.start(&format!("daprd-{id}"), "daprd", |command| {
                command
                    .env("NAMESPACE", namespace)
                    .env("POD_NAME", format!("app-{id}"))
                    .env("DAPR_TRUST_ANCHORS", anchors)
                    .env("DAPR_CONTROLPLANE_NAMESPACE", control_plane)
                    .env("DAPR_CONTROLPLANE_TRUST_DOMAIN", DOMAIN)
                    .env("DAPR_SENTRY_TOKEN_FILE", token)
                    .args([
                        "--mode",
                        "kubernetes",
                        "--app-id",
                        id,
                        "--config",
                        "mesh",
                        "--enable-mtls",
                    ])
                    .args(["--control-plane-address", &operator, "--sentry-address", &sentry])
                    .args([format!("--app-port={app}"), format!("--dapr-http-port={http}")])
                    .args(["--dapr-grpc-port", "0", "--dapr-public-port", "0"])
                    .args([
                        "--dapr-listen-addresses",
                        "127.0.0.1",
                        "--dapr-public-listen-address",
                        "127.0.0.1",
                    ])
                    .args([format!("--dapr-internal-grpc-port={internal}")])
                    .args(["--dapr-internal-grpc-listen-address", &format!("127.0.0.{id}")])
                    .arg("--enable-metrics=false");
                if number < 2 {
                    command.env("DAPR_TRUST_ANCHORS_FILE", file);
                }
            })?;
            self.sidecars.push((id, http));
        }
        Ok(())
    }
}

/// An app that answers everything; its port.
async fn app(stop: &CancellationToken) -> anyhow::Result<u16> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let router = Router::new().fallback(any(|| async { "hello" }));
    let stopped = stop.clone().cancelled_owned();
    tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(stopped).await });
    Ok(port)
}
