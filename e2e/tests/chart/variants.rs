//! What values change.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::helm::{NAMESPACE, Release, render, texts};

const WORKLOADS: [&str; 3] = ["dapr-operator", "dapr-sentry", "dapr-sidecar-injector"];

fn variable<'a>(release: &'a Release, workload: &str, name: &str) -> Option<&'a Value> {
    let environment = release.container(workload)["env"].as_array().expect("env");
    environment
        .iter()
        .find(|variable| variable["name"] == name)
        .map(|variable| &variable["value"])
}

#[test]
fn high_availability() {
    let release = render("global: {ha: {enabled: true}}");
    for workload in WORKLOADS {
        assert_eq!(release.object("Deployment", workload)["spec"]["replicas"], 3);
        let affinity = &release.pod(workload)["spec"]["affinity"]["podAntiAffinity"];
        let preferred = &affinity["preferredDuringSchedulingIgnoredDuringExecution"][0];
        assert_eq!(preferred["weight"], 100);
        assert_eq!(
            preferred["podAffinityTerm"]["topologyKey"],
            "topology.kubernetes.io/zone"
        );
    }
    for (name, app) in [
        ("dapr-operator-disruption-budget", "dapr-operator"),
        ("dapr-sentry-budget", "dapr-sentry"),
        ("dapr-sidecar-injector-disruption-budget", "dapr-sidecar-injector"),
    ] {
        let budget = release.object("PodDisruptionBudget", name);
        assert_eq!(budget["apiVersion"], "policy/v1");
        assert_eq!(
            budget["spec"],
            json!({ "maxUnavailable": "25%", "selector": { "matchLabels": { "app": app } } })
        );
    }
}

#[test]
fn a_disruption_budget_has_one_limit() {
    for (disruption, expected) in [
        ("minimumAvailable: 1", json!({ "minAvailable": 1 })),
        ("minimumAvailable: 50%", json!({ "minAvailable": "50%" })),
        ("maximumUnavailable: 0", json!({ "maxUnavailable": 0 })),
        ("maximumUnavailable: ''", json!({})),
    ] {
        let release = render(&format!(
            "global: {{ha: {{enabled: true, disruption: {{{disruption}}}}}}}"
        ));
        let mut spec = release.object("PodDisruptionBudget", "dapr-sentry-budget")["spec"].clone();
        spec.as_object_mut().expect("a spec").remove("selector");
        assert_eq!(spec, expected);
    }
}

#[test]
fn texts_stay_texts() {
    let release = render(
        r#"
global: {tag: 1.16, labels: {level: 1}}
dapr_operator: {extraEnvVars: {QUOTE: 'say "hi" \ # {{ x }}', COUNT: 1000000, FLAG: true}, deploymentAnnotations: {size: 3}}
dapr_sentry: {extraEnvVars: {QUOTE: 'say "hi"'}}
dapr_sidecar_injector: {extraEnvVars: {QUOTE: 'say "hi"'}}
"#,
    );
    let operator = |name| variable(&release, "dapr-operator", name).expect("the variable");
    assert_eq!(operator("QUOTE"), r#"say "hi" \ # {{ x }}"#);
    assert_eq!(operator("COUNT"), "1000000");
    assert_eq!(operator("FLAG"), "true");
    for workload in ["dapr-sentry", "dapr-sidecar-injector"] {
        assert_eq!(
            variable(&release, workload, "QUOTE").expect("the variable"),
            r#"say "hi""#
        );
    }
    for object in &release.objects {
        assert_eq!(object["metadata"]["labels"]["app.kubernetes.io/version"], "1.16");
    }
    let pod = &release.pod("dapr-operator")["metadata"];
    assert_eq!(
        (&pod["labels"]["level"], &pod["annotations"]["size"]),
        (&json!("1"), &json!("3"))
    );
    assert_eq!(
        release.container("dapr-operator")["image"],
        "localhost/outrigger/operator:1.16"
    );
}

#[test]
fn images() {
    let release = render(
        "global: {registry: registry.example/x, tag: v1, imagePullSecrets: [a, b]}
dapr_sidecar_injector: {image: {name: 'other.example/daprd:2'}}",
    );
    assert_eq!(
        release.container("dapr-sentry")["image"],
        "registry.example/x/sentry:v1"
    );
    assert_eq!(
        variable(&release, "dapr-sidecar-injector", "SIDECAR_IMAGE").expect("the variable"),
        "other.example/daprd:2"
    );
    for secrets in ["[a, b]", "[{name: a}, {name: b}]"] {
        let release = render(&format!("global: {{imagePullSecrets: {secrets}}}"));
        let expected = json!([{ "name": "a" }, { "name": "b" }]);
        assert_eq!(release.pod("dapr-operator")["spec"]["imagePullSecrets"], expected);
    }
    let release = render("global: {imagePullSecrets: a}");
    assert_eq!(
        release.pod("dapr-sentry")["spec"]["imagePullSecrets"],
        json!([{ "name": "a" }])
    );
}

#[test]
fn the_main_container_comes_first() {
    let part = "[{name: extra, image: x}]";
    let parts = format!("{{operator: {part}, sentry: {part}, injector: {part}}}");
    let release = render(&format!(
        "global: {{extraContainers: {parts}, initContainers: {parts}}}"
    ));
    for workload in WORKLOADS {
        let spec = &release.pod(workload)["spec"];
        let containers = spec["containers"].as_array().expect("containers");
        let names: Vec<_> = containers.iter().map(|container| &container["name"]).collect();
        assert_eq!(names, [&json!(workload), &json!("extra")]);
        assert_eq!(spec["initContainers"], json!([{ "name": "extra", "image": "x" }]));
    }
}

#[test]
fn logs_and_metrics() {
    let release = render("global: {logAsJson: true, prometheus: {enabled: false}}");
    for workload in WORKLOADS {
        let arguments = texts(&release.container(workload)["args"]);
        assert!(arguments.contains(&"--log-as-json") && arguments.contains(&"--enable-metrics=false"));
        let ports = release.container(workload)["ports"].as_array().expect("ports");
        assert!(ports.iter().all(|port| port["name"] != "metrics"));
        assert!(
            release.pod(workload)["metadata"]["annotations"]
                .get("prometheus.io/port")
                .is_none()
        );
    }
    for service in release.of_kind("Service") {
        assert!(service["metadata"].get("annotations").is_none());
    }
}

#[test]
fn the_webhook_keeps_the_selectors_of_the_values() {
    let release = render(
        "dapr_sidecar_injector:
  webhookFailurePolicy: Fail
  namespaceSelector: {matchLabels: {team: shop}, matchExpressions: [{key: dev, operator: Exists}]}
  objectSelector: {matchLabels: {team: shop}}",
    );
    let webhook = &release.object("MutatingWebhookConfiguration", "dapr-sidecar-injector")["webhooks"][0];
    assert_eq!(webhook["failurePolicy"], "Fail");
    assert_eq!(webhook["objectSelector"], json!({ "matchLabels": { "team": "shop" } }));
    assert_eq!(webhook["namespaceSelector"]["matchLabels"], json!({ "team": "shop" }));
    let expressions = webhook["namespaceSelector"]["matchExpressions"]
        .as_array()
        .expect("expressions");
    assert_eq!(expressions[0], json!({ "key": "dev", "operator": "Exists" }));
    assert_eq!(expressions[1]["values"], json!(["kube-system", NAMESPACE]));
}

#[test]
fn without_the_injector() {
    let release = render("{dapr_sidecar_injector: {enabled: false}, global: {ha: {enabled: true}}}");
    assert_eq!(
        release.names("Deployment"),
        BTreeSet::from(["dapr-operator", "dapr-sentry"])
    );
    assert!(release.of_kind("MutatingWebhookConfiguration").next().is_none());
    assert_eq!(release.of_kind("PodDisruptionBudget").count(), 2);
    assert!(release.names("ServiceAccount").contains("dapr-injector"));
}

/// The flags of sentry behind those that it always has.
fn more_sentry_flags(values: &str) -> Vec<String> {
    let (release, defaults) = (render(values), render(""));
    let always = texts(&defaults.container("dapr-sentry")["args"]);
    let flags = texts(&release.container("dapr-sentry")["args"]);
    assert_eq!(flags[..always.len()], always);
    flags[always.len()..].iter().map(ToString::to_string).collect()
}

#[test]
fn tokens_and_their_discovery() {
    assert_eq!(
        more_sentry_flags("dapr_sentry: {jwt: {enabled: true}}"),
        ["--jwt-enabled=true"]
    );
    let all = "dapr_sentry:
  jwt: {enabled: true, keyFilename: a.key, jwksFilename: b.json, issuer: 'https://x', signingAlgorithm: ES256, keyID: one}
  oidc:
    enabled: true
    server: {port: 8443}
    jwksURI: https://x/keys
    pathPrefix: /p
    allowedHosts: [x, z]
    tls: {certFile: /tls/tls.crt, keyFile: /tls/tls.key}
  extraArgs: [--denied-ids=spiffe://public/ns/shop/lost]";
    assert_eq!(
        more_sentry_flags(all),
        [
            "--jwt-enabled=true",
            "--jwks-filename=b.json",
            "--jwt-issuer=https://x",
            "--jwt-key-filename=a.key",
            "--jwt-key-id=one",
            "--jwt-signing-algorithm=ES256",
            "--oidc-enabled=true",
            "--oidc-server-listen-address=0.0.0.0",
            "--oidc-allowed-hosts=x,z",
            "--oidc-jwks-uri=https://x/keys",
            "--oidc-path-prefix=/p",
            "--oidc-server-tls-cert-file=/tls/tls.crt",
            "--oidc-server-tls-key-file=/tls/tls.key",
            "--oidc-server-tls-enabled=true",
            "--denied-ids=spiffe://public/ns/shop/lost",
        ]
    );
    let release = render(all);
    let ports = release.container("dapr-sentry")["ports"].as_array().expect("ports");
    assert!(ports.contains(&json!({ "name": "oidc", "containerPort": 9080, "protocol": "TCP" })));
    let port = |release: &Release| {
        let ports = release.object("Service", "dapr-sentry")["spec"]["ports"]
            .as_array()
            .expect("ports")
            .clone();
        ports.into_iter().find(|port| port["name"] == "oidc")
    };
    let expected =
        json!({ "name": "oidc", "port": 8443, "targetPort": 9080, "protocol": "TCP", "appProtocol": "https" });
    assert_eq!(port(&release), Some(expected));
    assert_eq!(port(&render("dapr_sentry: {jwt: {enabled: true}}")), None);

    // Without the flag sentry would ask for certificate files.
    let plain = "dapr_sentry: {jwt: {enabled: true}, oidc: {enabled: true, tls: {enabled: false}}}";
    assert!(more_sentry_flags(plain).contains(&"--oidc-server-tls-enabled=false".to_owned()));
    assert_eq!(port(&render(plain)).expect("a port")["appProtocol"], "http");
}

#[test]
fn tolerations_of_virtual_nodes() {
    assert_eq!(
        variable(&render(""), "dapr-sidecar-injector", "IGNORE_ENTRYPOINT_TOLERATIONS"),
        None
    );
    for tolerations in [
        r#"[{key: aws, effect: NoSchedule}]"#,
        r#"'[{"effect":"NoSchedule","key":"aws"}]'"#,
    ] {
        let release = render(&format!(
            "dapr_sidecar_injector: {{ignoreEntrypointTolerations: {tolerations}}}"
        ));
        assert_eq!(
            variable(&release, "dapr-sidecar-injector", "IGNORE_ENTRYPOINT_TOLERATIONS").expect("the variable"),
            r#"[{"effect":"NoSchedule","key":"aws"}]"#
        );
    }
}

#[test]
fn critical_priority_brings_its_quota() {
    let release = render("global: {priorityClassName: system-cluster-critical}");
    assert_eq!(
        release.pod("dapr-sentry")["spec"]["priorityClassName"],
        "system-cluster-critical"
    );
    let quota = release.object("ResourceQuota", "system-critical-quota");
    assert_eq!(
        quota["spec"]["scopeSelector"]["matchExpressions"][0]["values"],
        json!(["system-cluster-critical"])
    );
}
