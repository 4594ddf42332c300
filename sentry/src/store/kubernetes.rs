//! Material in the Secret `dapr-trust-bundle`, and its public half in the ConfigMap of that name. The Secret is the truth; the
//! ConfigMap follows it and is never a reason to replace an authority.

use std::collections::BTreeMap;

use futures::{Stream, StreamExt, stream};
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{Api, Client, Resource, api::PostParams, core::PartialObjectMeta, runtime::watcher};
use outrigger_core::control_plane::TRUST_BUNDLE;
use outrigger_identity::Anchors;
use outrigger_process::kubernetes::watch::{Change, changes};

use super::{Found, Parts, Published, StoreError, Version, assemble, assemble_next};
use crate::{args::Names, ca::Material};

pub(crate) struct KubernetesStore {
    secrets: Api<Secret>,
    config_maps: Api<ConfigMap>,
    namespace: String,
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
    pub(crate) fn new(client: Client, namespace: &str, names: &Names) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            config_maps: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
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

    fn object(&self, kind: &str) -> String {
        format!("{kind} {}/{TRUST_BUNDLE}", self.namespace)
    }

    /// What the Secret holds, and the version to save against.
    ///
    /// # Errors
    /// A Secret that does not exist or holds half an authority.
    pub(crate) async fn load(&self) -> Result<(Found, Version), StoreError> {
        let object = self.object("Secret");
        let secret = self
            .secrets
            .get(TRUST_BUNDLE)
            .await
            .map_err(|error| explain("read", &object, error))?;
        let data = secret.data.clone().unwrap_or_default();
        let text = |key: &str| match data.get(key) {
            // A key with nothing in it is as good as none.
            Some(ByteString(bytes)) if bytes.is_empty() => Ok(None),
            Some(ByteString(bytes)) => String::from_utf8(bytes.clone())
                .map(Some)
                .map_err(|_| StoreError::NotText {
                    object: object.clone(),
                    key: key.to_owned(),
                }),
            None => Ok(None),
        };
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
        // The update carries the resourceVersion of the decision: of several replicas one wins, the others load its authority.
        match self
            .secrets
            .replace(TRUST_BUNDLE, &PostParams::default(), &secret)
            .await
        {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_conflict() => Ok(false),
            Err(error) => Err(explain("update", &self.object("Secret"), error)),
        }
    }

    /// Makes the ConfigMap carry these anchors.
    ///
    /// # Errors
    /// When the ConfigMap does not exist or the API server refuses.
    pub(crate) async fn heal_config_map(&self, anchors_pem: &str) -> Result<Published, StoreError> {
        let object = self.object("ConfigMap");
        let mut map = self
            .config_maps
            .get(TRUST_BUNDLE)
            .await
            .map_err(|error| explain("read", &object, error))?;
        let data: &mut BTreeMap<_, _> = map.data.get_or_insert_default();
        if data
            .get(&self.keys.anchors)
            .is_some_and(|current| same_certificates(current, anchors_pem))
        {
            return Ok(Published::AlreadyRight);
        }
        data.insert(self.keys.anchors.clone(), anchors_pem.to_owned());
        match self
            .config_maps
            .replace(TRUST_BUNDLE, &PostParams::default(), &map)
            .await
        {
            Ok(_) => Ok(Published::Written),
            Err(kube::Error::Api(status)) if status.is_conflict() => Ok(Published::Conflict),
            Err(error) => Err(explain("update", &object, error)),
        }
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

fn explain(action: &'static str, object: &str, error: kube::Error) -> StoreError {
    match error {
        kube::Error::Api(status) if status.is_not_found() => StoreError::Missing {
            object: object.to_owned(),
        },
        error => StoreError::Api {
            action,
            object: object.to_owned(),
            source: Box::new(error),
        },
    }
}
