//! Who may do what: the whole list for every account, since a right that no code uses has no place in it. A watch needs `list`
//! and `watch`, a read by name `get`, an apply of an object that may be new `create` and `patch`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::helm::{NAMESPACE, Release, name_of, render, texts};

const KINDS: [&str; 7] = [
    "components",
    "configurations",
    "httpendpoints",
    "mcpservers",
    "resiliencies",
    "subscriptions",
    "workflowaccesspolicies",
];

/// Every right of a service account: `scope group/resource verbs`, with `[names]` where it is limited to them. Scope is a
/// namespace or `*`.
fn rights(release: &Release, account: &str) -> BTreeSet<String> {
    let mut rights: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
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
                for (resource, names) in resources(rule) {
                    let right = rights.entry((format!("{scope} {resource}"), names)).or_default();
                    right.extend(texts(&rule["verbs"]));
                }
            }
        }
    }
    let spell = |((resource, names), verbs): ((String, String), BTreeSet<&str>)| {
        assert!(!verbs.contains("*"), "a wildcard grants what nobody asked for");
        let verbs: Vec<_> = verbs.into_iter().collect();
        format!("{resource} {}{names}", verbs.join(","))
    };
    rights.into_iter().map(spell).collect()
}

fn rules<'a>(release: &'a Release, kind: &str, binding: &Value) -> &'a [Value] {
    let role = release.of_kind(kind).find(|role| {
        role["metadata"]["name"] == binding["roleRef"]["name"]
            && role["metadata"]["namespace"] == binding["metadata"]["namespace"]
    });
    role.and_then(|role| role["rules"].as_array()).expect("the bound role")
}

/// `group/resource` of a rule, each with the names that it is limited to.
fn resources(rule: &Value) -> Vec<(String, String)> {
    let names = rule.get("resourceNames");
    let names = names.map(|names| format!(" [{}]", texts(names).join(" ")));
    let names = names.unwrap_or_default();
    let mut resources = Vec::new();
    for group in texts(&rule["apiGroups"]) {
        for resource in texts(&rule["resources"]) {
            assert!(
                ![group, resource].contains(&"*"),
                "a wildcard grants what nobody asked for"
            );
            resources.push((format!("{group}/{resource}"), names.clone()));
        }
    }
    resources
}

fn lines<'a>(lines: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    lines.into_iter().map(str::to_owned).collect()
}

/// What the first release grants an account and the second does not.
fn more(first: &str, second: &str, account: &str) -> BTreeSet<String> {
    &rights(&render(first), account) - &rights(&render(second), account)
}

/// What the operator needs wherever apps are.
fn operator_rights(scope: &str) -> BTreeSet<String> {
    let mut expected = lines([
        "dapr-system /configmaps get [dapr-trust-bundle]",
        "dapr-system coordination.k8s.io/leases create",
        "dapr-system coordination.k8s.io/leases get,update [operator.dapr.io]",
        "* apiextensions.k8s.io/customresourcedefinitions list,patch,watch [subscriptions.dapr.io]",
        "* admissionregistration.k8s.io/mutatingwebhookconfigurations list,watch [dapr-sidecar-injector]",
        "dapr-system /services list,watch [dapr-sidecar-injector]",
        "dapr-system discovery.k8s.io/endpointslices list,watch",
    ]);
    expected.extend(KINDS.map(|kind| format!("{scope} dapr.io/{kind} get,list,watch")));
    expected.extend(KINDS.map(|kind| format!("{scope} dapr.io/{kind}/status patch")));
    let others = [
        "/namespaces get",
        "/pods get,list,watch",
        "/secrets get,list,watch",
        "/configmaps create,list,patch,watch [dapr-root-ca.crt]",
        "/services create,delete,get,list,patch,watch",
        "apps/deployments list,watch",
        "apps/deployments/finalizers update",
        "apps/statefulsets list,watch",
        "apps/statefulsets/finalizers update",
        "apps/daemonsets list,watch",
        "apps/daemonsets/finalizers update",
        "events.k8s.io/events create,patch",
    ];
    expected.extend(others.map(|right| format!("{scope} {right}")));
    expected
}

#[test]
fn the_operator() {
    assert_eq!(rights(&render(""), "dapr-operator"), operator_rights("*"));
}

#[test]
fn the_injector() {
    assert_eq!(
        rights(&render(""), "dapr-injector"),
        lines([
            "* /serviceaccounts get",
            "* admissionregistration.k8s.io/mutatingwebhookconfigurations list,patch,watch [dapr-sidecar-injector]",
            "* dapr.io/components list,watch",
            "dapr-system /configmaps get [dapr-trust-bundle]",
            "dapr-system dapr.io/configurations list,watch",
        ])
    );
}

#[test]
fn sentry() {
    assert_eq!(
        rights(&render(""), "dapr-sentry"),
        lines([
            "* /pods get,list,watch",
            "* authentication.k8s.io/tokenreviews create",
            "* dapr.io/configurations get,list,watch",
            "dapr-system /configmaps get,list,update,watch [dapr-trust-bundle]",
            "dapr-system /secrets get,list,update,watch [dapr-trust-bundle]",
            "dapr-system events.k8s.io/events create,patch",
        ])
    );
}

#[test]
fn the_operator_evicts_only_with_the_watchdog() {
    let watchdog = lines(["* /pods/eviction create"]);
    for (interval, expected) in [
        ("'0'", &BTreeSet::new()),
        ("0", &BTreeSet::new()),
        ("'Off'", &BTreeSet::new()),
        ("once", &watchdog),
        ("30s", &watchdog),
    ] {
        let values = format!("dapr_operator: {{watchInterval: {interval}}}");
        assert_eq!(
            more(&values, "", "dapr-operator"),
            *expected,
            "watchInterval {interval}"
        );
    }
    let on = "dapr_operator: {watchInterval: 1m}";
    let labels = "{dapr_operator: {watchInterval: 1m}, global: {operator: {watchdogCanPatchPodLabels: true}}}";
    assert_eq!(
        more(labels, on, "dapr-operator"),
        lines(["* /pods get,list,patch,watch"])
    );
    let release = render(labels);
    assert!(texts(&release.container("dapr-operator")["args"]).contains(&"--watchdog-can-patch-pod-labels"));
}

#[test]
fn secrets_can_be_narrowed_to_namespaces() {
    let narrowed = "dapr_operator: {secretNamespaces: [shop, bank, shop]}";
    assert_eq!(
        more(narrowed, "", "dapr-operator"),
        lines(["bank /secrets get,list,watch", "shop /secrets get,list,watch"])
    );
    assert_eq!(
        more("", narrowed, "dapr-operator"),
        lines(["* /secrets get,list,watch"])
    );
    let release = render(narrowed);
    let roles = release
        .of_kind("Role")
        .filter(|role| name_of(role) == "dapr-operator-secrets");
    assert_eq!(roles.count(), 2);
}

#[test]
fn services_are_granted_with_their_reconciler() {
    let off = "dapr_operator: {serviceReconciler: {enabled: false}}";
    assert_eq!(
        more("", off, "dapr-operator"),
        lines([
            "* /services create,delete,get,list,patch,watch",
            "* apps/deployments list,watch",
            "* apps/deployments/finalizers update",
            "* apps/statefulsets list,watch",
            "* apps/statefulsets/finalizers update",
            "* apps/daemonsets list,watch",
            "* apps/daemonsets/finalizers update",
        ])
    );
    let release = render(off);
    assert!(texts(&release.container("dapr-operator")["args"]).contains(&"--disable-service-reconciler"));

    let rollouts = "global: {argoRolloutServiceReconciler: {enabled: true}}";
    assert_eq!(
        more(rollouts, "", "dapr-operator"),
        lines([
            "* argoproj.io/rollouts list,watch",
            "* argoproj.io/rollouts/finalizers update",
        ])
    );
    let flag = "--enable-argo-rollout-service-reconciler";
    assert!(texts(&render(rollouts).container("dapr-operator")["args"]).contains(&flag));
    assert!(!texts(&render("").container("dapr-operator")["args"]).contains(&flag));
}

#[test]
fn trust_is_distributed_by_all_or_none() {
    let off = "global: {trustDistribution: {enabled: false}}";
    assert_eq!(
        more("", off, "dapr-operator"),
        lines(["* /configmaps create,list,patch,watch [dapr-root-ca.crt]"])
    );
    let release = render(off);
    assert!(!texts(&release.container("dapr-operator")["args"]).contains(&"--trust-distribution"));
    let environment = release.container("dapr-sidecar-injector")["env"]
        .as_array()
        .expect("env");
    assert!(
        environment
            .iter()
            .all(|variable| variable["name"] != "TRUST_DISTRIBUTION_ENABLED")
    );
}

#[test]
fn a_namespaced_release_has_no_rights_elsewhere() {
    let release =
        render("{global: {rbac: {namespaced: true}}, dapr_operator: {watchNamespace: dapr-system, watchInterval: 1m}}");
    let mut expected = operator_rights(NAMESPACE);
    expected.extend(lines(["dapr-system /pods/eviction create"]));
    assert_eq!(rights(&release, "dapr-operator"), expected);
    assert_eq!(
        rights(&release, "dapr-injector"),
        lines([
            "* /serviceaccounts get",
            "* admissionregistration.k8s.io/mutatingwebhookconfigurations list,patch,watch [dapr-sidecar-injector]",
            "dapr-system /configmaps get [dapr-trust-bundle]",
            "dapr-system dapr.io/components list,watch",
            "dapr-system dapr.io/configurations list,watch",
        ])
    );
    assert_eq!(
        rights(&release, "dapr-sentry"),
        lines([
            "* authentication.k8s.io/tokenreviews create",
            "dapr-system /configmaps get,list,update,watch [dapr-trust-bundle]",
            "dapr-system /pods get,list,watch",
            "dapr-system /secrets get,list,update,watch [dapr-trust-bundle]",
            "dapr-system dapr.io/configurations get,list,watch",
            "dapr-system events.k8s.io/events create,patch",
        ])
    );
    assert!(!release.names("ClusterRole").contains("dapr-operator-admin"));

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
    assert_eq!(
        rules(&release, "Role", binding),
        [json!({ "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"] })]
    );
}
