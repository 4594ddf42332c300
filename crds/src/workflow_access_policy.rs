//! `WorkflowAccessPolicy`: who may run the workflows and activities of an app.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    checks::{self, Problem},
    go,
    resource::{Column, DaprResource, kube_resource},
    status::{self, Status},
};

/// Says which apps may run which workflows and activities of the apps in `scopes`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct WorkflowAccessPolicy {
    #[serde(deserialize_with = "go::nullable")]
    #[schemars(skip)]
    pub metadata: ObjectMeta,
    /// What is allowed.
    #[serde(deserialize_with = "go::nullable")]
    pub spec: WorkflowAccessPolicySpec,
    /// App ids whose workflows and activities this protects; empty means every app in the namespace.
    #[serde(deserialize_with = "go::nullable")]
    pub scopes: Vec<String>,
    /// What the operator and the sidecars found.
    #[serde(deserialize_with = "status::readable")]
    pub status: Option<Status>,
}

kube_resource!(WorkflowAccessPolicy);

/// What is allowed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct WorkflowAccessPolicySpec {
    /// Each rule allows some callers something.
    #[serde(skip_serializing_if = "go::omitted")]
    pub rules: Option<Vec<Rule>>,
}

/// Allows some callers something.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Rule {
    /// Who is allowed.
    #[schemars(required)]
    pub callers: Option<Vec<Caller>>,
    /// Workflows that they may use.
    #[serde(skip_serializing_if = "go::omitted")]
    pub workflows: Option<Vec<WorkflowRule>>,
    /// Activities that they may run.
    #[serde(skip_serializing_if = "go::omitted")]
    pub activities: Option<Vec<ActivityRule>>,
}

/// An app that is allowed something.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Caller {
    /// App id of the caller.
    #[serde(rename = "appID", deserialize_with = "go::nullable")]
    pub app_id: String,
}

/// Operations on workflows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct WorkflowRule {
    /// Name of the workflow; `*` stands for any characters.
    #[serde(deserialize_with = "go::nullable")]
    pub name: String,
    /// What may be done with the workflow.
    #[schemars(required)]
    pub operations: Option<Vec<String>>,
    /// What must have happened in the calling workflow before.
    #[serde(skip_serializing_if = "go::omitted")]
    pub requires: Option<Vec<Requirement>>,
}

/// Running an activity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct ActivityRule {
    /// Name of the activity; `*` stands for any characters.
    #[serde(deserialize_with = "go::nullable")]
    pub name: String,
    /// What must have happened in the calling workflow before.
    #[serde(skip_serializing_if = "go::omitted")]
    pub requires: Option<Vec<Requirement>>,
}

/// Something that must have happened in the calling workflow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Requirement {
    /// Kind of the event.
    #[serde(deserialize_with = "go::nullable")]
    pub event_type: String,
    /// Name of the activity, workflow or event.
    #[serde(deserialize_with = "go::nullable")]
    pub name: String,
    /// App id where it happened.
    #[serde(rename = "appID", deserialize_with = "go::nullable")]
    pub app_id: String,
}

impl DaprResource for WorkflowAccessPolicy {
    type Spec = WorkflowAccessPolicySpec;

    const KIND: &'static str = "WorkflowAccessPolicy";
    const VERSION: &'static str = "v1alpha1";
    const PLURAL: &'static str = "workflowaccesspolicies";
    const SINGULAR: &'static str = "workflowaccesspolicy";
    const SHORT_NAMES: &'static [&'static str] = &["dwap"];
    const COLUMNS: &'static [Column] = &[Column::string("Scopes", ".scopes")];

    fn spec(&self) -> &WorkflowAccessPolicySpec {
        &self.spec
    }

    fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }

    fn scopes(&self) -> &[String] {
        &self.scopes
    }

    fn problems(&self) -> Vec<Problem> {
        checks::workflow_access_policy(self)
    }
}
