//! One version of an object, encoded once and shared by everyone it is sent to.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use outrigger_core::scopes::in_scope;
use outrigger_crds::{DaprResource, EncodeError, encode};
use outrigger_proto::operator::ResourceEventType;

use crate::secrets::secret_names;

/// What sidecars are sent for an object.
#[derive(Debug)]
pub struct Version<K> {
    name: Arc<str>,
    scopes: Box<[String]>,
    resource_version: Option<String>,
    payload: Bytes,
    events: Events,
    /// The object itself, kept only if secrets have to be filled in before it is sent.
    secret: Option<Arc<K>>,
    /// Names of those Secrets.
    secret_names: Box<[String]>,
}

/// A version's events, once a sidecar was sent them.
#[derive(Debug, Default)]
struct Events {
    created: OnceLock<Bytes>,
    updated: OnceLock<Bytes>,
    deleted: OnceLock<Bytes>,
}

impl<K: DaprResource> Version<K> {
    /// Encodes `object`. `previous` is the version that it replaces.
    ///
    /// Returns `None` when sidecars would see no difference: a status that was written, or a field that they are not
    /// sent. `resourceVersion` alone makes no version.
    ///
    /// # Errors
    /// The encoder's.
    pub(super) fn next(mut object: K, previous: Option<&Self>) -> Result<Option<Self>, EncodeError> {
        let resource_version = object.meta().resource_version.clone();
        if let Some(previous) = previous {
            object
                .meta_mut()
                .resource_version
                .clone_from(&previous.resource_version);
            if encode(&object, true)? == previous.payload {
                return Ok(None);
            }
            object.meta_mut().resource_version.clone_from(&resource_version);
        }
        let secret_names: Box<[String]> = secret_names(&object).into_iter().map(str::to_owned).collect();
        Ok(Some(Self {
            name: object.meta().name.as_deref().unwrap_or_default().into(),
            scopes: object.scopes().into(),
            resource_version,
            payload: encode(&object, true)?.into(),
            events: Events::default(),
            secret: (!secret_names.is_empty()).then(|| Arc::new(object)),
            secret_names,
        }))
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// App ids that may see it; empty means all.
    pub fn scopes(&self) -> &[String] {
        &self.scopes
    }

    pub fn visible_to(&self, app: &str) -> bool {
        in_scope(&self.scopes, app)
    }

    /// The `resourceVersion` in the payload; the API server may be further on.
    pub fn resource_version(&self) -> Option<&str> {
        self.resource_version.as_deref()
    }

    /// The JSON of the object, without secrets filled in.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// What sidecars are sent of it, encoded for the first of them. Without secrets filled in.
    pub fn event(&self, type_: ResourceEventType, encode: impl FnOnce(Bytes, ResourceEventType) -> Bytes) -> Bytes {
        let encode = || encode(self.payload.clone(), type_);
        let event = match type_ {
            ResourceEventType::Created => &self.events.created,
            ResourceEventType::Updated => &self.events.updated,
            ResourceEventType::Deleted => &self.events.deleted,
            ResourceEventType::Unknown => return encode(),
        };
        event.get_or_init(encode).clone()
    }

    /// The object, if it refers to secrets that have to be filled in before it is sent.
    pub fn with_secrets(&self) -> Option<&Arc<K>> {
        self.secret.as_ref()
    }

    /// Names of the Secrets that it refers to, sorted.
    pub fn secret_names(&self) -> &[String] {
        &self.secret_names
    }
}
