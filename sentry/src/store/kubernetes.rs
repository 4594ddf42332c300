//! Material in the Secret `dapr-trust-bundle`, and its public half in the ConfigMap of that name. The Secret is the truth; the
//! ConfigMap follows it and is never a reason to replace an authority.

use futures::{Stream, StreamExt, stream};
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{Api, Client, Resource, core::PartialObjectMeta, runtime::watcher};
use outrigger_core::control_plane::TRUST_BUNDLE;
use outrigger_identity::Anchors;
use outrigger_process::kubernetes::watch::{Change, changes};
use time::OffsetDateTime;

use super::{Found, Parts, Published, StoreError, TrustBundle, Version, assemble, assemble_next};
use crate::{args::Names, ca::Material};

pub(crate) struct KubernetesStore {
    objects: TrustBundle,
    keys: Keys,
}

/// Keys of the Secret. The anchors have the same one in the ConfigMap.
struct Keys {
    anchors: String,
    issuer_chain: String,
    issuer_key: String,
    next_chain: String,
    next_key: String,
    cross: String,
}

impl KubernetesStore {
    pub(crate) fn new(objects: TrustBundle, names: &Names) -> Self {
        Self {
            objects,
            keys: Keys {
                anchors: Names::key(&names.anchors),
                issuer_chain: Names::key(&names.issuer_chain),
                issuer_key: Names::key(&names.issuer_key),
                next_chain: Names::key(&Names::next(&names.issuer_chain)),
                next_key: Names::key(&Names::next(&names.issuer_key)),
                cross: Names::key(&names.cross()),
            },
        }
    }

    /// What the Secret holds, and the version to save against.
    ///
    /// # Errors
    /// A Secret that does not exist or holds half an authority.
    pub(crate) async fn load(&self) -> Result<(Found, Version), StoreError> {
        let secret = self.objects.secret().await?;
        let object = self.objects.name("Secret");
        let text = |key: &str| self.objects.text(&secret, key);
        let keys = &self.keys;
        let parts = Parts {
            anchors: (&keys.anchors, text(&keys.anchors)?),
            issuer_chain: (&keys.issuer_chain, text(&keys.issuer_chain)?),
            issuer_key: (&keys.issuer_key, text(&keys.issuer_key)?),
        };
        let next = assemble_next(
            &object,
            (&keys.next_chain, text(&keys.next_chain)?),
            (&keys.next_key, text(&keys.next_key)?),
        )?;
        let found = assemble(&object, parts, next, text(&keys.cross)?)?;
        Ok((found, Version::Secret(Box::new(secret))))
    }

    /// Stores an authority, all of it in one write, unless somebody else changed the Secret since it was read: then nothing is written and the answer
    /// is `false`.
    ///
    /// # Errors
    /// When the API server refuses.
    pub(crate) async fn save(&self, material: &Material, mut secret: Secret) -> Result<bool, StoreError> {
        let data = secret.data.get_or_insert_default();
        let (keys, next) = (&self.keys, material.next.as_ref());
        for (key, text) in [
            (&keys.anchors, Some(&material.anchors)),
            (&keys.issuer_chain, Some(&material.issuer_chain)),
            (&keys.issuer_key, Some(&material.issuer_key)),
            (&keys.next_chain, next.map(|next| &next.chain)),
            (&keys.next_key, next.map(|next| &next.key)),
            (&keys.cross, Some(&material.cross).filter(|cross| !cross.is_empty())),
        ] {
            match text {
                Some(text) => data.insert(key.clone(), ByteString(text.clone().into_bytes())),
                None => data.remove(key),
            };
        }
        self.objects.update_secret(&secret).await
    }

    /// # Errors
    /// When the API server does not answer.
    pub(crate) async fn time(&self) -> Result<Option<OffsetDateTime>, StoreError> {
        self.objects.time().await
    }

    /// Makes the ConfigMap carry these anchors.
    ///
    /// # Errors
    /// When the ConfigMap does not exist or the API server refuses.
    pub(crate) async fn heal_config_map(&self, anchors_pem: &str) -> Result<Published, StoreError> {
        let same = |current: &str| same_certificates(current, anchors_pem);
        self.objects
            .heal_config_map(&self.keys.anchors, anchors_pem, same)
            .await
    }
}

/// Yields whenever something may have changed in the Secret or the ConfigMap. Without the right to watch (upstream grants none on
/// the Secret) an object's changes are seen when the store is looked at again.
pub(crate) fn store_changes(client: &Client, namespace: &str) -> impl Stream<Item = ()> + Send + use<> {
    fn of<K>(client: &Client, namespace: &str) -> impl Stream<Item = ()> + Send + use<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + Send
            + 'static,
        K: serde::de::DeserializeOwned,
    {
        // Only the metadata: the content is read when it is needed, with the version to save against.
        let api: Api<PartialObjectMeta<K>> = Api::namespaced(client.clone(), namespace);
        let only = watcher::Config::default().fields(&format!("metadata.name={TRUST_BUNDLE}"));
        changes(api, only)
            .filter_map(async |change| matches!(change, Change::Apply(_) | Change::Delete(_)).then_some(()))
    }
    stream::select(of::<Secret>(client, namespace), of::<ConfigMap>(client, namespace))
}

/// White space and comments make no difference.
fn same_certificates(a: &str, b: &str) -> bool {
    match (Anchors::from_pem(a), Anchors::from_pem(b)) {
        (Ok(a), Ok(b)) => a.certificates().eq(b.certificates()),
        _ => false,
    }
}
