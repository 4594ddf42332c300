//! Workloads, as much of them as their Services need.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use outrigger_process::kubernetes::watch::ObjectKey;
use serde::{Deserialize, Deserializer};

use crate::slim::{self, Part, Slim};

/// A Deployment or a StatefulSet.
pub(super) type Workload<K> = Slim<K, WorkloadSpec>;

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct WorkloadSpec {
    pub(super) selector: Selector,
    pub(super) template: Template,
}

impl Part for WorkloadSpec {}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Selector {
    pub(super) match_labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Template {
    pub(super) metadata: TemplateMetadata,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct TemplateMetadata {
    /// Those under `dapr.io/`.
    #[serde(deserialize_with = "ours_only")]
    pub(super) annotations: BTreeMap<String, String>,
}

fn ours_only<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(slim::ours(Option::deserialize(deserializer)?).unwrap_or_default())
}

/// A workload by identity. Of two that want the same Service the older one comes first, and gets it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Owner {
    pub(super) created: Option<Timestamp>,
    pub(super) key: ObjectKey,
    pub(super) kind: String,
    pub(super) api_version: String,
    pub(super) uid: String,
}

impl Owner {
    pub(super) fn of<K: Resource<DynamicType = ()>>(workload: &Workload<K>) -> Self {
        let metadata = &workload.metadata;
        Self {
            created: metadata.creation_timestamp.as_ref().map(|time| time.0),
            key: ObjectKey::of(workload),
            kind: K::kind(&()).into_owned(),
            api_version: K::api_version(&()).into_owned(),
            uid: metadata.uid.clone().unwrap_or_default(),
        }
    }

    pub(super) fn reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: self.api_version.clone(),
            kind: self.kind.clone(),
            name: self.key.name.clone(),
            uid: self.uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }
}
