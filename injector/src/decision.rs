//! What to answer to a review: the checks, in upstream's order. No I/O: the cluster is a snapshot.

use outrigger_core::app_id;

use crate::{
    annotations as key,
    authorise::Allowed,
    cluster::Cluster,
    patch::{self, Injection},
    pod::Pod,
    review::{Answer, Request},
    settings::Settings,
    sidecar::Sidecar,
    warnings,
};

/// All that a decision depends on beside the request.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub settings: &'a Settings,
    pub allowed: &'a Allowed,
    pub cluster: &'a Cluster,
    /// PEM; `None` before they were read.
    pub trust_anchors: Option<&'a str>,
}

/// An answer, with what metrics and people want to know of it.
#[derive(Debug)]
pub struct Decision {
    pub answer: Answer,
    pub outcome: Outcome,
    /// The annotation, else the pod's name, else empty: what upstream labels its metrics with.
    pub app_id: String,
    pub warnings: Vec<String>,
}

/// How a review ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Injected,
    /// The review is not about a pod.
    NotAPod,
    NotEnabled,
    /// The requester may not have pods injected.
    NotAllowed,
    /// The pod has a sidecar.
    AlreadyInjected,
    Denied,
}

/// Decides a review.
pub fn decide(request: &Request<'_>, context: Context<'_>) -> Decision {
    if request.kind.kind != "Pod" {
        return plain(Answer::Allowed, Outcome::NotAPod, String::new());
    }
    // What cannot be decoded counts as enabled, so that the requester is told.
    let pod = match request.object {
        Some(object) => Pod::decode(object.get()).map_err(|error| error.to_string()),
        None => Err("the object is empty".to_owned()),
    };
    let label = pod.as_ref().map(metric_label).unwrap_or_default();
    if let Ok(pod) = &pod
        && !is_enabled(pod)
    {
        return Decision {
            warnings: warnings::not_enabled(pod).into_iter().collect(),
            ..plain(Answer::Allowed, Outcome::NotEnabled, label)
        };
    }
    let requester = &request.user_info;
    if !context
        .allowed
        .permits(requester, |uid| context.cluster.is_allowed_uid(uid))
    {
        return Decision {
            warnings: vec![warnings::not_allowed(&requester.username)],
            ..plain(Answer::Allowed, Outcome::NotAllowed, label)
        };
    }
    match pod {
        Ok(pod) => inject(&pod, &request.namespace, context, label),
        Err(error) => plain(
            Answer::Denied(format!("could not unmarshal raw object: {error}")),
            Outcome::Denied,
            label,
        ),
    }
}

/// Only `true`, in any case and without white space around it: the operator's watchdog is more lenient, upstream's injector is
/// not.
fn is_enabled(pod: &Pod) -> bool {
    pod.annotation(key::ENABLED)
        .is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

fn inject(pod: &Pod, namespace: &str, context: Context<'_>, label: String) -> Decision {
    let denied = |message: String, label| plain(Answer::Denied(message), Outcome::Denied, label);
    let Some(trust_anchors) = context.trust_anchors else {
        return denied("the injector has no trust anchors yet".to_owned(), label);
    };
    if pod.has_sidecar() {
        let ours = pod.metadata.labels.get(outrigger_core::annotations::LABEL_INJECTED);
        return Decision {
            // The API server asks again after other webhooks changed the pod.
            warnings: match ours.map(String::as_str) {
                Some("true") => Vec::new(),
                _ => vec![warnings::foreign_sidecar()],
            },
            ..plain(Answer::Allowed, Outcome::AlreadyInjected, label)
        };
    }
    if let Err(error) = app_id::validate(pod.app_id()) {
        return Decision {
            warnings: pod.app_id().is_empty().then(warnings::no_name).into_iter().collect(),
            ..denied(error.to_string(), label)
        };
    }
    let sidecar = Sidecar::resolve(pod, context.settings);
    let components = if sidecar.inject_pluggable_components {
        context.cluster.component_containers(namespace)
    } else {
        Ok(Vec::new())
    };
    let components = match components {
        Ok(components) => components,
        Err(error) => return denied(format!("error when fetching components: {error}"), label),
    };
    let mut warnings = warnings::of_pod(pod, &sidecar);
    let injection = Injection {
        pod,
        namespace,
        settings: context.settings,
        mtls: context.cluster.mtls(),
        trust_anchors,
        components: &components,
    };
    let operations = patch::patch(&injection, &sidecar, &mut warnings);
    Decision {
        warnings,
        ..plain(Answer::Patched(operations), Outcome::Injected, label)
    }
}

fn metric_label(pod: &Pod) -> String {
    pod.annotation(key::APP_ID).unwrap_or(&pod.metadata.name).to_owned()
}

fn plain(answer: Answer, outcome: Outcome, app_id: String) -> Decision {
    Decision {
        answer,
        outcome,
        app_id,
        warnings: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json, value::RawValue};

    use super::*;
    use crate::{authorise::Requester, patch::tests::settings, review};

    const CONTROLLER: &str = "system:serviceaccount:kube-system:replicaset-controller";

    fn pod(annotations: Value) -> Value {
        json!({"metadata": {"name": "p", "annotations": annotations}, "spec": {"containers": [{"name": "main"}]}})
    }

    struct Case {
        user: &'static str,
        anchors: Option<&'static str>,
        cluster: Cluster,
    }

    impl Default for Case {
        fn default() -> Self {
            Self {
                user: CONTROLLER,
                anchors: Some("pem"),
                cluster: Cluster::default(),
            }
        }
    }

    impl Case {
        fn decide(&self, pod: &Value) -> Decision {
            self.decide_raw("Pod", Some(&pod.to_string()))
        }

        fn decide_raw(&self, kind: &str, object: Option<&str>) -> Decision {
            let object = object.map(|text| RawValue::from_string(text.to_owned()).unwrap());
            let request = Request {
                kind: review::Kind { kind: kind.into() },
                namespace: "shop".into(),
                user_info: Requester {
                    username: self.user.into(),
                    ..Requester::default()
                },
                object: object.as_deref(),
                ..Request::default()
            };
            let context = Context {
                settings: &settings(),
                allowed: &Allowed::new(&["tools:deployer"]).unwrap(),
                cluster: &self.cluster,
                trust_anchors: self.anchors,
            };
            decide(&request, context)
        }
    }

    fn denial(decision: &Decision) -> &str {
        match &decision.answer {
            Answer::Denied(message) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_true_enables() {
        for value in ["true", "True", "TRUE"] {
            let decision = Case::default().decide(&pod(json!({"dapr.io/enabled": value})));
            assert_eq!(decision.outcome, Outcome::Injected, "{value}");
            assert_eq!(decision.app_id, "p");
        }
        for value in ["", "1", "yes", "on", " true", "false"] {
            let decision = Case::default().decide(&pod(json!({"dapr.io/enabled": value})));
            assert_eq!(decision.outcome, Outcome::NotEnabled, "{value}");
            assert!(matches!(decision.answer, Answer::Allowed));
            assert_eq!(
                decision.warnings.len(),
                usize::from(outrigger_core::annotations::truthy(value))
            );
        }
        assert_eq!(Case::default().decide(&pod(Value::Null)).outcome, Outcome::NotEnabled);
    }

    #[test]
    fn unknown_requesters_are_told_how_to_be_allowed() {
        let enabled = pod(json!({"dapr.io/enabled": "true", "dapr.io/app-id": "cart"}));
        let case = |user| {
            Case {
                user,
                ..Case::default()
            }
            .decide(&enabled)
        };
        let decision = case("system:serviceaccount:ci:runner");
        assert_eq!(
            (decision.outcome, decision.app_id.as_str()),
            (Outcome::NotAllowed, "cart")
        );
        assert!(
            decision.warnings[0].contains("add ci:runner to the Helm value"),
            "{:?}",
            decision.warnings
        );
        assert!(case("jane").warnings[0].contains("user \"jane\""));
        assert_eq!(case("system:serviceaccount:tools:deployer").outcome, Outcome::Injected);
    }

    #[test]
    fn other_kinds_pass() {
        let decision = Case::default().decide_raw("Deployment", Some("{}"));
        assert_eq!(decision.outcome, Outcome::NotAPod);
        assert!(matches!(decision.answer, Answer::Allowed));
    }

    #[test]
    fn objects_that_are_no_pods_are_denied() {
        let decision = Case::default().decide_raw("Pod", None);
        assert_eq!(denial(&decision), "could not unmarshal raw object: the object is empty");
        let decision = Case::default().decide_raw("Pod", Some(r#"{"spec":{"containers":{}}}"#));
        assert!(denial(&decision).starts_with("could not unmarshal raw object: spec.containers: invalid type"));
        // The order is upstream's: who may not inject is not told what is wrong.
        let stranger = Case {
            user: "jane",
            ..Case::default()
        };
        assert_eq!(stranger.decide_raw("Pod", None).outcome, Outcome::NotAllowed);
    }

    #[test]
    fn pods_with_a_sidecar_are_left_alone() {
        let mut injected = pod(json!({"dapr.io/enabled": "true"}));
        injected["metadata"]["labels"] = json!({"dapr.io/sidecar-injected": "true"});
        injected["spec"]["initContainers"] = json!([{"name": "daprd"}]);
        let decision = Case::default().decide(&injected);
        assert_eq!(
            (decision.outcome, decision.warnings.len()),
            (Outcome::AlreadyInjected, 0)
        );
        injected["metadata"]["labels"] = Value::Null;
        assert_eq!(Case::default().decide(&injected).warnings.len(), 1, "not ours");
    }

    #[test]
    fn app_ids_are_checked() {
        let mut nameless = pod(json!({"dapr.io/enabled": "true"}));
        nameless["metadata"]["name"] = Value::Null;
        let decision = Case::default().decide(&nameless);
        assert_eq!(denial(&decision), "value for the dapr.io/app-id annotation is empty");
        assert!(decision.warnings[0].contains("has no name yet"));
        let decision = Case::default().decide(&pod(json!({"dapr.io/enabled": "true", "dapr.io/app-id": "My_App"})));
        assert!(denial(&decision).starts_with("invalid app id (input: 'My_App', service: 'My_App-dapr'): a lowercase"));
        assert_eq!(decision.app_id, "My_App");
    }

    #[test]
    fn what_is_needed_and_unknown_denies() {
        let case = Case {
            anchors: None,
            ..Case::default()
        };
        let enabled = pod(json!({"dapr.io/enabled": "true"}));
        assert_eq!(denial(&case.decide(&enabled)), "the injector has no trust anchors yet");
        let components = pod(json!({"dapr.io/enabled": "true", "dapr.io/inject-pluggable-components": "true"}));
        assert_eq!(
            denial(&Case::default().decide(&components)),
            "error when fetching components: they have not been listed yet; try again"
        );
    }

    #[test]
    fn the_configuration_decides_about_mtls() {
        let arguments = |case: &Case| match case.decide(&pod(json!({"dapr.io/enabled": "true"}))).answer {
            Answer::Patched(operations) => serde_json::to_string(&operations).unwrap(),
            other => panic!("{other:?}"),
        };
        let case = Case::default();
        assert!(arguments(&case).contains("\"--enable-mtls\""));
        case.cluster.set_mtls(false);
        assert!(!arguments(&case).contains("\"--enable-mtls\""));
    }
}
