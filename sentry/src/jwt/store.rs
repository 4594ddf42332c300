//! Where the signing key and the set are kept: beside the authority's material, in the same Secret or folder.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::{JwtOptions, Material};
use crate::{
    args::Names,
    store::{Published, StoreError, TrustBundle, files},
};

/// A store of either kind.
pub(crate) enum JwtStore {
    Files(JwtOptions),
    Kubernetes {
        objects: Box<TrustBundle>,
        key: String,
        jwks: String,
    },
}

/// What a store holds of each part.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Stored {
    pub(super) key: Option<String>,
    pub(super) jwks: Option<String>,
}

/// The state that a decision was made on.
pub(super) enum Version {
    Files,
    Secret(Box<Secret>),
}

impl JwtStore {
    pub(crate) fn kubernetes(objects: TrustBundle, options: &JwtOptions) -> Self {
        Self::Kubernetes {
            objects: Box::new(objects),
            key: Names::key(&options.key),
            jwks: Names::key(&options.jwks),
        }
    }

    /// # Errors
    /// What exists and cannot be read.
    pub(super) async fn load(&self) -> Result<(Stored, Version), StoreError> {
        match self {
            Self::Files(paths) => {
                let stored = Stored {
                    key: files::read(&paths.key)?,
                    jwks: files::read(&paths.jwks)?,
                };
                Ok((stored, Version::Files))
            }
            Self::Kubernetes { objects, key, jwks } => {
                let secret = objects.secret().await?;
                let stored = Stored {
                    key: objects.text(&secret, key)?,
                    jwks: objects.text(&secret, jwks)?,
                };
                Ok((stored, Version::Secret(Box::new(secret))))
            }
        }
    }

    /// Saves both parts, unless somebody changed the Secret since `version`: then nothing is written and the answer is `false`.
    ///
    /// # Errors
    /// When the file system or the API server refuses.
    pub(super) async fn save(&self, material: &Material, version: Version) -> Result<bool, StoreError> {
        match (self, version) {
            (Self::Kubernetes { objects, key, jwks }, Version::Secret(mut secret)) => {
                let data = secret.data.get_or_insert_default();
                for (name, text) in [(key, &material.key), (jwks, &material.jwks)] {
                    data.insert(name.clone(), ByteString(text.clone().into_bytes()));
                }
                objects.update_secret(&secret).await
            }
            (Self::Files(paths), _) => {
                files::write(&paths.key, &material.key)?;
                files::write(&paths.jwks, &material.jwks)?;
                Ok(true)
            }
            (Self::Kubernetes { .. }, Version::Files) => Ok(false),
        }
    }

    /// Makes the ConfigMap carry the set, as it is stored; files have nothing to publish.
    ///
    /// # Errors
    /// When the ConfigMap does not exist or the API server refuses.
    pub(super) async fn publish(&self, set: &str) -> Result<Published, StoreError> {
        match self {
            Self::Files(_) => Ok(Published::AlreadyRight),
            Self::Kubernetes { objects, jwks, .. } => {
                objects.heal_config_map(jwks, set, |current| current == set).await
            }
        }
    }

    /// For people: where it is.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Files(paths) => format!("{} and {}", paths.key.display(), paths.jwks.display()),
            Self::Kubernetes { objects, .. } => objects.name("Secret"),
        }
    }
}
