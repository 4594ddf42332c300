//! The definition of Subscriptions, and a webhook and its registration in this process.

use std::{fs, path::Path, sync::Arc, time::Duration};

use k8s_openapi::{
    api::core::v1::Service,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, WebhookClientConfig},
};
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams},
    runtime::{conditions, wait::await_condition},
};
use outrigger_core::{TrustDomain, control_plane::Service as Process};
use outrigger_identity::{Anchors, ClientAuth, Limits, Listener};
use outrigger_operator::convert::{Metrics, Registration, router};
use outrigger_process::kubernetes::{client::Clients, webhook};
use outrigger_testkit::{ApiServer, Workloads, eventually};
use prometheus::Registry;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, SemaphorePermit, watch},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// For every wait: only a broken test takes as long.
const DEADLINE: Duration = Duration::from_secs(120);
pub(crate) const DEFINITION: &str = "subscriptions.dapr.io";

/// The definition is one object with a fixed name: tests take turns.
pub(crate) async fn turn() -> SemaphorePermit<'static> {
    static TURN: Semaphore = Semaphore::const_new(1);
    TURN.acquire().await.unwrap()
}

/// A served webhook. Ends when it is dropped.
pub(crate) struct Webhook {
    pub(crate) port: u16,
    pub(crate) registry: Registry,
    _stop: DropGuard,
}

impl Webhook {
    /// Serves as the process does. Port 0 is any.
    pub(crate) async fn start(workloads: &Workloads, namespace: &str, port: u16) -> Self {
        let stop = CancellationToken::new();
        let id = Process::Operator.spiffe_id(&TrustDomain::new("cluster.local").unwrap(), namespace);
        let identity = workloads.webhook_identity(id.unwrap(), &stop).await.unwrap();
        let registry = Registry::new();
        let router = router(Metrics::new(&registry).unwrap());
        let tcp = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = tcp.local_addr().unwrap().port();
        let tls = identity.server_tls(ClientAuth::None, &[b"h2", b"http/1.1"]);
        let listener = Listener::tls(tcp, tls, Limits::default()).unwrap();
        tokio::spawn(webhook::serve(listener, router, stop.clone()));
        Self {
            port,
            registry,
            _stop: stop.drop_guard(),
        }
    }

    pub(crate) fn url(&self) -> Value {
        json!({"url": format!("https://127.0.0.1:{}/convert", self.port)})
    }
}

/// A running registration. Ends when it is dropped.
pub(crate) struct Registered {
    pub(crate) anchors: watch::Sender<Arc<Anchors>>,
    pub(crate) registry: Registry,
    _stop: DropGuard,
}

impl Registered {
    pub(crate) fn start(client: &Client, namespace: &str, pem: &str) -> Self {
        let (sender, anchors) = watch::channel(Arc::new(Anchors::from_pem(pem).unwrap()));
        let registry = Registry::new();
        let registration = Registration {
            clients: clients(client),
            namespace: namespace.to_owned(),
            anchors,
            metrics: Metrics::new(&registry).unwrap(),
        };
        let stop = CancellationToken::new();
        tokio::spawn(registration.run(stop.clone()));
        Self {
            anchors: sender,
            registry,
            _stop: stop.drop_guard(),
        }
    }

    /// Waits until the gauge says so.
    pub(crate) async fn is(&self, registered: bool) {
        let line = format!("dapr_operator_conversion_registered {}", u8::from(registered));
        eventually(&line, async || text(&self.registry).contains(&line).then_some(())).await;
    }
}

pub(crate) fn text(registry: &Registry) -> String {
    prometheus::TextEncoder::new()
        .encode_to_string(&registry.gather())
        .unwrap()
}

pub(crate) fn clients(client: &Client) -> Clients {
    Clients {
        calls: client.clone(),
        watches: client.clone(),
    }
}

pub(crate) fn definitions(client: &Client) -> Api<CustomResourceDefinition> {
    Api::all(client.clone())
}

/// The definition as the chart has it, with another client configuration.
pub(crate) fn rendered(client_config: &Value) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/dapr/crds/subscription.yaml");
    let mut definition: Value = serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    definition["spec"]["conversion"]["webhook"]["clientConfig"] = client_config.clone();
    definition
}

/// Replaces the definition and all Subscriptions with it.
pub(crate) async fn install(client: &Client, client_config: &Value) {
    create(client, &rendered(client_config)).await;
}

pub(crate) async fn create(client: &Client, definition: &Value) {
    remove(client).await;
    let definition = serde_json::from_value(definition.clone()).unwrap();
    let created = definitions(client).create(&PostParams::default(), &definition).await;
    created.unwrap();
    established(client).await;
}

pub(crate) async fn established(client: &Client) {
    let established = await_condition(definitions(client), DEFINITION, conditions::is_crd_established());
    tokio::time::timeout(DEADLINE, established).await.unwrap().unwrap();
}

pub(crate) async fn remove(client: &Client) {
    let _ = definitions(client).delete(DEFINITION, &DeleteParams::default()).await;
    eventually("the definition is gone", async || {
        definitions(client)
            .get_opt(DEFINITION)
            .await
            .unwrap()
            .is_none()
            .then_some(())
    })
    .await;
}

pub(crate) async fn client_config(client: &Client) -> Option<WebhookClientConfig> {
    let definition = definitions(client).get_opt(DEFINITION).await.unwrap()?;
    definition.spec.conversion?.webhook?.client_config
}

pub(crate) async fn bundle_is(client: &Client, pem: &str) {
    eventually("the bundle is ours", async || {
        let bundle = client_config(client).await?.ca_bundle?;
        (bundle.0 == pem.as_bytes()).then_some(())
    })
    .await;
}

/// What a cluster's network does for a Service: the name leads to the port on this machine.
pub(crate) async fn service(client: &Client, namespace: &str) {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "dapr-webhook"},
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    });
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let params = PatchParams::apply("test");
    services
        .patch("dapr-webhook", &params, &Patch::Apply(&service))
        .await
        .unwrap();
}

/// Subscriptions in one version.
pub(crate) fn subscriptions(client: &Client, version: &str, namespace: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("dapr.io", version, "Subscription");
    Api::namespaced_with(
        client.clone(),
        namespace,
        &ApiResource::from_gvk_with_plural(&kind, "subscriptions"),
    )
}

/// A manifest in one version.
pub(crate) fn manifest(version: &str, name: &str, spec: Value) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": format!("dapr.io/{version}"), "kind": "Subscription", "metadata": {"name": name}, "spec": spec,
    }))
    .unwrap()
}

/// Creates an object, again while the API server does not yet follow what was just installed.
pub(crate) async fn created(api: &Api<DynamicObject>, object: &DynamicObject) -> DynamicObject {
    eventually("the Subscription is created", async || {
        match api.create(&PostParams::default(), object).await {
            Ok(created) => Some(created),
            // A create whose answer could not be converted has taken place.
            Err(kube::Error::Api(status)) if status.is_already_exists() => api
                .get_opt(object.metadata.name.as_deref().unwrap())
                .await
                .ok()
                .flatten(),
            Err(_) => None,
        }
    })
    .await
}

/// Gives a user cluster-wide rules.
pub(crate) async fn grant(user: &str, rules: Value) {
    let client = ApiServer::shared().await.client();
    let params = PatchParams::apply("test");
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": user}, "rules": rules,
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": user},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    });
    let roles: Api<k8s_openapi::api::rbac::v1::ClusterRole> = Api::all(client.clone());
    roles.patch(user, &params, &Patch::Apply(&role)).await.unwrap();
    let bindings: Api<k8s_openapi::api::rbac::v1::ClusterRoleBinding> = Api::all(client);
    bindings.patch(user, &params, &Patch::Apply(&binding)).await.unwrap();
}
