//! `Subscription`: messages of a topic delivered to apps.
//!
//! Stored, read and sent to sidecars as `v2alpha1`; `v1alpha1` is converted by the API server through a webhook.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::go;

pub mod convert;
pub mod v1alpha1;
pub mod v2alpha1;

/// Delivery of several messages at a time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct BulkSubscribe {
    /// Delivers messages in bulk.
    #[serde(deserialize_with = "go::nullable")]
    pub enabled: bool,
    /// Most messages in one delivery.
    #[serde(skip_serializing_if = "go::omitted")]
    pub max_messages_count: Option<i32>,
    /// Longest time in milliseconds to wait for more messages.
    #[serde(skip_serializing_if = "go::omitted")]
    pub max_await_duration_ms: Option<i32>,
}
