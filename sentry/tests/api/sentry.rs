//! A sentry on a real API server, with its control-plane namespace.

use std::{
    path::Path,
    process::{Child, Command},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{ConfigMap, Pod, Secret},
};
use kube::{Api, Client, ResourceExt, api::PostParams, core::DynamicObject};
use outrigger_core::TrustDomain;
use outrigger_core::control_plane::{Service, TRUST_BUNDLE};
use outrigger_identity::{Anchors, Expect, anonymous_channel};
use outrigger_proto::sentry::{
    SignCertificateRequest, SignCertificateResponse, ca_client::CaClient, sign_certificate_request::TokenValidator,
};
use outrigger_testkit::{ApiServer, free_ports};
use tempfile::NamedTempFile;
use tonic::{Code, Status};

/// Generous: the machine may be busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A sentry with its control-plane namespace.
pub(crate) struct Sentry {
    pub(crate) process: Child,
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) port: u16,
    health: u16,
    metrics: u16,
    pub(crate) oidc: u16,
    log: NamedTempFile,
}

impl Drop for Sentry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn get(port: u16, path: &str) -> Option<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut connection = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

pub(crate) fn empty<K: serde::de::DeserializeOwned>(kind: &str) -> K {
    serde_json::from_value(serde_json::json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": TRUST_BUNDLE}}))
        .unwrap()
}

/// Everything that sentry can serve beside certificates.
pub(crate) const FLAGS: [&str; 4] = [
    "--jwt-enabled",
    "--jwt-signing-algorithm=ES256",
    "--oidc-enabled",
    "--oidc-server-tls-enabled=false",
];

/// A new namespace with the Configuration of a control plane; `skew` is its allowed clock skew.
pub(crate) async fn prepared_namespace(skew: &str) -> String {
    let server = ApiServer::shared().await;
    let charts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/dapr/crds");
    server.apply_crds(&charts).await.unwrap();
    let namespace = server.namespace("sentry").await.unwrap();
    let configuration: DynamicObject = serde_json::from_value(serde_json::json!({
        "apiVersion": "dapr.io/v1alpha1", "kind": "Configuration", "metadata": {"name": "daprsystem"},
        "spec": {"mtls": {"enabled": true, "controlPlaneTrustDomain": "cluster.local", "sentryAddress": "x:443", "workloadCertTTL": "2h",
            "allowedClockSkew": skew}}
    }))
    .unwrap();
    let resource = kube::core::ApiResource::from_gvk_with_plural(
        &kube::core::GroupVersionKind::gvk("dapr.io", "v1alpha1", "Configuration"),
        "configurations",
    );
    let configurations: Api<DynamicObject> = Api::namespaced_with(server.client(), &namespace, &resource);
    configurations
        .create(&PostParams::default(), &configuration)
        .await
        .unwrap();
    namespace
}

/// Asks the sentry of a control plane for a certificate. `Aborted` says that nobody was asked: there is no sentry, or none whose
/// certificate is under these anchors.
pub(crate) async fn sign(
    address: &str,
    control_plane: &str,
    anchors: &Arc<Anchors>,
    (id, namespace, token): (&str, &str, &str),
    csr: String,
) -> Result<SignCertificateResponse, Status> {
    let domain = TrustDomain::new("cluster.local").unwrap();
    let expect = Expect::Id(Service::Sentry.spiffe_id(&domain, control_plane).unwrap());
    let channel = anonymous_channel(address, anchors, &expect)
        .await
        .map_err(|error| Status::aborted(error.to_string()))?;
    let request = SignCertificateRequest {
        id: id.to_owned(),
        namespace: namespace.to_owned(),
        token: token.to_owned(),
        token_validator: TokenValidator::Kubernetes.into(),
        certificate_signing_request: csr.into_bytes().into(),
        ..Default::default()
    };
    let answer = CaClient::new(channel).sign_certificate(request).await;
    answer.map(tonic::Response::into_inner)
}

impl Sentry {
    /// Starts it in a new namespace that has what the chart creates, except the Secret and the ConfigMap.
    pub(crate) async fn start() -> Self {
        Self::in_namespace(prepared_namespace("15m").await, &FLAGS).await
    }

    /// Starts one more in a namespace that has one.
    pub(crate) async fn in_namespace(namespace: String, flags: &[&str]) -> Self {
        let server = ApiServer::shared().await;
        let [port, health, metrics, oidc] = free_ports().unwrap();
        let log = NamedTempFile::new().unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_sentry"))
            .args(["--mode", "kubernetes", "--trust-domain", "cluster.local"])
            .args(flags)
            .args(["-listen-address", "127.0.0.1", "-healthz-listen-address", "127.0.0.1"])
            .args(["--metrics-listen-address", "127.0.0.1"])
            .args([format!("--port={port}"), format!("--healthz-port={health}")])
            .args([
                format!("--metrics-port={metrics}"),
                format!("--oidc-server-listen-port={oidc}"),
            ])
            .arg("--kubeconfig")
            .arg(server.kubeconfig())
            .env_remove("KUBERNETES_SERVICE_HOST")
            .env("NAMESPACE", &namespace)
            .env("DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK", "true")
            .arg("--log-file")
            .arg(log.path())
            .spawn()
            .unwrap();
        Self {
            process,
            client: server.client(),
            namespace,
            port,
            health,
            metrics,
            oidc,
            log,
        }
    }

    /// What the chart creates: both without content.
    pub(crate) async fn create_bundle_objects(namespace: &str) {
        let client = ApiServer::shared().await.client();
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let maps: Api<ConfigMap> = Api::namespaced(client, namespace);
        secrets.create(&PostParams::default(), &empty("Secret")).await.unwrap();
        maps.create(&PostParams::default(), &empty("ConfigMap")).await.unwrap();
    }

    pub(crate) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// What the Secret holds under a key.
    pub(crate) async fn stored(&self, key: &str) -> String {
        let secret = self.secrets().get(TRUST_BUNDLE).await.unwrap();
        String::from_utf8(secret.data.unwrap()[key].0.clone()).unwrap()
    }

    /// What the ConfigMap shows under a key.
    pub(crate) async fn published(&self, key: &str) -> Option<String> {
        self.config_maps().get(TRUST_BUNDLE).await.unwrap().data?.remove(key)
    }

    /// Waits until `check` holds.
    pub(crate) async fn until<F: Future<Output = bool>>(&self, what: &str, check: impl Fn() -> F) {
        let wait = async {
            while !check().await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let waited = tokio::time::timeout(DEADLINE, wait).await;
        assert!(waited.is_ok(), "never: {what}; the log says {}", self.log());
    }

    /// Status line and body of a health endpoint; `None` while nobody listens.
    pub(crate) async fn health(&self, path: &str) -> Option<String> {
        get(self.health, path).await
    }

    pub(crate) async fn metrics(&self) -> String {
        get(self.metrics, "/metrics").await.unwrap()
    }

    /// The set of keys that it serves.
    pub(crate) async fn jwks(&self) -> String {
        let answer = get(self.oidc, "/jwks.json").await.unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.trim_end().to_owned()
    }

    pub(crate) async fn wait_for_health(&self, path: &str, text: &str) {
        let wait = async {
            loop {
                if self.health(path).await.is_some_and(|answer| answer.contains(text)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let waited = tokio::time::timeout(DEADLINE, wait).await;
        assert!(
            waited.is_ok(),
            "{path} never said {text:?}; last: {:?}; the log says {}",
            self.health(path).await,
            self.log()
        );
    }

    pub(crate) async fn anchors(&self) -> Anchors {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        Anchors::from_pem(&maps.get(TRUST_BUNDLE).await.unwrap().data.unwrap()["ca.crt"]).unwrap()
    }

    pub(crate) async fn sign(&self, id: &str, namespace: &str, token: &str) -> Result<SignCertificateResponse, Status> {
        self.sign_under(&self.anchors().await, id, namespace, token).await
    }

    /// Fails as well when sentry shows a certificate of another authority. Asks again while sentry cannot decide, as its clients do:
    /// under load the API server may take longer than sentry has.
    pub(crate) async fn sign_under(
        &self,
        anchors: &Anchors,
        id: &str,
        namespace: &str,
        token: &str,
    ) -> Result<SignCertificateResponse, Status> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
        let address = format!("127.0.0.1:{}", self.port);
        let (anchors, whom) = (Arc::new(anchors.clone()), (id, namespace, token));
        let deciding = async {
            loop {
                let answer = sign(&address, &self.namespace, &anchors, whom, csr.pem().unwrap()).await;
                if !matches!(&answer, Err(status) if status.code() == Code::Unavailable) {
                    return answer;
                }
            }
        };
        tokio::time::timeout(DEADLINE, deciding).await.unwrap()
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }

    pub(crate) async fn until_logged(&self, text: &str) {
        self.until(text, || async { self.log().contains(text) }).await;
    }

    /// A pod that never runs, and a token bound to it.
    pub(crate) async fn pod(
        &self,
        namespace: &str,
        annotations: serde_json::Value,
        audience: &str,
    ) -> (String, String) {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"generateName": "cart-", "annotations": annotations},
            "spec": {"containers": [{"name": "main", "image": "shop:1"}], "automountServiceAccountToken": false}
        }))
        .unwrap();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let pod = pods.create(&PostParams::default(), &pod).await.unwrap();
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let reference = BoundObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
        };
        let spec = TokenRequestSpec {
            audiences: vec![audience.to_owned()],
            bound_object_ref: Some(reference),
            expiration_seconds: Some(600),
        };
        let request = TokenRequest {
            spec,
            ..Default::default()
        };
        let issued = accounts
            .create_token_request("default", &PostParams::default(), &request)
            .await
            .unwrap();
        (pod.name_any(), issued.status.unwrap().token)
    }

    pub(crate) fn audience(&self) -> String {
        format!("spiffe://cluster.local/ns/{}/dapr-sentry", self.namespace)
    }
}
