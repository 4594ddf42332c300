//! Mutual TLS between sidecars.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{dynamic_value::DynamicValue, go};

/// Mutual TLS between sidecars.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Mtls {
    /// Encrypts and authenticates calls between sidecars; unset means true.
    #[schemars(required)]
    pub enabled: Option<bool>,
    /// How long certificates of sidecars are valid, such as `24h`.
    #[serde(rename = "workloadCertTTL", skip_serializing_if = "Option::is_none")]
    pub workload_cert_ttl: Option<String>,
    /// Difference between clocks to put up with, such as `15m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_clock_skew: Option<String>,
    /// Address of the certificate authority.
    #[serde(deserialize_with = "go::nullable")]
    pub sentry_address: String,
    /// Trust domain of the control plane.
    #[serde(deserialize_with = "go::nullable")]
    pub control_plane_trust_domain: String,
    /// More ways for workloads to prove their identity to the certificate authority.
    #[serde(skip_serializing_if = "go::omitted")]
    pub token_validators: Option<Vec<TokenValidator>>,
}

/// A way for workloads to prove their identity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct TokenValidator {
    /// Name of the validator.
    #[serde(deserialize_with = "go::nullable")]
    pub name: String,
    /// Settings of the validator.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("type" = "object"))]
    pub options: Option<DynamicValue>,
}
