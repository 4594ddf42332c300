//! Metrics of sidecars.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{duration::CanonicalDuration, go};

/// Metrics of a sidecar.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Metrics {
    /// Collects and serves metrics.
    #[schemars(required)]
    pub enabled: Option<bool>,
    /// Counts errors by their code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record_error_codes: Option<bool>,
    /// Metrics of HTTP calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpMetrics>,
    /// Rewrites labels.
    #[serde(skip_serializing_if = "go::omitted")]
    pub rules: Option<Vec<MetricRule>>,
    /// Bounds of the buckets of latency histograms, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_distribution_buckets: Option<Vec<i64>>,
    /// Metrics of workflows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow: Option<WorkflowMetrics>,
}

/// Metrics of HTTP calls.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct HttpMetrics {
    /// Labels metrics with the path of the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub increased_cardinality: Option<bool>,
    /// Patterns of paths that become labels; other paths share one.
    #[serde(skip_serializing_if = "go::omitted")]
    pub path_matching: Option<Vec<String>>,
    /// Leaves the HTTP method out of the labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude_verbs: Option<bool>,
}

/// Rewrites labels of a metric.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct MetricRule {
    /// Name of the metric.
    #[serde(deserialize_with = "go::nullable")]
    pub name: String,
    /// Labels to rewrite.
    #[schemars(required)]
    pub labels: Option<Vec<MetricLabel>>,
}

/// Rewrites the values of a label.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct MetricLabel {
    /// Name of the label.
    #[serde(deserialize_with = "go::nullable")]
    pub name: String,
    /// Regular expressions by the value that replaces what matches them.
    #[schemars(required)]
    pub regex: Option<BTreeMap<String, String>>,
}

/// Metrics of workflows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct WorkflowMetrics {
    /// Bounds of the buckets of latency histograms, in the unit below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_distribution_buckets: Option<Vec<i64>>,
    /// Unit of the bounds, as a duration such as `1s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_distribution_units: Option<CanonicalDuration>,
}
