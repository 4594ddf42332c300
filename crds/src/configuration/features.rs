//! Small parts: features, logs, denied components, name resolution, WebAssembly.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{dynamic_value::DynamicValue, go};

/// A preview feature.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Feature {
    /// Name of the feature.
    #[serde(deserialize_with = "go::nullable")]
    pub name: String,
    /// Switches it on or off.
    #[schemars(required)]
    pub enabled: Option<bool>,
}

/// What a sidecar logs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Logging {
    /// Calls to the sidecar's API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_logging: Option<ApiLogging>,
}

/// Logs of calls to a sidecar's API.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct ApiLogging {
    /// Logs calls unless the app's annotations say otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Logs the route instead of the URL of HTTP calls.
    #[serde(rename = "obfuscateURLs", skip_serializing_if = "Option::is_none")]
    pub obfuscate_urls: Option<bool>,
    /// Leaves out health checks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub omit_health_checks: Option<bool>,
}

/// Components that a sidecar does not load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct DeniedComponents {
    /// Types, such as `bindings.smtp`, or types with a version, such as `bindings.smtp/v1`.
    #[serde(skip_serializing_if = "go::omitted")]
    pub deny: Option<Vec<String>>,
}

/// How apps are found by their app id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct NameResolution {
    /// Implementation, such as `consul`.
    #[serde(deserialize_with = "go::nullable")]
    pub component: String,
    /// Version of the implementation, such as `v1`.
    #[serde(deserialize_with = "go::nullable")]
    pub version: String,
    /// Settings of the implementation.
    #[schemars(required, extend("type" = "object"))]
    pub configuration: Option<DynamicValue>,
}

/// WebAssembly components.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Wasm {
    /// Keeps them from the clock and from random numbers of the machine.
    #[serde(skip_serializing_if = "go::omitted")]
    pub strict_sandbox: Option<bool>,
}
