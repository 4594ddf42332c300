//! Everything that takes part: objects at the API server, processes of the control plane, sidecars, an app, and what the kubelet
//! would do.

mod chart;
mod objects;
mod programs;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use axum::{body::Body, http::Request};
use futures::future;
use http_body_util::BodyExt;
use hyper_util::{
    client::legacy::{Client as Http, connect::HttpConnector},
    rt::TokioExecutor,
};
use k8s_openapi::api::{
    authentication::v1::TokenRequest,
    core::v1::{ConfigMap, Pod, ServiceAccount},
};
use kube::{Api, Client, ResourceExt, api::PostParams};
use outrigger_core::{
    SpiffeId, TrustDomain,
    control_plane::{Service, TRUST_BUNDLE},
};
use outrigger_identity::Expect;
use outrigger_testkit::{ApiServer, toolchain::Toolchain};
use serde_json::{Value, json};
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

use super::{eventually, probe::Target};
use crate::{Access, command, ports::free_port, release};

/// Seconds that an authority lives, and that a new root is announced.
pub(super) const TTL: u64 = 60;
pub(super) const GRACE: u64 = 8;
const THRESHOLD: &str = "0.6";
/// App ids, which are the last numbers of their addresses on loopback as well; the last one never hears of a new root.
pub(super) const SIDECARS: [&str; 3] = ["11", "12", "13"];
const DOMAIN: &str = "cluster.local";
/// ConfigMap that the operator keeps in the apps' namespace.
const DISTRIBUTED: &str = "dapr-root-ca.crt";

pub(super) struct Stage {
    client: Client,
    access: Access,
    programs: PathBuf,
    folder: tempfile::TempDir,
    control_plane: String,
    apps: String,
    processes: Vec<(String, Child)>,
    http: Http<HttpConnector, Body>,
    sentries: Vec<u16>,
    operator: u16,
    injector: u16,
    internal: u16,
    /// The first root, which is all that the last sidecar ever knows.
    pub(super) first: String,
    /// HTTP ports of the sidecars.
    sidecars: Vec<(&'static str, u16)>,
}

impl Stage {
    pub(super) async fn set_up(programs: PathBuf, stop: &CancellationToken) -> anyhow::Result<Self> {
        let server = ApiServer::shared().await;
        server
            .apply_crds(&release::workspace().join("charts/dapr/crds"))
            .await?;
        let mut stage = Self {
            client: server.client(),
            access: Access::new(Toolchain::find()?, server.kubeconfig(), None),
            programs,
            folder: tempfile::tempdir()?,
            control_plane: server.namespace("dapr").await?,
            apps: server.namespace("shop").await?,
            processes: Vec::new(),
            http: Http::builder(TokioExecutor::new()).build_http(),
            sentries: vec![free_port()?, free_port()?],
            operator: free_port()?,
            injector: free_port()?,
            internal: free_port()?,
            first: String::new(),
            sidecars: Vec::new(),
        };
        // The first root's life begins with sentry's: what takes time comes before.
        let webhook = stage.create_rights().await?;
        stage.create_settings().await?;
        stage.create_resources().await?;
        stage.create_workload(&webhook).await?;
        stage.start_sentries().await?;
        stage.first = eventually("the first root", async || stage.anchors().await.ok()).await?;
        stage.mount(&stage.control_plane, TRUST_BUNDLE, "control-plane", stop);
        stage.mount(&stage.apps, DISTRIBUTED, "apps", stop);
        let mounted = stage.folder.path().join("control-plane/ca.crt");
        eventually("the mounted root", async || mounted.exists().then_some(())).await?;
        stage.start_operator().await?;
        stage.start_injector().await?;
        stage.start_sidecars(stop).await?;
        // The operator hands out the anchors because there are pods with sidecars.
        let distributed = stage.sidecar_anchors();
        eventually("the distributed anchors", async || distributed.exists().then_some(())).await?;
        let [one, two, frozen] = SIDECARS;
        for (from, to) in [(one, two), (two, one), (frozen, one)] {
            let call = format!("a call from {from} to {to}");
            eventually(&call, async || stage.invoke(from, to).await.ok()).await?;
        }
        stage.settle().await?;
        Ok(stage)
    }

    /// A pod that no kubelet runs, and a file with a token bound to it.
    async fn pod(&self, namespace: &str, name: &str, account: &str, annotations: Value) -> anyhow::Result<PathBuf> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "annotations": annotations, "labels": {"dapr.io/sidecar-injected": "true"}},
            "spec": {
                "serviceAccountName": account, "automountServiceAccountToken": false,
                "containers": [{"name": "main", "image": "none"}],
            },
        }))?;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let pod = pods.create(&PostParams::default(), &pod).await?;
        objects::running(&pods, name).await?;
        let audience = format!("spiffe://{DOMAIN}/ns/{}/dapr-sentry", self.control_plane);
        let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": pod.name_any(), "uid": pod.metadata.uid});
        let token = self.token(namespace, account, &[audience], bound).await?;
        let file = self.folder.path().join(format!("{name}.token"));
        std::fs::write(&file, token)?;
        Ok(file)
    }

    /// A token of an account, which lives longer than a run; without audiences one for the API server.
    async fn token(
        &self,
        namespace: &str,
        account: &str,
        audiences: &[String],
        bound: Value,
    ) -> anyhow::Result<String> {
        let spec = json!({"audiences": audiences, "boundObjectRef": bound, "expirationSeconds": 7200});
        let request: TokenRequest = serde_json::from_value(json!({"spec": spec}))?;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let issued = accounts
            .create_token_request(account, &PostParams::default(), &request)
            .await?;
        Ok(issued.status.context("no token was issued")?.token)
    }

    /// App id, namespace and token of the pod that probes.
    pub(super) async fn probe_pod(&self) -> anyhow::Result<(String, String, String)> {
        let name = format!("probe-{}", free_port()?);
        let annotations = json!({"dapr.io/enabled": "true", "dapr.io/app-id": "probe"});
        let file = self.pod(&self.apps, &name, "default", annotations).await?;
        Ok(("probe".to_owned(), self.apps.clone(), std::fs::read_to_string(file)?))
    }

    /// Copies a ConfigMap's anchors to where pods see them, as the kubelet does.
    fn mount(&self, namespace: &str, name: &'static str, folder: &str, stop: &CancellationToken) {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let (folder, stop) = (self.folder.path().join(folder), stop.clone());
        tokio::spawn(async move {
            while !stop.is_cancelled() {
                if let Err(error) = copy(&maps, name, &folder).await {
                    eprintln!("mounting {name}: {error:#}");
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
    }

    /// Where sidecars that follow the anchors read them.
    pub(super) fn sidecar_anchors(&self) -> PathBuf {
        self.folder.path().join("apps/ca.crt")
    }

    /// The anchors that the control plane publishes.
    pub(super) async fn anchors(&self) -> anyhow::Result<String> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.control_plane);
        let data = maps.get(TRUST_BUNDLE).await?.data.unwrap_or_default();
        data.get("ca.crt").cloned().context("no anchors yet")
    }

    /// Calls an app through two sidecars.
    pub(super) async fn invoke(&self, from: &str, to: &str) -> anyhow::Result<()> {
        let port = self
            .sidecars
            .iter()
            .find(|(id, _)| *id == from)
            .context("no such sidecar")?
            .1;
        let uri = format!("http://127.0.0.1:{port}/v1.0/invoke/{to}/method/hello");
        let request = Request::get(uri).body(Body::empty())?;
        let answer = tokio::time::timeout(super::CALL, self.http.request(request)).await??;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "{status} {}", String::from_utf8_lossy(&body));
        Ok(())
    }

    /// Address and id of a sentry.
    pub(super) fn sentry(&self) -> anyhow::Result<(String, SpiffeId)> {
        Ok((loopback(self.sentries[1]), self.id(Service::Sentry)?))
    }

    fn id(&self, service: Service) -> anyhow::Result<SpiffeId> {
        Ok(service.spiffe_id(&TrustDomain::new(DOMAIN)?, &self.control_plane)?)
    }

    /// Everybody who listens.
    pub(super) fn targets(&self) -> anyhow::Result<Vec<Target>> {
        let target = |kind, address, expect| Target { kind, address, expect };
        let mut targets = vec![
            target(
                "new connections to the operator",
                loopback(self.operator),
                Expect::Id(self.id(Service::Operator)?),
            ),
            target(
                "new connections to the injector",
                loopback(self.injector),
                Expect::Id(self.id(Service::Injector)?),
            ),
        ];
        for port in &self.sentries {
            targets.push(target(
                "new connections to sentry",
                loopback(*port),
                Expect::Id(self.id(Service::Sentry)?),
            ));
        }
        for id in &SIDECARS[..2] {
            let expect = Expect::Workload {
                namespace: self.apps.clone(),
                app_id: (*id).to_owned(),
            };
            targets.push(target(
                "new connections to sidecars",
                format!("127.0.0.{id}:{}", self.internal),
                expect,
            ));
        }
        Ok(targets)
    }

    /// # Errors
    /// When a process has ended.
    pub(super) fn check_processes(&mut self) -> anyhow::Result<()> {
        for (name, process) in &mut self.processes {
            if let Some(status) = process.try_wait()? {
                let log = std::fs::read_to_string(self.folder.path().join(format!("{name}.log")))?;
                let last: Vec<_> = log.lines().rev().take(5).collect();
                bail!("{name} ended ({status}): {last:?}");
            }
        }
        Ok(())
    }

    /// Ends all programs, as a kubelet does.
    pub(super) async fn end(&mut self) -> anyhow::Result<()> {
        let ends = self
            .processes
            .iter_mut()
            .map(async |(name, process)| command::end(process).await.with_context(|| format!("end {name}")));
        future::try_join_all(ends).await?;
        Ok(())
    }

    /// Leaves the folder in place.
    pub(super) fn keep_logs(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }
}

async fn copy(maps: &Api<ConfigMap>, name: &str, folder: &Path) -> anyhow::Result<()> {
    let Some(map) = maps.get_opt(name).await? else {
        return Ok(());
    };
    let Some(text) = map.data.and_then(|mut data| data.remove("ca.crt")) else {
        return Ok(());
    };
    std::fs::create_dir_all(folder)?;
    let new = folder.join("..new");
    std::fs::write(&new, text)?;
    std::fs::rename(&new, folder.join("ca.crt"))?;
    Ok(())
}

fn loopback(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// The same for those who are to look a name up, as in a cluster.
fn named(port: u16) -> String {
    format!("localhost:{port}")
}
