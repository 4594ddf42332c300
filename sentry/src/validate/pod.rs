//! Pods, as far as they decide about identities. All pods of a cluster pass through here: decoding the rest of them would take
//! most of sentry's memory.

use k8s_openapi::api::core::v1;
use outrigger_process::kubernetes::slim::{Part, Slim};
use serde::Deserialize;

/// The kind `pods`, without what nobody asks for.
pub(super) type Pod = Slim<v1::Pod, PodSpec, PodStatus>;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodSpec {
    pub(super) service_account_name: Option<String>,
    pub(super) init_containers: Option<Vec<Container>>,
    pub(super) containers: Option<Vec<Container>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) image: Option<String>,
    pub(super) restart_policy: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodStatus {
    pub(super) init_container_statuses: Option<Vec<ContainerStatus>>,
    pub(super) container_statuses: Option<Vec<ContainerStatus>>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct ContainerStatus {
    pub(super) name: String,
    #[serde(rename = "imageID", default)]
    pub(super) image_id: String,
}

impl Part for PodSpec {}
impl Part for PodStatus {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_is_kept() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {
                "name": "p", "namespace": "shop", "uid": "u", "resourceVersion": "7", "labels": {"app": "cart"},
                "annotations": {"dapr.io/app-id": "cart", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
                "managedFields": [{"manager": "kubectl"}]
            },
            "spec": {"containers": [{"name": "main", "image": "shop:1", "env": []}], "volumes": []},
            "status": {"phase": "Running"}
        }))
        .unwrap();
        assert_eq!(pod.metadata.resource_version.as_deref(), Some("7"));
        assert_eq!(
            pod.metadata.annotations.unwrap().into_keys().collect::<Vec<_>>(),
            ["dapr.io/app-id"]
        );
        assert!(pod.metadata.managed_fields.is_none() && pod.metadata.labels.is_none());
        assert_eq!(pod.spec.containers.unwrap()[0].image.as_deref(), Some("shop:1"));
    }
}
