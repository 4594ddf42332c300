//! Who may do what: calls between apps, the sidecar's API, secrets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::go;

/// Which apps may call which operations of the app.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct AccessControl {
    /// `allow` or `deny` for calls that no policy covers.
    #[serde(skip_serializing_if = "go::omitted")]
    pub default_action: Option<String>,
    /// Trust domain of the app.
    #[serde(skip_serializing_if = "go::omitted")]
    pub trust_domain: Option<String>,
    /// Policies for the apps that call.
    #[serde(skip_serializing_if = "go::omitted")]
    pub policies: Option<Vec<AppPolicy>>,
}

/// What an app may call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct AppPolicy {
    /// App id of the caller.
    #[serde(deserialize_with = "go::nullable")]
    pub app_id: String,
    /// `allow` or `deny` for operations that are not listed.
    #[serde(skip_serializing_if = "go::omitted")]
    pub default_action: Option<String>,
    /// Trust domain of the caller.
    #[serde(skip_serializing_if = "go::omitted")]
    pub trust_domain: Option<String>,
    /// Namespace of the caller.
    #[serde(skip_serializing_if = "go::omitted")]
    pub namespace: Option<String>,
    /// Operations with an action of their own.
    #[serde(skip_serializing_if = "go::omitted")]
    pub operations: Option<Vec<Operation>>,
}

/// What happens to calls of an operation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Operation {
    /// Path or method; `*` stands for any characters.
    #[serde(deserialize_with = "go::nullable")]
    pub name: String,
    /// `allow` or `deny`.
    #[serde(deserialize_with = "go::nullable")]
    pub action: String,
    /// HTTP methods that this is about; all when empty.
    #[serde(skip_serializing_if = "go::omitted")]
    pub http_verb: Option<Vec<String>>,
}

/// Which parts of its API a sidecar offers to its app.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct ApiAccess {
    /// The only parts that are offered; all when empty.
    #[serde(skip_serializing_if = "go::omitted")]
    pub allowed: Option<Vec<ApiRule>>,
    /// Parts that are not offered.
    #[serde(skip_serializing_if = "go::omitted")]
    pub denied: Option<Vec<ApiRule>>,
}

/// A part of a sidecar's API.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct ApiRule {
    /// Name of the building block, such as `state`.
    #[serde(deserialize_with = "go::nullable")]
    pub name: String,
    /// Version of the API, such as `v1`.
    #[serde(deserialize_with = "go::nullable")]
    pub version: String,
    /// `http` or `grpc`; `http` when empty.
    #[serde(skip_serializing_if = "go::omitted")]
    pub protocol: Option<String>,
}

/// Which secrets the app may read through its sidecar.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct SecretsAccess {
    /// Access for each secret store.
    #[schemars(required)]
    pub scopes: Option<Vec<SecretScope>>,
}

/// Access to the secrets of a store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct SecretScope {
    /// Name of the secret store component.
    #[serde(deserialize_with = "go::nullable")]
    pub store_name: String,
    /// `allow` or `deny` for secrets that are not listed.
    #[serde(skip_serializing_if = "go::omitted")]
    pub default_access: Option<String>,
    /// The only secrets that may be read; not limited when empty.
    #[serde(skip_serializing_if = "go::omitted")]
    pub allowed_secrets: Option<Vec<String>>,
    /// Secrets that may not be read.
    #[serde(skip_serializing_if = "go::omitted")]
    pub denied_secrets: Option<Vec<String>>,
}
