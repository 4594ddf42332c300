//! What a pod entitles its holder to: an app id, a trust domain, and the images it runs.

use outrigger_core::{annotations, control_plane::Service};

use super::pod::{ContainerStatus, Pod};
use crate::ca::ContainerImage;

/// The facts about a pod that decide; everything else of it is forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct PodFacts {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: Option<String>,
    pub(super) service_account: String,
    pub(super) control_plane: Option<String>,
    pub(super) app_id: Option<String>,
    pub(super) configuration: Option<String>,
    pub(super) images: Vec<ContainerImage>,
}

impl PodFacts {
    pub(super) fn of(pod: &Pod) -> Self {
        let annotation = |key: &str| pod.annotation(key).map(str::to_owned);
        Self {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            uid: pod.metadata.uid.clone(),
            service_account: pod.spec.service_account_name.clone().unwrap_or_default(),
            control_plane: annotation(annotations::CONTROL_PLANE),
            app_id: annotation(annotations::APP_ID),
            configuration: annotation(annotations::CONFIG).filter(|name| !name.is_empty()),
            images: images(pod),
        }
    }
}

/// The identity a pod may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entitled {
    /// A process of the control plane, in the control plane's trust domain.
    ControlPlane(Service),
    /// An app; its Configuration may name a trust domain.
    App(String),
}

impl Entitled {
    pub(super) fn id(&self) -> &str {
        match self {
            Self::ControlPlane(service) => service.app_id(),
            Self::App(id) => id,
        }
    }
}

/// Upstream's rule: the control-plane annotation, else the app-id annotation (even if empty), else the pod's name.
pub(super) fn entitled(pod: &PodFacts, control_plane_namespace: &str) -> Result<Entitled, String> {
    let Some(value) = &pod.control_plane else {
        return Ok(Entitled::App(pod.app_id.clone().unwrap_or_else(|| pod.name.clone())));
    };
    if pod.namespace != control_plane_namespace {
        return Err(format!(
            "control plane service in namespace '{}' is not allowed",
            pod.namespace
        ));
    }
    let service =
        Service::from_annotation(value).ok_or_else(|| format!("unknown control plane service '{}'", pod.name))?;
    if pod.app_id.is_some() {
        return Err(format!(
            "control plane service '{}' cannot have annotation 'dapr.io/app-id'",
            pod.name
        ));
    }
    Ok(Entitled::ControlPlane(service))
}

/// Native sidecars first, then regular containers, as upstream lists them.
fn images(pod: &Pod) -> Vec<ContainerImage> {
    let (spec, status) = (&pod.spec, &pod.status);
    let native = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let native = native.map(|container| (container, status.init_container_statuses.as_deref()));
    let regular = spec
        .containers
        .iter()
        .flatten()
        .map(|container| (container, status.container_statuses.as_deref()));
    native
        .chain(regular)
        .map(|(container, statuses)| ContainerImage {
            role: if container.name == annotations::SIDECAR_CONTAINER {
                "daprd"
            } else {
                "app"
            },
            container_name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            digest: digest(statuses.unwrap_or_default(), &container.name),
        })
        .collect()
}

fn digest(statuses: &[ContainerStatus], container: &str) -> String {
    let Some(status) = statuses.iter().find(|status| status.name == container) else {
        return String::new();
    };
    match status.image_id.rsplit_once('@') {
        Some((_, digest)) => digest.to_owned(),
        None if status.image_id.starts_with("sha256:") => status.image_id.clone(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(json: serde_json::Value) -> PodFacts {
        PodFacts::of(&serde_json::from_value(json).unwrap())
    }

    #[test]
    fn app_id_comes_from_the_annotation_or_the_name() {
        let named = pod(serde_json::json!({"metadata": {"name": "p", "namespace": "shop"}}));
        assert_eq!(entitled(&named, "dapr-system").unwrap().id(), "p");
        let annotated = pod(serde_json::json!({"metadata": {"name": "p", "annotations": {"dapr.io/app-id": ""}}}));
        assert_eq!(
            entitled(&annotated, "dapr-system").unwrap().id(),
            "",
            "present but empty counts"
        );
    }

    #[test]
    fn the_control_plane_has_to_be_in_its_namespace() {
        let operator = |namespace: &str, value: &str| {
            pod(
                serde_json::json!({"metadata": {"name": "p", "namespace": namespace, "annotations": {"dapr.io/control-plane": value}}}),
            )
        };
        assert_eq!(
            entitled(&operator("dapr-system", "operator"), "dapr-system")
                .unwrap()
                .id(),
            "dapr-operator"
        );
        assert!(
            entitled(&operator("shop", "operator"), "dapr-system")
                .unwrap_err()
                .contains("is not allowed")
        );
        assert!(
            entitled(&operator("dapr-system", "other"), "dapr-system")
                .unwrap_err()
                .contains("unknown control plane")
        );
        let mut both = operator("dapr-system", "operator");
        both.app_id = Some("x".into());
        assert!(
            entitled(&both, "dapr-system")
                .unwrap_err()
                .contains("cannot have annotation")
        );
    }

    #[test]
    fn images_carry_digests() {
        let facts = pod(serde_json::json!({
            "spec": {
                "initContainers": [{"name": "daprd", "image": "daprd:1", "restartPolicy": "Always"}, {"name": "setup", "image": "s"}],
                "containers": [{"name": "main", "image": "shop:1"}, {"name": "log", "image": "log:2"}]
            },
            "status": {"containerStatuses": [
                {"name": "main", "image": "x", "imageID": "reg/shop@sha256:aa", "ready": true, "restartCount": 0},
                {"name": "log", "image": "x", "imageID": "sha256:bb", "ready": true, "restartCount": 0}
            ]}
        }));
        let found: Vec<_> = facts
            .images
            .iter()
            .map(|i| (i.role, i.container_name.as_str(), i.digest.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                ("daprd", "daprd", ""),
                ("app", "main", "sha256:aa"),
                ("app", "log", "sha256:bb")
            ]
        );
    }
}
