//! The Secret is the truth, however many replicas there are and whatever happens to the ConfigMap.

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use outrigger_core::control_plane::TRUST_BUNDLE;
use outrigger_identity::Anchors;
use serde_json::json;
use tonic::Code;

use crate::sentry::{DEADLINE, FLAGS, Sentry, empty, prepared_namespace};

/// Rounds of the race, with two to five replicas in turn.
fn rounds() -> usize {
    std::env::var("OUTRIGGER_SENTRY_RACES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(4)
}

#[tokio::test]
async fn replicas_that_start_at_once_settle_on_one_root_and_one_signing_key() {
    for round in 0..rounds() {
        let namespace = prepared_namespace("15m").await;
        // The objects are there before the replicas in one round, and appear while they wait in the next.
        let early = round % 2 == 0;
        if early {
            Sentry::create_bundle_objects(&namespace).await;
        }
        let replicas =
            futures::future::join_all((0..2 + round % 4).map(|_| Sentry::in_namespace(namespace.clone(), &FLAGS)))
                .await;
        let first = &replicas[0];
        if !early {
            Sentry::create_bundle_objects(&namespace).await;
        }
        futures::future::join_all(
            replicas
                .iter()
                .map(|replica| replica.wait_for_health("/healthz", "200 OK")),
        )
        .await;
        let root = first.stored("ca.crt").await;
        assert_eq!(root.matches("BEGIN CERTIFICATE").count(), 1);
        let anchors = Anchors::from_pem(&root).unwrap();
        for replica in &replicas {
            // It has to show a certificate under that root before it hears what is asked.
            let refusal = replica
                .sign_under(&anchors, "cart", "shop", "not-a-token")
                .await
                .unwrap_err();
            assert_eq!(refusal.code(), Code::PermissionDenied, "round {round}: {refusal}");
            assert_eq!(replica.jwks().await, first.stored("jwks.json").await, "round {round}");
        }
        first
            .until("both published", || async {
                first.published("ca.crt").await.is_some_and(|text| text == root)
                    && first.published("jwks.json").await.is_some()
            })
            .await;
        assert_eq!(first.stored("ca.crt").await, root, "round {round}");
    }
}

#[tokio::test]
async fn the_config_map_is_healed_and_never_a_reason_for_a_new_root() {
    let sentry = Sentry::start().await;
    Sentry::create_bundle_objects(&sentry.namespace).await;
    sentry.wait_for_health("/healthz", "200 OK").await;
    let (root, jwks) = (sentry.stored("ca.crt").await, sentry.stored("jwks.json").await);
    for change in [
        json!({"data": {"ca.crt": null, "jwks.json": null}}),
        json!({"data": {"ca.crt": "edited", "jwks.json": "{}"}}),
    ] {
        let params = PatchParams::default();
        sentry
            .config_maps()
            .patch(TRUST_BUNDLE, &params, &Patch::Merge(&change))
            .await
            .unwrap();
        sentry
            .until("healed", || async {
                sentry.published("ca.crt").await.as_ref() == Some(&root)
                    && sentry.published("jwks.json").await.as_ref() == Some(&jwks)
            })
            .await;
    }
    // White space is no difference: whoever renders it with another end of file wins, and nothing is written for ever.
    let spaced = format!("# ours\n{root}\n\n");
    let change = json!({"data": {"ca.crt": spaced}, "metadata": {"labels": {"of": "somebody"}}});
    sentry
        .config_maps()
        .patch(TRUST_BUNDLE, &PatchParams::default(), &Patch::Merge(&change))
        .await
        .unwrap();
    // A restart reads all of it anew.
    let namespace = sentry.namespace.clone();
    drop(sentry);
    let again = Sentry::in_namespace(namespace, &FLAGS).await;
    again.wait_for_health("/healthz", "200 OK").await;
    assert_eq!(again.stored("ca.crt").await, root);
    assert_eq!(again.published("ca.crt").await, Some(spaced));
}

#[tokio::test]
async fn a_bad_write_to_the_secret_stops_nothing_and_a_good_one_is_used() {
    let sentry = Sentry::start().await;
    Sentry::create_bundle_objects(&sentry.namespace).await;
    sentry.wait_for_health("/healthz", "200 OK").await;
    let good = sentry.secrets().get(TRUST_BUNDLE).await.unwrap().data.unwrap();
    let anchors = sentry.anchors().await;
    let other = Sentry::start().await;
    Sentry::create_bundle_objects(&other.namespace).await;
    other.wait_for_health("/healthz", "200 OK").await;
    let second = other.secrets().get(TRUST_BUNDLE).await.unwrap().data.unwrap();
    let write = async |data: &std::collections::BTreeMap<String, ByteString>| {
        let patch = json!({ "data": data });
        sentry
            .secrets()
            .patch(TRUST_BUNDLE, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap();
    };
    let mut broken = good.clone();
    broken.insert("issuer.key".to_owned(), second["issuer.key"].clone());
    write(&broken).await;
    sentry
        .until_logged("issuer credentials cannot be reloaded; keeping the last good ones")
        .await;
    let refusal = sentry
        .sign_under(&anchors, "cart", "shop", "not-a-token")
        .await
        .unwrap_err();
    assert_eq!(refusal.code(), Code::PermissionDenied, "still serving: {refusal}");

    write(&second).await;
    let anchors = other.anchors().await;
    sentry
        .until("the new authority", || async {
            let refusal = sentry.sign_under(&anchors, "cart", "shop", "not-a-token").await;
            refusal.is_err_and(|refusal| refusal.code() == Code::PermissionDenied)
        })
        .await;
}

#[tokio::test]
async fn half_an_authority_ends_the_process_with_one_sentence() {
    let mut sentry = Sentry::start().await;
    let secrets: Api<Secret> = Api::namespaced(sentry.client.clone(), &sentry.namespace);
    let mut secret: Secret = empty("Secret");
    secret.data = Some([("ca.crt".to_owned(), ByteString(b"pem".to_vec()))].into());
    secrets.create(&PostParams::default(), &secret).await.unwrap();
    let ended = async {
        loop {
            if let Some(status) = sentry.process.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let status = tokio::time::timeout(DEADLINE, ended).await.unwrap();
    assert_eq!(status.code(), Some(1));
    let log = sentry.log();
    assert!(log.contains("has ca.crt but not issuer.crt and issuer.key"), "{log}");
}
