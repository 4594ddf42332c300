//! The authority of the moment: loaded or generated at the start, looked at again every so often, swapped whole.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use outrigger_core::{SpiffeId, TrustDomain};
use outrigger_process::health::Target;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::{
    ca::{self, Authority, Material, MaterialError},
    metrics::Metrics,
    settings::Settings,
    store::{Found, Store, StoreError},
};

/// How often the store is looked at for changes that somebody made.
const REFRESH: Duration = Duration::from_secs(30);
/// Pause after a failed attempt to get the first authority.
const RETRY: Duration = Duration::from_secs(2);

/// Why there is no authority, or no newer one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BundleError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Material(#[from] MaterialError),
    #[error("cannot generate an authority")]
    Generate(#[source] rcgen::Error),
}

/// Shared by all who sign.
#[derive(Clone, Default)]
pub(crate) struct Current(Arc<ArcSwapOption<Authority>>);

impl Current {
    pub(crate) fn get(&self) -> Option<Arc<Authority>> {
        self.0.load_full()
    }
}

/// Keeps [`Current`] up to date with the store.
pub(crate) struct Bundle {
    pub store: Store,
    pub id: SpiffeId,
    pub trust_domain: TrustDomain,
    pub settings: Settings,
    pub metrics: Metrics,
    pub current: Current,
    loaded: Option<Material>,
}

impl Bundle {
    pub(crate) fn new(
        store: Store,
        id: SpiffeId,
        trust_domain: TrustDomain,
        settings: Settings,
        metrics: Metrics,
    ) -> Self {
        Self {
            store,
            id,
            trust_domain,
            settings,
            metrics,
            current: Current::default(),
            loaded: None,
        }
    }

    /// Gets the first authority. What can heal by itself (objects that appear later, an API server that is not there) is waited
    /// for; material that cannot be used is an error.
    ///
    /// # Errors
    /// Unusable or incomplete material.
    pub(crate) async fn start(&mut self, target: &Target, stop: &CancellationToken) -> Result<(), BundleError> {
        loop {
            match self.refresh().await {
                Ok(()) => return Ok(()),
                Err(BundleError::Store(error @ (StoreError::Missing { .. } | StoreError::Api { .. }))) => {
                    let text = format!("{:#}", anyhow::Error::from(error));
                    tracing::warn!(error = text, "no certificate authority yet; trying again");
                    target.not_ready(text);
                }
                Err(error) => return Err(error),
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// Follows the store until `stop`. Whatever goes wrong, the last good authority goes on signing.
    pub(crate) async fn follow(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(REFRESH) => {}
            }
            if let Err(error) = self.refresh().await {
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::error!(
                    error,
                    "issuer credentials cannot be reloaded; keeping the last good ones"
                );
            }
        }
    }

    async fn refresh(&mut self) -> Result<(), BundleError> {
        let material = match &self.store {
            Store::Files(store) => match store.load()? {
                Found::Material(material) => material,
                Found::Nothing => {
                    let material = self.generate()?;
                    store.save(&material)?;
                    material
                }
            },
            Store::Kubernetes(store) => loop {
                let (found, version) = store.load().await?;
                match found {
                    Found::Material(material) => break material,
                    Found::Nothing => {
                        let material = self.generate()?;
                        if store.save(&material, version).await? {
                            break material;
                        }
                        tracing::info!("another replica stored its authority first; using that one");
                    }
                }
            },
        };
        if self.loaded.as_ref() != Some(&material) {
            let authority = Authority::load(&material, OffsetDateTime::now_utc())?;
            if self.loaded.is_some() {
                tracing::info!("Issuer credentials changed; reloading");
                self.metrics.issuer_changed.inc();
            }
            self.metrics.issuer_expiry.set(authority.not_after().unix_timestamp());
            tracing::info!(expires = %authority.not_after(), "certificate authority loaded");
            self.current.0.store(Some(Arc::new(authority)));
            self.loaded = Some(material);
        }
        if let (Store::Kubernetes(store), Some(authority)) = (&self.store, self.current.get())
            && store.heal_config_map(authority.anchors_pem()).await?
        {
            tracing::info!("wrote the trust anchors to the ConfigMap");
        }
        Ok(())
    }

    fn generate(&self) -> Result<Material, BundleError> {
        tracing::info!("Root and issuer certs not found: generating self signed CA");
        self.metrics.issuer_changed.inc();
        ca::generate(
            &self.id,
            &self.trust_domain,
            self.settings.skew,
            OffsetDateTime::now_utc(),
        )
        .map_err(BundleError::Generate)
    }
}
