//! Parts that several kinds have.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{dynamic_value::DynamicValue, go};

/// Chooses where secret references are resolved.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Auth {
    /// Secret store that `secretKeyRef` refers to. Empty or `kubernetes` means Secrets in the same namespace, which the
    /// operator reads; any other name is a secret store component that the sidecar asks.
    #[serde(deserialize_with = "go::nullable")]
    pub secret_store: String,
}

/// Who resolves an object's secret references.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretStore<'a> {
    /// The operator, from Secrets in the object's namespace.
    Kubernetes,
    /// The sidecar, from the secret store component of this name.
    Component(&'a str),
}

impl<'a> SecretStore<'a> {
    /// An empty name and `kubernetes` both mean Kubernetes.
    pub fn named(name: Option<&'a str>) -> Self {
        match name {
            None | Some("" | "kubernetes") => Self::Kubernetes,
            Some(name) => Self::Component(name),
        }
    }
}

/// A key of a secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct SecretKeyRef {
    /// Name of the secret.
    #[serde(deserialize_with = "go::nullable")]
    pub name: String,
    /// Key in the secret. When empty, the secret's name is the key; a Configuration has to name one.
    #[serde(serialize_with = "go::always")]
    pub key: Option<String>,
}

impl SecretKeyRef {
    /// The key as written, empty when there is none.
    pub fn key(&self) -> &str {
        self.key.as_deref().unwrap_or_default()
    }
}

/// A named value, given directly, by a secret or by the sidecar's environment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct NameValuePair {
    /// Name of the property.
    #[serde(deserialize_with = "go::nullable")]
    pub name: String,
    /// The value: a string, number, boolean, list or object.
    pub value: Option<DynamicValue>,
    /// Takes the value from a secret.
    #[serde(serialize_with = "go::always")]
    pub secret_key_ref: Option<SecretKeyRef>,
    /// Takes the value from an environment variable of the sidecar.
    #[serde(skip_serializing_if = "go::omitted")]
    pub env_ref: Option<String>,
}

impl NameValuePair {
    /// The secret reference, if one with a name is set.
    pub fn secret(&self) -> Option<&SecretKeyRef> {
        self.secret_key_ref.as_ref().filter(|secret| !secret.name.is_empty())
    }
}
