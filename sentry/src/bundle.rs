//! The authority of the moment: loaded or generated at the start, looked at again every so often, swapped whole.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use outrigger_core::{SpiffeId, TrustDomain};
use outrigger_process::health::Target;
use time::OffsetDateTime;
use tokio::sync::Notify;
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
                    let material = self.missing()?;
                    store.save(&material)?;
                    material
                }
            },
            Store::Kubernetes(store) => loop {
                let (found, version) = store.load().await?;
                match found {
                    Found::Material(material) => break material,
                    Found::Nothing => {
                        let material = self.missing()?;
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
            self.metrics.issuer_expiry.set(authority.not_after().unix_timestamp());
            tracing::info!(expires = %authority.not_after(), "certificate authority loaded");
            self.current.0.authority.store(Some(Arc::new(authority)));
            if self.loaded.replace(material).is_some() {
                tracing::info!("Issuer credentials changed; reloading");
                self.metrics.issuer_changed.inc();
                self.current.0.replaced.notify_one();
            }
        }
        if let (Store::Kubernetes(store), Some(authority)) = (&self.store, self.current.get())
            && store.heal_config_map(authority.anchors_pem()).await?
        {
            tracing::info!("wrote the trust anchors to the ConfigMap");
        }
        Ok(())
    }

    /// What to store where nothing is. An authority that was in use goes back: a new root would break every sidecar, and whoever
    /// emptied the store (an apply that replaces the object, say) rarely means that. A restart begins anew.
    fn missing(&self) -> Result<Material, BundleError> {
        if let Some(material) = &self.loaded {
            tracing::warn!("Root and issuer certs are gone: storing those in use again");
            return Ok(material.clone());
        }
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use futures::FutureExt;
    use outrigger_core::control_plane::Service;

    use super::*;
    use crate::{args::Names, store::FileStore};

    fn bundle(folder: &Path) -> Bundle {
        let names = Names {
            anchors: folder.join("ca.crt"),
            issuer_chain: folder.join("issuer.crt"),
            issuer_key: folder.join("issuer.key"),
        };
        let domain = TrustDomain::new("cluster.local").unwrap();
        Bundle::new(
            Store::Files(FileStore::new(names)),
            Service::Sentry.spiffe_id(&domain, "dapr-system").unwrap(),
            domain,
            Settings::default(),
            Metrics::register(&prometheus::Registry::new()).unwrap(),
        )
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
        bundle.refresh().await.unwrap();
        let stored = || std::fs::read_to_string(folder.path().join("issuer.key")).unwrap();
        let first = stored();
        clear(folder.path());
        bundle.refresh().await.unwrap();
        assert_eq!(stored(), first);
        assert!(bundle.current.replaced().now_or_never().is_none());
    }

    #[tokio::test]
    async fn another_authority_in_the_store_takes_over() {
        let folder = tempfile::tempdir().unwrap();
        let mut old = bundle(folder.path());
        old.refresh().await.unwrap();
        let before = old.current.get().unwrap();
        clear(folder.path());
        let mut new = bundle(folder.path());
        new.refresh().await.unwrap();
        assert!(
            new.current.replaced().now_or_never().is_none(),
            "the first replaces none"
        );

        old.refresh().await.unwrap();
        let (after, expected) = (old.current.get().unwrap(), new.current.get().unwrap());
        assert_eq!(after.anchors_pem(), expected.anchors_pem());
        assert_ne!(after.anchors_pem(), before.anchors_pem());
        assert!(old.current.replaced().now_or_never().is_some());

        std::fs::write(folder.path().join("issuer.crt"), "broken").unwrap();
        assert!(old.refresh().await.is_err());
        assert_eq!(
            old.current.get().unwrap().chain_pem(),
            after.chain_pem(),
            "the last good one stays"
        );
    }
}
