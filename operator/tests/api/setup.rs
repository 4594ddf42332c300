//! The operator's binary as a process, with sentry and a configuration in a namespace of its own.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use kube::{
    Api,
    api::{Patch, PatchParams},
};
use outrigger_core::{SpiffeId, TrustDomain, control_plane::Service};
use outrigger_crds::Configuration;
use outrigger_testkit::{ApiServer, Workloads, free_ports};
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
};
use tokio_util::sync::CancellationToken;

use crate::support::{eventually, soon};

const TRUST_DOMAIN: &str = "example.org";

/// What an operator's process needs; clones share it.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) namespace: String,
    pub(crate) workloads: Workloads,
    kubeconfig: PathBuf,
    folder: Arc<TempDir>,
}

/// A running operator.
pub(crate) struct Operator {
    pub(crate) port: u16,
    pub(crate) metrics: u16,
    healthz: u16,
    process: Child,
}

impl Setup {
    /// With everything that the operator waits for.
    pub(crate) async fn new(prefix: &str) -> Self {
        let api_server = ApiServer::shared().await;
        let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/dapr/crds");
        api_server.apply_crds(&crds).await.unwrap();
        let setup = Self {
            namespace: api_server.namespace(prefix).await.unwrap(),
            workloads: Workloads::new().unwrap(),
            kubeconfig: api_server.kubeconfig(),
            folder: Arc::new(tempfile::tempdir().unwrap()),
        };
        std::fs::write(setup.anchors(), setup.workloads.anchors()).unwrap();
        let stop = CancellationToken::new();
        let sentry = setup
            .workloads
            .serve_sentry(setup.id(Service::Sentry), &stop)
            .await
            .unwrap();
        let system = json!({
            "apiVersion": "dapr.io/v1alpha1", "kind": "Configuration", "metadata": {"name": "daprsystem"},
            "spec": {"mtls": {"enabled": true, "controlPlaneTrustDomain": TRUST_DOMAIN, "sentryAddress": sentry.to_string()}},
        });
        let configurations: Api<Configuration> = Api::namespaced(api_server.client(), &setup.namespace);
        let params = PatchParams::apply("test").force();
        configurations
            .patch("daprsystem", &params, &Patch::Apply(&system))
            .await
            .unwrap();
        setup
    }

    pub(crate) fn operator_id(&self) -> SpiffeId {
        self.id(Service::Operator)
    }

    fn id(&self, service: Service) -> SpiffeId {
        let trust_domain = TrustDomain::new(TRUST_DOMAIN).unwrap();
        service.spiffe_id(&trust_domain, &self.namespace).unwrap()
    }

    fn anchors(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// Starts an operator and waits until it is ready.
    pub(crate) async fn start(&self) -> Operator {
        self.start_as("", "127.0.0.1", free_port()).await
    }

    /// As [`Setup::start`], as the pod of this name at this address; an empty name is that of the machine.
    pub(crate) async fn start_as(&self, pod: &str, address: &str, port: u16) -> Operator {
        let (healthz, metrics) = (free_port(), free_port());
        let process = Command::new(env!("CARGO_BIN_EXE_operator"))
            .env_clear()
            .env("NAMESPACE", &self.namespace)
            .env("POD_NAME", pod)
            .env("ENABLE_WEBHOOKS", "false")
            .env("DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK", "true")
            .arg("-kubeconfig")
            .arg(&self.kubeconfig)
            // It leads, and would write into what is other tests'.
            .args(["--watch-namespace", &self.namespace])
            .args(["--listen-address", address, "--metrics-listen-address", "127.0.0.1"])
            .args(["--port", &port.to_string(), "--healthz-port", &healthz.to_string()])
            .args(["--metrics-port", &metrics.to_string()])
            .arg("--trust-anchors-file")
            .arg(self.anchors())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let operator = Operator {
            port,
            metrics,
            healthz,
            process,
        };
        eventually("readiness", || async {
            let answer = get(operator.healthz, "/healthz").await?;
            answer.starts_with("HTTP/1.1 200").then_some(())
        })
        .await;
        operator
    }
}

impl Operator {
    pub(crate) fn pid(&self) -> u32 {
        self.process.id().unwrap()
    }

    /// Kills it, as a node that fails does.
    pub(crate) async fn kill(mut self) {
        soon("its end", self.process.kill()).await.unwrap();
    }
}

/// A port that nobody else chooses.
pub(crate) fn free_port() -> u16 {
    let [port] = free_ports().unwrap();
    port
}

/// The answer to a GET, once there is one.
pub(crate) async fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}
