//! The kind Component.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{DecodeError, Meta, Revision, decode, null_as_default};

/// A Component, without what the API server adds. Two are equal when a sidecar could not tell them apart, so equality is
/// what decides about reloading.
#[derive(Debug, Clone, Eq)]
pub struct Component {
    pub name: String,
    pub namespace: String,
    pub revision: Revision,
    pub spec: Spec,
    pub auth: Auth,
    pub scopes: Vec<String>,
}

/// What to build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    #[serde(rename = "type", deserialize_with = "null_as_default")]
    pub kind: String,
    #[serde(deserialize_with = "null_as_default")]
    pub version: String,
    #[serde(deserialize_with = "null_as_default")]
    pub ignore_errors: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub init_timeout: String,
    #[serde(deserialize_with = "null_as_default")]
    pub metadata: Vec<Item>,
}

/// One setting of the component, given in one of three ways.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Item {
    pub name: String,
    pub value: Option<Value>,
    pub secret_key_ref: Option<SecretKeyRef>,
    #[serde(deserialize_with = "null_as_default")]
    pub env_ref: String,
}

/// A secret, and the key in it; an empty key means the secret's name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SecretKeyRef {
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub key: String,
}

/// Where secrets come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Auth {
    #[serde(deserialize_with = "null_as_default")]
    pub secret_store: String,
}

/// Any JSON value, byte for byte as it was written. `Debug` hides it: it may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Value(Arc<str>);

#[derive(Deserialize)]
struct Manifest {
    #[serde(default, deserialize_with = "null_as_default")]
    metadata: Meta,
    #[serde(default, deserialize_with = "null_as_default")]
    spec: Spec,
    #[serde(default, deserialize_with = "null_as_default")]
    auth: Auth,
    #[serde(default, deserialize_with = "null_as_default")]
    scopes: Vec<String>,
}

// === impl Component ===

impl PartialEq for Component {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            name,
            namespace,
            revision: _,
            spec,
            auth,
            scopes,
        } = self;
        (name, namespace, spec, auth, scopes)
            == (&other.name, &other.namespace, &other.spec, &other.auth, &other.scopes)
    }
}

impl Component {
    /// Reads the JSON of a Kubernetes object.
    ///
    /// # Errors
    /// Names the field that cannot be read.
    pub fn from_json(json: &[u8]) -> Result<Self, DecodeError> {
        let Manifest {
            metadata,
            spec,
            auth,
            scopes,
        } = decode(json)?;
        Ok(Self {
            name: metadata.name,
            namespace: metadata.namespace,
            revision: Revision {
                generation: metadata.generation,
                resource_version: metadata.resource_version,
            },
            spec,
            auth,
            scopes,
        })
    }

    /// `name (type/version)`, as log lines and errors show it.
    pub fn log_name(&self) -> String {
        format!("{} ({}/{})", self.name, self.spec.kind, self.spec.version)
    }
}

// === impl Value ===

impl Value {
    /// The value as text: a string without its quotes, anything else as it was written.
    pub fn text(&self) -> String {
        serde_json::from_str::<String>(&self.0).unwrap_or_else(|_| self.0.to_string())
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(reader).map(|raw| Self(raw.get().into()))
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: &str = r#"{"apiVersion":"dapr.io/v1alpha1","kind":"Component",
        "metadata":{"name":"store","namespace":"shop","resourceVersion":"7","labels":{"a":"b"}},
        "spec":{"type":"state.in-memory","version":"v1","metadata":[
            {"name":"keyPrefix","value":"name"},{"name":"port","value": 5.0},
            {"name":"password","value":"aHVudGVyMQ==","secretKeyRef":{"name":"s","key":"k"}}]},
        "auth":{"secretStore":"kubernetes"},"scopes":null,"status":{"conditions":[]}}"#;

    #[test]
    fn reads_an_object_and_keeps_values_as_written() {
        let component = Component::from_json(STORE.as_bytes()).unwrap();
        assert_eq!(component.log_name(), "store (state.in-memory/v1)");
        assert_eq!(component.namespace, "shop");
        let texts: Vec<_> = component
            .spec
            .metadata
            .iter()
            .map(|item| item.value.as_ref().unwrap().text())
            .collect();
        assert_eq!(texts, ["name", "5.0", "aHVudGVyMQ=="]);
        assert_eq!(component.spec.metadata[2].secret_key_ref.as_ref().unwrap().key, "k");
    }

    #[test]
    fn versions_and_labels_do_not_make_a_difference() {
        let other = STORE.replace("\"7\"", "\"8\"").replace("\"a\":\"b\"", "\"a\":\"c\"");
        let one = Component::from_json(STORE.as_bytes()).unwrap();
        assert_eq!(one, Component::from_json(other.as_bytes()).unwrap());
        let changed = STORE.replace("\"value\":\"name\"", "\"value\":\"none\"");
        assert_ne!(one, Component::from_json(changed.as_bytes()).unwrap());
    }

    #[test]
    fn a_mistake_names_its_field_and_values_are_never_shown() {
        let error = Component::from_json(br#"{"spec":{"metadata":[{"name":1}]}}"#)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("spec.metadata[0].name: invalid type: integer `1`, expected a string"),
            "{error}"
        );
        let component = Component::from_json(STORE.as_bytes()).unwrap();
        assert!(!format!("{component:?}").contains("aHVudGVyMQ"));
    }
}
