//! The authority of the moment: loaded or generated at the start, looked at again every so often, swapped whole.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use outrigger_identity::Changes;
use outrigger_process::health::Target;
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    ca::{self, Authority, Material, MaterialError, Profile, Standing, SuccessionError},
    metrics::Metrics,
    rotation::{Decision, Plan, Reporter, Step, Unattended, decide, prepare},
    settings::LiveSettings,
    store::{Found, Published, Store, StoreError, Version},
};

/// How often the store is looked at for changes that somebody made.
pub(crate) const REFRESH: Duration = Duration::from_secs(30);
/// Pause after a failed attempt to get the first authority.
pub(crate) const RETRY: Duration = Duration::from_secs(2);
/// Looks at the store are at least this far apart.
const PAUSE: Duration = Duration::from_millis(100);
/// Steps and lost races in one look at the store; what is left is for the next look.
const ROUNDS: usize = 8;

/// Why there is no authority, or no newer one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Material(#[from] MaterialError),
    #[error("cannot generate an authority")]
    Generate(#[source] rcgen::Error),
    #[error(transparent)]
    Succession(#[from] SuccessionError),
    #[error("{reason}, and with it all certificates: {remedy}")]
    Expired {
        reason: MaterialError,
        remedy: &'static str,
    },
}

impl BundleError {
    /// Whether waiting may help.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Store(error) if error.may_pass())
    }
}

/// The whole chain of an error in one line.
pub(crate) fn chain(error: &BundleError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Shared by all who sign.
#[derive(Clone, Default)]
pub(crate) struct Current(Arc<Shared>);

#[derive(Default)]
struct Shared {
    authority: ArcSwapOption<Authority>,
    replaced: Notify,
}

impl Current {
    pub(crate) fn get(&self) -> Option<Arc<Authority>> {
        self.0.authority.load_full()
    }

    /// Waits until another authority takes over; for one waiter, which misses nothing between two calls.
    pub(crate) async fn replaced(&self) {
        self.0.replaced.notified().await;
    }
}

/// Keeps [`Current`] up to date with the store, and the store with the plan.
pub(crate) struct Bundle {
    pub store: Store,
    pub profile: Profile,
    pub plan: Plan,
    pub settings: LiveSettings,
    pub metrics: Metrics,
    pub reporter: Reporter,
    pub current: Current,
    loaded: Option<Material>,
    /// The anchors that everybody can read, and since when as far as this process knows.
    published: Option<(String, OffsetDateTime)>,
    /// When the plan has something to do.
    again: Option<OffsetDateTime>,
}

/// What is stored once there is nothing to be done about it.
struct Settled {
    material: Material,
    decision: Decision,
    expires: OffsetDateTime,
    /// A step that was due, and why it was not made.
    failed: Option<(Step, BundleError)>,
}

impl Bundle {
    pub(crate) fn new(
        store: Store,
        (profile, plan): (Profile, Plan),
        settings: LiveSettings,
        metrics: Metrics,
        reporter: Reporter,
    ) -> Self {
        Self {
            store,
            profile,
            plan,
            settings,
            metrics,
            reporter,
            current: Current::default(),
            loaded: None,
            published: None,
            again: None,
        }
    }

    /// Gets the first authority. What can heal by itself (objects that appear later, an API server that is not there) is waited
    /// for; material that cannot be used is an error.
    ///
    /// # Errors
    /// Unusable or incomplete material.
    pub(crate) async fn start(&mut self, target: &Target, stop: &CancellationToken) -> Result<(), BundleError> {
        loop {
            match self.refresh(OffsetDateTime::now_utc()).await {
                Ok(()) => return Ok(()),
                Err(error) if error.may_pass() => {
                    let text = chain(&error);
                    tracing::warn!(error = text, "no certificate authority yet; trying again");
                    target.not_ready(text);
                }
                Err(error) => {
                    self.reporter.not_loaded(&error).await;
                    return Err(error);
                }
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// Follows the store until `stop`; `changes` tell when it may have changed. Whatever goes wrong, the last good authority
    /// goes on signing.
    pub(crate) async fn follow(mut self, mut changes: Changes, stop: CancellationToken) {
        loop {
            let due = self.again.map(|again| again - OffsetDateTime::now_utc());
            let due = due.map_or(REFRESH, |due| {
                Duration::try_from(due).unwrap_or(RETRY).clamp(PAUSE, REFRESH)
            });
            tokio::select! {
                () = stop.cancelled() => return,
                () = changes.any(due) => {}
            }
            if let Err(error) = self.refresh(OffsetDateTime::now_utc()).await {
                tracing::error!(
                    error = chain(&error),
                    "issuer credentials cannot be reloaded; keeping the last good ones"
                );
                self.reporter.not_loaded(&error).await;
            }
        }
    }

    async fn refresh(&mut self, now: OffsetDateTime) -> Result<(), BundleError> {
        let skew = self.settings.get().skew;
        (self.plan.skew, self.profile.skew) = (skew, skew);
        let Settled {
            material,
            decision,
            expires,
            failed,
        } = self.settle(now).await?;
        if self.loaded.as_ref() != Some(&material) {
            let authority = match Authority::load(&material, now) {
                Ok(authority) => authority,
                Err(reason) if expires <= now => return Err(expired(reason, failed, decision.unattended)),
                Err(reason) => return Err(reason.into()),
            };
            self.metrics.issuer_expiry.set(authority.not_after().unix_timestamp());
            tracing::info!(expires = %authority.not_after(), "certificate authority loaded");
            self.current.0.authority.store(Some(Arc::new(authority)));
            if self.loaded.replace(material).is_some() {
                tracing::info!("Issuer credentials changed; reloading");
                self.metrics.issuer_changed.inc();
                self.current.0.replaced.notify_one();
            }
        }
        self.again = decision.again;
        let failed = failed.as_ref().map(|(step, error)| (*step, error));
        self.reporter.stands(&decision, expires, failed).await;
        self.publish(now).await
    }

    /// Loads what is stored, or generates it, and makes the steps that are due. A step that fails stops nothing else.
    async fn settle(&mut self, now: OffsetDateTime) -> Result<Settled, BundleError> {
        let mut rounds = 0..ROUNDS;
        loop {
            let last = rounds.next().is_none();
            let (found, version) = self.store.load().await?;
            self.reporter.regard(version.reference());
            let material = match found {
                Found::Material(material) => material,
                Found::Nothing => {
                    let material = self.missing(now).await?;
                    if !self.store.save(&material, &version).await? {
                        tracing::info!("another replica stored its authority first; using that one");
                    }
                    continue;
                }
            };
            let standing = Standing::of(&material, now)?;
            let published = self.published_since(&material);
            let decision = decide(&self.plan, &standing, version.supplied(), published, now);
            let settled = |material, decision, failed| Settled {
                material,
                decision,
                expires: standing.expires,
                failed,
            };
            let Some(step) = decision.step.filter(|_| !last) else {
                return Ok(settled(material, decision, None));
            };
            match self.make(step, &material, &version, now).await {
                Ok(true) => self.reporter.made(step, standing.expires <= now).await,
                Ok(false) => tracing::info!(?step, "another replica was first; using what it stored"),
                Err(error) => return Ok(settled(material, decision, Some((step, error)))),
            }
        }
    }

    /// Makes a step, unless somebody else changed what is stored: then the answer is `false`.
    async fn make(
        &self,
        step: Step,
        material: &Material,
        version: &Version,
        now: OffsetDateTime,
    ) -> Result<bool, BundleError> {
        // By a wrong clock a good authority would have expired, or its successor would begin in the future.
        self.store.check_clock(now, self.plan.skew).await?;
        let next = prepare(step, material, &self.profile, now)?;
        Ok(self.store.save(&next, version).await?)
    }

    /// Since when everybody can read these anchors, `None` while they cannot. Whoever finds them in place goes by the time when
    /// they were made: they were written right after that.
    fn published_since(&self, material: &Material) -> Option<OffsetDateTime> {
        let (anchors, since) = self.published.as_ref()?;
        (*anchors == material.anchors).then_some(*since)
    }

    async fn publish(&mut self, now: OffsetDateTime) -> Result<(), BundleError> {
        let (Some(authority), Some(material)) = (self.current.get(), &self.loaded) else {
            return Ok(());
        };
        let since = match self.store.publish(authority.anchors_pem()).await? {
            Published::Written => {
                tracing::info!("wrote the trust anchors to the ConfigMap");
                now
            }
            Published::AlreadyRight => match &self.published {
                Some((anchors, since)) if *anchors == material.anchors => *since,
                // Another replica wrote them while we watched.
                Some(_) => now,
                None => OffsetDateTime::UNIX_EPOCH,
            },
            Published::Conflict => return Ok(()),
        };
        self.published = Some((material.anchors.clone(), since));
        Ok(())
    }

    /// What to store where nothing is. An authority that was in use goes back: a new root would break every sidecar, and whoever
    /// emptied the store (an apply that replaces the object, say) rarely means that. A restart begins anew.
    async fn missing(&self, now: OffsetDateTime) -> Result<Material, BundleError> {
        if let Some(material) = &self.loaded {
            tracing::warn!("Root and issuer certs are gone: storing those in use again");
            return Ok(material.clone());
        }
        self.store.check_clock(now, self.plan.skew).await?;
        tracing::info!("Root and issuer certs not found: generating self signed CA");
        self.metrics.issuer_changed.inc();
        ca::generate(&self.profile, now).map_err(BundleError::Generate)
    }
}

/// Why an authority that has expired is still there.
fn expired(reason: MaterialError, failed: Option<(Step, BundleError)>, unattended: Option<Unattended>) -> BundleError {
    if let Some((_, error)) = failed {
        return error;
    }
    let remedy = match unattended {
        Some(Unattended::Disabled) => {
            "it is not renewed because --ca-renewal-enabled is false; set it to true, or renew the authority"
        }
        _ => {
            "it was supplied, so it is never replaced; supply a new one, or remove its anchors, chain and key to have one generated"
        }
    };
    BundleError::Expired { reason, remedy }
}

#[cfg(test)]
mod tests {
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
}
