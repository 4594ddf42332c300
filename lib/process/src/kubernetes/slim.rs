//! Watched objects with only those fields that somebody reads. The rest is skipped while parsing, so that neither a list of all
//! pods nor a busy watch takes memory for what nobody looks at.

use std::{borrow::Cow, collections::BTreeMap, marker::PhantomData};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::{Resource, core::NamespaceResourceScope};
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::Value;

/// An object of kind `K` with the parts `S` of its spec and `T` of its status. Without either, only metadata is requested.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound = "S: Part, T: Part")]
pub struct Slim<K, S = Ignored, T = Ignored> {
    #[serde(default, deserialize_with = "slim_metadata")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: S,
    #[serde(default)]
    pub status: T,
    #[serde(skip)]
    kind: PhantomData<fn() -> K>,
}

/// What an object is: a type that is a [`Resource`] itself, or one of no other use.
pub trait Kind {
    type Scope;
    fn kind() -> Cow<'static, str>;
    fn group() -> Cow<'static, str>;
    fn version() -> Cow<'static, str>;
    fn plural() -> Cow<'static, str>;
}

impl<K: Resource<DynamicType = ()>> Kind for K {
    type Scope = K::Scope;

    fn kind() -> Cow<'static, str> {
        K::kind(&())
    }

    fn group() -> Cow<'static, str> {
        K::group(&())
    }

    fn version() -> Cow<'static, str> {
        K::version(&())
    }

    fn plural() -> Cow<'static, str> {
        K::plural(&())
    }
}

/// The kind `configurations.dapr.io`, for those who read a field or two of it.
#[derive(Clone, Copy, Debug)]
pub enum Configuration {}

impl Kind for Configuration {
    type Scope = NamespaceResourceScope;

    fn kind() -> Cow<'static, str> {
        "Configuration".into()
    }

    fn group() -> Cow<'static, str> {
        "dapr.io".into()
    }

    fn version() -> Cow<'static, str> {
        "v1alpha1".into()
    }

    fn plural() -> Cow<'static, str> {
        "configurations".into()
    }
}

/// A part of an object.
pub trait Part: Default + for<'de> Deserialize<'de> {
    const IGNORED: bool = false;
}

/// A part that nobody looks at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ignored;

impl Part for Ignored {
    const IGNORED: bool = true;
}

/// A part of which nothing is known: what cannot be decoded must not end the watch of all others.
impl Part for Value {}

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

impl<K: Kind, S: Part, T: Part> Resource for Slim<K, S, T> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind()
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group()
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version()
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural()
    }

    fn metadata_api() -> bool {
        S::IGNORED && T::IGNORED
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl<K, S, T> Slim<K, S, T> {
    /// The value of an annotation under `dapr.io/`; others are not kept.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// The value of a label under `dapr.io/`; others are not kept.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimMetadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

fn slim_metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let metadata = SlimMetadata::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        resource_version: metadata.resource_version,
        generation: metadata.generation,
        creation_timestamp: metadata.creation_timestamp,
        deletion_timestamp: metadata.deletion_timestamp,
        labels: ours(metadata.labels),
        annotations: ours(metadata.annotations),
        owner_references: metadata.owner_references,
        ..Default::default()
    })
}

/// The labels or annotations under `dapr.io/`.
pub fn ours(map: Option<BTreeMap<String, String>>) -> Option<BTreeMap<String, String>> {
    let mut map = map?;
    map.retain(|key, _| key.starts_with("dapr.io/"));
    (!map.is_empty()).then_some(map)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;
    use crate::kubernetes::owner::controller;

    #[derive(Clone, Debug, Default, Deserialize)]
    struct Phase {
        phase: Option<String>,
    }

    impl Part for Phase {}

    #[test]
    fn keeps_what_is_asked_for_and_drops_the_rest() {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "a", "namespace": "n", "resourceVersion": "7",
                "annotations": {"dapr.io/enabled": "true", "example.com/note": "long"},
                "labels": {"app": "a"},
                "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}],
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true}],
            },
            "spec": {"containers": [{"name": "a"}]},
            "status": {"phase": "Running"},
        });
        let pod: Slim<Pod, Ignored, Phase> = serde_json::from_value(pod).unwrap();
        assert_eq!(pod.annotation("dapr.io/enabled"), Some("true"));
        assert_eq!(pod.annotation("example.com/note"), None);
        assert!(pod.metadata.labels.is_none() && pod.metadata.managed_fields.is_none());
        assert_eq!(controller(&pod).unwrap().name, "r");
        assert_eq!(pod.status.phase.as_deref(), Some("Running"));
        assert!(!Slim::<Pod, Ignored, Phase>::metadata_api());
        assert_eq!(Slim::<Pod>::url_path(&(), Some("shop")), "/api/v1/namespaces/shop/pods");
        let configurations = Slim::<Configuration, Value>::url_path(&(), Some("shop"));
        assert_eq!(configurations, "/apis/dapr.io/v1alpha1/namespaces/shop/configurations");
        assert!(Slim::<Pod>::metadata_api());
    }
}
