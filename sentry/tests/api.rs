//! The real binary against a real API server: bundle, token reviews, refusals.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "api/rotation.rs"]
mod rotation;

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    ByteString,
    api::{
        authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
        core::v1::{ConfigMap, Pod, Secret},
    },
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, PostParams},
    core::DynamicObject,
};
use outrigger_core::TrustDomain;
use outrigger_core::control_plane::{Service, TRUST_BUNDLE};
use outrigger_identity::{Anchors, Expect, anonymous_channel, pem, spiffe_id_of};
use outrigger_proto::sentry::{
    SignCertificateRequest, SignCertificateResponse, ca_client::CaClient, sign_certificate_request::TokenValidator,
};
use outrigger_testkit::ApiServer;
use tonic::{Code, Status};

/// Generous: the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(60);

/// A sentry with its control-plane namespace.
struct Sentry {
    process: Child,
    client: Client,
    namespace: String,
    port: u16,
    health: u16,
}

impl Drop for Sentry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn empty<K: serde::de::DeserializeOwned>(kind: &str) -> K {
    serde_json::from_value(serde_json::json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": TRUST_BUNDLE}}))
        .unwrap()
}

/// A namespace with the Configuration of a control plane.
async fn prepared_namespace(skew: &str) -> String {
    let server = ApiServer::shared().await;
    let charts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/dapr/crds");
    server.apply_crds(&charts).await.unwrap();
    let namespace = server.namespace("sentry").await.unwrap();
    let client = server.client();
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
    let configurations: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &resource);
    configurations
        .create(&PostParams::default(), &configuration)
        .await
        .unwrap();
    namespace
}

impl Sentry {
    /// Starts it in a new namespace that has what the chart creates, except the Secret and the ConfigMap.
    async fn start() -> Self {
        let namespace = prepared_namespace("15m").await;
        Self::in_namespace(namespace, &["--enable-metrics=false"]).await
    }

    /// Starts one more in a namespace that has one.
    async fn in_namespace(namespace: String, flags: &[&str]) -> Self {
        let server = ApiServer::shared().await;
        let (port, health) = (free_port(), free_port());
        let process = Command::new(env!("CARGO_BIN_EXE_sentry"))
            .args(["--mode", "kubernetes", "--trust-domain", "cluster.local"])
            .args(flags)
            .args(["-listen-address", "127.0.0.1", "-healthz-listen-address", "127.0.0.1"])
            .args([format!("--port={port}"), format!("--healthz-port={health}")])
            .arg("--kubeconfig")
            .arg(server.kubeconfig())
            .env_remove("KUBERNETES_SERVICE_HOST")
            .env("NAMESPACE", &namespace)
            .env("DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK", "true")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            process,
            client: server.client(),
            namespace,
            port,
            health,
        }
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn create_bundle_objects(&self) {
        let secrets = self.secrets();
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        secrets.create(&PostParams::default(), &empty("Secret")).await.unwrap();
        maps.create(&PostParams::default(), &empty("ConfigMap")).await.unwrap();
    }

    /// Status line and body of a health endpoint; `None` while nobody listens.
    async fn health(&self, path: &str) -> Option<String> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut connection = tokio::net::TcpStream::connect(("127.0.0.1", self.health)).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    }

    async fn wait_for_health(&self, path: &str, text: &str) {
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
            "{path} never said {text:?}; last: {:?}",
            self.health(path).await
        );
    }

    async fn anchors(&self) -> Anchors {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        Anchors::from_pem(&maps.get(TRUST_BUNDLE).await.unwrap().data.unwrap()["ca.crt"]).unwrap()
    }

    async fn sign(&self, id: &str, namespace: &str, token: &str) -> Result<SignCertificateResponse, Status> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
        let anchors = Arc::new(self.anchors().await);
        let address = format!("127.0.0.1:{}", self.port);
        let whom = (id, namespace, token);
        sign(&address, &self.namespace, &anchors, whom, csr.pem().unwrap()).await
    }

    /// A pod that never runs, and a token bound to it.
    async fn pod(&self, namespace: &str, annotations: serde_json::Value, audience: &str) -> (String, String) {
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

    fn audience(&self) -> String {
        format!("spiffe://cluster.local/ns/{}/dapr-sentry", self.namespace)
    }
}

/// Asks the sentry of a control plane for a certificate.
async fn sign(
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
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let request = SignCertificateRequest {
        id: id.to_owned(),
        namespace: namespace.to_owned(),
        token: token.to_owned(),
        token_validator: TokenValidator::Kubernetes.into(),
        certificate_signing_request: csr.into_bytes().into(),
        ..Default::default()
    };
    CaClient::new(channel)
        .sign_certificate(request)
        .await
        .map(tonic::Response::into_inner)
}

#[tokio::test]
async fn signs_for_pods_and_refuses_everything_else() {
    let sentry = Sentry::start().await;
    sentry.wait_for_health("/healthz/detail", "Secret").await;
    assert!(sentry.health("/healthz").await.unwrap().contains("503"));
    assert!(sentry.health("/livez").await.unwrap().contains("200"));
    sentry.create_bundle_objects().await;
    sentry.wait_for_health("/healthz", "200 OK").await;

    let shop = ApiServer::shared().await.namespace("shop").await.unwrap();
    let app = serde_json::json!({"dapr.io/app-id": "cart"});
    let (pod, token) = sentry.pod(&shop, app.clone(), &sentry.audience()).await;
    let signed = sentry.sign("cart", &shop, &token).await.unwrap();
    let chain = pem::certificates(&signed.workload_certificate).unwrap();
    assert_eq!(chain.len(), 2);
    assert_eq!(
        spiffe_id_of(&chain[0]).unwrap().to_string(),
        format!("spiffe://public/ns/{shop}/cart")
    );
    assert_eq!(
        signed.trust_chain_certificates,
        [sentry.anchors().await.pem().as_bytes().to_vec()]
    );

    for (id, namespace, token, text) in [
        (
            "other",
            shop.as_str(),
            token.as_str(),
            "app-id mismatch. expected: cart, received: other",
        ),
        ("cart", "elsewhere", token.as_str(), "namespace mismatch"),
        ("cart", shop.as_str(), "not-a-token", "invalid token"),
        ("cart", shop.as_str(), "", "authentication failed"),
        ("a.b", shop.as_str(), token.as_str(), "cannot contain dots"),
    ] {
        let refusal = sentry.sign(id, namespace, token).await.unwrap_err();
        assert_eq!(refusal.code(), Code::PermissionDenied, "{id} {refusal}");
        assert!(refusal.message().contains(text), "{refusal}");
    }
    let (_, foreign) = sentry.pod(&shop, app, "another-audience").await;
    let refusal = sentry.sign("cart", &shop, &foreign).await.unwrap_err();
    assert_eq!(refusal.code(), Code::PermissionDenied, "{refusal}");

    let (_, impostor) = sentry
        .pod(
            &shop,
            serde_json::json!({"dapr.io/control-plane": "operator"}),
            &sentry.audience(),
        )
        .await;
    let refusal = sentry.sign("dapr-operator", &shop, &impostor).await.unwrap_err();
    assert!(refusal.message().contains("is not allowed"), "{refusal}");

    let (_, operator) = sentry
        .pod(
            &sentry.namespace,
            serde_json::json!({"dapr.io/control-plane": "operator"}),
            &sentry.audience(),
        )
        .await;
    let signed = sentry
        .sign("dapr-operator", &sentry.namespace, &operator)
        .await
        .unwrap();
    let leaf = &pem::certificates(&signed.workload_certificate).unwrap()[0];
    let expected = format!("spiffe://cluster.local/ns/{}/dapr-operator", sentry.namespace);
    assert_eq!(
        spiffe_id_of(leaf).unwrap().to_string(),
        expected,
        "in the control plane's trust domain"
    );

    let pods: Api<Pod> = Api::namespaced(sentry.client.clone(), &shop);
    pods.delete(&pod, &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    let refusal = sentry.sign("cart", &shop, &token).await.unwrap_err();
    assert_eq!(refusal.code(), Code::PermissionDenied, "the pod is gone: {refusal}");
}

#[tokio::test]
async fn a_missing_configuration_reaches_the_caller() {
    let sentry = Sentry::start().await;
    sentry.create_bundle_objects().await;
    sentry.wait_for_health("/healthz", "200 OK").await;
    let shop = ApiServer::shared().await.namespace("shop").await.unwrap();
    let annotations = serde_json::json!({"dapr.io/app-id": "cart", "dapr.io/config": "absent"});
    let (_, token) = sentry.pod(&shop, annotations, &sentry.audience()).await;
    let refusal = sentry.sign("cart", &shop, &token).await.unwrap_err();
    assert!(refusal.message().contains("failed to get configuration"), "{refusal}");
}

#[tokio::test]
async fn racing_replicas_settle_on_one_root() {
    let first = Sentry::start().await;
    let second = Sentry::in_namespace(first.namespace.clone(), &["--enable-metrics=false"]).await;
    first.create_bundle_objects().await;
    first.wait_for_health("/healthz", "200 OK").await;
    second.wait_for_health("/healthz", "200 OK").await;
    let secrets: Api<Secret> = Api::namespaced(first.client.clone(), &first.namespace);
    let stored = secrets.get(TRUST_BUNDLE).await.unwrap().data.unwrap()["ca.crt"].clone();
    assert_eq!(
        first.anchors().await.pem().as_bytes(),
        stored.0,
        "the ConfigMap carries the Secret's root"
    );
    // Both have to show a certificate under that root before they hear what is asked.
    for sentry in [first, second] {
        let refusal = sentry.sign("cart", "shop", "not-a-token").await.unwrap_err();
        assert_eq!(refusal.code(), Code::PermissionDenied, "{refusal}");
    }
}

#[tokio::test]
async fn half_an_authority_ends_the_process_with_one_sentence() {
    let mut sentry = Sentry::start().await;
    let secrets: Api<Secret> = Api::namespaced(sentry.client.clone(), &sentry.namespace);
    let mut secret: Secret = empty("Secret");
    secret.data = Some([("ca.crt".to_owned(), ByteString(b"pem".to_vec()))].into());
    secrets.create(&PostParams::default(), &secret).await.unwrap();
    let status = tokio::task::spawn_blocking(move || {
        use std::io::Read;
        let mut output = String::new();
        sentry
            .process
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut output)
            .unwrap();
        (sentry.process.wait().unwrap(), output)
    });
    let (status, output) = tokio::time::timeout(DEADLINE, status).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(
        output.contains("has ca.crt but not issuer.crt and issuer.key"),
        "{output}"
    );
}
