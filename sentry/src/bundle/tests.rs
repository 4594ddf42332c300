use std::path::Path;

use futures::FutureExt;
use outrigger_core::{TrustDomain, control_plane::Service};
use outrigger_process::health::Health;

use super::*;
use crate::{args::Names, ca::testing::supplied, rotation::RenewalMetrics, settings::Settings, store::FileStore};

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn bundle(folder: &Path) -> Bundle {
    let names = Names {
        anchors: folder.join("ca.crt"),
        issuer_chain: folder.join("issuer.crt"),
        issuer_key: folder.join("issuer.key"),
    };
    let trust_domain = TrustDomain::new("cluster.local").unwrap();
    let plan = plan();
    let profile = Profile {
        id: Service::Sentry.spiffe_id(&trust_domain, "dapr-system").unwrap(),
        trust_domain,
        ttl: plan.ttl,
        skew: plan.skew,
    };
    let registry = prometheus::Registry::new();
    let target = Health::default().target("sentry-authority");
    let reporter = Reporter::new(
        RenewalMetrics::register(&registry).unwrap(),
        target,
        None,
        "test".into(),
    );
    let metrics = Metrics::register(&registry).unwrap();
    let settings = LiveSettings::new(Settings {
        skew: plan.skew,
        ..Settings::default()
    });
    let store = Store::Files(FileStore::new(names));
    Bundle::new(store, (profile, plan), settings, metrics, reporter)
}

fn plan() -> Plan {
    Plan {
        enabled: true,
        ttl: time::Duration::hours(10),
        threshold: 0.8,
        grace: time::Duration::minutes(30),
        skew: time::Duration::minutes(10),
    }
}

fn clear(folder: &Path) {
    for name in ["ca.crt", "issuer.crt", "issuer.key"] {
        std::fs::remove_file(folder.join(name)).unwrap();
    }
}

#[tokio::test]
async fn an_emptied_store_gets_the_authority_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut bundle = bundle(folder.path());
    bundle.refresh(now()).await.unwrap();
    let stored = || std::fs::read_to_string(folder.path().join("issuer.key")).unwrap();
    let first = stored();
    clear(folder.path());
    bundle.refresh(now()).await.unwrap();
    assert_eq!(stored(), first);
    assert!(bundle.current.replaced().now_or_never().is_none());
}

#[tokio::test]
async fn another_authority_in_the_store_takes_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut old = bundle(folder.path());
    old.refresh(now()).await.unwrap();
    let before = old.current.get().unwrap();
    clear(folder.path());
    let mut new = bundle(folder.path());
    new.refresh(now()).await.unwrap();
    assert!(
        new.current.replaced().now_or_never().is_none(),
        "the first replaces none"
    );

    old.refresh(now()).await.unwrap();
    let (after, expected) = (old.current.get().unwrap(), new.current.get().unwrap());
    assert_eq!(after.anchors_pem(), expected.anchors_pem());
    assert_ne!(after.anchors_pem(), before.anchors_pem());
    assert!(old.current.replaced().now_or_never().is_some());

    std::fs::write(folder.path().join("issuer.crt"), "broken").unwrap();
    assert!(old.refresh(now()).await.is_err());
    assert_eq!(
        old.current.get().unwrap().chain_pem(),
        after.chain_pem(),
        "the last good one stays"
    );
}

/// Numbers of anchors, certificates of the chain, and whether an issuer is announced.
fn shape(bundle: &Bundle) -> (usize, usize, bool) {
    let material = bundle.loaded.as_ref().unwrap();
    let count = |text: &str| text.matches("BEGIN").count();
    (
        count(&material.anchors),
        count(&material.issuer_chain),
        material.next.is_some(),
    )
}

#[tokio::test]
async fn roots_follow_each_other_across_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let minute = time::Duration::minutes(1);
    let mut at = now();
    bundle(folder.path()).refresh(at).await.unwrap();
    let mut seen = Vec::new();
    let end = at + time::Duration::hours(30);
    while at < end {
        // Another process each time: whatever it needs to know is stored.
        let mut bundle = bundle(folder.path());
        bundle.refresh(at).await.unwrap();
        if seen.last() != Some(&shape(&bundle)) {
            seen.push(shape(&bundle));
        }
        assert!(bundle.current.get().unwrap().not_after() > at);
        at += minute * 7;
    }
    let round = [(2, 1, true), (2, 3, false), (1, 1, false)];
    assert_eq!(seen[0], (1, 1, false));
    assert_eq!(seen[1..10], round.repeat(3));
}

#[tokio::test]
async fn one_process_waits_for_the_grace_and_switches_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let mut bundle = bundle(folder.path());
    let start = now();
    bundle.refresh(start).await.unwrap();
    let due = bundle.again.unwrap();
    assert!((due - start - time::Duration::hours(8)).abs() < time::Duration::seconds(2));
    bundle.refresh(due).await.unwrap();
    assert_eq!(shape(&bundle), (2, 1, true));
    // Published by now, which the next look knows.
    bundle.refresh(due).await.unwrap();
    let switchover = bundle.again.unwrap();
    assert!((switchover - due - time::Duration::minutes(30)).abs() < time::Duration::seconds(2));
    bundle.refresh(switchover - time::Duration::seconds(5)).await.unwrap();
    assert_eq!(shape(&bundle), (2, 1, true));
    bundle.refresh(switchover).await.unwrap();
    assert_eq!(shape(&bundle), (2, 3, false));
    // Next, the old root is retired, ten minutes after its end.
    let retired = start + time::Duration::minutes(10 * 60 + 10);
    assert!((bundle.again.unwrap() - retired).abs() < time::Duration::seconds(2));
}

#[tokio::test]
async fn an_expired_authority_of_its_own_is_replaced_at_once() {
    for hours in [11, 24 * 365] {
        let folder = tempfile::tempdir().unwrap();
        let start = now();
        let mut first = bundle(folder.path());
        first.refresh(start).await.unwrap();
        let before = first.current.get().unwrap();

        let later = start + time::Duration::hours(hours);
        let mut again = bundle(folder.path());
        again.refresh(later).await.unwrap();
        assert_eq!(shape(&again), (1, 1, false), "the expired root is gone as well");
        let after = again.current.get().unwrap();
        assert_ne!(after.anchors_pem(), before.anchors_pem());
        assert!(after.not_after() > later);
        // One that ran on all the time does the same.
        first.refresh(later).await.unwrap();
        assert_eq!(first.current.get().unwrap().anchors_pem(), after.anchors_pem());
    }
}

#[tokio::test]
async fn an_expired_successor_does_not_hold_up_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let start = now();
    let mut first = bundle(folder.path());
    first.refresh(start).await.unwrap();
    first.refresh(start + time::Duration::hours(8)).await.unwrap();
    assert_eq!(shape(&first), (2, 1, true));
    let mut again = bundle(folder.path());
    let later = start + time::Duration::hours(100);
    again.refresh(later).await.unwrap();
    assert_eq!(shape(&again), (1, 1, false));
    assert!(again.current.get().unwrap().not_after() > later);
}

#[tokio::test]
async fn other_expired_authorities_are_errors_that_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let mut own = bundle(folder.path());
    own.plan.enabled = false;
    own.refresh(now()).await.unwrap();
    let later = now() + time::Duration::days(10);
    let mut restarted = bundle(folder.path());
    restarted.plan.enabled = false;
    let text = chain(&restarted.refresh(later).await.unwrap_err());
    assert!(
        text.contains("expired at") && text.contains("--ca-renewal-enabled is false"),
        "{text}"
    );

    let folder = tempfile::tempdir().unwrap();
    let mut bundle = bundle(folder.path());
    let material = supplied(&rcgen::PKCS_ED25519, now(), |_| {}).material;
    let (_, version) = bundle.store.load().await.unwrap();
    bundle.store.save(&material, &version).await.unwrap();
    bundle.refresh(now()).await.unwrap();
    bundle.loaded = None;
    let error = bundle.refresh(later).await.unwrap_err();
    assert!(!error.may_pass());
    let text = chain(&error);
    assert!(
        text.contains("O=Shop issuer expired at") && text.contains("supply a new one"),
        "{text}"
    );
    let (found, _) = bundle.store.load().await.unwrap();
    assert_eq!(found, Found::Material(material), "it is left alone");
}

#[tokio::test]
async fn a_changed_skew_counts_for_the_next_step() {
    let folder = tempfile::tempdir().unwrap();
    let mut bundle = bundle(folder.path());
    bundle.refresh(now()).await.unwrap();
    let skew = time::Duration::minutes(1);
    bundle.settings.set(Settings {
        skew,
        ..Settings::default()
    });
    bundle.refresh(now()).await.unwrap();
    assert_eq!((bundle.plan.skew, bundle.profile.skew), (skew, skew));
}
