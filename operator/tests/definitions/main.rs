//! The operator with definitions other than the chart's: older ones, or made by hand. Apart from the other tests, since all
//! tests of a program share one API server with its definitions.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]
#![allow(dead_code, reason = "the fixture is shared")]

#[path = "../api/fixture.rs"]
mod fixture;
#[path = "../support/mod.rs"]
mod support;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceValidation, JSONSchemaProps,
};
use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use outrigger_crds::{
    Component, Configuration, DaprResource, HTTPEndpoint, Resiliency, definition::definitions, status::ConditionType,
};
use outrigger_operator::core::Features;
use outrigger_process::kubernetes::client;
use outrigger_proto::operator::ListComponentsRequest;
use outrigger_testkit::ApiServer;
use serde_json::{Value, json};

use crate::{fixture::Operator, support::eventually};

/// Installs the chart's definitions after a change.
async fn install(api_server: &ApiServer, change: impl Fn(&mut CustomResourceDefinition)) {
    let folder = tempfile::tempdir().unwrap();
    for (file, mut definition) in definitions().unwrap() {
        change(&mut definition);
        let mut definition = serde_json::to_value(definition).unwrap();
        definition["apiVersion"] = json!("apiextensions.k8s.io/v1");
        definition["kind"] = json!("CustomResourceDefinition");
        std::fs::write(folder.path().join(file), definition.to_string()).unwrap();
    }
    api_server.apply_crds(folder.path()).await.unwrap();
}

/// A schema that takes everything.
fn take_everything(definition: &mut CustomResourceDefinition) {
    for version in &mut definition.spec.versions {
        version.schema = Some(CustomResourceValidation {
            open_api_v3_schema: Some(JSONSchemaProps {
                type_: Some("object".into()),
                x_kubernetes_preserve_unknown_fields: Some(true),
                ..Default::default()
            }),
        });
    }
}

async fn start(api_server: &ApiServer, namespace: &str) -> Operator {
    let clients = client::clients(Some(&api_server.kubeconfig()), true).await.unwrap();
    Operator::start_in(namespace.to_owned(), clients, |_| Features::default()).await
}

fn raw<K: DaprResource>(api_server: &ApiServer, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(api_server.client(), namespace, &ApiResource::erase::<K>(&()))
}

async fn apply<K: DaprResource>(api_server: &ApiServer, namespace: &str, name: &str, mut manifest: Value) {
    manifest["apiVersion"] = json!(K::api_version_text());
    manifest["kind"] = json!(K::KIND);
    manifest["metadata"] = json!({"name": name});
    let params = PatchParams::apply("kubectl").force();
    let api = raw::<K>(api_server, namespace);
    api.patch(name, &params, &Patch::Apply(&manifest)).await.unwrap();
}

/// Reason and message of a condition, once the reason is this one.
async fn reason<K: DaprResource>(api: &Api<DynamicObject>, name: &str, type_: ConditionType, reason: &str) -> String {
    eventually(&format!("{} {name} is {reason}", K::KIND), || async {
        let object = api.get(name).await.unwrap();
        let conditions = object.data["status"]["conditions"].as_array()?.clone();
        let found = conditions
            .into_iter()
            .find(|condition| condition["type"] == type_.as_str() && condition["reason"] == reason)?;
        (found["observedGeneration"] == json!(object.metadata.generation))
            .then(|| found["message"].as_str().unwrap().to_owned())
    })
    .await
}

fn redis() -> Value {
    json!({"spec": {"type": "state.redis", "version": "v1", "metadata": []}})
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_that_promise_less_than_ours() {
    let api_server = ApiServer::shared().await;
    install(api_server, take_everything).await;
    objects_that_cannot_be_decoded_harm_nobody(api_server).await;
    install(api_server, |definition| {
        take_everything(definition);
        if definition.spec.names.kind == "Resiliency" {
            definition.spec.versions[0].subresources = None;
        }
    })
    .await;
    a_kind_without_status_gets_one_later(api_server).await;
    what_was_stored_before_is_reported(api_server).await;
}

/// In the first list and in the watch alike.
async fn objects_that_cannot_be_decoded_harm_nobody(api_server: &ApiServer) {
    let namespace = &api_server.namespace("lenient").await.unwrap();
    let components = &raw::<Component>(api_server, namespace);
    let broken = [
        ("text", json!({"spec": "redis"}), "spec: found "),
        (
            "list",
            json!({"spec": {"type": "state.redis", "version": "v1", "metadata": {"a": 1}}}),
            "spec.metadata: ",
        ),
        (
            "scopes",
            json!({"spec": {"type": "state.redis"}, "scopes": 5}),
            "scopes: found 5",
        ),
        ("number", json!({"spec": {"type": 7}}), "spec.type: found 7"),
    ];
    let timeout = json!({"spec": {"tracing": {"otel": {"timeout": "soon"}}}});
    for (name, manifest, _) in &broken[..2] {
        apply::<Component>(api_server, namespace, name, manifest.clone()).await;
    }
    apply::<Configuration>(api_server, namespace, "tracing", timeout).await;
    apply::<Component>(api_server, namespace, "first", redis()).await;

    let operator = start(api_server, namespace).await;
    for (name, manifest, _) in &broken[2..] {
        apply::<Component>(api_server, namespace, name, manifest.clone()).await;
    }
    apply::<Component>(api_server, namespace, "second", redis()).await;
    for name in ["first", "second"] {
        reason::<Component>(components, name, ConditionType::Accepted, "Accepted").await;
    }
    for (name, _, expected) in &broken {
        let message = reason::<Component>(components, name, ConditionType::Accepted, "InvalidSpec").await;
        assert!(message.starts_with(expected), "{message}");
        reason::<Component>(components, name, ConditionType::Ready, "NotAccepted").await;
        let note = eventually("an Event", || async { operator.notes(name).await.pop() }).await;
        assert_eq!(note, message);
    }
    let configurations = raw::<Configuration>(api_server, namespace);
    let message = reason::<Configuration>(&configurations, "tracing", ConditionType::Accepted, "InvalidSpec").await;
    assert!(
        message.starts_with(r#"spec.tracing.otel.timeout: "soon" is not a duration"#),
        "{message}"
    );
    let invalid = |kind| operator.metric("dapr_operator_invalid_objects", &[("kind", kind)]);
    assert_eq!(
        (invalid("Component"), invalid("Configuration"), invalid("HTTPEndpoint")),
        (4.0, 1.0, 0.0)
    );

    // Sidecars get the others.
    let mut sidecar = operator
        .server
        .client(&format!("spiffe://public/ns/{namespace}/cart"))
        .await;
    let request = ListComponentsRequest {
        namespace: namespace.clone(),
    };
    let list = sidecar.list_components(request).await.unwrap().into_inner().components;
    assert_eq!(list.len(), 2);

    // A status that somebody made by hand is replaced, and spoils nothing.
    let scribble = json!({"status": "fine"});
    components
        .patch_status("first", &PatchParams::default(), &Patch::Merge(&scribble))
        .await
        .unwrap();
    reason::<Component>(components, "first", ConditionType::Accepted, "Accepted").await;

    apply::<Component>(api_server, namespace, "text", redis()).await;
    reason::<Component>(components, "text", ConditionType::Accepted, "Accepted").await;
    eventually("that one less is invalid", || async {
        (invalid("Component") == 3.0).then_some(())
    })
    .await;
    operator.stop().await;
}

async fn a_kind_without_status_gets_one_later(api_server: &ApiServer) {
    let namespace = &api_server.namespace("older").await.unwrap();
    let operator = start(api_server, namespace).await;
    let timeouts = json!({"spec": {"policies": {"timeouts": {"quick": "5s"}}, "targets": {}}});
    apply::<Resiliency>(api_server, namespace, "fine", timeouts.clone()).await;
    apply::<Resiliency>(api_server, namespace, "broken", json!({"spec": 7})).await;
    apply::<HTTPEndpoint>(api_server, namespace, "api", json!({"spec": {"baseUrl": "http://x"}})).await;

    // People are told nevertheless, and once.
    eventually("an Event", || async { operator.notes("broken").await.pop() }).await;
    let refused = |kind| {
        let labels = [("kind", kind), ("reason", "no_status")];
        operator.metric("dapr_operator_status_refused", &labels)
    };
    eventually("that the kind is off", || async {
        (refused("Resiliency") == 1.0).then_some(())
    })
    .await;
    let endpoints = raw::<HTTPEndpoint>(api_server, namespace);
    reason::<HTTPEndpoint>(&endpoints, "api", ConditionType::Ready, "NoSidecars").await;
    assert_eq!(refused("HTTPEndpoint"), 0.0);

    install(api_server, take_everything).await;
    let resiliencies = raw::<Resiliency>(api_server, namespace);
    reason::<Resiliency>(&resiliencies, "fine", ConditionType::Accepted, "Accepted").await;
    reason::<Resiliency>(&resiliencies, "broken", ConditionType::Accepted, "InvalidSpec").await;
    eventually("that the kind is on", || async {
        (refused("Resiliency") == 0.0).then_some(())
    })
    .await;
    assert_eq!(operator.notes("broken").await.len(), 1);

    operator.stop().await;
}

/// What an older definition let in stays, and the API server refuses to touch it.
async fn what_was_stored_before_is_reported(api_server: &ApiServer) {
    let namespace = &api_server.namespace("stored").await.unwrap();
    apply::<Component>(api_server, namespace, "broken", json!({"spec": "redis"})).await;
    apply::<Component>(api_server, namespace, "fine", redis()).await;
    install(api_server, |_| ()).await;
    let operator = start(api_server, namespace).await;
    let components = &raw::<Component>(api_server, namespace);
    reason::<Component>(components, "fine", ConditionType::Accepted, "Accepted").await;
    let note = eventually("an Event", || async { operator.notes("broken").await.pop() }).await;
    assert!(note.starts_with("spec: found "), "{note}");
    let invalid = operator.metric("dapr_operator_invalid_objects", &[("kind", "Component")]);
    assert_eq!(invalid, 1.0);
    operator.stop().await;
}
