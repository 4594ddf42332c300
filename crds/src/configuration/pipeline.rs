//! HTTP middleware.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::go;

/// Middleware that requests pass.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Pipeline {
    /// The middleware, in the order of requests.
    #[schemars(required)]
    pub handlers: Option<Vec<Handler>>,
}

/// A middleware component in a pipeline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Handler {
    /// Name of the component.
    #[serde(deserialize_with = "go::nullable")]
    pub name: String,
    /// Type of the component, such as `middleware.http.ratelimit`.
    #[serde(rename = "type", deserialize_with = "go::nullable")]
    pub type_: String,
    /// Which requests pass it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
}

/// Chooses requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Selector {
    /// Fields that must match.
    #[schemars(required)]
    pub fields: Option<Vec<SelectorField>>,
}

/// A field of a request and the value that it must have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct SelectorField {
    /// Name of the field.
    #[serde(deserialize_with = "go::nullable")]
    pub field: String,
    /// Value of the field.
    #[serde(deserialize_with = "go::nullable")]
    pub value: String,
}
