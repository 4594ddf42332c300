//! What is to be done about a pod. No I/O.

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::ResourceExt;
use outrigger_core::annotations;
use outrigger_process::kubernetes::owner::controller;

use crate::missing::{has_ended, has_sidecar, is_job};

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Decision {
    Skip(Skip),
    /// It has a sidecar: mark it, so that it is not looked at again.
    Label,
    /// It lacks its sidecar, and its owner will replace it.
    Evict(OwnerReference),
    /// It lacks its sidecar, and evicting it would not help.
    Leave(Leave),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Skip {
    NotAnnotated,
    HasSidecar,
    /// It ran to its end.
    Finished,
    /// It is being deleted.
    Terminating,
}

/// Why evicting a pod would not help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// Nobody would create it anew.
    NoController,
    /// Its Job would count it as failed, and may fail for it.
    Job,
    /// The injector looks for `true` only.
    NeverInjected,
}

/// Decides about a pod that lacks the injector's label.
pub(super) fn decide(pod: &Pod, can_label: bool) -> Decision {
    let enabled = pod.annotations().get(annotations::ENABLED);
    let Some(enabled) = enabled.filter(|value| annotations::truthy(value)) else {
        return Decision::Skip(Skip::NotAnnotated);
    };
    if pod.metadata.deletion_timestamp.is_some() {
        return Decision::Skip(Skip::Terminating);
    }
    if has_ended(pod) {
        return Decision::Skip(Skip::Finished);
    }
    if has_sidecar(pod) {
        return match can_label {
            true => Decision::Label,
            false => Decision::Skip(Skip::HasSidecar),
        };
    }
    if !enabled.eq_ignore_ascii_case("true") {
        return Decision::Leave(Leave::NeverInjected);
    }
    // The kubelet owns the mirrors of its static pods, which no eviction restarts.
    match controller(pod).filter(|owner| owner.kind != "Node") {
        // Whatever its phase: a Job counts a pod that is deleted before its end as a failed one.
        Some(owner) if is_job(owner) => Decision::Leave(Leave::Job),
        Some(owner) => Decision::Evict(owner.clone()),
        None => Decision::Leave(Leave::NoController),
    }
}

impl Leave {
    /// Label of the metric.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::NoController => "no_controller",
            Self::Job => "job",
            Self::NeverInjected => "never_injected",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(change: impl FnOnce(&mut Value)) -> Pod {
        let mut pod = json!({
            "metadata": {
                "name": "cart-1", "namespace": "shop", "uid": "p1", "annotations": {"dapr.io/enabled": "true"},
                "ownerReferences": [
                    {"apiVersion": "example.com/v1", "kind": "Tenant", "name": "t", "uid": "o0"},
                    {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart", "uid": "o1", "controller": true},
                ],
            },
            "spec": {"containers": [{"name": "app"}]},
            "status": {"phase": "Running"},
        });
        change(&mut pod);
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn evicts_what_its_owner_replaces() {
        match decide(&pod(|_| {}), true) {
            Decision::Evict(owner) => assert_eq!(owner.uid, "o1"),
            other => panic!("{other:?}"),
        }
        let waiting = pod(|pod| pod["status"] = json!({"phase": "Pending"}));
        assert!(matches!(decide(&waiting, true), Decision::Evict(_)));
        let shouting = pod(|pod| pod["metadata"]["annotations"]["dapr.io/enabled"] = "TRUE".into());
        assert!(matches!(decide(&shouting, true), Decision::Evict(_)));
    }

    #[test]
    fn leaves_alone_what_needs_nothing() {
        for (reason, change) in [
            (
                Skip::NotAnnotated,
                json!({"metadata": {"annotations": {"dapr.io/enabled": "false"}}}),
            ),
            (
                Skip::Terminating,
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            ),
            (Skip::Finished, json!({"status": {"phase": "Succeeded"}})),
            (Skip::Finished, json!({"status": {"phase": "Failed"}})),
        ] {
            let pod = pod(|pod| merge(pod, &change));
            assert_eq!(decide(&pod, true), Decision::Skip(reason));
        }
    }

    #[test]
    fn recognises_sidecars_wherever_they_are() {
        for list in ["containers", "initContainers"] {
            let pod = pod(|pod| pod["spec"][list] = json!([{"name": "daprd"}]));
            assert_eq!(decide(&pod, true), Decision::Label);
            assert_eq!(decide(&pod, false), Decision::Skip(Skip::HasSidecar));
        }
    }

    #[test]
    fn leaves_what_an_eviction_would_not_help() {
        let bare = pod(|pod| pod["metadata"]["ownerReferences"] = json!([]));
        assert_eq!(decide(&bare, true), Decision::Leave(Leave::NoController));
        for phase in ["Pending", "Running"] {
            let job = pod(|pod| {
                let owner = &mut pod["metadata"]["ownerReferences"][1];
                (owner["apiVersion"], owner["kind"]) = ("batch/v1".into(), "Job".into());
                pod["status"]["phase"] = phase.into();
            });
            assert_eq!(decide(&job, true), Decision::Leave(Leave::Job), "{phase}");
        }
        let mirror = pod(|pod| pod["metadata"]["ownerReferences"][1]["kind"] = "Node".into());
        assert_eq!(decide(&mirror, true), Decision::Leave(Leave::NoController));
        let yes = pod(|pod| pod["metadata"]["annotations"]["dapr.io/enabled"] = "yes".into());
        assert_eq!(decide(&yes, true), Decision::Leave(Leave::NeverInjected));
    }

    fn merge(into: &mut Value, from: &Value) {
        match (into, from) {
            (Value::Object(into), Value::Object(from)) => {
                for (key, value) in from {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
            (into, from) => *into = from.clone(),
        }
    }
}
