//! Who creates the pods of an owner, as far as that is known.

use k8s_openapi::api::core::v1::Pod;
use outrigger_process::kubernetes::owner::controller;

/// The service account in `kube-system` that creates pods for the pod's owner. `None` for bare pods and for owners of any kind
/// that is not Kubernetes' own, also when it is only named like one: nobody can tell who creates their pods.
pub(super) fn creator(pod: &Pod) -> Option<&'static str> {
    let owner = controller(pod)?;
    match (&*owner.api_version, &*owner.kind) {
        ("apps/v1", "ReplicaSet") => Some("replicaset-controller"),
        ("v1", "ReplicationController") => Some("replication-controller"),
        ("apps/v1", "StatefulSet") => Some("statefulset-controller"),
        ("apps/v1", "DaemonSet") => Some("daemon-set-controller"),
        ("batch/v1", "Job") => Some("job-controller"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_kubernetes_own_controllers_are_known() {
        let of = |api_version: &str, kind: &str| {
            let owner = json!({"apiVersion": api_version, "kind": kind, "name": "o", "uid": "o", "controller": true});
            creator(&serde_json::from_value(json!({"metadata": {"ownerReferences": [owner]}})).unwrap())
        };
        assert_eq!(of("apps/v1", "StatefulSet"), Some("statefulset-controller"));
        assert_eq!(of("batch/v1", "Job"), Some("job-controller"));
        for (api_version, kind) in [
            ("apps.kruise.io/v1beta1", "StatefulSet"),
            ("batch.volcano.sh/v1alpha1", "Job"),
            ("argoproj.io/v1alpha1", "Workflow"),
        ] {
            assert_eq!(of(api_version, kind), None, "{api_version} {kind}");
        }
        assert_eq!(creator(&Pod::default()), None);
    }
}
