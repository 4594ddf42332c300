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
    strict: bool,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            user: CONTROLLER,
            anchors: Some("pem"),
            cluster: Cluster::default(),
            strict: false,
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
        let mut settings = settings();
        settings.strict = self.strict;
        let context = Context {
            settings: &settings,
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
fn strict_mode_denies_what_is_warned_of_otherwise() {
    let strict = |user: &'static str, annotations: Value| {
        let case = Case {
            user,
            strict: true,
            ..Case::default()
        };
        case.decide(&pod(annotations))
    };
    let typo = strict(
        CONTROLLER,
        json!({"dapr.io/enabled": "true", "dapr.io/app-prot": "1", "dapr.io/log-level": "x"}),
    );
    assert_eq!(
        denial(&typo),
        "annotation dapr.io/log-level: \"x\" is not one of debug, info, warn, error, fatal; the sidecar may refuse it; \
         annotation dapr.io/app-prot is unknown; did you mean dapr.io/app-port?"
    );
    assert_eq!((typo.outcome, typo.warnings.len()), (Outcome::Denied, 0));
    assert!(denial(&strict("jane", json!({"dapr.io/enabled": "true"}))).contains("user \"jane\""));
    assert!(denial(&strict(CONTROLLER, json!({"dapr.io/enabled": "yes"}))).contains("only \"true\""));
    assert_eq!(
        strict(CONTROLLER, json!({"dapr.io/enabled": "true"})).outcome,
        Outcome::Injected
    );
    assert_eq!(strict(CONTROLLER, json!({"other": "x"})).outcome, Outcome::NotEnabled);
}

#[test]
fn old_clusters_get_ordinary_sidecars() {
    let case = Case::default();
    case.cluster.set_too_old_for_native_sidecars(Some("1.28".into()));
    let decision = case.decide(&pod(
        json!({"dapr.io/enabled": "true", "dapr.io/enable-native-sidecar": "true"}),
    ));
    assert!(
        decision.warnings[0].contains("needs Kubernetes 1.29 and this is 1.28"),
        "{:?}",
        decision.warnings
    );
    match decision.answer {
        Answer::Patched(operations) => assert!(operations.paths().contains(&"/spec/containers/-".to_owned())),
        other => panic!("{other:?}"),
    }
    assert!(
        case.decide(&pod(json!({"dapr.io/enabled": "true"})))
            .warnings
            .is_empty()
    );
}

#[test]
fn the_audit_log_is_told_of_pods_that_concern_us() {
    let audit = |annotations: Value| Case::default().decide(&pod(annotations)).audit();
    assert!(audit(Value::Null).is_empty());
    assert!(audit(json!({"dapr.io/enabled": "false"})).is_empty());
    assert_eq!(
        audit(json!({"dapr.io/enabled": "true"})),
        [("outcome", "injected".to_owned()), ("app-id", "p".to_owned())].into()
    );
    let denied = audit(json!({"dapr.io/enabled": "true", "dapr.io/app-id": "A"}));
    assert!(
        denied["outcome"] == "denied" && denied["message"].starts_with("invalid app id"),
        "{denied:?}"
    );
    assert_eq!(audit(json!({"dapr.io/enabled": "yes"}))["outcome"], "not_enabled");
}

#[test]
fn nothing_is_told_of_static_pods() {
    let mistaken = || pod(json!({"dapr.io/enabled": "yes"}));
    assert!(Case::default().decide(&mistaken()).refusal.is_some());
    let mut mirror = mistaken();
    mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"] = json!("hash");
    assert_eq!(Case::default().decide(&mirror).refusal, None);
    let mut owned = mistaken();
    owned["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": "Node", "name": "n", "controller": true}]);
    assert_eq!(Case::default().decide(&owned).refusal, None);
}

/// The operator takes 4 MiB in one call, and what one pod says must not cost others their Events.
#[test]
fn what_is_told_of_a_pod_is_bounded() {
    let long = "A".repeat(1 << 20);
    let mut pod = pod(json!({"dapr.io/enabled": "true", "dapr.io/app-id": long}));
    pod["metadata"]["name"] = json!(long);
    pod["metadata"]["generateName"] = json!(long);
    pod["metadata"]["ownerReferences"] =
        json!([{"apiVersion": long, "kind": long, "name": long, "uid": long, "controller": true}]);
    let decision = Case::default().decide(&pod);
    let audit = decision.audit();
    assert_eq!(audit["app-id"].len(), MAX_NAME);
    assert_eq!(audit["message"].len(), MAX_MESSAGE);
    let Refusal {
        namespace,
        pod,
        generate_name,
        owner,
        message,
        ..
    } = decision.refusal.unwrap();
    assert_eq!(namespace, "shop");
    assert!(message.starts_with("invalid app id (input: 'AAA") && message.len() == MAX_MESSAGE);
    let owner = owner.unwrap();
    for name in [pod, generate_name, owner.api_version, owner.kind, owner.name, owner.uid] {
        assert!(name.len() == MAX_NAME && name.ends_with('…'), "{}", name.len());
    }
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
        Answer::Patched(operations) => String::from_utf8(operations.as_json().to_vec()).unwrap(),
        other => panic!("{other:?}"),
    };
    let case = Case::default();
    assert!(arguments(&case).contains("\"--enable-mtls\""));
    case.cluster.set_mtls(false);
    assert!(!arguments(&case).contains("\"--enable-mtls\""));
}
