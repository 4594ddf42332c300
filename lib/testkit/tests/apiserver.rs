//! The test server is what it says: real, shared, with rights and definitions that work.

use std::fs;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams};
use outrigger_testkit::ApiServer;
use serde_json::json;

const GADGETS: &str = "
# A comment before the first document.
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.testkit.outrigger.dev}
spec:
  group: testkit.outrigger.dev
  names: {kind: Gadget, plural: gadgets, singular: gadget}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            x-kubernetes-validations:
            - {rule: self.size > 0, message: size must be positive}
            properties: {size: {type: integer}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: ignored}
";

#[tokio::test]
async fn stores_pods_in_a_fresh_namespace() {
    let server = ApiServer::shared().await;
    let (first, second) = (
        server.namespace("pods").await.unwrap(),
        server.namespace("pods").await.unwrap(),
    );
    assert_ne!(first, second);
    let pods: Api<Pod> = Api::namespaced(server.client(), &first);
    let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "a", "image": "a"}]}});
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap())
        .await
        .unwrap();
    assert_eq!(pods.list(&ListParams::default()).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn definitions_are_served_with_their_rules() {
    let server = ApiServer::shared().await;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("gadgets.yaml"), GADGETS).unwrap();
    let (once, twice) = tokio::join!(server.apply_crds(folder.path()), server.apply_crds(folder.path()));
    once.unwrap();
    twice.unwrap();

    let namespace = server.namespace("crds").await.unwrap();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("testkit.outrigger.dev", "v1", "Gadget"));
    let gadgets = Api::<DynamicObject>::namespaced_with(server.client(), &namespace, &resource);
    let gadget = |size: i64| DynamicObject::new("a", &resource).data(json!({"spec": {"size": size}}));
    let refused = gadgets.create(&PostParams::default(), &gadget(0)).await.unwrap_err();
    assert!(refused.to_string().contains("size must be positive"), "{refused}");
    gadgets.create(&PostParams::default(), &gadget(1)).await.unwrap();
}

#[tokio::test]
async fn a_folder_without_definitions_is_an_error() {
    let server = ApiServer::shared().await;
    let folder = tempfile::tempdir().unwrap();
    let error = server.apply_crds(folder.path()).await.unwrap_err();
    assert!(error.to_string().contains("no CustomResourceDefinition"), "{error}");
}

#[tokio::test]
async fn other_users_have_their_own_rights_only() {
    let server = ApiServer::shared().await;
    let namespace = server.namespace("rights").await.unwrap();
    let maps = |client| Api::<ConfigMap>::namespaced(client, &namespace);
    let list = ListParams::default();
    let denied = maps(server.client_as("jane", &[])).list(&list).await.unwrap_err();
    assert!(
        matches!(&denied, kube::Error::Api(status) if status.code == 403),
        "{denied}"
    );
    maps(server.client_as("jane", &["system:masters"]))
        .list(&list)
        .await
        .unwrap();
}

/// The runtime of a test ends with it; the server must not.
#[tokio::test(flavor = "multi_thread")]
async fn serves_every_runtime() {
    let version = ApiServer::shared().await.client().apiserver_version().await.unwrap();
    assert_eq!(version.minor, "37");
}
