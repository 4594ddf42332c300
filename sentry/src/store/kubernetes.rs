//! Material in the Secret `dapr-trust-bundle`, and its public half in the ConfigMap of that name. The Secret is the truth; the
//! ConfigMap follows it and is never a reason to replace an authority.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{Api, Client, api::PostParams};
use outrigger_core::control_plane::TRUST_BUNDLE;
use outrigger_identity::Anchors;

use super::{Found, StoreError, assemble};
use crate::{args::Names, ca::Material};

pub(crate) struct KubernetesStore {
    secrets: Api<Secret>,
    config_maps: Api<ConfigMap>,
    namespace: String,
    anchors: String,
    issuer_chain: String,
    issuer_key: String,
}

/// The Secret as it was when a decision was made on it.
pub(crate) struct Version(Secret);

impl KubernetesStore {
    pub(crate) fn new(client: Client, namespace: &str, names: &Names) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            config_maps: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            anchors: Names::key(&names.anchors),
            issuer_chain: Names::key(&names.issuer_chain),
            issuer_key: Names::key(&names.issuer_key),
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
        let found = assemble(
            &object,
            (&self.anchors, text(&self.anchors)?),
            (&self.issuer_chain, text(&self.issuer_chain)?),
            (&self.issuer_key, text(&self.issuer_key)?),
        )?;
        Ok((found, Version(secret)))
    }

    /// Stores a new authority, unless somebody else changed the Secret since `version`: then nothing is written and the answer
    /// is `false`.
    ///
    /// # Errors
    /// When the API server refuses.
    pub(crate) async fn save(&self, material: &Material, version: Version) -> Result<bool, StoreError> {
        let Version(mut secret) = version;
        let data = secret.data.get_or_insert_default();
        for (key, text) in [
            (&self.anchors, &material.anchors),
            (&self.issuer_chain, &material.issuer_chain),
            (&self.issuer_key, &material.issuer_key),
        ] {
            data.insert(key.clone(), ByteString(text.clone().into_bytes()));
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

    /// Makes the ConfigMap carry these anchors; answers whether it had to be changed.
    ///
    /// # Errors
    /// When the ConfigMap does not exist or the API server refuses.
    pub(crate) async fn heal_config_map(&self, anchors_pem: &str) -> Result<bool, StoreError> {
        let object = self.object("ConfigMap");
        let mut map = self
            .config_maps
            .get(TRUST_BUNDLE)
            .await
            .map_err(|error| explain("read", &object, error))?;
        let data: &mut BTreeMap<_, _> = map.data.get_or_insert_default();
        if data
            .get(&self.anchors)
            .is_some_and(|current| same_certificates(current, anchors_pem))
        {
            return Ok(false);
        }
        data.insert(self.anchors.clone(), anchors_pem.to_owned());
        match self
            .config_maps
            .replace(TRUST_BUNDLE, &PostParams::default(), &map)
            .await
        {
            Ok(_) => Ok(true),
            // Another replica was faster; the next check sees what it wrote.
            Err(kube::Error::Api(status)) if status.is_conflict() => Ok(false),
            Err(error) => Err(explain("update", &object, error)),
        }
    }
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
