//! A real API server with pods that never run, and sentry's binary as a process of its own.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec, TokenReview, TokenReviewSpec},
    core::v1::{ConfigMap, Pod, Secret, ServiceAccount},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind, PostParams},
};
use outrigger_core::{
    SpiffeId, TrustDomain,
    control_plane::{SYSTEM_CONFIGURATION, Service, TRUST_BUNDLE},
};
use outrigger_identity::{Anchors, Expect};
use outrigger_testkit::ApiServer;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::process::Command;

use super::{super::process::Process, requester::Requester};
use crate::ports::Serving;

const TRUST_DOMAIN: &str = "cluster.local";
/// Requests in flight while the stage is prepared.
const PREPARING: usize = 16;

/// What stays the same for all processes that are measured.
pub(super) struct Stage {
    client: Client,
    kubeconfig: PathBuf,
    control_plane: String,
    namespace: String,
    id: SpiffeId,
    pods: Vec<Pod>,
}

/// Who a pod is, and a token that no other request uses.
pub(super) struct Credential {
    pub(super) app: String,
    pub(super) token: String,
}

/// A running sentry; it ends with this.
pub(super) struct Sentry {
    pub(super) process: Process,
    address: String,
}

impl Stage {
    /// Starts the API server and creates what the chart would, and this many pods.
    pub(super) async fn prepare(pods: usize) -> anyhow::Result<Self> {
        let server = ApiServer::shared().await;
        server
            .apply_crds(&crate::release::workspace().join("charts/dapr/crds"))
            .await?;
        let (control_plane, namespace) = (
            server.namespace("signing-system").await?,
            server.namespace("signing").await?,
        );
        let id = Service::Sentry.spiffe_id(&TrustDomain::new(TRUST_DOMAIN)?, &control_plane)?;
        let mut stage = Self {
            client: server.client(),
            kubeconfig: server.kubeconfig(),
            control_plane,
            namespace,
            id,
            pods: Vec::new(),
        };
        stage.create_objects().await?;
        stage.pods = stream::iter(0..pods)
            .map(|number| stage.create_pod(number))
            .buffer_unordered(PREPARING)
            .try_collect()
            .await?;
        Ok(stage)
    }

    async fn create_objects(&self) -> anyhow::Result<()> {
        let resource = ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk("dapr.io", "v1alpha1", "Configuration"),
            "configurations",
        );
        let mtls = json!({"enabled": true, "controlPlaneTrustDomain": TRUST_DOMAIN, "sentryAddress": "localhost:443"});
        let object: DynamicObject = object(json!({
            "apiVersion": "dapr.io/v1alpha1", "kind": "Configuration",
            "metadata": {"name": SYSTEM_CONFIGURATION}, "spec": {"mtls": mtls}
        }))?;
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.control_plane, &resource);
        let how = PostParams::default();
        api.create(&how, &object).await?;
        let named = || json!({"metadata": {"name": TRUST_BUNDLE}});
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.control_plane);
        secrets.create(&how, &self::object(named())?).await?;
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.control_plane);
        maps.create(&how, &self::object(named())?).await?;
        Ok(())
    }

    async fn create_pod(&self, number: usize) -> anyhow::Result<Pod> {
        let app = format!("app-{number}");
        let pod = object(json!({
            "metadata": {"name": app, "annotations": {"dapr.io/app-id": app}},
            "spec": {"containers": [{"name": "main", "image": "localhost/none:1"}], "automountServiceAccountToken": false}
        }))?;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        pods.create(&PostParams::default(), &pod)
            .await
            .with_context(|| format!("create the pod {app}"))
    }

    /// Fresh tokens, bound to one pod after the other.
    pub(super) async fn tokens(&mut self, count: usize) -> anyhow::Result<Vec<Credential>> {
        // Each pod has its turn, also over several calls.
        let turn = count % self.pods.len().max(1);
        self.pods.rotate_left(turn);
        let pods = self.pods.iter().cycle().take(count);
        stream::iter(pods)
            .map(|pod| self.token(pod))
            .buffer_unordered(PREPARING)
            .try_collect()
            .await
    }

    async fn token(&self, pod: &Pod) -> anyhow::Result<Credential> {
        let spec = TokenRequestSpec {
            audiences: vec![self.id.to_string()],
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
            expiration_seconds: Some(3600),
        };
        let request = TokenRequest {
            spec,
            ..Default::default()
        };
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.namespace);
        let issued = accounts
            .create_token_request("default", &PostParams::default(), &request)
            .await
            .context("request a token")?;
        Ok(Credential {
            app: pod.name_any(),
            token: issued.status.context("a TokenRequest without a token")?.token,
        })
    }

    /// As sentry has a token reviewed.
    pub(super) async fn review(&self, token: &str) -> anyhow::Result<()> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(vec![self.id.to_string()]),
            },
            ..Default::default()
        };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        api.create(&PostParams::default(), &review)
            .await
            .context("TokenReview")?;
        Ok(())
    }

    /// TokenReviews that the API server has answered.
    pub(super) async fn reviews(&self) -> anyhow::Result<u64> {
        let text = self
            .client
            .request_text(http::Request::get("/metrics").body(Vec::new())?)
            .await?;
        let lines = text
            .lines()
            .filter(|line| line.starts_with("apiserver_request_total{") && line.contains("resource=\"tokenreviews\""));
        let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        Ok(values.sum::<f64>() as u64)
    }

    /// Starts a binary and waits until it is ready.
    pub(super) async fn start(&self, binary: &Path) -> anyhow::Result<Sentry> {
        let serving = Serving::new()?;
        let mut command = Command::new(binary);
        command
            .env_clear()
            .env("NAMESPACE", &self.control_plane)
            .env("DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK", "true")
            .args([
                "--mode",
                "kubernetes",
                "--trust-domain",
                TRUST_DOMAIN,
                "--log-level",
                "warn",
            ])
            .args(serving.flags())
            .arg("--kubeconfig")
            .arg(&self.kubeconfig);
        Ok(Sentry {
            process: Process::start(&mut command, serving.healthz).await?,
            address: format!("localhost:{}", serving.port),
        })
    }

    pub(super) async fn requester(&self, sentry: &Sentry) -> anyhow::Result<Requester> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.control_plane);
        let anchors = maps
            .get(TRUST_BUNDLE)
            .await?
            .data
            .and_then(|mut data| data.remove("ca.crt"));
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
        Ok(Requester {
            address: sentry.address.clone(),
            anchors: Arc::new(Anchors::from_pem(&anchors.context("no trust anchors")?)?),
            expect: Expect::Id(self.id.clone()),
            namespace: self.namespace.clone(),
            csr: rcgen::CertificateParams::default().serialize_request(&key)?.pem()?,
        })
    }
}

fn object<T: DeserializeOwned>(json: serde_json::Value) -> anyhow::Result<T> {
    serde_json::from_value(json).context("an object of the stage")
}
