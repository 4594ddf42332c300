//! The registration in the definition, under every change that somebody may make.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams, PostParams};
use outrigger_identity::Anchors;
use outrigger_testkit::{ApiServer, Workloads};
use serde_json::{Value, json};

use crate::support::{
    DEFINITION, Registered, Webhook, bundle_is, client_config, create, created, definitions, eventually, grant,
    install, manifest, remove, rendered, service, subscriptions, text, turn,
};

const SPEC: fn() -> Value = || json!({"pubsubname": "p", "topic": "t", "route": "/r"});

/// As upstream's chart renders it, but for the port.
fn replace_me(port: u16) -> Value {
    json!({"service": {"name": "dapr-webhook", "namespace": "replaceme", "path": "/convert", "port": port}})
}

#[tokio::test]
async fn the_definition_names_the_service_with_its_trust_anchors_whatever_happens() {
    let _turn = turn().await;
    let server = ApiServer::shared().await;
    let client = server.client();
    let namespace = server.namespace("control-plane").await.unwrap();
    let ours = Workloads::new().unwrap();
    let webhook = Webhook::start(&ours, &namespace, 0).await;
    service(&client, &namespace).await;
    let stale = replace_me(webhook.port);
    install(&client, &stale).await;
    let registered = Registered::start(&client, &namespace, &ours.anchors());
    bundle_is(&client, &ours.anchors()).await;
    registered.is(true).await;
    let found = client_config(&client).await.unwrap().service.unwrap();
    assert_eq!(
        (found.namespace.as_str(), found.path.as_deref()),
        (namespace.as_str(), Some("/convert"))
    );

    // The API server calls the Service, and trusts the name in the certificate.
    let (v1, v2) = (
        subscriptions(&client, "v1alpha1", &namespace),
        subscriptions(&client, "v2alpha1", &namespace),
    );
    created(&v1, &manifest("v1alpha1", "orders", SPEC())).await;
    assert_eq!(v2.get("orders").await.unwrap().data["spec"]["routes"]["default"], "/r");

    // Somebody empties the bundle.
    let path = "/spec/conversion/webhook/clientConfig/caBundle";
    let patch = json_patch(json!([{"op": "remove", "path": path}]));
    definitions(&client)
        .patch(DEFINITION, &PatchParams::default(), &patch)
        .await
        .unwrap();
    bundle_is(&client, &ours.anchors()).await;

    // Helm and Argo CD render the definition again.
    let params = PatchParams::apply("argocd-controller").force();
    let applied = Patch::Apply(rendered(&stale));
    let after = definitions(&client).patch(DEFINITION, &params, &applied).await.unwrap();
    let kept = after.spec.conversion.unwrap().webhook.unwrap().client_config.unwrap();
    assert!(
        kept.ca_bundle.is_some(),
        "an apply takes nothing away that it does not know"
    );
    namespace_is(&client, &namespace).await;

    // Flux and kubectl replace it.
    let mut whole: CustomResourceDefinition = serde_json::from_value(rendered(&stale)).unwrap();
    whole.metadata.resource_version = definitions(&client)
        .get(DEFINITION)
        .await
        .unwrap()
        .metadata
        .resource_version;
    definitions(&client)
        .replace(DEFINITION, &PostParams::default(), &whole)
        .await
        .unwrap();
    bundle_is(&client, &ours.anchors()).await;
    namespace_is(&client, &namespace).await;

    // New trust anchors, at first beside the old ones.
    let both = format!("{}{}", ours.anchors(), Workloads::new().unwrap().anchors());
    registered
        .anchors
        .send_replace(std::sync::Arc::new(Anchors::from_pem(&both).unwrap()));
    bundle_is(&client, &both).await;
    eventually("the API server converts", async || v1.get("orders").await.ok()).await;

    // The definition goes, and comes back.
    remove(&client).await;
    registered.is(false).await;
    assert!(definitions(&client).get_opt(DEFINITION).await.unwrap().is_none());
    create(&client, &rendered(&stale)).await;
    bundle_is(&client, &both).await;
    registered.is(true).await;
    created(&v1, &manifest("v1alpha1", "again", SPEC())).await;
    assert_eq!(v2.get("again").await.unwrap().data["spec"]["routes"]["default"], "/r");
}

async fn namespace_is(client: &kube::Client, namespace: &str) {
    eventually("the Service's namespace", async || {
        let found = client_config(client).await?.service?;
        (found.namespace == namespace).then_some(())
    })
    .await;
}

fn json_patch(operations: Value) -> Patch<()> {
    Patch::Json(serde_json::from_value(operations).unwrap())
}

#[tokio::test]
async fn a_definition_without_a_webhook_is_left_alone() {
    let _turn = turn().await;
    let server = ApiServer::shared().await;
    let client = server.client();
    let mut definition = rendered(&Value::Null);
    definition["spec"]["conversion"] = json!({"strategy": "None"});
    create(&client, &definition).await;
    let before = definitions(&client).get(DEFINITION).await.unwrap();
    let ours = Workloads::new().unwrap();
    let registered = Registered::start(&client, "dapr-system", &ours.anchors());
    registered.is(false).await;

    // Repaired by whoever decided that, it is ours again; nothing was written until then.
    let params = PatchParams::apply("kubectl").force();
    let applied = Patch::Apply(rendered(&replace_me(443)));
    let after = definitions(&client).patch(DEFINITION, &params, &applied).await.unwrap();
    let generations = (before.metadata.generation, after.metadata.generation);
    assert_eq!(generations, (Some(1), Some(2)));
    bundle_is(&client, &ours.anchors()).await;
    registered.is(true).await;
    let written = text(&registered.registry);
    assert!(written.contains(r#"writes_total{result="success"} 1"#), "{written}");
}

#[tokio::test]
async fn the_grants_of_upstreams_chart_are_enough() {
    let _turn = turn().await;
    let server = ApiServer::shared().await;
    let client = server.client();
    let resources = json!(["customresourcedefinitions"]);
    let rules = json!([{"apiGroups": ["apiextensions.k8s.io"], "resources": resources, "verbs": ["get", "patch"]}]);
    grant("upstream-operator", rules).await;
    let ours = Workloads::new().unwrap();
    install(&client, &replace_me(443)).await;
    let limited = server.client_as("upstream-operator", &[]);
    let registered = Registered::start(&limited, "dapr-system", &ours.anchors());
    bundle_is(&client, &ours.anchors()).await;
    registered.is(true).await;
    // Drift is noticed, later than with a watch.
    install(&client, &replace_me(443)).await;
    bundle_is(&client, &ours.anchors()).await;
}

#[tokio::test]
async fn a_right_that_is_granted_later_is_noticed() {
    let _turn = turn().await;
    let server = ApiServer::shared().await;
    let client = server.client();
    install(&client, &replace_me(443)).await;
    let ours = Workloads::new().unwrap();
    let registered = Registered::start(&server.client_as("nobody", &[]), "dapr-system", &ours.anchors());
    let resources = json!(["customresourcedefinitions"]);
    let rule = |verbs: Value| json!([{"apiGroups": ["apiextensions.k8s.io"], "resources": resources, "verbs": verbs}]);
    registered.is(false).await;
    grant("nobody", rule(json!(["get"]))).await;
    eventually("the refused write is counted", async || {
        text(&registered.registry)
            .contains(r#"conversion_registration_writes_total{result="forbidden"}"#)
            .then_some(())
    })
    .await;
    assert!(client_config(&client).await.unwrap().ca_bundle.is_none());
    grant("nobody", rule(json!(["list", "patch", "watch"]))).await;
    bundle_is(&client, &ours.anchors()).await;
    registered.is(true).await;
}
