//! The snapshot of the cluster, with the grants of our chart and with upstream's.

use std::path::Path;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams},
};
use outrigger_injector::{
    authorise::Account,
    cluster::{Cluster, accounts, components, configuration},
};
use outrigger_testkit::{ApiServer, eventually};
use serde_json::{Value, json};
use tokio::task::AbortHandle;

use crate::support::{clients, grant, grant_in};

pub(crate) async fn server() -> &'static ApiServer {
    let server = ApiServer::shared().await;
    let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/dapr/crds");
    server.apply_crds(&crds).await.unwrap();
    server
}

pub(crate) fn api(client: &Client, kind: &str, namespace: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("dapr.io", "v1alpha1", kind));
    Api::namespaced_with(client.clone(), namespace, &resource)
}

fn object(kind: &str, value: Value) -> DynamicObject {
    let mut value = value;
    value["apiVersion"] = "dapr.io/v1alpha1".into();
    value["kind"] = kind.into();
    serde_json::from_value(value).unwrap()
}

pub(crate) fn component(name: &str, container: &str) -> DynamicObject {
    object(
        "Component",
        json!({
            "metadata": {"name": name, "annotations": {"dapr.io/component-container": container}},
            "spec": {"type": "state.custom", "version": "v1", "metadata": []},
            "scopes": ["cart"],
        }),
    )
}

fn names(cluster: &Cluster, namespace: &str) -> Option<Vec<String>> {
    let containers = cluster.component_containers(namespace).ok()?;
    Some(containers.into_iter().map(|container| container.component).collect())
}

/// Tasks that end with the test.
struct Following(Vec<AbortHandle>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

fn follow(client: &Client, namespace: &str) -> (Cluster, Following) {
    let cluster = Cluster::default();
    let tasks = [
        tokio::spawn(components::follow(
            clients(client),
            namespace.to_owned(),
            cluster.clone(),
        ))
        .abort_handle(),
        tokio::spawn(configuration::follow(
            clients(client),
            namespace.to_owned(),
            cluster.clone(),
        ))
        .abort_handle(),
    ];
    (cluster, Following(tasks.into()))
}

#[tokio::test]
async fn watches_follow_every_change() {
    let server = server().await;
    let (client, namespace) = (server.client(), server.namespace("watched").await.unwrap());
    let components = api(&client, "Component", &namespace);
    components
        .create(&PostParams::default(), &component("b", "{}"))
        .await
        .unwrap();
    let (cluster, _following) = follow(&client, &namespace);
    cluster.mtls_known().await;
    assert!(cluster.mtls(), "there is no Configuration");
    eventually("listed", async || (names(&cluster, &namespace)? == ["b"]).then_some(())).await;
    components
        .create(&PostParams::default(), &component("a", "{}"))
        .await
        .unwrap();
    eventually("created", async || {
        (names(&cluster, &namespace)? == ["a", "b"]).then_some(())
    })
    .await;
    components.delete("b", &DeleteParams::default()).await.unwrap();
    eventually("deleted", async || {
        (names(&cluster, &namespace)? == ["a"]).then_some(())
    })
    .await;
    assert_eq!(cluster.component_containers(&namespace).unwrap()[0].scopes, ["cart"]);

    let configurations = api(&client, "Configuration", &namespace);
    let off = object(
        "Configuration",
        json!({"metadata": {"name": "daprsystem"}, "spec": {"mtls": {"enabled": false,
            "controlPlaneTrustDomain": "cluster.local", "sentryAddress": "s:1"}}}),
    );
    configurations.create(&PostParams::default(), &off).await.unwrap();
    eventually("mTLS is off", async || (!cluster.mtls()).then_some(())).await;
    let on = Patch::Merge(json!({"spec": {"mtls": {"enabled": true}}}));
    configurations
        .patch("daprsystem", &PatchParams::default(), &on)
        .await
        .unwrap();
    eventually("mTLS is on", async || cluster.mtls().then_some(())).await;
}

#[tokio::test]
async fn without_watch_the_cluster_is_polled() {
    let server = server().await;
    let (client, namespace) = (server.client(), server.namespace("polled").await.unwrap());
    grant(
        &client,
        "upstream-lists",
        &json!([
            {"apiGroups": ["dapr.io"], "resources": ["components"], "verbs": ["get", "list"]},
            {"apiGroups": ["dapr.io"], "resources": ["configurations"], "verbs": ["get"]},
        ]),
    )
    .await;
    let off = object(
        "Configuration",
        json!({"metadata": {"name": "daprsystem"}, "spec": {"mtls": {"enabled": false,
            "controlPlaneTrustDomain": "cluster.local", "sentryAddress": "s:1"}}}),
    );
    let configurations = api(&client, "Configuration", &namespace);
    configurations.create(&PostParams::default(), &off).await.unwrap();
    let components = api(&client, "Component", &namespace);
    components
        .create(&PostParams::default(), &component("a", "{}"))
        .await
        .unwrap();
    let limited = server.client_as("upstream-lists", &[]);
    let (cluster, _following) = follow(&limited, &namespace);
    eventually("listed", async || (names(&cluster, &namespace)? == ["a"]).then_some(())).await;
    eventually("read", async || (!cluster.mtls()).then_some(())).await;
}

#[tokio::test]
async fn what_is_granted_later_is_used() {
    let server = server().await;
    let (client, own) = (server.client(), server.namespace("own").await.unwrap());
    let other = server.namespace("other").await.unwrap();
    for namespace in [&own, &other] {
        let components = api(&client, "Component", namespace);
        let component = component("a", "{}");
        components.create(&PostParams::default(), &component).await.unwrap();
    }
    let (cluster, _following) = follow(&server.client_as("late", &[]), &own);
    eventually("refused", async || {
        let error = cluster.component_containers(&own).unwrap_err().to_string();
        error.contains("forbidden").then_some(())
    })
    .await;
    let rules = json!([{"apiGroups": ["dapr.io"], "resources": ["components"], "verbs": ["list", "watch"]}]);
    grant_in(&client, &own, "late", &rules).await;
    eventually("its own", async || (names(&cluster, &own)? == ["a"]).then_some(())).await;
    let error = cluster.component_containers(&other).unwrap_err().to_string();
    assert!(error.contains("only in namespace"), "{error}");
    grant(&client, "late", &rules).await;
    eventually("all", async || (names(&cluster, &other)? == ["a"]).then_some(())).await;
}

#[tokio::test]
async fn without_any_grant_it_says_so() {
    let server = server().await;
    let namespace = server.namespace("refused").await.unwrap();
    let (cluster, _following) = follow(&server.client_as("nobody", &[]), &namespace);
    let error = eventually("refused", async || {
        let error = cluster.component_containers("shop").unwrap_err().to_string();
        error.contains("forbidden").then_some(error)
    })
    .await;
    assert!(error.contains("components.dapr.io"), "{error}");
    assert!(cluster.mtls());
}

#[tokio::test]
async fn uids_of_allowed_accounts_are_known() {
    let server = ApiServer::shared().await;
    let (client, namespace) = (server.client(), server.namespace("accounts").await.unwrap());
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &namespace);
    let uid = accounts.get("default").await.unwrap().uid().unwrap();
    let account = |name: &str| Account {
        namespace: namespace.clone(),
        name: name.to_owned(),
    };
    let cluster = Cluster::default();
    let wanted = vec![account("absent"), account("default")];
    let task = tokio::spawn(accounts::follow(client, wanted, cluster.clone()));
    eventually("the UID is known", async || cluster.is_allowed_uid(&uid).then_some(())).await;
    assert!(!cluster.is_allowed_uid("another"));
    task.abort();
}
