//! Distributed tracing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{duration::CanonicalDuration, go, shared::NameValuePair};

/// Distributed tracing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Tracing {
    /// Share of the calls that are traced, from `"0"` to `"1"`.
    #[serde(deserialize_with = "go::nullable")]
    pub sampling_rate: String,
    /// Writes spans to the sidecar's log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout: Option<bool>,
    /// Sends spans to Zipkin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zipkin: Option<Zipkin>,
    /// Sends spans to an OpenTelemetry collector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otel: Option<Otel>,
}

/// A Zipkin server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Zipkin {
    /// URL of the server.
    #[serde(deserialize_with = "go::nullable")]
    pub endpoint_address: String,
}

/// An OpenTelemetry collector.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Otel {
    /// `grpc` or `http`.
    #[serde(deserialize_with = "go::nullable")]
    pub protocol: String,
    /// Address of the collector, as host and port.
    #[serde(deserialize_with = "go::nullable")]
    pub endpoint_address: String,
    /// Uses TLS.
    #[schemars(required)]
    pub is_secure: Option<bool>,
    /// Headers that are sent with the spans. Their secret references mean Secrets in the same namespace.
    #[serde(skip_serializing_if = "go::omitted")]
    pub headers: Option<Vec<NameValuePair>>,
    /// Longest time for sending, as a duration such as `5s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<CanonicalDuration>,
}
