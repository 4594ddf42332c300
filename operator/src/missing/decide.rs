//! Why a pod has no sidecar. No I/O.

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::ResourceExt;
use outrigger_core::annotations;
use outrigger_process::kubernetes::owner::controller;

use super::{
    admission::{Admission, Seen},
    creator::creator,
    matching::{self, Namespace},
    reason::{Finding, Reason},
    review::Verdict,
};

/// What the pod itself says, whoever was asked: no other answer would have given it a sidecar.
pub(super) fn by_pod(pod: &Pod) -> Option<Finding> {
    let annotated = |key: &str| pod.annotations().get(key).map(String::as_str);
    if annotated(annotations::MIRROR).is_some() || controller(pod).is_some_and(|owner| owner.kind == "Node") {
        let why = "the pod is a static pod: the kubelet runs it from a file, and nothing that is added here reaches it";
        return Some(Finding::new(Reason::StaticPod, why));
    }
    // No white space around it either.
    let enabled = annotated(annotations::ENABLED).unwrap_or_default();
    if !enabled.eq_ignore_ascii_case("true") {
        let why = format!(
            "annotation {} is {enabled:?}, and only \"true\" asks for one",
            annotations::ENABLED
        );
        return Some(Finding::new(Reason::SidecarNotEnabled, why));
    }
    if has_sidecar(pod) {
        let why = "the pod has a container named daprd already, and gets no second one";
        return Some(Finding::new(Reason::ContainerNamedDaprd, why));
    }
    None
}

/// Why the injector was not asked, as far as the cluster's state tells. `control_plane` is the control plane's namespace,
/// `anchors` are its trust anchors.
pub(super) fn by_cluster(
    pod: &Pod,
    namespace: &Namespace,
    admission: &Admission,
    control_plane: &str,
    anchors: &[Vec<u8>],
) -> Option<Finding> {
    let webhook = match admission.webhook() {
        Ok(webhook) => webhook,
        Err(finding) => return Some(finding),
    };
    let unselected = matching::unselected(webhook, pod, namespace, control_plane);
    match unselected {
        // It may be met: what certainly stands in the way comes first.
        Some(finding) if finding.reason == Reason::MatchConditionNotMet => {
            Some(admission.outage(control_plane, anchors).unwrap_or(finding))
        }
        Some(finding) => Some(finding),
        None => older_than_webhook(pod, admission).or_else(|| admission.outage(control_plane, anchors)),
    }
}

fn older_than_webhook(pod: &Pod, admission: &Admission) -> Option<Finding> {
    let Seen::Present(configuration) = &admission.registration else {
        return None;
    };
    let (pod, webhook) = (pod.creation_timestamp()?.0, configuration.creation_timestamp()?.0);
    (pod < webhook).then(|| {
        let why = format!("the pod was created at {pod}, before the webhook at {webhook}");
        Finding::new(Reason::PodOlderThanWebhook, why)
    })
}

/// What a dry run tells of a pod that should have been injected.
pub(super) fn by_review(verdict: &Verdict, pod: &Pod) -> Finding {
    match verdict {
        Verdict::Injects if creator(pod).is_none() => {
            let whose = controller(pod).map_or_else(
                || "the pod, which has no owner".to_owned(),
                |owner| format!("pods of {} {} ({})", owner.kind, owner.name, owner.api_version),
            );
            Finding::new(
                Reason::CreatorUnknown,
                format!(
                    "it is not known who creates {whose}, nor whether the injector injects for that account; for one that is \
                     allowed it would inject the pod now"
                ),
            )
        }
        Verdict::Injects => Finding::new(
            Reason::InjectorMissedPod,
            "the injector did not answer in time when the pod was created, and failure policy Ignore let it through; it would \
             inject it now",
        ),
        Verdict::Refuses(why) => Finding {
            reason: Reason::InjectorRefuses,
            note: why.clone(),
        },
        Verdict::Failed(why) => Finding::new(
            Reason::InjectorFailed,
            format!("the injector does not answer as it should: {why}"),
        ),
        Verdict::Unreachable(why) => Finding::new(
            Reason::InjectorUnreachable,
            format!("the injector cannot be reached through its Service: {why}"),
        ),
    }
}

/// With what people have to do, where no more than a new pod is needed or none comes by itself.
pub(super) fn advised(finding: Finding, pod: &Pod) -> Finding {
    let advice = match (controller(pod), finding.reason) {
        (_, Reason::StaticPod) => return finding,
        (None, _) => "no controller would create the pod anew: delete and create it yourself",
        (Some(owner), _) if is_job(owner) => {
            "its Job would count a pod that is deleted as failed: let it end, or create the Job anew"
        }
        (Some(_), Reason::PodOlderThanWebhook | Reason::InjectorMissedPod) => "replace the pod",
        (Some(_), _) => return finding,
    };
    Finding {
        note: format!("{}; {advice}", finding.note),
        ..finding
    }
}

/// Also an old name of the sidecar, native or not.
pub(crate) fn has_sidecar(pod: &Pod) -> bool {
    let spec = pod.spec.iter();
    let mut containers = spec.flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    containers.any(|container| container.name == annotations::SIDECAR_CONTAINER)
}

/// Whether the owner is a Job, of Kubernetes' own.
pub(crate) fn is_job(owner: &OwnerReference) -> bool {
    (&*owner.api_version, &*owner.kind) == ("batch/v1", "Job")
}

/// Whether a pod ran to its end.
pub(crate) fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::missing::admission::tests::{admission, anchors};

    fn pod(change: impl FnOnce(&mut Value)) -> Pod {
        let mut pod = json!({
            "metadata": {
                "name": "cart-1", "namespace": "shop", "creationTimestamp": "2026-02-02T00:00:00Z",
                "annotations": {"dapr.io/enabled": "true"},
            },
            "spec": {"containers": [{"name": "app"}]},
        });
        change(&mut pod);
        serde_json::from_value(pod).unwrap()
    }

    fn own(change: impl FnOnce(&mut Value)) -> Option<Reason> {
        by_pod(&pod(change)).map(|finding| finding.reason)
    }

    #[test]
    fn some_pods_would_never_get_one() {
        assert_eq!(own(|_| {}), None);
        assert_eq!(
            own(|pod| pod["metadata"]["annotations"]["dapr.io/enabled"] = "TRUE".into()),
            None
        );
        for value in ["yes", "1", " true", "on"] {
            let found = own(|pod| pod["metadata"]["annotations"]["dapr.io/enabled"] = value.into());
            assert_eq!(found, Some(Reason::SidecarNotEnabled), "{value:?}");
        }
        for list in ["containers", "initContainers"] {
            let found = own(|pod| pod["spec"][list] = json!([{"name": "daprd"}]));
            assert_eq!(found, Some(Reason::ContainerNamedDaprd));
        }
        let mirror = own(|pod| pod["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "x".into());
        assert_eq!(mirror, Some(Reason::StaticPod));
        let node = json!([{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "n", "controller": true}]);
        assert_eq!(
            own(|pod| pod["metadata"]["ownerReferences"] = node),
            Some(Reason::StaticPod)
        );
    }

    #[test]
    fn the_clusters_state_is_judged_from_the_outside_in() {
        let namespace = |name: &str| Namespace {
            name: name.into(),
            labels: Some([("kubernetes.io/metadata.name".to_owned(), name.to_owned())].into()),
        };
        let judge = |pod: &Pod, space: &str, admission: &Admission| {
            let found = by_cluster(pod, &namespace(space), admission, "dapr-system", &anchors());
            found.map(|finding| finding.reason)
        };
        let healthy = admission(|_| {});
        assert_eq!(judge(&pod(|_| {}), "shop", &healthy), None);
        let broken = admission(|c| c["webhooks"][0]["clientConfig"]["caBundle"] = Value::Null);
        assert_eq!(judge(&pod(|_| {}), "shop", &broken), Some(Reason::CaBundleMissing));
        assert_eq!(
            judge(&pod(|_| {}), "kube-system", &broken),
            Some(Reason::NamespaceExcluded)
        );
        let older = pod(|pod| pod["metadata"]["creationTimestamp"] = "2025-12-31T23:59:59Z".into());
        assert_eq!(judge(&older, "shop", &healthy), Some(Reason::PodOlderThanWebhook));
        assert_eq!(
            judge(&older, "kube-system", &healthy),
            Some(Reason::NamespaceExcluded),
            "a new one would get none either"
        );

        let theirs = |broken: bool| {
            admission(|c| {
                let webhook = &mut c["webhooks"][0];
                webhook["matchConditions"] = json!([{"name": "theirs", "expression": "true"}]);
                if broken {
                    webhook["clientConfig"]["caBundle"] = Value::Null;
                }
            })
        };
        assert_eq!(
            judge(&pod(|_| {}), "shop", &theirs(false)),
            Some(Reason::MatchConditionNotMet)
        );
        assert_eq!(
            judge(&pod(|_| {}), "shop", &theirs(true)),
            Some(Reason::CaBundleMissing)
        );
    }

    #[test]
    fn people_are_told_what_is_left_to_them() {
        let advised = |reason: Reason, owner: Option<(&str, &str)>| {
            let owners = owner.map(|(api_version, kind)| {
                json!([{"apiVersion": api_version, "kind": kind, "name": "o", "uid": "o", "controller": true}])
            });
            let pod = pod(|pod| pod["metadata"]["ownerReferences"] = owners.into());
            advised(Finding::new(reason, "why"), &pod).note
        };
        let (replica_set, job) = (Some(("apps/v1", "ReplicaSet")), Some(("batch/v1", "Job")));
        assert!(
            advised(Reason::SidecarNotEnabled, None)
                .ends_with("why; no controller would create the pod anew: delete and create it yourself")
        );
        assert!(advised(Reason::InjectorMissedPod, job).contains("count a pod that is deleted as failed"));
        assert!(advised(Reason::InjectorMissedPod, replica_set).ends_with("why; replace the pod"));
        for (reason, owner) in [(Reason::PodNotSelected, replica_set), (Reason::StaticPod, None)] {
            assert!(advised(reason, owner).ends_with("why"));
        }
    }

    #[test]
    fn a_dry_run_has_the_last_word() {
        let cases = [
            (Verdict::Injects, Reason::InjectorMissedPod),
            (Verdict::Refuses("no Dapr sidecar: why".into()), Reason::InjectorRefuses),
            (Verdict::Failed("500".into()), Reason::InjectorFailed),
            (Verdict::Unreachable("refused".into()), Reason::InjectorUnreachable),
        ];
        let owned = pod(|pod| {
            let owner =
                json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart", "uid": "r", "controller": true});
            pod["metadata"]["ownerReferences"] = json!([owner]);
        });
        let bare = by_review(&Verdict::Injects, &pod(|_| {}));
        assert_eq!(bare.reason, Reason::CreatorUnknown, "its creator may have been refused");
        for (verdict, reason) in cases {
            let finding = by_review(&verdict, &owned);
            assert_eq!(finding.reason, reason);
            assert!(finding.note.starts_with("no Dapr sidecar: "), "{}", finding.note);
        }
    }
}
