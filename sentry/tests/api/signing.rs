//! Who gets which certificate, and who none.

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::DeleteParams};
use outrigger_identity::{pem, spiffe_id_of};
use outrigger_testkit::ApiServer;
use tonic::Code;

use crate::sentry::Sentry;

#[tokio::test]
async fn signs_for_pods_and_refuses_everything_else() {
    let sentry = Sentry::start().await;
    sentry.wait_for_health("/healthz/detail", "Secret").await;
    assert!(sentry.health("/healthz").await.unwrap().contains("503"));
    assert!(sentry.health("/livez").await.unwrap().contains("200"));
    Sentry::create_bundle_objects(&sentry.namespace).await;
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
    Sentry::create_bundle_objects(&sentry.namespace).await;
    sentry.wait_for_health("/healthz", "200 OK").await;
    let shop = ApiServer::shared().await.namespace("shop").await.unwrap();
    let annotations = serde_json::json!({"dapr.io/app-id": "cart", "dapr.io/config": "absent"});
    let (_, token) = sentry.pod(&shop, annotations, &sentry.audience()).await;
    let refusal = sentry.sign("cart", &shop, &token).await.unwrap_err();
    assert!(refusal.message().contains("failed to get configuration"), "{refusal}");
}
