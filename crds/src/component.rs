//! `Component`: a building block that sidecars load.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    checks::{self, Problem},
    dynamic_value::DynamicValue,
    go,
    resource::{Column, DaprResource, kube_resource},
    secrets::{self, SecretUse},
    shared::{Auth, NameValuePair, SecretStore},
    status::{self, Status},
};

/// A building block that sidecars load: a state store, a message broker, a binding, a secret store and so on.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Component {
    #[serde(deserialize_with = "go::nullable")]
    #[schemars(skip)]
    pub metadata: ObjectMeta,
    /// What to load, and how to set it up.
    #[serde(deserialize_with = "go::nullable")]
    pub spec: ComponentSpec,
    /// Where secret references are resolved.
    #[serde(deserialize_with = "go::nullable")]
    pub auth: Auth,
    /// App ids whose sidecars load this; empty means every app in the namespace.
    #[serde(deserialize_with = "go::nullable")]
    pub scopes: Vec<String>,
    /// What the operator and the sidecars found.
    #[serde(deserialize_with = "status::readable")]
    pub status: Option<Status>,
}

kube_resource!(Component);

/// What to load, and how to set it up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct ComponentSpec {
    /// Category and implementation, such as `state.redis`.
    #[serde(rename = "type", deserialize_with = "go::nullable")]
    pub type_: String,
    /// Version of the implementation, such as `v1`.
    #[serde(deserialize_with = "go::nullable")]
    pub version: String,
    /// Lets the sidecar start when this component fails to initialise.
    #[serde(serialize_with = "go::always")]
    pub ignore_errors: Option<bool>,
    /// Settings of the implementation.
    #[schemars(required)]
    pub metadata: Option<Vec<NameValuePair>>,
    /// How long initialising may take, such as `10s`; the sidecar's default is 5s.
    #[serde(serialize_with = "go::always")]
    pub init_timeout: Option<String>,
}

impl Component {
    /// The settings, none when unset.
    pub fn properties(&self) -> &[NameValuePair] {
        self.spec.metadata.as_deref().unwrap_or_default()
    }
}

impl DaprResource for Component {
    type Spec = ComponentSpec;

    const KIND: &'static str = "Component";
    const VERSION: &'static str = "v1alpha1";
    const PLURAL: &'static str = "components";
    const SINGULAR: &'static str = "component";
    const SHORT_NAMES: &'static [&'static str] = &["dcomp"];
    const COLUMNS: &'static [Column] = &[
        Column::string("Type", ".spec.type"),
        Column::string("Version", ".spec.version"),
        Column::string("Scopes", ".scopes"),
    ];

    fn spec(&self) -> &ComponentSpec {
        &self.spec
    }

    fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }

    fn auth(&self) -> Option<&Auth> {
        Some(&self.auth)
    }

    fn scopes(&self) -> &[String] {
        &self.scopes
    }

    fn secret_refs(&self) -> Vec<SecretUse<'_>> {
        match self.secret_store() {
            SecretStore::Kubernetes => secrets::refs_in("spec.metadata", self.properties()),
            SecretStore::Component(_) => Vec::new(),
        }
    }

    fn secret_values_mut(&mut self) -> Vec<&mut Option<DynamicValue>> {
        match self.secret_store() {
            SecretStore::Kubernetes => secrets::values_in(self.spec.metadata.as_deref_mut()),
            SecretStore::Component(_) => Vec::new(),
        }
    }

    fn problems(&self) -> Vec<Problem> {
        checks::component(self)
    }
}
