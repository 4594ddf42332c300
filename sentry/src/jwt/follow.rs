//! The signing key of the moment: loaded or generated at the start, followed, swapped whole.

use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwapOption;
use outrigger_identity::Changes;
use outrigger_process::health::Target;
use tokio_util::sync::CancellationToken;

use super::{
    JwtOptions, Material, Minter, check, complete,
    store::{JwtStore, Stored},
};
use crate::{
    bundle::{REFRESH, RETRY},
    store::{Published, StoreError},
};

/// Shared by all who sign or publish; empty while JWT-SVIDs are off.
pub(crate) type CurrentMinter = Arc<ArcSwapOption<Minter>>;

/// Keeps a [`CurrentMinter`] up to date with its store.
pub(crate) struct JwtKeys {
    store: JwtStore,
    options: JwtOptions,
    current: CurrentMinter,
    loaded: Option<Material>,
}

impl JwtKeys {
    pub(crate) fn new(store: JwtStore, options: JwtOptions) -> Self {
        Self {
            store,
            options,
            current: CurrentMinter::default(),
            loaded: None,
        }
    }

    pub(crate) fn current(&self) -> CurrentMinter {
        self.current.clone()
    }

    /// Loads the material, and completes it when JWT-SVIDs are on. When they are off only what is complete is looked at: material
    /// that cannot be used is a mistake in either case.
    ///
    /// # Errors
    /// Unusable material.
    pub(crate) async fn start(&mut self, target: &Target, stop: &CancellationToken) -> anyhow::Result<()> {
        loop {
            match self.refresh().await {
                Ok(()) => return Ok(()),
                Err(error) if error.downcast_ref::<StoreError>().is_some_and(StoreError::may_pass) => {
                    let text = format!("{error:#}");
                    tracing::warn!(error = text, "no JWT signing key yet; trying again");
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

    /// Follows the store until `stop`. Whatever goes wrong, the last good key goes on signing.
    pub(crate) async fn follow(mut self, mut changes: Changes, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = changes.any(REFRESH) => {}
            }
            if let Err(error) = self.refresh().await {
                let error = format!("{error:#}");
                tracing::error!(
                    error,
                    "the JWT signing key cannot be reloaded; keeping the last good one"
                );
            }
        }
    }

    async fn refresh(&mut self) -> anyhow::Result<()> {
        let material = loop {
            let (Stored { key, jwks }, version) = self.store.load().await?;
            match (key, jwks) {
                (Some(key), Some(jwks)) => break Material { key, jwks },
                _ if !self.options.enabled => return Ok(()),
                (key, jwks) => {
                    let material = match &self.loaded {
                        Some(loaded) => {
                            tracing::warn!("the JWT signing key or its JWKS is gone: storing those in use again");
                            loaded.clone()
                        }
                        None => {
                            tracing::info!(
                                algorithm = self.options.algorithm.name(),
                                "JWT signing key or JWKS not found: generating what is missing"
                            );
                            complete(key, jwks, &self.options).with_context(|| self.store.place())?
                        }
                    };
                    if self.store.save(&material, version).await? {
                        break material;
                    }
                    tracing::info!("another replica changed the Secret first; using what it stored");
                }
            }
        };
        if !self.options.enabled {
            check(&material, self.options.key_id.as_deref()).with_context(|| self.store.place())?;
            return Ok(());
        }
        if self.loaded.as_ref() != Some(&material) {
            let minter = Minter::load(&material, &self.options).with_context(|| self.store.place())?;
            tracing::info!(kid = minter.kid, "JWT signing key loaded");
            self.current.store(Some(Arc::new(minter)));
            self.loaded = Some(material);
        }
        if let Some(minter) = self.current.load_full()
            && self.store.publish(minter.jwks()).await? == Published::Written
        {
            tracing::info!("wrote the JWKS to the ConfigMap");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jwt::{Algorithm, tests::options};

    fn keys(folder: &std::path::Path, enabled: bool) -> JwtKeys {
        let options = JwtOptions {
            enabled,
            key: folder.join("jwt.key"),
            jwks: folder.join("jwks.json"),
            ..options(Algorithm::Es256)
        };
        JwtKeys::new(JwtStore::Files(options.clone()), options)
    }

    #[tokio::test]
    async fn the_last_good_key_goes_on_signing() {
        let folder = tempfile::tempdir().unwrap();
        let mut keys = keys(folder.path(), true);
        keys.refresh().await.unwrap();
        let first = keys.current().load_full().unwrap();
        let path = folder.path().join("jwks.json");
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, r#"{"keys":[]}"#).unwrap();
        let error = keys.refresh().await.unwrap_err();
        assert!(
            format!("{error:#}").contains("jwks.json: JWKS: it has no key"),
            "{error:#}"
        );
        assert!(Arc::ptr_eq(&first, &keys.current().load_full().unwrap()));

        std::fs::remove_file(&path).unwrap();
        keys.refresh().await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), good, "what is in use is stored again");
    }

    #[tokio::test]
    async fn when_off_nothing_is_generated_and_bad_material_is_still_a_mistake() {
        let folder = tempfile::tempdir().unwrap();
        keys(folder.path(), false).refresh().await.unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        std::fs::write(folder.path().join("jwt.key"), "x").unwrap();
        keys(folder.path(), false).refresh().await.unwrap();
        std::fs::write(folder.path().join("jwks.json"), "").unwrap();
        assert!(keys(folder.path(), false).refresh().await.is_err());
    }
}
