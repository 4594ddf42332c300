//! The parts of a Pod that decide about injection. Everything else is never decoded: the patch only adds, so what this build
//! does not know survives.

use std::{
    collections::{BTreeMap, HashSet},
    ops::Deref,
};

use serde::{Deserialize, Deserializer};

use crate::{patch::tolerations::Toleration, text::Text};

/// Annotations or labels.
pub type Map<'a> = BTreeMap<Text<'a>, Text<'a>>;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Pod<'a> {
    #[serde(borrow, deserialize_with = "or_default")]
    pub metadata: Metadata<'a>,
    #[serde(borrow, deserialize_with = "or_default")]
    pub spec: Spec<'a>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metadata<'a> {
    #[serde(borrow, deserialize_with = "or_default")]
    pub name: Text<'a>,
    #[serde(borrow, deserialize_with = "or_default")]
    pub generate_name: Text<'a>,
    #[serde(borrow, deserialize_with = "or_default")]
    pub owner_references: Vec<Owner<'a>>,
    #[serde(borrow, deserialize_with = "or_default")]
    pub annotations: Map<'a>,
    #[serde(borrow, deserialize_with = "or_default")]
    pub labels: Map<'a>,
}

/// An owner reference.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Owner<'a> {
    #[serde(borrow, deserialize_with = "or_default")]
    pub api_version: Text<'a>,
    #[serde(borrow, deserialize_with = "or_default")]
    pub kind: Text<'a>,
    #[serde(borrow, deserialize_with = "or_default")]
    pub name: Text<'a>,
    #[serde(borrow, deserialize_with = "or_default")]
    pub uid: Text<'a>,
    #[serde(deserialize_with = "or_default")]
    pub controller: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec<'a> {
    #[serde(borrow, deserialize_with = "or_default")]
    pub containers: Vec<Container<'a>>,
    #[serde(borrow, deserialize_with = "or_default")]
    pub init_containers: Vec<Container<'a>>,
    #[serde(borrow, deserialize_with = "or_default")]
    pub volumes: Vec<Named<'a>>,
    #[serde(deserialize_with = "or_default")]
    pub tolerations: Vec<Toleration>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Container<'a> {
    #[serde(borrow, deserialize_with = "or_default")]
    pub name: Text<'a>,
    #[serde(borrow, deserialize_with = "or_default")]
    pub env: Vec<Named<'a>>,
    #[serde(borrow, deserialize_with = "or_default")]
    pub volume_mounts: Vec<Mount<'a>>,
    /// Of init containers only: `Always` makes one a native sidecar.
    #[serde(borrow, deserialize_with = "or_default")]
    pub restart_policy: Text<'a>,
}

/// An element of a list, of which only the name matters: volumes, environment variables.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Named<'a> {
    #[serde(borrow, deserialize_with = "or_default")]
    pub name: Text<'a>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Mount<'a> {
    #[serde(borrow, deserialize_with = "or_default")]
    pub name: Text<'a>,
    #[serde(borrow, deserialize_with = "or_default")]
    pub mount_path: Text<'a>,
}

impl<'a> Pod<'a> {
    /// # Errors
    /// Names the field that is not what a Pod has there.
    pub fn decode(json: &'a str) -> Result<Self, serde_path_to_error::Error<serde_json::Error>> {
        // Keeping track of the path costs more than the rest, and only a mistake needs it.
        match serde_json::from_str(json) {
            Ok(pod) => Ok(pod),
            Err(_) => serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(json)),
        }
    }

    /// The app id: the annotation, else the pod's name, which pods made from a template do not have yet.
    pub fn app_id(&self) -> &str {
        match self.annotation(outrigger_core::annotations::APP_ID) {
            None | Some("") => &self.metadata.name,
            Some(id) => id,
        }
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.get(key).map(Deref::deref)
    }

    /// The owner that would replace the pod.
    pub fn controller(&self) -> Option<&Owner<'a>> {
        self.metadata.owner_references.iter().find(|owner| owner.controller)
    }

    /// Whether it is the copy of a pod that the kubelet runs from a file: nothing that is added here reaches that one.
    pub fn is_static(&self) -> bool {
        self.metadata
            .annotations
            .contains_key(outrigger_core::annotations::MIRROR)
            || self.controller().is_some_and(|owner| &*owner.kind == "Node")
    }

    pub fn volume_names(&self) -> HashSet<&str> {
        self.spec.volumes.iter().map(|volume| &*volume.name).collect()
    }

    /// Of the app's containers, without the init containers.
    pub fn container_names(&self) -> HashSet<&str> {
        let containers = self.spec.containers.iter();
        containers.map(|container| &*container.name).collect()
    }

    /// Whether some container already is a sidecar; ephemeral containers do not count.
    pub fn has_sidecar(&self) -> bool {
        let name = outrigger_core::annotations::SIDECAR_CONTAINER;
        let mut containers = self.spec.containers.iter().chain(&self.spec.init_containers);
        containers.any(|container| &*container.name == name)
    }
}

impl Container<'_> {
    pub fn has_env(&self, name: &str) -> bool {
        self.env.iter().any(|variable| &*variable.name == name)
    }
}

/// Go decodes `null` as the zero value.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_nothing_and_mistakes_name_the_field() {
        let pod = Pod::decode(r#"{"metadata":{"annotations":null},"spec":{"containers":[{"name":"a","env":null}]}}"#);
        assert_eq!(pod.unwrap().spec.containers[0].name, "a".into());
        let error = Pod::decode(r#"{"spec":{"containers":[{"name":"a"},{"name":5}]}}"#).unwrap_err();
        assert!(
            error.to_string().starts_with("spec.containers[1].name: invalid type"),
            "{error}"
        );
    }

    #[test]
    fn the_name_stands_in_for_an_empty_app_id() {
        let pod = |json| Pod::decode(json).unwrap().app_id().to_owned();
        assert_eq!(
            pod(r#"{"metadata":{"name":"p","annotations":{"dapr.io/app-id":"a"}}}"#),
            "a"
        );
        assert_eq!(
            pod(r#"{"metadata":{"name":"p","annotations":{"dapr.io/app-id":""}}}"#),
            "p"
        );
        assert_eq!(pod("{}"), "");
    }
}
