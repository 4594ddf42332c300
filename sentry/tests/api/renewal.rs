//! What people hear of an authority that is not renewed, and what becomes of one that has expired.

use std::time::Duration;

use k8s_openapi::{
    ByteString,
    api::{
        core::v1::{ConfigMap, Secret},
        events::v1::Event,
    },
};
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use outrigger_core::{
    TrustDomain,
    control_plane::{Service, TRUST_BUNDLE},
};
use outrigger_sentry::ca::{self, Material, Profile};
use time::OffsetDateTime;
use tonic::Code;

use crate::sentry::{DEADLINE, Sentry, empty, prepared_namespace};

/// An authority that lives for ten minutes, of which so many are over.
fn made_ago(namespace: &str, minutes: i64) -> Material {
    let domain = TrustDomain::new("cluster.local").unwrap();
    let profile = Profile {
        id: Service::Sentry.spiffe_id(&domain, namespace).unwrap(),
        trust_domain: domain,
        ttl: time::Duration::minutes(10),
        skew: time::Duration::seconds(1),
    };
    ca::generate(&profile, OffsetDateTime::now_utc() - time::Duration::minutes(minutes)).unwrap()
}

fn secret_of(material: &Material) -> Secret {
    let mut secret: Secret = empty("Secret");
    let parts = [
        ("ca.crt", &material.anchors),
        ("issuer.crt", &material.issuer_chain),
        ("issuer.key", &material.issuer_key),
    ];
    let data = parts.map(|(key, text)| (key.to_owned(), ByteString(text.clone().into_bytes())));
    secret.data = Some(data.into());
    secret
}

fn supplied(mut secret: Secret) -> Secret {
    let annotations = [("dapr.io/ca-source".to_owned(), "values".to_owned())];
    secret.metadata.annotations = Some(annotations.into());
    secret
}

/// Stores it, with an empty ConfigMap beside it.
async fn store(sentry: &Sentry, secret: &Secret) -> Secret {
    let maps: Api<ConfigMap> = Api::namespaced(sentry.client.clone(), &sentry.namespace);
    maps.create(&PostParams::default(), &empty("ConfigMap")).await.unwrap();
    sentry.secrets().create(&PostParams::default(), secret).await.unwrap()
}

/// The Event about an object with this reason.
async fn event(sentry: &Sentry, about: &Secret, reason: &str) -> Event {
    let events: Api<Event> = Api::namespaced(sentry.client.clone(), &sentry.namespace);
    let published = async {
        loop {
            let all = events.list(&ListParams::default()).await.unwrap().items;
            let found = all.into_iter().find(|event| {
                let regarding = event.regarding.as_ref();
                event.reason.as_deref() == Some(reason)
                    && regarding.and_then(|object| object.uid.clone()) == about.metadata.uid
            });
            if let Some(event) = found {
                return event;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let event = tokio::time::timeout(DEADLINE, published).await;
    event.unwrap_or_else(|_| panic!("no Event {reason}; the log says {}", sentry.log()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supplied_authority_is_left_alone_and_its_end_announced() {
    let namespace = prepared_namespace("1s").await;
    let sentry = Sentry::in_namespace(namespace.clone(), &[]).await;
    // It looks like one of sentry's own, but the chart's values supply it.
    let before = store(&sentry, &supplied(secret_of(&made_ago(&namespace, 9)))).await;
    sentry.wait_for_health("/healthz", "200 OK").await;
    sentry
        .wait_for_health(
            "/healthz/detail",
            "sentry-authority: warning: the certificate authority expires at",
        )
        .await;
    let event = event(&sentry, &before, "AuthorityExpires").await;
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    assert!(event.note.unwrap().contains("it was supplied"));
    let scraped = sentry.metrics().await;
    assert!(
        scraped.contains("dapr_sentry_ca_expiring_unattended{reason=\"supplied\"} 1"),
        "{scraped}"
    );
    let after = sentry.secrets().get(TRUST_BUNDLE).await.unwrap();
    assert_eq!(after.metadata.resource_version, before.metadata.resource_version);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_authority_of_its_own_is_replaced_at_the_start() {
    let namespace = prepared_namespace("1s").await;
    let sentry = Sentry::in_namespace(namespace.clone(), &[]).await;
    let material = made_ago(&namespace, 20);
    let before = store(&sentry, &secret_of(&material)).await;
    sentry.wait_for_health("/healthz", "200 OK").await;
    let anchors = sentry.stored("ca.crt").await;
    assert_ne!(anchors, material.anchors);
    assert_eq!(
        anchors.matches("BEGIN CERTIFICATE").count(),
        1,
        "the expired root is gone"
    );
    sentry
        .until("published", || async {
            sentry.published("ca.crt").await.as_ref() == Some(&anchors)
        })
        .await;
    // It had to show a certificate under the new root to be asked.
    let refusal = sentry.sign("cart", "shop", "not-a-token").await.unwrap_err();
    assert_eq!(refusal.code(), Code::PermissionDenied, "{refusal}");
    let event = event(&sentry, &before, "AuthorityReplaced").await;
    assert!(event.note.unwrap().contains("have to be restarted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_authority_of_somebody_else_is_an_error_that_says_what_to_do() {
    let namespace = prepared_namespace("1s").await;
    let mut sentry = Sentry::in_namespace(namespace.clone(), &[]).await;
    let before = store(&sentry, &supplied(secret_of(&made_ago(&namespace, 20)))).await;
    let ended = async {
        while sentry.process.try_wait().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, ended).await.unwrap();
    assert_eq!(sentry.process.wait().unwrap().code(), Some(1));
    let log = sentry.log();
    assert!(
        log.contains("Fatal error") && log.contains("expired at") && log.contains("supply a new one"),
        "{log}"
    );
    let event = event(&sentry, &before, "AuthorityNotLoaded").await;
    assert!(event.note.unwrap().contains("supply a new one"));
    let after = sentry.secrets().get(TRUST_BUNDLE).await.unwrap();
    assert_eq!(after.data, before.data);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_cannot_be_made_is_an_event_a_warning_and_a_metric() {
    let namespace = prepared_namespace("1s").await;
    let sentry = Sentry::in_namespace(namespace.clone(), &[]).await;
    let mut secret = secret_of(&made_ago(&namespace, 9));
    // The API server refuses every change of its content.
    secret.immutable = Some(true);
    let before = store(&sentry, &secret).await;
    sentry.wait_for_health("/healthz", "200 OK").await;
    let event = event(&sentry, &before, "RenewalFailed").await;
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    let note = event.note.unwrap();
    assert!(note.contains("step announce") && note.contains("immutable"), "{note}");
    sentry
        .wait_for_health(
            "/healthz/detail",
            "sentry-authority: warning: the renewal of the certificate authority failed",
        )
        .await;
    let scraped = sentry.metrics().await;
    assert!(
        scraped.contains("dapr_sentry_ca_renewal_failures_total{step=\"announce\"}"),
        "{scraped}"
    );
    assert!(
        sentry.health("/healthz").await.unwrap().contains("200 OK"),
        "it still signs"
    );
}
