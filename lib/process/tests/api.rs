//! Leases and watches against a real API server.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::ConfigMap};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::watcher,
};
use outrigger_process::kubernetes::{
    lease::{Election, Params},
    watch::{Change, ObjectKey, changes},
};
use outrigger_testkit::ApiServer;
use serde_json::json;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

/// Generous: the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(60);

fn quick(identity: &str) -> Params {
    Params {
        lease: Duration::from_secs(4),
        renew_deadline: Duration::from_secs(3),
        retry: Duration::from_millis(100),
        ..Params::new("test", identity)
    }
}

/// Takes part in the election and says when it begins and ends to lead.
fn candidate(
    client: Client,
    namespace: &str,
    identity: &'static str,
    said: mpsc::UnboundedSender<String>,
) -> CancellationToken {
    let stop = CancellationToken::new();
    let election = Election::new(Api::<Lease>::namespaced(client, namespace), quick(identity));
    tokio::spawn(election.lead(stop.clone(), move |token| {
        let said = said.clone();
        async move {
            said.send(format!("{identity} leads")).unwrap();
            token.cancelled().await;
            said.send(format!("{identity} stops")).unwrap();
        }
    }));
    stop
}

async fn next(said: &mut mpsc::UnboundedReceiver<String>) -> String {
    timeout(DEADLINE, said.recv())
        .await
        .expect("somebody says something")
        .unwrap()
}

#[tokio::test]
async fn one_leads_and_the_next_follows_at_once_when_it_stops() {
    let server = ApiServer::shared().await;
    let namespace = server.namespace("lease").await.unwrap();
    let (sender, mut said) = mpsc::unbounded_channel();
    let first = candidate(server.client(), &namespace, "first", sender.clone());
    assert_eq!(next(&mut said).await, "first leads");
    let second = candidate(server.client(), &namespace, "second", sender.clone());
    first.cancel();
    assert_eq!(next(&mut said).await, "first stops", "never two at once");
    assert_eq!(next(&mut said).await, "second leads");
    let leases: Api<Lease> = Api::namespaced(server.client(), &namespace);
    let spec = leases.get("test").await.unwrap().spec.unwrap();
    assert_eq!(spec.holder_identity.as_deref(), Some("second"));
    second.cancel();
    assert_eq!(next(&mut said).await, "second stops");
}

#[tokio::test]
async fn a_lease_taken_by_force_ends_the_work() {
    let server = ApiServer::shared().await;
    let namespace = server.namespace("lease").await.unwrap();
    let (sender, mut said) = mpsc::unbounded_channel();
    let stop = candidate(server.client(), &namespace, "first", sender);
    assert_eq!(next(&mut said).await, "first leads");
    let leases: Api<Lease> = Api::namespaced(server.client(), &namespace);
    let taken = json!({"spec": {"holderIdentity": "somebody-else", "leaseDurationSeconds": 1}});
    leases
        .patch("test", &PatchParams::default(), &Patch::Merge(&taken))
        .await
        .unwrap();
    assert_eq!(next(&mut said).await, "first stops");
    // The other one never renews, so it is our turn again.
    assert_eq!(next(&mut said).await, "first leads");
    stop.cancel();
}

#[tokio::test]
async fn changes_follow_what_happens() {
    let server = ApiServer::shared().await;
    let namespace = server.namespace("watch").await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(server.client(), &namespace);
    let map = |name: &str| -> ConfigMap { serde_json::from_value(json!({"metadata": {"name": name}})).unwrap() };
    maps.create(&PostParams::default(), &map("before")).await.unwrap();
    let mut seen = std::pin::pin!(changes(maps.clone(), watcher::Config::default()));
    let mut next = async || timeout(DEADLINE, seen.next()).await.expect("a change").unwrap();
    assert!(matches!(next().await, Change::Apply(map) if map.metadata.name.as_deref() == Some("before")));
    assert_eq!(next().await, Change::Synced);
    maps.create(&PostParams::default(), &map("after")).await.unwrap();
    assert!(matches!(next().await, Change::Apply(map) if map.metadata.name.as_deref() == Some("after")));
    maps.delete("before", &DeleteParams::default()).await.unwrap();
    assert_eq!(next().await, Change::Delete(ObjectKey::new(&namespace, "before")));
}

/// A resource whose definition is installed only later, as a typed kind that needs no schema.
#[derive(Clone, Debug, serde::Deserialize)]
struct Gadget(DynamicObject);

impl kube::Resource for Gadget {
    type DynamicType = ();
    type Scope = kube::core::NamespaceResourceScope;

    fn kind(&(): &()) -> std::borrow::Cow<'_, str> {
        "Gadget".into()
    }
    fn group(&(): &()) -> std::borrow::Cow<'_, str> {
        "test.outrigger.dev".into()
    }
    fn version(&(): &()) -> std::borrow::Cow<'_, str> {
        "v1".into()
    }
    fn plural(&(): &()) -> std::borrow::Cow<'_, str> {
        "gadgets".into()
    }
    fn meta(&self) -> &kube::core::ObjectMeta {
        &self.0.metadata
    }
    fn meta_mut(&mut self) -> &mut kube::core::ObjectMeta {
        &mut self.0.metadata
    }
}

#[tokio::test]
async fn a_kind_that_is_absent_starts_to_work_when_it_is_installed() {
    let server = ApiServer::shared().await;
    let namespace = server.namespace("absent").await.unwrap();
    let mut seen = std::pin::pin!(changes(
        Api::<Gadget>::namespaced(server.client(), &namespace),
        watcher::Config::default()
    ));
    let mut next = async || timeout(DEADLINE, seen.next()).await.expect("a change").unwrap();
    assert!(matches!(next().await, Change::Absent));

    let definitions = ApiResource::from_gvk(&GroupVersionKind::gvk(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
    ));
    let definition: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "gadgets.test.outrigger.dev"},
        "spec": {"group": "test.outrigger.dev", "scope": "Namespaced", "names": {"kind": "Gadget", "plural": "gadgets"}, "versions": [{
            "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}
    }))
    .unwrap();
    let api: Api<DynamicObject> = Api::all_with(server.client(), &definitions);
    api.create(&PostParams::default(), &definition).await.unwrap();
    while !matches!(next().await, Change::Synced) {}
}
