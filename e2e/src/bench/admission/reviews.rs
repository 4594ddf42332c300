//! Reviews of pods that differ, as an API server sends them, and what is expected of the answers.

use anyhow::{Context, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde_json::{Value, json};

use super::client::Connection;

/// Pods of Deployments, each with an app id, an environment and volumes of its own.
pub(super) struct Reviews {
    pods: Vec<Value>,
    bodies: Vec<Bytes>,
}

impl Reviews {
    pub(super) fn new(count: usize) -> Self {
        let pods: Vec<_> = (0..count).map(pod).collect();
        let bodies = pods
            .iter()
            .enumerate()
            .map(|(number, pod)| review(number, pod).to_string().into())
            .collect();
        Self { pods, bodies }
    }

    /// Of one body, in bytes.
    pub(super) fn size(&self) -> usize {
        self.bodies.first().map_or(0, Bytes::len)
    }

    pub(super) fn body(&self, turn: usize) -> Bytes {
        self.bodies[turn % self.bodies.len()].clone()
    }

    /// Sends each once and applies what is answered.
    pub(super) async fn check_all(&self, connection: &mut Connection) -> anyhow::Result<()> {
        for (number, pod) in self.pods.iter().enumerate() {
            let answer = connection.review(self.body(number)).await?;
            check(pod, number, &answer).with_context(|| format!("the answer about pod {number}"))?;
        }
        Ok(())
    }
}

/// The patch has to apply, and to add this app's sidecar.
fn check(pod: &Value, number: usize, answer: &[u8]) -> anyhow::Result<()> {
    let answer: Value = serde_json::from_slice(answer)?;
    let response = &answer["response"];
    ensure!(response["uid"] == uid(number), "{answer}");
    let patch = response["patch"].as_str().with_context(|| answer.to_string())?;
    let patch: json_patch::Patch = serde_json::from_slice(&BASE64_STANDARD.decode(patch)?)?;
    let mut patched = pod.clone();
    json_patch::patch(&mut patched, &patch)?;
    let containers = patched["spec"]["containers"].as_array().context("no containers")?;
    let sidecar = containers.iter().find(|container| container["name"] == "daprd");
    let args = sidecar.and_then(|sidecar| sidecar["args"].as_array());
    let app = app(number);
    ensure!(
        args.is_some_and(|args| args.iter().any(|arg| *arg == app)),
        "no sidecar of {app}: {patched}"
    );
    Ok(())
}

fn app(number: usize) -> String {
    format!("shop-{number:03}")
}

fn uid(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

fn review(number: usize, pod: &Value) -> Value {
    json!({
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": uid(number),
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "requestResource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "shop",
            "operation": "CREATE",
            "userInfo": {
                "username": "system:serviceaccount:kube-system:replicaset-controller",
                "uid": "9b1a86c1-54b7-4c1c-8f1f-5f0b4b0c7d2e",
                "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"],
            },
            "object": pod,
            "oldObject": null,
            "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    })
}

fn pod(number: usize) -> Value {
    let app = app(number);
    let environment: Vec<_> = (0..8 + number % 5)
        .map(|index| {
            let value = format!("https://service-{index:02}.{app}.example:8443/path");
            json!({"name": format!("SETTING_{number}_{index}"), "value": value})
        })
        .collect();
    let probe = json!({
        "httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"}, "initialDelaySeconds": 5, "periodSeconds": 10,
        "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3,
    });
    let token = json!({
        "name": "kube-api-access-x7k2p", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true,
    });
    let resources = json!({"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}});
    let mut volumes: Vec<_> = (0..1 + number % 3)
        .map(|index| json!({"name": format!("config-{index}"), "configMap": {"name": format!("{app}-{index}"), "defaultMode": 420}}))
        .collect();
    volumes.push(
        json!({"name": "kube-api-access-x7k2p", "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        ]}}),
    );
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": format!("{app}-6d4cf56db6-"), "namespace": "shop", "creationTimestamp": null,
            "labels": {"app": app, "pod-template-hash": "6d4cf56db6", "app.kubernetes.io/part-of": "shop"},
            "annotations": {
                "dapr.io/enabled": "true", "dapr.io/app-id": app, "dapr.io/app-port": "8080",
                "dapr.io/config": "appconfig", "dapr.io/log-level": "info", "dapr.io/sidecar-cpu-request": "100m",
                "dapr.io/sidecar-memory-request": "64Mi", "dapr.io/sidecar-memory-limit": "256Mi",
            },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{app}-6d4cf56db6"),
                "uid": "3f1b1c1e-8a0b-4b55-9d4f-6d1f6c1b2a3c", "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "containers": [
                {
                    "name": "app", "image": format!("registry.example/shop/{app}:1.2.3"), "imagePullPolicy": "IfNotPresent",
                    "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}], "env": environment,
                    "resources": resources, "livenessProbe": probe, "readinessProbe": probe,
                    "volumeMounts": [{"name": "config-0", "mountPath": "/etc/app"}, token],
                },
                {
                    "name": "log-shipper", "image": "registry.example/infra/log-shipper:4.5",
                    "args": ["--config", "/etc/shipper/config.yaml"], "resources": {}, "volumeMounts": [token],
                },
            ],
            "volumes": volumes,
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "default", "serviceAccount": "default", "securityContext": {},
            "schedulerName": "default-scheduler", "enableServiceLinks": true, "priority": 0,
            "tolerations": [{
                "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300,
            }],
        },
        "status": {},
    })
}
