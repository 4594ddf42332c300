//! `Configuration`: settings of sidecars, and of the control plane itself.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    checks::{self, Problem},
    dynamic_value::DynamicValue,
    go,
    resource::{Column, DaprResource, kube_resource},
    secrets::{self, SecretRules, SecretUse},
    status::{self, Status},
};

mod access;
mod features;
mod metrics;
mod mtls;
mod pipeline;
mod tracing;
mod workflow;

pub use access::{AccessControl, ApiAccess, ApiRule, AppPolicy, Operation, SecretScope, SecretsAccess};
pub use features::{ApiLogging, DeniedComponents, Feature, Logging, NameResolution, Wasm};
pub use metrics::{HttpMetrics, MetricLabel, MetricRule, Metrics, WorkflowMetrics};
pub use mtls::{Mtls, TokenValidator};
pub use pipeline::{Handler, Pipeline, Selector, SelectorField};
pub use tracing::{Otel, Tracing, Zipkin};
pub use workflow::{ConcurrencyLimit, StateRetention, Workflow};

/// Settings of the sidecars whose pods name it in the annotation `dapr.io/config`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Configuration {
    #[serde(deserialize_with = "go::nullable")]
    #[schemars(skip)]
    pub metadata: ObjectMeta,
    /// The settings.
    #[serde(deserialize_with = "go::nullable")]
    pub spec: ConfigurationSpec,
    /// What the operator and the sidecars found.
    #[serde(deserialize_with = "status::readable")]
    pub status: Option<Status>,
}

kube_resource!(Configuration);

/// Settings of sidecars; what is not set here has the sidecar's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct ConfigurationSpec {
    /// Middleware for requests from the sidecar to its app.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_http_pipeline: Option<Pipeline>,
    /// Middleware for requests to the sidecar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_pipeline: Option<Pipeline>,
    /// Distributed tracing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracing: Option<Tracing>,
    /// Metrics; the older spelling of `metrics`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = { "enabled": true }))]
    pub metric: Option<Metrics>,
    /// Metrics of the sidecar.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = { "enabled": true }))]
    pub metrics: Option<Metrics>,
    /// Mutual TLS between sidecars; read from the Configuration of the control plane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtls: Option<Mtls>,
    /// Which secrets the app may read through its sidecar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secrets: Option<SecretsAccess>,
    /// Which apps may call which operations of the app.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_control: Option<AccessControl>,
    /// How apps are found by their app id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_resolution: Option<NameResolution>,
    /// Preview features to switch on or off.
    #[serde(skip_serializing_if = "go::omitted")]
    pub features: Option<Vec<Feature>>,
    /// Which parts of its API the sidecar offers to its app.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<ApiAccess>,
    /// Components that the sidecar does not load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub components: Option<DeniedComponents>,
    /// What the sidecar logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logging: Option<Logging>,
    /// WebAssembly components.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wasm: Option<Wasm>,
    /// Workflows and their activities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow: Option<Workflow>,
}

impl DaprResource for Configuration {
    type Spec = ConfigurationSpec;

    const KIND: &'static str = "Configuration";
    const VERSION: &'static str = "v1alpha1";
    const PLURAL: &'static str = "configurations";
    const SINGULAR: &'static str = "configuration";
    const SHORT_NAMES: &'static [&'static str] = &["dconf"];
    const COLUMNS: &'static [Column] = &[
        Column::string("Tracing", ".spec.tracing.samplingRate"),
        Column::string("Access", ".spec.accessControl.defaultAction"),
    ];
    const SECRET_RULES: SecretRules = SecretRules::TEXT_OR_FAIL;

    fn spec(&self) -> &ConfigurationSpec {
        &self.spec
    }

    fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }

    fn secret_refs(&self) -> Vec<SecretUse<'_>> {
        let otel = self.spec.tracing.as_ref().and_then(|tracing| tracing.otel.as_ref());
        let headers = otel.and_then(|otel| otel.headers.as_deref()).unwrap_or_default();
        secrets::refs_in("spec.tracing.otel.headers", headers)
    }

    fn secret_values_mut(&mut self) -> Vec<&mut Option<DynamicValue>> {
        let otel = self.spec.tracing.as_mut().and_then(|tracing| tracing.otel.as_mut());
        secrets::values_in(otel.and_then(|otel| otel.headers.as_deref_mut()))
    }

    fn problems(&self) -> Vec<Problem> {
        checks::configuration(self)
    }
}
