//! What the chart renders without values: the names, ports and arguments that sidecars, the CLI and existing
//! installations rely on.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::helm::{NAMESPACE, chart, name_of, render, texts};

const WORKLOADS: [&str; 3] = ["dapr-operator", "dapr-sentry", "dapr-sidecar-injector"];

#[test]
fn objects() {
    let release = render("");
    let objects: BTreeSet<_> = release
        .objects
        .iter()
        .map(|object| format!("{} {}", object["kind"].as_str().expect("a kind"), name_of(object)))
        .collect();
    assert_eq!(objects.len(), release.objects.len(), "an object is rendered twice");
    let expected = [
        "ClusterRole dapr-injector",
        "ClusterRole dapr-operator-admin",
        "ClusterRole dapr-operator-conversion",
        "ClusterRole dapr-operator-injection",
        "ClusterRole dapr-operator-secrets",
        "ClusterRole dapr-operator-services",
        "ClusterRole dapr-operator-trust",
        "ClusterRole dapr-sentry",
        "ClusterRoleBinding dapr-injector",
        "ClusterRoleBinding dapr-operator-admin",
        "ClusterRoleBinding dapr-operator-conversion",
        "ClusterRoleBinding dapr-operator-injection",
        "ClusterRoleBinding dapr-operator-secrets",
        "ClusterRoleBinding dapr-operator-services",
        "ClusterRoleBinding dapr-operator-trust",
        "ClusterRoleBinding dapr-sentry",
        "ConfigMap dapr-trust-bundle",
        "Configuration daprsystem",
        "Deployment dapr-operator",
        "Deployment dapr-sentry",
        "Deployment dapr-sidecar-injector",
        "MutatingWebhookConfiguration dapr-sidecar-injector",
        "Role dapr-injector",
        "Role dapr-operator",
        "Role dapr-operator-injection",
        "Role dapr-sentry",
        "RoleBinding dapr-injector",
        "RoleBinding dapr-operator",
        "RoleBinding dapr-operator-injection",
        "RoleBinding dapr-sentry",
        "Secret dapr-trust-bundle",
        "Service dapr-api",
        "Service dapr-sentry",
        "Service dapr-sidecar-injector",
        "Service dapr-webhook",
        "ServiceAccount dapr-injector",
        "ServiceAccount dapr-operator",
        "ServiceAccount dapr-sentry",
    ];
    assert_eq!(objects, BTreeSet::from(expected.map(String::from)));
}

#[test]
fn every_object_has_the_labels_and_its_namespace() {
    let release = render("");
    for object in &release.objects {
        let labels = &object["metadata"]["labels"];
        assert_eq!(labels["app.kubernetes.io/name"], "dapr", "{}", name_of(object));
        assert_eq!(labels["app.kubernetes.io/version"], "0.1.0");
        assert_eq!(labels["app.kubernetes.io/part-of"], "dapr");
        assert_eq!(labels["app.kubernetes.io/managed-by"], "Helm");
        assert!(labels["app.kubernetes.io/component"].is_string());
        let kind = object["kind"].as_str().expect("a kind");
        if kind.starts_with("Cluster") || kind == "MutatingWebhookConfiguration" {
            assert!(object["metadata"].get("namespace").is_none());
        } else {
            assert_eq!(object["metadata"]["namespace"], NAMESPACE);
        }
    }
}

#[test]
fn services() {
    let release = render("");
    let ports = |service: &str| {
        let spec = &release.object("Service", service)["spec"];
        let ports = spec["ports"].as_array().expect("ports").iter().map(|port| {
            let name = port["name"].as_str().unwrap_or_default();
            let protocol = port["appProtocol"].as_str().expect("appProtocol on every port");
            format!("{name} {}->{} {protocol}", port["port"], port["targetPort"])
        });
        (spec["selector"].clone(), ports.collect::<Vec<_>>().join(", "))
    };
    let expected = |app: &str, ports: &str| (json!({ "app": app }), ports.to_owned());
    assert_eq!(
        ports("dapr-api"),
        expected(
            "dapr-operator",
            "grpc 443->6500 tls, legacy 80->6500 tls, metrics 9090->9090 http"
        )
    );
    assert_eq!(ports("dapr-webhook"), expected("dapr-operator", " 443->19443 https"));
    assert_eq!(
        ports("dapr-sentry"),
        expected("dapr-sentry", "grpc 443->50001 tls, metrics 9090->9090 http")
    );
    assert_eq!(
        ports("dapr-sidecar-injector"),
        expected(
            "dapr-sidecar-injector",
            "https 443->\"https\" https, metrics 9090->9090 http"
        )
    );
    assert!(
        release.object("Service", "dapr-webhook")["metadata"]
            .get("annotations")
            .is_none()
    );
    assert_eq!(
        release.object("Service", "dapr-api")["metadata"]["annotations"]["prometheus.io/port"],
        "9090"
    );
}

#[test]
fn workloads() {
    let release = render("");
    for (name, component, account, image) in [
        ("dapr-operator", "operator", "dapr-operator", "operator"),
        ("dapr-sentry", "sentry", "dapr-sentry", "sentry"),
        ("dapr-sidecar-injector", "injector", "dapr-injector", "injector"),
    ] {
        let deployment = release.object("Deployment", name);
        assert_eq!(deployment["metadata"]["labels"]["app"], name);
        assert_eq!(deployment["spec"]["replicas"], 1);
        assert_eq!(
            deployment["spec"]["selector"],
            json!({ "matchLabels": { "app": name } })
        );
        let pod = release.pod(name);
        assert_eq!(pod["metadata"]["labels"]["app"], name);
        assert_eq!(pod["metadata"]["labels"]["app.kubernetes.io/version"], "0.1.0");
        assert_eq!(pod["metadata"]["annotations"]["dapr.io/control-plane"], component);
        assert_eq!(pod["metadata"]["annotations"]["prometheus.io/scrape"], "true");
        assert_eq!(pod["spec"]["serviceAccountName"], account);
        assert!(pod["spec"].get("initContainers").is_none());
        assert_eq!(pod["spec"]["containers"].as_array().map(Vec::len), Some(1));
        let container = release.container(name);
        assert_eq!(container["name"], name);
        assert_eq!(container["image"], format!("localhost/outrigger/{image}:0.1.0"));
        assert_eq!(container["command"], json!([format!("/{image}")]));
        assert_eq!(
            container["readinessProbe"]["httpGet"],
            json!({ "path": "/healthz", "port": 8080 })
        );
        assert_eq!(
            container["livenessProbe"]["httpGet"],
            json!({ "path": "/livez", "port": 8080 })
        );
        assert!(container["resources"]["requests"]["memory"].is_string());
        assert!(container["resources"].get("limits").is_none());
    }
    assert_eq!(release.names("Deployment"), BTreeSet::from(WORKLOADS));
}

#[test]
fn arguments() {
    let release = render("");
    let line = |workload: &str| texts(&release.container(workload)["args"]).join(" ");
    assert_eq!(
        line("dapr-operator"),
        "--watch-interval 0 --max-pod-restarts-per-minute 20 --log-level info \
         --trust-anchors-file /var/run/secrets/dapr.io/tls/ca.crt --enable-metrics --metrics-port 9090 \
         --trust-distribution"
    );
    assert_eq!(
        line("dapr-sentry"),
        "--mode kubernetes --log-level info --enable-metrics --metrics-port 9090 --trust-domain cluster.local \
         --ca-renewal-enabled=true --ca-ttl 8760h --ca-renewal-threshold 0.9 --trust-anchor-propagation-grace 24h"
    );
    assert_eq!(
        line("dapr-sidecar-injector"),
        "--log-level info --enable-metrics --metrics-port 9090 --healthz-port 8080 --scheduler-enabled=false"
    );
}

#[test]
fn environment() {
    let release = render("");
    for workload in WORKLOADS {
        let environment = release.container(workload)["env"].as_array().expect("env");
        let namespace = environment.iter().find(|variable| variable["name"] == "NAMESPACE");
        assert_eq!(
            namespace.expect("NAMESPACE")["valueFrom"]["fieldRef"]["fieldPath"],
            "metadata.namespace"
        );
    }
    let environment = release.container("dapr-sidecar-injector")["env"]
        .as_array()
        .expect("env");
    let variables = environment.iter().map(|variable| {
        let value = variable["value"].as_str().unwrap_or("…");
        format!("{}={value}", variable["name"].as_str().expect("a name"))
    });
    assert_eq!(
        variables.collect::<Vec<_>>(),
        [
            "DAPR_TRUST_ANCHORS_FILE=/var/run/secrets/dapr.io/tls/ca.crt",
            "DAPR_CONTROL_PLANE_TRUST_DOMAIN=cluster.local",
            "DAPR_SENTRY_ADDRESS=dapr-sentry.dapr-system.svc.cluster.local:443",
            "KUBE_CLUSTER_DOMAIN=cluster.local",
            "SIDECAR_IMAGE=localhost/outrigger/daprd:0.1.0",
            "SIDECAR_IMAGE_PULL_POLICY=IfNotPresent",
            "SIDECAR_RUN_AS_NON_ROOT=true",
            "ENABLE_K8S_DOWNWARD_APIS=false",
            "SIDECAR_DROP_ALL_CAPABILITIES=true",
            "SIDECAR_SECCOMP_PROFILE_TYPE=RuntimeDefault",
            "SIDECAR_READ_ONLY_ROOT_FILESYSTEM=true",
            "NATIVE_SIDECAR_ENABLED=false",
            "TRUST_DISTRIBUTION_ENABLED=true",
            "NAMESPACE=…",
            "ACTORS_ENABLED=false",
            "ACTORS_SERVICE_NAME=placement",
            "ACTORS_SERVICE_ADDRESS=dapr-placement-server:50005",
        ]
    );
}

#[test]
fn identity() {
    let release = render("");
    for workload in ["dapr-operator", "dapr-sidecar-injector"] {
        let pod = release.pod(workload);
        let volume = |name: &str| {
            let volumes = pod["spec"]["volumes"].as_array().expect("volumes");
            volumes
                .iter()
                .find(|volume| volume["name"] == name)
                .expect("the volume")
        };
        assert_eq!(
            volume("dapr-trust-bundle")["configMap"],
            json!({ "name": "dapr-trust-bundle" })
        );
        assert_eq!(
            volume("dapr-identity-token")["projected"]["sources"],
            json!([{ "serviceAccountToken": {
                "path": "token",
                "expirationSeconds": 600,
                "audience": "spiffe://cluster.local/ns/dapr-system/dapr-sentry",
            } }])
        );
        let mounts = release.container(workload)["volumeMounts"].as_array().expect("mounts");
        for (name, path) in [
            ("dapr-trust-bundle", "/var/run/secrets/dapr.io/tls"),
            ("dapr-identity-token", "/var/run/secrets/dapr.io/sentrytoken"),
        ] {
            let mount = mounts.iter().find(|mount| mount["name"] == name).expect("the mount");
            assert_eq!((&mount["mountPath"], &mount["readOnly"]), (&json!(path), &json!(true)));
        }
    }
    assert_eq!(
        release.container("dapr-sentry")["volumeMounts"],
        json!([{ "name": "credentials", "mountPath": "/var/run/secrets/dapr.io/credentials", "readOnly": true }])
    );
}

#[test]
fn configuration() {
    assert_eq!(
        render("").object("Configuration", "daprsystem")["spec"],
        json!({ "mtls": {
            "enabled": true,
            "workloadCertTTL": "24h",
            "allowedClockSkew": "15m",
            "controlPlaneTrustDomain": "cluster.local",
            "sentryAddress": "dapr-sentry.dapr-system.svc.cluster.local:443",
        } })
    );
}

#[test]
fn webhook() {
    let release = render("");
    let webhooks = &release.object("MutatingWebhookConfiguration", "dapr-sidecar-injector")["webhooks"];
    assert_eq!(
        *webhooks,
        json!([{
            "name": "sidecar-injector.dapr.io",
            "clientConfig": { "service": {
                "namespace": "dapr-system", "name": "dapr-sidecar-injector", "path": "/mutate",
            } },
            "rules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"],
            }],
            "namespaceSelector": { "matchExpressions": [{
                "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", "dapr-system"],
            }] },
            "matchConditions": [{
                "name": "has-dapr-annotation",
                "expression": "has(object.metadata.annotations) && \
                    object.metadata.annotations.exists(k, k.startsWith('dapr.io/'))",
            }],
            "failurePolicy": "Ignore",
            "timeoutSeconds": 10,
            "reinvocationPolicy": "IfNeeded",
            "sideEffects": "None",
            "admissionReviewVersions": ["v1", "v1beta1"],
        }])
    );
}

#[test]
fn the_tag_is_the_version_of_the_chart() {
    let read = |file: &str| -> Value {
        let text = std::fs::read_to_string(chart().join(file)).expect("a file of the chart");
        serde_saphyr::from_str(&text).expect("YAML")
    };
    let chart = read("Chart.yaml");
    assert_eq!(chart["appVersion"], read("values.yaml")["global"]["tag"]);
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    for part in chart["dependencies"].as_array().expect("dependencies") {
        let name = part["name"].as_str().expect("a name");
        assert_eq!(read(&format!("charts/{name}/Chart.yaml"))["version"], part["version"]);
    }
}
