//! Who may do what. Every right here is one that a feature uses, so what is switched off is not granted.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::helm::{NAMESPACE, Release, name_of, render, texts};

/// Every right of a service account: `scope group/resource verb`, with `[names]` where it is limited to them. Scope is a
/// namespace or `*`.
fn rights(release: &Release, account: &str) -> BTreeSet<String> {
    let mut rights = BTreeSet::new();
    for kind in ["Role", "ClusterRole"] {
        for binding in release.of_kind(&format!("{kind}Binding")) {
            assert_eq!(binding["roleRef"]["kind"], kind);
            let scope = binding["metadata"]["namespace"].as_str().unwrap_or("*");
            let subject = &binding["subjects"][0];
            assert_eq!(subject["kind"], "ServiceAccount");
            if subject["name"] != account {
                continue;
            }
            assert_eq!(subject["namespace"], NAMESPACE);
            for rule in rules(release, kind, binding) {
                for right in spell(rule) {
                    rights.insert(format!("{scope} {right}"));
                }
            }
        }
    }
    rights
}

fn rules<'a>(release: &'a Release, kind: &str, binding: &Value) -> &'a [Value] {
    let role = release.of_kind(kind).find(|role| {
        role["metadata"]["name"] == binding["roleRef"]["name"]
            && role["metadata"]["namespace"] == binding["metadata"]["namespace"]
    });
    role.and_then(|role| role["rules"].as_array()).expect("the bound role")
}

fn spell(rule: &Value) -> Vec<String> {
    let names = rule
        .get("resourceNames")
        .map(|names| format!(" [{}]", texts(names).join(" ")));
    let names = names.unwrap_or_default();
    let mut rights = Vec::new();
    for group in texts(&rule["apiGroups"]) {
        for resource in texts(&rule["resources"]) {
            for verb in texts(&rule["verbs"]) {
                assert!(
                    ![group, resource, verb].contains(&"*"),
                    "a wildcard grants what nobody asked for"
                );
                rights.push(format!("{group}/{resource} {verb}{names}"));
            }
        }
    }
    rights
}

fn has(rights: &BTreeSet<String>, part: &str) -> bool {
    rights.iter().any(|right| right.contains(part))
}

#[test]
fn the_operator_may_not_delete_pods_and_evicts_only_with_the_watchdog() {
    for (interval, on) in [
        ("'0'", false),
        ("0", false),
        ("'Off'", false),
        ("once", true),
        ("30s", true),
    ] {
        let release = render(&format!("dapr_operator: {{watchInterval: {interval}}}"));
        let rights = rights(&release, "dapr-operator");
        assert!(rights.contains("* /pods watch"));
        assert!(!has(&rights, "/pods delete") && !has(&rights, "/pods patch"));
        assert_eq!(
            rights.contains("* /pods/eviction create"),
            on,
            "watchInterval {interval}"
        );
        let webhook = "* admissionregistration.k8s.io/mutatingwebhookconfigurations get [dapr-sidecar-injector]";
        assert_eq!(rights.contains(webhook), on);
    }
    let values = "{dapr_operator: {watchInterval: 1m}, global: {operator: {watchdogCanPatchPodLabels: true}}}";
    let release = render(values);
    assert!(rights(&release, "dapr-operator").contains("* /pods patch"));
    assert!(texts(&release.container("dapr-operator")["args"]).contains(&"--watchdog-can-patch-pod-labels"));
}

#[test]
fn secrets_can_be_narrowed_to_namespaces() {
    let everywhere = rights(&render(""), "dapr-operator");
    for verb in ["get", "list", "watch"] {
        assert!(everywhere.contains(&format!("* /secrets {verb}")));
    }
    let release = render("dapr_operator: {secretNamespaces: [shop, bank, shop]}");
    let narrowed = rights(&release, "dapr-operator");
    assert!(!has(&narrowed, "* /secrets"));
    assert!(narrowed.contains("shop /secrets watch") && narrowed.contains("bank /secrets get"));
    let roles = release
        .of_kind("Role")
        .filter(|role| name_of(role) == "dapr-operator-secrets");
    assert_eq!(roles.count(), 2);
}

#[test]
fn services_are_granted_with_their_reconciler() {
    let on = rights(&render(""), "dapr-operator");
    assert!(on.contains("* /services create") && on.contains("* apps/deployments/finalizers update"));
    let release = render("dapr_operator: {serviceReconciler: {enabled: false}}");
    let off = rights(&release, "dapr-operator");
    assert!(!has(&off, "/services") && !has(&off, "apps/"));
    assert!(texts(&release.container("dapr-operator")["args"]).contains(&"--disable-service-reconciler"));
    let argo = rights(
        &render("global: {argoRolloutServiceReconciler: {enabled: true}}"),
        "dapr-operator",
    );
    assert!(argo.contains("* argoproj.io/rollouts watch") && !has(&argo, "argoproj.io/rollouts delete"));
}

#[test]
fn custom_resource_definitions_are_named() {
    let rights = rights(&render(""), "dapr-operator");
    assert!(rights.contains("* apiextensions.k8s.io/customresourcedefinitions patch [subscriptions.dapr.io]"));
    for right in rights
        .iter()
        .filter(|right| right.contains("customresourcedefinitions"))
    {
        assert!(right.contains('['), "{right}");
    }
    for kind in [
        "components",
        "configurations",
        "httpendpoints",
        "mcpservers",
        "resiliencies",
        "subscriptions",
        "workflowaccesspolicies",
    ] {
        assert!(rights.contains(&format!("* dapr.io/{kind} watch")));
        assert!(rights.contains(&format!("* dapr.io/{kind}/status patch")));
        assert!(!rights.contains(&format!("* dapr.io/{kind} patch")));
    }
}

#[test]
fn the_injector_and_sentry_write_only_their_own_objects() {
    let release = render("");
    let writes = |account: &str| {
        let rights = rights(&release, account).into_iter();
        let reads = [" get", " list", " watch"];
        let writes = rights.filter(|right| {
            !reads
                .iter()
                .any(|verb| right.ends_with(verb) || right.contains(&format!("{verb} [")))
        });
        writes.collect::<Vec<_>>()
    };
    assert_eq!(
        writes("dapr-injector"),
        ["* admissionregistration.k8s.io/mutatingwebhookconfigurations patch [dapr-sidecar-injector]"]
    );
    assert_eq!(
        writes("dapr-sentry"),
        [
            "* authentication.k8s.io/tokenreviews create",
            "dapr-system /configmaps patch [dapr-trust-bundle]",
            "dapr-system /configmaps update [dapr-trust-bundle]",
            "dapr-system /secrets patch [dapr-trust-bundle]",
            "dapr-system /secrets update [dapr-trust-bundle]",
        ]
    );
    assert!(!has(&rights(&release, "dapr-injector"), "/secrets"));
}

#[test]
fn a_namespaced_release_has_no_rights_elsewhere() {
    let release =
        render("{global: {rbac: {namespaced: true}}, dapr_operator: {watchNamespace: dapr-system, watchInterval: 1m}}");
    let cluster = |account| {
        let rights = rights(&release, account).into_iter();
        rights
            .filter(|right| right.starts_with("* ") && !right.contains('['))
            .collect::<Vec<_>>()
    };
    assert!(cluster("dapr-operator").is_empty());
    assert_eq!(
        cluster("dapr-injector"),
        ["* /serviceaccounts get", "* /serviceaccounts list"]
    );
    assert_eq!(cluster("dapr-sentry"), ["* authentication.k8s.io/tokenreviews create"]);
    let operator = rights(&release, "dapr-operator");
    for right in [
        "/pods watch",
        "/pods/eviction create",
        "/secrets watch",
        "/services create",
        "dapr.io/components watch",
    ] {
        assert!(operator.contains(&format!("{NAMESPACE} {right}")), "{right}");
    }
    assert!(rights(&release, "dapr-sentry").contains("dapr-system /pods watch"));
    assert!(rights(&release, "dapr-injector").contains("dapr-system dapr.io/components watch"));

    let webhook = &release.object("MutatingWebhookConfiguration", "dapr-sidecar-injector")["webhooks"][0];
    let scope = &webhook["namespaceSelector"]["matchExpressions"][0];
    assert_eq!(
        (scope["operator"].as_str(), texts(&scope["values"])),
        (Some("In"), vec![NAMESPACE])
    );
    assert_eq!(webhook["matchConditions"][1]["name"], "not-control-plane");
}

#[test]
fn no_secret_reader_unless_asked_for() {
    assert!(!render("").text.contains("secret-reader"));
    let release = render("dapr_rbac: {secretReader: {enabled: true, namespace: shop}}");
    let binding = release.object("RoleBinding", "dapr-secret-reader");
    assert_eq!(binding["metadata"]["namespace"], "shop");
    assert_eq!(spell(&rules(&release, "Role", binding)[0]), ["/secrets get"]);
}
