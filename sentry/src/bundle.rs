//! The authority of the moment: loaded or generated at the start, looked at again every so often, swapped whole.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use outrigger_core::text::chain;
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
mod tests;
