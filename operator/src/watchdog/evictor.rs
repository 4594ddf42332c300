//! Evicting a pod. Never deletes: an eviction that is refused is refused.

use k8s_openapi::{
    api::{core::v1::Pod, policy::v1::Eviction},
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Preconditions},
};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    core::Status,
};
use outrigger_core::annotations;
use outrigger_process::kubernetes::watch::ObjectKey;
use serde::de::IgnoredAny;
use serde_json::json;

use crate::{FIELD_MANAGER, deadline::in_time};

/// How an eviction went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Evicted,
    /// The pod is no more, or another one of its name.
    Gone,
    /// A disruption budget does not allow it now; which one, and why.
    Budget(String),
    Forbidden(String),
    Failed(String),
}

/// Evicts exactly this pod, and none that came by its name since.
pub(super) async fn evict(client: &Client, pod: &Pod) -> Outcome {
    let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let eviction = Eviction {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace),
            ..Default::default()
        },
        delete_options: Some(DeleteOptions {
            preconditions: Some(Preconditions {
                uid: pod.uid(),
                resource_version: None,
            }),
            ..Default::default()
        }),
    };
    let params = PostParams::default();
    let request = api.create_subresource::<_, IgnoredAny>("eviction", &name, &params, &eviction);
    match in_time(request).await {
        Ok(_) => Outcome::Evicted,
        Err(kube::Error::Api(status)) => match status.code {
            404 | 409 => Outcome::Gone,
            // The API server also says so when it has too much to do.
            429 => budget(&status).map_or(Outcome::Failed(status.message), Outcome::Budget),
            403 => Outcome::Forbidden(status.message),
            _ => Outcome::Failed(status.message),
        },
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

/// The API server names the budget among the causes only.
fn budget(status: &Status) -> Option<String> {
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    let cause = causes.find(|cause| cause.reason == "DisruptionBudget")?;
    Some(cause.message.clone())
}

/// Marks a pod that has a sidecar although the injector's label is missing.
pub(super) async fn label(client: &Client, pod: &ObjectKey) -> Result<(), String> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
    let patch = Patch::Merge(json!({"metadata": {"labels": {annotations::LABEL_WATCHDOG_PATCHED: "true"}}}));
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..Default::default()
    };
    match in_time(api.patch_metadata(&pod.name, &params, &patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_named() {
        let status = json!({
            "message": "Cannot evict pod as it would violate the pod's disruption budget.",
            "details": {"name": "cart-1", "causes": [{
                "reason": "DisruptionBudget", "message": "The disruption budget cart needs 2 healthy pods and has 2 currently",
            }]},
        });
        let named = budget(&serde_json::from_value(status).unwrap());
        assert_eq!(
            named.as_deref(),
            Some("The disruption budget cart needs 2 healthy pods and has 2 currently")
        );
        let busy: Status = serde_json::from_value(json!({"message": "try again"})).unwrap();
        assert_eq!(budget(&busy), None, "no budget says so");
    }
}
