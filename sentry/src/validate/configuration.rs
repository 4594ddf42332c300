//! Configurations, as far as they decide about identities: the trust domain of the apps that name them.

use std::borrow::Cow;

use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use serde::Deserialize;

/// The kind `configurations.dapr.io`. Its spec is not typed: one that cannot be decoded must not end the watch of all others.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Configuration {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: serde_json::Value,
}

impl Configuration {
    /// `spec.accessControl.trustDomain`; empty where it says none.
    pub(super) fn trust_domain(&self) -> String {
        self.spec["accessControl"]["trustDomain"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

impl Resource for Configuration {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind(_: &()) -> Cow<'_, str> {
        "Configuration".into()
    }

    fn group(_: &()) -> Cow<'_, str> {
        "dapr.io".into()
    }

    fn version(_: &()) -> Cow<'_, str> {
        "v1alpha1".into()
    }

    fn plural(_: &()) -> Cow<'_, str> {
        "configurations".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trust_domain_is_found_and_nothing_else_matters() {
        for (json, expected) in [
            (
                r#"{"metadata": {"name": "a"}, "spec": {"accessControl": {"trustDomain": "bank"}, "tracing": 1}}"#,
                "bank",
            ),
            (r#"{"metadata": {"name": "a"}, "spec": {"accessControl": []}}"#, ""),
            (r#"{"metadata": {"name": "a"}}"#, ""),
        ] {
            assert_eq!(
                serde_json::from_str::<Configuration>(json).unwrap().trust_domain(),
                expected,
                "{json}"
            );
        }
    }
}
