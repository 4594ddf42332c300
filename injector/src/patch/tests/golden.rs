//! The whole patch of an ordinary pod, byte for byte.

use serde_json::json;

use super::*;

fn input() -> Value {
    pod(&[("enabled", "true"), ("app-id", "myapp"), ("app-port", "3000")])
}

/// The operations for [`input`].
fn operations() -> Vec<Value> {
    let args = "/daprd --dapr-http-port 3500 --dapr-grpc-port 50001 --dapr-internal-grpc-port 50002 \
        --dapr-listen-addresses [::1],127.0.0.1 --dapr-public-port 3501 --app-id myapp --app-protocol http --log-level info \
        --dapr-graceful-shutdown-seconds -1 --mode kubernetes \
        --control-plane-address dapr-api.dapr-system.svc.cluster.local:443 \
        --sentry-address dapr-sentry.dapr-system.svc.cluster.local:443 --app-port 3000 --enable-metrics --metrics-port 9090 \
        --placement-host-address dapr-placement-server.dapr-system.svc.cluster.local:50005 --enable-mtls \
        --scheduler-host-address dapr-scheduler-server-a.dapr-system.svc.cluster.local:443";
    let daprd = json!({
        "name": "daprd",
        "image": "ghcr.io/dapr/daprd:1.0",
        "imagePullPolicy": "IfNotPresent",
        "args": args.split(' ').collect::<Vec<_>>(),
        "env": [
            {"name": "NAMESPACE", "value": "default"},
            {"name": "DAPR_TRUST_ANCHORS", "value": "anchors"},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "DAPR_CONTROLPLANE_NAMESPACE", "value": "dapr-system"},
            {"name": "DAPR_CONTROLPLANE_TRUST_DOMAIN", "value": "cluster.local"},
        ],
        "ports": [
            {"containerPort": 3500, "name": "dapr-http"},
            {"containerPort": 50001, "name": "dapr-grpc"},
            {"containerPort": 50002, "name": "dapr-internal"},
            {"containerPort": 9090, "name": "dapr-metrics"},
        ],
        "volumeMounts": [
            {"name": "dapr-identity-token", "mountPath": "/var/run/secrets/dapr.io/sentrytoken", "readOnly": true},
        ],
        "securityContext": {"runAsNonRoot": true, "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false},
        "resources": {},
        "readinessProbe": {
            "httpGet": {"path": "/v1.0/healthz", "port": 3501},
            "initialDelaySeconds": 1, "timeoutSeconds": 1, "periodSeconds": 1, "failureThreshold": 5,
        },
        "livenessProbe": {
            "tcpSocket": {"port": 3501},
            "initialDelaySeconds": 180, "timeoutSeconds": 3, "periodSeconds": 10, "failureThreshold": 5,
        },
    });
    let token = json!({
        "name": "dapr-identity-token",
        "projected": {
            "defaultMode": 420,
            "sources": [{"serviceAccountToken": {
                "audience": "spiffe://cluster.local/ns/dapr-system/dapr-sentry",
                "expirationSeconds": 7200,
                "path": "token",
            }}],
        },
    });
    let add = |path: &str, value: Value| json!({"op": "add", "path": path, "value": value});
    vec![
        add("/spec/volumes", json!([token])),
        add("/spec/containers/-", daprd),
        add("/metadata/labels/dapr.io~1sidecar-injected", "true".into()),
        add("/metadata/labels/dapr.io~1app-id", "myapp".into()),
        add("/metadata/labels/dapr.io~1metrics-enabled", "true".into()),
        add(
            "/spec/containers/0/env",
            json!([
                {"name": "DAPR_HTTP_PORT", "value": "3500"},
                {"name": "DAPR_GRPC_PORT", "value": "50001"},
                {"name": "APP_PROTOCOL", "value": "http"},
            ]),
        ),
    ]
}

#[test]
fn ordinary_pod() {
    let patched = inject(&input());
    assert_eq!(patched.operations, operations());
    assert_eq!(patched.warnings, Vec::<String>::new());
    assert_eq!(
        patched.pod["spec"]["containers"][0]["fieldOfTheFuture"],
        json!({"a": 1})
    );
}

#[test]
fn trust_distribution_adds_a_volume_its_mount_and_a_variable() {
    let settings = settings_with(&[("TRUST_DISTRIBUTION_ENABLED", "true")]);
    let mut expected = operations();
    let volumes = expected[0]["value"].as_array_mut().unwrap();
    volumes.push(json!({"name": "dapr-root-ca", "configMap": {"name": "dapr-root-ca.crt", "optional": true}}));
    let daprd = &mut expected[1]["value"];
    let mounts = daprd["volumeMounts"].as_array_mut().unwrap();
    mounts.push(json!({"name": "dapr-root-ca", "mountPath": "/var/run/secrets/dapr.io/root-ca", "readOnly": true}));
    let env = daprd["env"].as_array_mut().unwrap();
    env.push(json!({"name": "DAPR_TRUST_ANCHORS_FILE", "value": "/var/run/secrets/dapr.io/root-ca/ca.crt"}));
    let patched = inject_with(&input(), &settings, &[]);
    assert_eq!(patched.operations, expected);
    assert_eq!(patched.warnings, Vec::<String>::new());
}
