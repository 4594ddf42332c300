//! The CA bundle in the webhook's registration, under every change that somebody may make.

use k8s_openapi::api::{admissionregistration::v1::MutatingWebhookConfiguration, rbac::v1::ClusterRoleBinding};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use outrigger_injector::registration;
use outrigger_testkit::ApiServer;
use serde_json::json;

use crate::support::{
    CONFIGURATION, Registered, anchors, bundle, bundle_is, eventually, grant, install, remove, rendered, turn,
};

const URL: &str = "https://127.0.0.1:1/mutate";

fn api(client: &Client) -> Api<MutatingWebhookConfiguration> {
    Api::all(client.clone())
}

#[tokio::test]
async fn drift_is_healed() {
    let _turn = turn().await;
    let client = ApiServer::shared().await.client();
    let ours = anchors();
    install(&client, URL, "nowhere").await;
    let registered = Registered::start(&client, ours.clone());
    bundle_is(&client, &ours).await;
    registered.ready().await;

    let object = api(&client).get(CONFIGURATION).await.unwrap();
    let managers = object.metadata.managed_fields.clone().unwrap();
    assert!(
        managers
            .iter()
            .any(|entry| entry.manager.as_deref() == Some("outrigger-injector"))
    );
    let webhook = &object.webhooks.as_ref().unwrap()[0];
    assert_eq!(webhook.failure_policy.as_deref(), Some("Fail"), "the rest is untouched");
    assert_eq!(webhook.client_config.url.as_deref(), Some(URL));

    // Another bundle.
    let theirs = anchors();
    let other = json!([{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle",
        "value": k8s_openapi::ByteString(theirs.pem().into())}]);
    let other = Patch::Json::<()>(serde_json::from_value(other).unwrap());
    api(&client)
        .patch(CONFIGURATION, &PatchParams::default(), &other)
        .await
        .unwrap();
    bundle_is(&client, &ours).await;

    // No bundle, as a replacing GitOps tool leaves it.
    let mut replaced = api(&client).get(CONFIGURATION).await.unwrap();
    replaced.webhooks.as_mut().unwrap()[0].client_config.ca_bundle = None;
    replaced.metadata.managed_fields = None;
    api(&client)
        .replace(CONFIGURATION, &PostParams::default(), &replaced)
        .await
        .unwrap();
    bundle_is(&client, &ours).await;

    // An applying one does not take it away at all.
    let params = PatchParams::apply("argocd-controller").force();
    let applied = Patch::Apply(rendered("https://127.0.0.1:2/mutate", "nowhere"));
    let after = api(&client).patch(CONFIGURATION, &params, &applied).await.unwrap();
    assert!(after.webhooks.unwrap()[0].client_config.ca_bundle.is_some());

    // New trust anchors.
    registered.anchors.send_replace(theirs.clone());
    bundle_is(&client, &theirs).await;
    registered.ready().await;
    remove(&client).await;
}

#[tokio::test]
async fn a_recreated_object_is_healed_and_a_deleted_one_is_not_recreated() {
    let _turn = turn().await;
    let client = ApiServer::shared().await.client();
    let ours = anchors();
    remove(&client).await;
    let registered = Registered::start(&client, ours.clone());
    registered
        .not_ready("there is no MutatingWebhookConfiguration dapr-sidecar-injector")
        .await;

    install(&client, URL, "nowhere").await;
    bundle_is(&client, &ours).await;
    registered.ready().await;

    remove(&client).await;
    registered.not_ready("there is no MutatingWebhookConfiguration").await;
    // A change of ours in this state must not create anything.
    let theirs = anchors();
    registered.anchors.send_replace(theirs.clone());
    install(&client, URL, "nowhere").await;
    bundle_is(&client, &theirs).await;
    let object = api(&client).get(CONFIGURATION).await.unwrap();
    assert_eq!(
        object.webhooks.unwrap()[0].client_config.url.as_deref(),
        Some(URL),
        "ours never made it"
    );
    remove(&client).await;
}

#[tokio::test]
async fn other_webhooks_of_the_object_are_left_alone() {
    let _turn = turn().await;
    let client = ApiServer::shared().await.client();
    let ours = anchors();
    remove(&client).await;
    let mut object = rendered(URL, "nowhere");
    let mut other = object["webhooks"][0].clone();
    other["name"] = "other.example.com".into();
    object["webhooks"].as_array_mut().unwrap().insert(0, other);
    let object = serde_json::from_value(object).unwrap();
    api(&client).create(&PostParams::default(), &object).await.unwrap();
    let registered = Registered::start(&client, ours);
    registered.ready().await;
    let object = api(&client).get(CONFIGURATION).await.unwrap();
    let webhooks = object.webhooks.unwrap();
    let bundles: Vec<_> = webhooks
        .iter()
        .map(|webhook| (webhook.name.as_str(), webhook.client_config.ca_bundle.is_some()))
        .collect();
    assert_eq!(
        bundles,
        [("other.example.com", false), ("sidecar-injector.dapr.io", true)]
    );
    remove(&client).await;
}

#[tokio::test]
async fn the_grants_of_upstreams_chart_are_enough() {
    let _turn = turn().await;
    let server = ApiServer::shared().await;
    let client = server.client();
    grant(
        &client,
        "upstream-injector",
        &json!([{
            "apiGroups": ["admissionregistration.k8s.io"],
            "resources": ["mutatingwebhookconfigurations"],
            "resourceNames": [CONFIGURATION],
            "verbs": ["patch"],
        }]),
    )
    .await;

    let ours = anchors();
    remove(&client).await;
    let limited = server.client_as("upstream-injector", &[]);
    let registered = Registered::start(&limited, ours.clone());
    registered.not_ready("cannot write the CA bundle").await;
    install(&client, URL, "nowhere").await;
    bundle_is(&client, &ours).await;
    registered.ready().await;
    let theirs = anchors();
    registered.anchors.send_replace(theirs.clone());
    bundle_is(&client, &theirs).await;

    let written = eventually("writes are counted", async || {
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&registered.registry.gather())
            .unwrap();
        text.contains("webhook_configuration_writes_total{result=\"success\"} 2")
            .then_some(text)
    })
    .await;
    assert!(written.contains("{result=\"failure\"}"), "{written}");
    assert_eq!(bundle(&client).await.as_deref(), Some(theirs.pem()));

    // A watch that is granted later is used: only then it is known that the object is not there.
    grant(
        &client,
        "upstream-injector-more",
        &json!([{
            "apiGroups": ["admissionregistration.k8s.io"],
            "resources": ["mutatingwebhookconfigurations"],
            "resourceNames": [CONFIGURATION],
            "verbs": ["list", "watch"],
        }]),
    )
    .await;
    let binding = json!({"subjects": [{"kind": "User", "name": "upstream-injector"}]});
    let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    bindings
        .patch(
            "upstream-injector-more",
            &PatchParams::default(),
            &Patch::Merge(binding),
        )
        .await
        .unwrap();
    remove(&client).await;
    registered
        .not_ready("there is no MutatingWebhookConfiguration dapr-sidecar-injector")
        .await;
}

#[tokio::test]
async fn a_late_write_does_not_bring_a_deleted_object_back() {
    let _turn = turn().await;
    let client = ApiServer::shared().await.client();
    install(&client, URL, "nowhere").await;
    let seen = api(&client).get(CONFIGURATION).await.unwrap();
    let ours = k8s_openapi::ByteString(anchors().pem().into());
    let late = Patch::Apply(registration::application(&seen, &ours));
    let params = PatchParams::apply("outrigger-injector").force();
    remove(&client).await;
    let error = api(&client).patch(CONFIGURATION, &params, &late).await.unwrap_err();
    assert!(
        matches!(&error, kube::Error::Api(status) if status.is_conflict()),
        "{error}"
    );
    assert!(api(&client).get_opt(CONFIGURATION).await.unwrap().is_none());
    // Nor does it hit another object of the same name.
    install(&client, URL, "nowhere").await;
    assert!(api(&client).patch(CONFIGURATION, &params, &late).await.is_err());
    assert_eq!(bundle(&client).await, None);
    remove(&client).await;
}
