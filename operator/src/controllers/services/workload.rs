//! Workloads, as much of them as their Services need.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{CustomResource, Resource};
use outrigger_process::kubernetes::{
    slim::{self, Part, Slim},
    watch::ObjectKey,
};
use serde::{Deserialize, Deserializer, Serialize};

/// A kind of workload that gets Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Kind {
    pub(super) api_version: &'static str,
    pub(super) kind: &'static str,
}

impl Kind {
    pub(super) const DEPLOYMENT: Self = Self::of_apps("Deployment");
    pub(super) const STATEFUL_SET: Self = Self::of_apps("StatefulSet");
    pub(super) const DAEMON_SET: Self = Self::of_apps("DaemonSet");
    /// Of Argo.
    pub(super) const ROLLOUT: Self = Self {
        api_version: "argoproj.io/v1alpha1",
        kind: "Rollout",
    };

    const fn of_apps(kind: &'static str) -> Self {
        Self {
            api_version: "apps/v1",
            kind,
        }
    }

    pub(super) fn is_of(self, owner: &OwnerReference) -> bool {
        owner.api_version == self.api_version && owner.kind == self.kind
    }
}

/// Argo's Rollout, as far as it is a name; what is read of it is in [`WorkloadSpec`].
#[derive(CustomResource, Clone, Debug, Default, Serialize, Deserialize)]
#[kube(
    group = "argoproj.io",
    version = "v1alpha1",
    kind = "Rollout",
    namespaced,
    schema = "disabled"
)]
pub struct RolloutSpec {}

/// A workload, whatever its kind.
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
    pub(super) kind: Kind,
    pub(super) uid: String,
}

impl Owner {
    pub(super) fn of<K: Resource<DynamicType = ()>>(kind: Kind, workload: &Workload<K>) -> Self {
        let metadata = &workload.metadata;
        Self {
            created: metadata.creation_timestamp.as_ref().map(|time| time.0),
            key: ObjectKey::of(workload),
            kind,
            uid: metadata.uid.clone().unwrap_or_default(),
        }
    }

    pub(super) fn reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: self.kind.api_version.to_owned(),
            kind: self.kind.kind.to_owned(),
            name: self.key.name.clone(),
            uid: self.uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }
}
