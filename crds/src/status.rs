//! The status that every kind has.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod lenient;
mod reason;
pub mod reference;

pub(crate) use lenient::readable;
pub use reason::{ConditionType, EventReason, EventText, Reason, ReasonText};

/// What the operator and the sidecars found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Status {
    /// Generation of the object that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted`: the spec is valid and everything it refers to exists. `Ready`: accepted, and no connected sidecar
    /// rejects it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Option<Vec<Condition>>,
    /// How many sidecars use the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sidecars: Option<SidecarCounts>,
    /// Sidecars that reject the object, newest first; at most ten are listed, `sidecars.rejected` counts all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejections: Option<Vec<Rejection>>,
}

/// How many connected sidecars use an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct SidecarCounts {
    /// Connected sidecars that the object is meant for.
    pub matching: i32,
    /// Those that reported it loaded. Sidecars that do not report at all count as matching only.
    pub loaded: i32,
    /// Those that reported it rejected.
    pub rejected: i32,
}

/// A sidecar that cannot use an object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rejection {
    /// App id of the sidecar.
    pub app: String,
    /// Pod of the sidecar.
    pub pod: String,
    /// Why, as one word in CamelCase.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// When the sidecar reported it.
    pub at: Time,
}

impl Status {
    pub fn condition(&self, type_: ConditionType) -> Option<&Condition> {
        let conditions = self.conditions.as_deref().unwrap_or_default();
        conditions.iter().find(|condition| condition.type_ == type_.as_str())
    }
}
