//! An injector in this process, and what it is registered with.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration,
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use outrigger_core::{TrustDomain, control_plane::Service};
use outrigger_identity::{Anchors, ClientAuth, Limits, Listener};
use outrigger_injector::{
    cluster::Cluster, environment::Environment, metrics::Metrics, refusals::Refusals, registration::Registration,
    settings::Settings, webhook::Webhook,
};
use outrigger_process::{
    health::Health,
    kubernetes::{client::Clients, webhook as server},
};
use outrigger_testkit::{Workloads, eventually};
use prometheus::Registry;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, SemaphorePermit, watch},
};
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) const CONFIGURATION: &str = "dapr-sidecar-injector";

/// The registration is one object with a fixed name: tests that have one take turns.
pub(crate) async fn turn() -> SemaphorePermit<'static> {
    static TURN: Semaphore = Semaphore::const_new(1);
    TURN.acquire().await.unwrap()
}

/// A served webhook. Ends when it is dropped.
pub(crate) struct Injector {
    pub(crate) url: String,
    pub(crate) anchors: Arc<Anchors>,
    pub(crate) registry: Registry,
    _stop: DropGuard,
}

impl Injector {
    /// Serves as the process does, with a certificate of its own authority.
    pub(crate) async fn start(cluster: Cluster, variables: &HashMap<String, String>) -> Self {
        let (workloads, stop) = (Workloads::new().unwrap(), CancellationToken::new());
        let id = Service::Injector.spiffe_id(&TrustDomain::new("cluster.local").unwrap(), "dapr-system");
        let identity = workloads.webhook_identity(id.unwrap(), &stop).await.unwrap();
        let env = Environment::parse(variables).unwrap();
        let settings = Settings::new(&env, "cluster.local", true, true);
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        let (refusals, _) = Refusals::new(metrics.clone());
        let anchors = identity.anchors();
        let webhook = Webhook::new(settings, env.allowed, cluster, anchors.clone(), refusals, metrics);
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/mutate", tcp.local_addr().unwrap());
        let tls = identity.server_tls(ClientAuth::None, &[b"h2", b"http/1.1"]);
        let listener = Listener::tls(tcp, tls, Limits::default()).unwrap();
        tokio::spawn(server::serve(listener, webhook.router(), stop.clone()));
        Self {
            url,
            anchors: anchors.borrow().clone(),
            registry,
            _stop: stop.drop_guard(),
        }
    }
}

/// As the chart sets them by default, but for the actors, which upstream has on.
const CHART: [(&str, &str); 13] = [
    ("DAPR_CONTROL_PLANE_TRUST_DOMAIN", "cluster.local"),
    ("KUBE_CLUSTER_DOMAIN", "cluster.local"),
    ("SIDECAR_IMAGE", "localhost/outrigger/daprd:1"),
    ("SIDECAR_IMAGE_PULL_POLICY", "IfNotPresent"),
    ("SIDECAR_RUN_AS_NON_ROOT", "true"),
    ("SIDECAR_DROP_ALL_CAPABILITIES", "true"),
    ("SIDECAR_SECCOMP_PROFILE_TYPE", "RuntimeDefault"),
    ("SIDECAR_READ_ONLY_ROOT_FILESYSTEM", "true"),
    ("NATIVE_SIDECAR_ENABLED", "false"),
    ("NAMESPACE", "dapr-system"),
    ("ACTORS_ENABLED", "true"),
    ("ACTORS_SERVICE_NAME", "placement"),
    ("ACTORS_SERVICE_ADDRESS", "dapr-placement-server:50005"),
];

/// The environment as the chart sets it.
pub(crate) fn chart() -> HashMap<String, String> {
    CHART.map(|(key, value)| (key.into(), value.into())).into()
}

/// No more of an environment than is required.
pub(crate) fn defaults() -> HashMap<String, String> {
    let variables = [
        ("SIDECAR_IMAGE", "daprd:1"),
        ("NAMESPACE", "dapr-system"),
        ("KUBE_CLUSTER_DOMAIN", "cluster.local"),
    ];
    variables.map(|(key, value)| (key.into(), value.into())).into()
}

/// A running registration task. Ends when it is dropped.
pub(crate) struct Registered {
    pub(crate) anchors: watch::Sender<Arc<Anchors>>,
    pub(crate) health: Health,
    pub(crate) registry: Registry,
    _stop: DropGuard,
}

impl Registered {
    pub(crate) fn start(client: &Client, anchors: Arc<Anchors>) -> Self {
        let (sender, receiver) = watch::channel(anchors);
        let health = Health::default();
        let registry = Registry::new();
        let registration = Registration {
            clients: clients(client),
            anchors: receiver,
            target: health.target("webhook-configuration"),
            metrics: Metrics::new(&registry).unwrap(),
        };
        let stop = CancellationToken::new();
        tokio::spawn(registration.run(stop.clone()));
        Self {
            anchors: sender,
            health,
            registry,
            _stop: stop.drop_guard(),
        }
    }

    pub(crate) async fn ready(&self) {
        eventually("the registration is ready", async || {
            self.health.is_ready().then_some(())
        })
        .await;
    }

    /// Waits until the reason for not being ready has this text in it.
    pub(crate) async fn not_ready(&self, text: &str) {
        eventually(text, async || {
            let missing = self.health.missing();
            missing.iter().any(|(_, reason)| reason.contains(text)).then_some(())
        })
        .await;
    }
}

pub(crate) fn clients(client: &Client) -> Clients {
    Clients {
        calls: client.clone(),
        watches: client.clone(),
    }
}

/// The webhook's registration as the chart renders it, but with a URL, and for one namespace only.
pub(crate) fn configuration(url: &str, namespace: &str) -> MutatingWebhookConfiguration {
    serde_json::from_value(rendered(url, namespace)).unwrap()
}

pub(crate) fn rendered(url: &str, namespace: &str) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": CONFIGURATION, "labels": {"app": CONFIGURATION}},
        "webhooks": [{
            "name": "sidecar-injector.dapr.io",
            "clientConfig": {"url": url},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "failurePolicy": "Fail",
            "reinvocationPolicy": "IfNeeded",
            "sideEffects": "None",
            "admissionReviewVersions": ["v1", "v1beta1"],
        }],
    })
}

/// Trust anchors that nobody else has.
pub(crate) fn new_anchors() -> Arc<Anchors> {
    Arc::new(Anchors::from_pem(&Workloads::new().unwrap().anchors()).unwrap())
}

/// Replaces the registration, whatever is there.
pub(crate) async fn install(client: &Client, url: &str, namespace: &str) {
    remove(client).await;
    let api: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let object = configuration(url, namespace);
    api.create(&PostParams::default(), &object).await.unwrap();
}

pub(crate) async fn remove(client: &Client) {
    let api: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    match api.delete(CONFIGURATION, &DeleteParams::default()).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        Err(error) => panic!("{error}"),
    }
}

/// The bundle that is registered now.
pub(crate) async fn bundle(client: &Client) -> Option<String> {
    let api: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let object = api.get_opt(CONFIGURATION).await.unwrap()?;
    let webhook = object.webhooks?.into_iter().next()?;
    Some(String::from_utf8(webhook.client_config.ca_bundle?.0).unwrap())
}

pub(crate) async fn bundle_is(client: &Client, anchors: &Anchors) {
    eventually("the registered bundle is ours", async || {
        (bundle(client).await.as_deref() == Some(anchors.pem())).then_some(())
    })
    .await;
}

/// Gives a user these rules in one namespace.
pub(crate) async fn grant_in(client: &Client, namespace: &str, user: &str, rules: &Value) {
    let role: Role = serde_json::from_value(json!({"metadata": {"name": user}, "rules": rules})).unwrap();
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user},
        "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}],
    }))
    .unwrap();
    let params = PostParams::default();
    Api::namespaced(client.clone(), namespace)
        .create(&params, &role)
        .await
        .unwrap();
    Api::namespaced(client.clone(), namespace)
        .create(&params, &binding)
        .await
        .unwrap();
}

/// Gives a user these rules.
pub(crate) async fn grant(client: &Client, user: &str, rules: &Value) {
    let role: ClusterRole = serde_json::from_value(json!({"metadata": {"name": user}, "rules": rules})).unwrap();
    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
        "subjects": [{"kind": "User", "name": user}],
    }))
    .unwrap();
    Api::all(client.clone())
        .create(&PostParams::default(), &role)
        .await
        .unwrap();
    Api::all(client.clone())
        .create(&PostParams::default(), &binding)
        .await
        .unwrap();
}
