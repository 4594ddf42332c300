//! What is known of an object by itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource, api::ApiResource};
use outrigger_crds::{DaprResource, Guarded, Related, Unresolved, secrets::unresolved};
use outrigger_process::kubernetes::watch::ObjectKey;

use super::{decision::Finding, facts::Fact, links::Links};
use crate::secrets::{Found, lookup};

/// What is known of an object.
pub(super) struct View {
    pub(super) resource: Arc<ApiResource>,
    pub(super) reference: ObjectReference,
    pub(super) generation: Option<i64>,
    pub(super) finding: Finding,
    pub(super) links: Links,
    pub(super) secrets: Option<Arc<dyn References>>,
}

/// The Secrets that an object refers to.
pub(super) trait References: Send + Sync {
    /// Names of the Secrets.
    fn names(&self) -> BTreeSet<&str>;
    /// References that lead nowhere.
    fn unresolved(&self, found: &BTreeMap<String, Found>) -> Vec<Unresolved>;
}

impl<K: DaprResource> References for K {
    fn names(&self) -> BTreeSet<&str> {
        self.checked_refs().iter().map(|secret| secret.name).collect()
    }

    fn unresolved(&self, found: &BTreeMap<String, Found>) -> Vec<Unresolved> {
        unresolved(self, &|name, key| lookup(found, name, key))
    }
}

impl View {
    pub(super) fn of<K: Related>(
        object: &Guarded<K>,
        key: &ObjectKey,
        resource: &Arc<ApiResource>,
        system: &ObjectKey,
    ) -> Self {
        let view = Self {
            resource: resource.clone(),
            reference: object.object_ref(&()),
            generation: object.meta().generation,
            finding: Finding::Invalid(String::new()),
            links: Links::default(),
            secrets: None,
        };
        match &object.0 {
            Ok(object) => Self {
                finding: Finding::Valid {
                    warnings: object.problems().iter().map(ToString::to_string).collect(),
                },
                links: Links::of(object, key, system),
                secrets: (!object.checked_refs().is_empty()).then(|| Arc::new(object.clone()) as Arc<dyn References>),
                ..view
            },
            Err(invalid) => Self {
                finding: Finding::Invalid(invalid.error.clone()),
                ..view
            },
        }
    }

    /// What the conditions depend on.
    pub(super) fn facts(&self, key: &ObjectKey) -> BTreeSet<Fact> {
        let secrets = self.secrets.iter().flat_map(|secrets| secrets.names());
        let secrets = secrets.map(|name| Fact::Secret(ObjectKey::new(&*key.namespace, name)));
        self.links.facts(key).into_iter().chain(secrets).collect()
    }
}
