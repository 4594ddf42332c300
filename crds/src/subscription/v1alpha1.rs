//! Version `v1alpha1`: one route for all messages.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::BulkSubscribe;
use crate::{
    checks::{self, Problem},
    go,
    resource::{Column, DaprResource, kube_resource},
    status::{self, Status},
};

/// Has the messages of a topic delivered to apps.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct Subscription {
    #[serde(deserialize_with = "go::nullable")]
    #[schemars(skip)]
    pub metadata: ObjectMeta,
    /// The topic, and where its messages go.
    #[serde(deserialize_with = "go::nullable")]
    pub spec: SubscriptionSpec,
    /// App ids that get the messages; empty means every app in the namespace.
    #[serde(deserialize_with = "go::nullable")]
    pub scopes: Vec<String>,
    /// What the operator and the sidecars found.
    #[serde(deserialize_with = "status::readable")]
    pub status: Option<Status>,
}

kube_resource!(Subscription);

/// A topic, and where its messages go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(!default)]
pub struct SubscriptionSpec {
    /// Topic to subscribe to.
    #[serde(deserialize_with = "go::nullable")]
    pub topic: String,
    /// Name of the pub/sub component.
    #[serde(deserialize_with = "go::nullable")]
    pub pubsubname: String,
    /// Settings of the subscription that the component understands.
    #[serde(skip_serializing_if = "go::omitted")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// Path of the app that messages are sent to.
    #[serde(deserialize_with = "go::nullable")]
    pub route: String,
    /// Delivery of several messages at a time.
    #[serde(serialize_with = "go::always")]
    pub bulk_subscribe: Option<BulkSubscribe>,
    /// Topic for messages that cannot be delivered.
    #[serde(skip_serializing_if = "go::omitted")]
    pub dead_letter_topic: Option<String>,
}

impl DaprResource for Subscription {
    type Spec = SubscriptionSpec;

    const KIND: &'static str = "Subscription";
    const VERSION: &'static str = "v1alpha1";
    const PLURAL: &'static str = "subscriptions";
    const SINGULAR: &'static str = "subscription";
    const SHORT_NAMES: &'static [&'static str] = &["dsub"];
    const COLUMNS: &'static [Column] = &[
        Column::string("PubSub", ".spec.pubsubname"),
        Column::string("Topic", ".spec.topic"),
        Column::string("Route", ".spec.route"),
        Column::string("Scopes", ".scopes"),
    ];

    fn spec(&self) -> &SubscriptionSpec {
        &self.spec
    }

    fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }

    fn scopes(&self) -> &[String] {
        &self.scopes
    }

    fn problems(&self) -> Vec<Problem> {
        checks::subscription_v1alpha1(self)
    }
}
