//! Whether the webhook is called for a pod, as the API server decides it. No I/O.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::admissionregistration::v1::{MutatingWebhook, RuleWithOperations},
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::core::{Expression, Selector, SelectorExt};
use outrigger_core::annotations;

use super::reason::{Finding, Reason};

/// Label that the API server keeps on every namespace.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// The chart's conditions.
const HAS_ANNOTATION: &str =
    "has(object.metadata.annotations) && object.metadata.annotations.exists(k, k.startsWith('dapr.io/'))";
const NOT_CONTROL_PLANE: &str =
    "!has(object.metadata.annotations) || !('dapr.io/control-plane' in object.metadata.annotations)";

/// The namespace of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Namespace {
    pub(super) name: String,
    /// `None` when they cannot be read.
    pub(super) labels: Option<BTreeMap<String, String>>,
}

/// Why the webhook is not called for a pod, if it is not. `control_plane` is the control plane's namespace.
pub(super) fn unselected(
    webhook: &MutatingWebhook,
    pod: &Pod,
    namespace: &Namespace,
    control_plane: &str,
) -> Option<Finding> {
    if !webhook.rules.iter().flatten().any(covers_new_pods) {
        let why = "the webhook's rules do not cover the creation of pods";
        return Some(Finding::new(Reason::WebhookIgnoresPods, why));
    }
    by_namespace(webhook.namespace_selector.as_ref(), namespace, control_plane)
        .or_else(|| by_labels(webhook.object_selector.as_ref(), pod))
        .or_else(|| by_conditions(webhook, pod))
}

fn covers_new_pods(rule: &RuleWithOperations) -> bool {
    let has = |list: &Option<Vec<String>>, wanted: &[&str]| {
        let mut list = list.iter().flatten();
        list.any(|item| wanted.contains(&item.as_str()))
    };
    has(&rule.api_groups, &["", "*"])
        && has(&rule.api_versions, &["v1", "*"])
        && has(&rule.resources, &["pods", "*", "*/*"])
        && has(&rule.operations, &["CREATE", "*"])
        && rule.scope.as_deref() != Some("Cluster")
}

fn by_namespace(selector: Option<&LabelSelector>, namespace: &Namespace, control_plane: &str) -> Option<Finding> {
    let name = &namespace.name;
    let mut labels = namespace.labels.clone().unwrap_or_default();
    labels.entry(NAME_LABEL.to_owned()).or_insert_with(|| name.clone());
    let told_by_name = |unmet: &Expression| matches!(unmet, Expression::In(key, _) | Expression::NotIn(key, _) | Expression::Equal(key, _) if key == NAME_LABEL);
    let unmet = unmet(selector?, &labels).into_iter();
    // Without the labels only the name is certain.
    let unmet = unmet.filter(|unmet| namespace.labels.is_some() || told_by_name(unmet));
    let unmet: Vec<_> = unmet.collect();
    let excluded = |unmet: &Expression| matches!(unmet, Expression::NotIn(key, names) if key == NAME_LABEL && names.contains(name));
    if ["kube-system", control_plane].contains(&name.as_str()) && unmet.iter().any(excluded) {
        let why = format!("the webhook leaves out namespace {name}, whatever its pods ask for");
        return Some(Finding::new(Reason::NamespaceExcluded, why));
    }
    let requirement = unmet.first()?;
    let why = format!(
        "the webhook's namespaceSelector wants {requirement}, and namespace {name} has {}",
        value_of(requirement, &labels)
    );
    Some(Finding::new(Reason::NamespaceNotSelected, why))
}

fn by_labels(selector: Option<&LabelSelector>, pod: &Pod) -> Option<Finding> {
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let unmet = unmet(selector?, &labels);
    let requirement = unmet.first()?;
    let why = format!(
        "the webhook's objectSelector wants {requirement}, and the pod has {}",
        value_of(requirement, &labels)
    );
    Some(Finding::new(Reason::PodNotSelected, why))
}

/// Conditions are a language of their own. The chart's are known; of others only that they are there.
fn by_conditions(webhook: &MutatingWebhook, pod: &Pod) -> Option<Finding> {
    let has = |wanted: fn(&str) -> bool| pod.metadata.annotations.iter().flatten().any(|(key, _)| wanted(key));
    for condition in webhook.match_conditions.iter().flatten() {
        let met = match squeezed(&condition.expression).as_str() {
            text if text == squeezed(HAS_ANNOTATION) => Some(has(|key| key.starts_with("dapr.io/"))),
            text if text == squeezed(NOT_CONTROL_PLANE) => Some(!has(|key| key == annotations::CONTROL_PLANE)),
            _ => None,
        };
        let (name, expression) = (&condition.name, &condition.expression);
        let why = match met {
            Some(true) => continue,
            Some(false) => format!("the webhook's match condition {name} is not met: {expression}"),
            None => format!(
                "the webhook has a match condition that is not the chart's, {name}, which may leave it out: {expression}"
            ),
        };
        return Some(Finding::new(Reason::MatchConditionNotMet, why));
    }
    None
}

fn squeezed(expression: &str) -> String {
    expression.split_whitespace().collect()
}

/// The requirements of a selector that labels do not meet.
fn unmet(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> Vec<Expression> {
    // The API server does not store a selector that this refuses.
    let selector = Selector::try_from(selector.clone()).unwrap_or_default();
    selector
        .into_iter()
        .filter(|requirement| !requirement.matches(labels))
        .collect()
}

fn value_of(requirement: &Expression, labels: &BTreeMap<String, String>) -> String {
    let (Expression::In(key, _)
    | Expression::NotIn(key, _)
    | Expression::Equal(key, _)
    | Expression::NotEqual(key, _)
    | Expression::Exists(key)
    | Expression::DoesNotExist(key)) = requirement;
    match labels.get(key) {
        Some(value) => format!("{key}={value}"),
        None => format!("no label {key}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::missing::admission::tests::admission;

    fn labels(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
        labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    /// Reason and sentence for a pod of namespace `shop` (or another) with the label `app: cart`.
    fn judge(namespace: &str, change: impl FnOnce(&mut Value)) -> Option<(Reason, String)> {
        let pod = json!({"metadata": {
            "name": "cart-1", "labels": {"app": "cart"}, "annotations": {"dapr.io/enabled": "true"},
        }});
        let admission = admission(|configuration| change(&mut configuration["webhooks"][0]));
        let namespace = Namespace {
            name: namespace.to_owned(),
            labels: Some(labels(&[(NAME_LABEL, namespace), ("team", "blue")])),
        };
        let pod = serde_json::from_value(pod).unwrap();
        let found = unselected(admission.webhook().unwrap(), &pod, &namespace, "dapr-system");
        found.map(|finding| (finding.reason, finding.note))
    }

    #[test]
    fn the_charts_registration_selects_what_it_should() {
        assert_eq!(judge("shop", |_| {}), None);
        for excluded in ["kube-system", "dapr-system"] {
            let (reason, note) = judge(excluded, |_| {}).unwrap();
            assert_eq!(reason, Reason::NamespaceExcluded);
            assert_eq!(
                note,
                format!("no Dapr sidecar: the webhook leaves out namespace {excluded}, whatever its pods ask for")
            );
        }
    }

    #[test]
    fn the_unmet_requirement_is_named() {
        let expression = |key: &str, operator: &str, values: Value| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        let cases = [
            (
                json!({"matchLabels": {"dapr": "on"}}),
                "dapr=on, and the pod has no label dapr",
            ),
            (
                json!({"matchLabels": {"app": "web"}}),
                "app=web, and the pod has app=cart",
            ),
            (
                expression("app", "NotIn", json!(["cart"])),
                "app notin (cart), and the pod has app=cart",
            ),
            (
                expression("app", "In", json!(["a", "b"])),
                "app in (a,b), and the pod has app=cart",
            ),
            (
                expression("dapr", "Exists", Value::Null),
                "dapr, and the pod has no label dapr",
            ),
            (
                expression("app", "DoesNotExist", Value::Null),
                "!app, and the pod has app=cart",
            ),
        ];
        for (selector, expected) in cases {
            let (reason, note) = judge("shop", |webhook| webhook["objectSelector"] = selector).unwrap();
            assert_eq!(reason, Reason::PodNotSelected);
            assert_eq!(
                note,
                format!("no Dapr sidecar: the webhook's objectSelector wants {expected}")
            );
        }
        let (reason, note) = judge("shop", |webhook| {
            webhook["namespaceSelector"] = json!({"matchLabels": {"team": "red"}});
        })
        .unwrap();
        assert_eq!(reason, Reason::NamespaceNotSelected);
        assert_eq!(
            note,
            "no Dapr sidecar: the webhook's namespaceSelector wants team=red, and namespace shop has team=blue"
        );
        for met in [
            json!({"matchLabels": {"app": "cart"}}),
            expression("gone", "NotIn", json!(["cart"])),
            expression("gone", "DoesNotExist", Value::Null),
            json!({}),
        ] {
            assert_eq!(judge("shop", |webhook| webhook["objectSelector"] = met), None);
        }
    }

    #[test]
    fn without_the_namespaces_labels_only_its_name_is_judged() {
        let admission = admission(|configuration| {
            configuration["webhooks"][0]["namespaceSelector"]["matchLabels"] = json!({"team": "red"});
        });
        let judge = |name: &str| {
            let namespace = Namespace {
                name: name.to_owned(),
                labels: None,
            };
            unselected(admission.webhook().unwrap(), &Pod::default(), &namespace, "dapr-system")
        };
        assert_eq!(judge("shop"), None);
        assert_eq!(judge("dapr-system").unwrap().reason, Reason::NamespaceExcluded);
    }

    #[test]
    fn rules_that_leave_out_new_pods_are_told() {
        for (field, value) in [
            ("apiGroups", "apps"),
            ("apiVersions", "v2"),
            ("resources", "services"),
            ("resources", "pods/exec"),
            ("operations", "UPDATE"),
        ] {
            let (reason, _) = judge("shop", |webhook| webhook["rules"][0][field] = json!([value])).unwrap();
            assert_eq!(reason, Reason::WebhookIgnoresPods, "{field} {value}");
        }
        assert_eq!(
            judge("shop", |webhook| webhook["rules"][0]["operations"] = json!(["*"])),
            None
        );
    }

    #[test]
    fn conditions_of_the_chart_are_evaluated_and_others_are_named() {
        let condition = |name: &str, expression: &str| json!([{"name": name, "expression": expression}]);
        let judge = |conditions: Value| judge("shop", |webhook| webhook["matchConditions"] = conditions);
        assert_eq!(judge(condition("has-dapr-annotation", HAS_ANNOTATION)), None);
        assert_eq!(
            judge(condition("not-control-plane", &format!("{NOT_CONTROL_PLANE}\n"))),
            None
        );
        let (reason, note) = judge(condition("blue-only", "object.metadata.labels['team'] == 'blue'")).unwrap();
        assert_eq!(reason, Reason::MatchConditionNotMet);
        assert!(
            note.contains("blue-only") && note.contains("may leave it out"),
            "{note}"
        );
    }

    #[test]
    fn the_conditions_in_the_chart_are_these() {
        let chart = include_str!(
            "../../../charts/dapr/charts/dapr_sidecar_injector/templates/dapr_sidecar_injector_webhook_config.yaml"
        );
        let expressions = chart
            .lines()
            .filter_map(|line| line.trim().strip_prefix("expression: "));
        let expressions: Vec<_> = expressions.map(|text| text.trim_matches('"')).collect();
        assert_eq!(expressions, [HAS_ANNOTATION, NOT_CONTROL_PLANE]);
    }
}
