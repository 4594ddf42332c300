//! Workflows and their activities.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{duration::CanonicalDuration, go};

/// Limits of workflows, and how long their state is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Workflow {
    /// Most workflows that run in a sidecar at a time.
    #[serde(skip_serializing_if = "go::omitted")]
    pub max_concurrent_workflow_invocations: Option<i32>,
    /// Most activities that run in a sidecar at a time.
    #[serde(skip_serializing_if = "go::omitted")]
    pub max_concurrent_activity_invocations: Option<i32>,
    /// Most workflows that run in all sidecars of the app at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global_max_concurrent_workflow_invocations: Option<i32>,
    /// Most activities that run in all sidecars of the app at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global_max_concurrent_activity_invocations: Option<i32>,
    /// Limits for single workflows.
    #[serde(skip_serializing_if = "go::omitted")]
    pub workflow_concurrency_limits: Option<Vec<ConcurrencyLimit>>,
    /// Limits for single activities.
    #[serde(skip_serializing_if = "go::omitted")]
    pub activity_concurrency_limits: Option<Vec<ConcurrencyLimit>>,
    /// How long the state of finished workflows is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_retention_policy: Option<StateRetention>,
}

/// A limit for one workflow or activity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct ConcurrencyLimit {
    /// Name of the workflow or activity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Most that run at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<i32>,
}

/// How long the state of finished workflows is kept, as durations such as `72h`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct StateRetention {
    /// For all, unless one of the others says more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub any_terminal: Option<CanonicalDuration>,
    /// For those that completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed: Option<CanonicalDuration>,
    /// For those that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<CanonicalDuration>,
    /// For those that were terminated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminated: Option<CanonicalDuration>,
}
