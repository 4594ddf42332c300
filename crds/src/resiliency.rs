//! `Resiliency`: timeouts, retries and circuit breakers, and what they apply to.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    checks::{self, Problem},
    go,
    resource::{Column, DaprResource, kube_resource},
    status::{self, Status},
};

/// Timeouts, retries and circuit breakers, and the apps, actors and components that they apply to.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Resiliency {
    #[serde(deserialize_with = "go::nullable")]
    #[schemars(skip)]
    pub metadata: ObjectMeta,
    /// Policies, and what they apply to.
    #[serde(deserialize_with = "go::nullable")]
    pub spec: ResiliencySpec,
    /// App ids whose sidecars apply this; empty means every app in the namespace.
    #[serde(deserialize_with = "go::nullable")]
    pub scopes: Vec<String>,
    /// What the operator and the sidecars found.
    #[serde(deserialize_with = "status::readable")]
    pub status: Option<Status>,
}

kube_resource!(Resiliency);

/// Policies, and what they apply to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct ResiliencySpec {
    /// The policies, each with a name.
    #[serde(deserialize_with = "go::nullable")]
    pub policies: Policies,
    /// Which policies apply to what.
    #[serde(deserialize_with = "go::nullable")]
    pub targets: Targets,
}

/// Policies by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Policies {
    /// Timeouts, as durations such as `5s`.
    #[serde(skip_serializing_if = "go::omitted")]
    pub timeouts: Option<BTreeMap<String, String>>,
    /// Retry policies.
    #[serde(skip_serializing_if = "go::omitted")]
    pub retries: Option<BTreeMap<String, Retry>>,
    /// Circuit breakers.
    #[serde(skip_serializing_if = "go::omitted")]
    pub circuit_breakers: Option<BTreeMap<String, CircuitBreaker>>,
}

/// When and how often to try again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Retry {
    /// `constant` or `exponential`.
    #[serde(skip_serializing_if = "go::omitted")]
    pub policy: Option<String>,
    /// Time between tries with the constant policy.
    #[serde(skip_serializing_if = "go::omitted")]
    pub duration: Option<String>,
    /// Longest time between tries with the exponential policy.
    #[serde(skip_serializing_if = "go::omitted")]
    pub max_interval: Option<String>,
    /// How often to try again; -1 means without end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<i64>,
    /// Which failures are tried again; all by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matching: Option<RetryMatching>,
}

/// Status codes, as a list of codes and ranges such as `429,500-599`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct RetryMatching {
    /// HTTP status codes that are tried again.
    #[serde(skip_serializing_if = "go::omitted")]
    pub http_status_codes: Option<String>,
    /// gRPC status codes that are tried again.
    #[serde(rename = "gRPCStatusCodes", skip_serializing_if = "go::omitted")]
    pub grpc_status_codes: Option<String>,
}

/// When to stop sending requests for a while.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct CircuitBreaker {
    /// Requests that may pass while it is half open.
    #[serde(skip_serializing_if = "go::omitted")]
    pub max_requests: Option<i64>,
    /// How often the counts are cleared while it is closed.
    #[serde(skip_serializing_if = "go::omitted")]
    pub interval: Option<String>,
    /// How long it stays open before it is half open.
    #[serde(skip_serializing_if = "go::omitted")]
    pub timeout: Option<String>,
    /// Condition that opens it, such as `consecutiveFailures >= 5`.
    #[serde(skip_serializing_if = "go::omitted")]
    pub trip: Option<String>,
}

/// Which policies apply to what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Targets {
    /// Policies for invoking apps, by app id.
    #[serde(skip_serializing_if = "go::omitted")]
    pub apps: Option<BTreeMap<String, AppPolicies>>,
    /// Policies for invoking actors, by actor type.
    #[serde(skip_serializing_if = "go::omitted")]
    pub actors: Option<BTreeMap<String, ActorPolicies>>,
    /// Policies for components, by their name.
    #[serde(skip_serializing_if = "go::omitted")]
    pub components: Option<BTreeMap<String, ComponentPolicies>>,
}

/// Policies for invoking an app.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct AppPolicies {
    /// Name of a timeout.
    #[serde(skip_serializing_if = "go::omitted")]
    pub timeout: Option<String>,
    /// Name of a retry policy.
    #[serde(skip_serializing_if = "go::omitted")]
    pub retry: Option<String>,
    /// Name of a circuit breaker.
    #[serde(skip_serializing_if = "go::omitted")]
    pub circuit_breaker: Option<String>,
    /// How many of the app's endpoints have a circuit breaker of their own at a time.
    #[serde(skip_serializing_if = "go::omitted")]
    pub circuit_breaker_cache_size: Option<i64>,
}

/// Policies for invoking actors of a type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct ActorPolicies {
    /// Name of a timeout.
    #[serde(skip_serializing_if = "go::omitted")]
    pub timeout: Option<String>,
    /// Name of a retry policy.
    #[serde(skip_serializing_if = "go::omitted")]
    pub retry: Option<String>,
    /// Name of a circuit breaker.
    #[serde(skip_serializing_if = "go::omitted")]
    pub circuit_breaker: Option<String>,
    /// What a circuit breaker counts for: `id`, `type` or `both`.
    #[serde(skip_serializing_if = "go::omitted")]
    pub circuit_breaker_scope: Option<String>,
    /// How many actors have a circuit breaker of their own at a time.
    #[serde(skip_serializing_if = "go::omitted")]
    pub circuit_breaker_cache_size: Option<i64>,
}

/// Policies for the two directions of a component.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct ComponentPolicies {
    /// For calls from the component to the app.
    #[serde(serialize_with = "go::always")]
    pub inbound: Option<PolicyNames>,
    /// For calls from the sidecar to the component.
    #[serde(serialize_with = "go::always")]
    pub outbound: Option<PolicyNames>,
}

/// Policies for one direction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct PolicyNames {
    /// Name of a timeout.
    #[serde(skip_serializing_if = "go::omitted")]
    pub timeout: Option<String>,
    /// Name of a retry policy.
    #[serde(skip_serializing_if = "go::omitted")]
    pub retry: Option<String>,
    /// Name of a circuit breaker.
    #[serde(skip_serializing_if = "go::omitted")]
    pub circuit_breaker: Option<String>,
}

impl DaprResource for Resiliency {
    type Spec = ResiliencySpec;

    const KIND: &'static str = "Resiliency";
    const VERSION: &'static str = "v1alpha1";
    const PLURAL: &'static str = "resiliencies";
    const SINGULAR: &'static str = "resiliency";
    const SHORT_NAMES: &'static [&'static str] = &["dres"];
    const COLUMNS: &'static [Column] = &[Column::string("Scopes", ".scopes")];

    fn spec(&self) -> &ResiliencySpec {
        &self.spec
    }

    fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }

    fn scopes(&self) -> &[String] {
        &self.scopes
    }

    fn problems(&self) -> Vec<Problem> {
        checks::resiliency(self)
    }
}
