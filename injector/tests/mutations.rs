//! Reviews that nobody would send: whatever comes, the webhook answers, and a patch that it answers with can be applied.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{collections::HashMap, sync::Arc};

use axum::{Router, body::Body, http::Request};
use base64::{Engine, prelude::BASE64_STANDARD};
use http_body_util::BodyExt;
use outrigger_identity::Anchors;
use outrigger_injector::{
    cluster::Cluster, environment::Environment, metrics::Metrics, refusals::Refusals, settings::Settings,
    webhook::Webhook,
};
use prometheus::Registry;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt;

/// Reproducible: the same reviews on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

fn webhook() -> Router {
    let key = rcgen::KeyPair::generate().unwrap();
    let root = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
    let (_, anchors) = watch::channel(Arc::new(Anchors::from_pem(&root).unwrap()));
    let variables: HashMap<String, String> = [("SIDECAR_IMAGE", "daprd"), ("NAMESPACE", "dapr-system")]
        .map(|(key, value)| (key.into(), value.into()))
        .into();
    let env = Environment::parse(&variables).unwrap();
    let metrics = Metrics::new(&Registry::new()).unwrap();
    let (refusals, _) = Refusals::new(metrics.clone());
    let settings = Settings::new(&env, "cluster.local", true, true);
    Webhook::new(settings, env.allowed, Cluster::default(), anchors, refusals, metrics).router()
}

fn review() -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "namespace": "shop", "operation": "CREATE",
        "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller", "groups": ["a"]},
        "object": {
            "metadata": {
                "generateName": "cart-", "labels": {"app": "cart"},
                "annotations": {
                    "dapr.io/enabled": "true", "dapr.io/app-id": "cart", "dapr.io/app-port": "3000",
                    "dapr.io/env": "A=1,B=2", "dapr.io/volume-mounts": "data:/data",
                    "dapr.io/sidecar-cpu-limit": "1", "dapr.io/enable-native-sidecar": "true",
                    "dapr.io/pluggable-components": "store", "dapr.io/unix-domain-socket-path": "/sockets",
                },
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "1", "controller": true}],
            },
            "spec": {
                "containers": [
                    {"name": "main", "env": [{"name": "X"}], "volumeMounts": [{"name": "data", "mountPath": "/d"}]},
                    {"name": "store"},
                ],
                "initContainers": [{"name": "migrate"}, {"name": "store", "restartPolicy": "Always"}],
                "volumes": [{"name": "data"}], "tolerations": [{"key": "k", "tolerationSeconds": 5}],
            },
        },
    }})
}

/// Paths of all values below one.
fn paths(value: &Value, at: &str, into: &mut Vec<String>) {
    into.push(at.to_owned());
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                paths(
                    value,
                    &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")),
                    into,
                );
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                paths(value, &format!("{at}/{index}"), into);
            }
        }
        _ => {}
    }
}

fn mutate(value: &mut Value, random: &mut Random) {
    let mut all = Vec::new();
    paths(value, "", &mut all);
    let target = value.pointer_mut(random.pick::<String>(&all)).unwrap();
    let huge = "x".repeat(300);
    let strange = [
        Value::Null,
        json!({}),
        json!([]),
        json!([null]),
        json!(-1),
        json!(1e300),
        json!(9_223_372_036_854_775_807_i64),
        json!(true),
        json!(""),
        json!("\u{0}\u{2028}ä\"\\"),
        json!("99999999999999999999"),
        json!(",=:,:=a:b:c,é=;"),
        json!("daprd"),
        json!("a~1/b"),
        json!(huge),
    ];
    match (random.below(3), &mut *target) {
        (0, Value::Array(list)) if !list.is_empty() => {
            let copy = random.pick(list.as_slice()).clone();
            list.push(copy);
        }
        (1, Value::Object(map)) if !map.is_empty() => {
            let keys: Vec<String> = map.keys().cloned().collect();
            let moved = map.remove(random.pick::<String>(&keys)).unwrap();
            map.insert(format!("dapr.io/{}", random.below(1000)), moved);
        }
        _ => *target = random.pick(&strange).clone(),
    }
}

async fn post(webhook: &Router, body: Vec<u8>) -> (u16, Vec<u8>) {
    let request = Request::post("/mutate")
        .header("content-type", "application/json")
        .body(Body::from(body))
        .unwrap();
    let response = webhook.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    (
        status,
        response.into_body().collect().await.unwrap().to_bytes().to_vec(),
    )
}

/// An answer that the API server can work with.
fn check(review: &Value, status: u16, answer: &[u8]) {
    if status == 400 {
        assert!(review.pointer("/request").is_none_or(Value::is_null), "{review}");
        return;
    }
    assert_eq!(status, 200, "{review}");
    let answer: Value = serde_json::from_slice(answer).unwrap();
    let response = &answer["response"];
    if let Some(uid) = review.pointer("/request/uid").and_then(Value::as_str) {
        assert_eq!(response["uid"], uid, "{review}");
    }
    let Some(patch) = response["patch"].as_str() else {
        let refused = response["status"]["message"].as_str();
        assert!(
            response["allowed"] == true || refused.is_some_and(|message| !message.is_empty()),
            "{review}"
        );
        return;
    };
    assert_eq!(
        (&response["allowed"], &response["patchType"]),
        (&json!(true), &json!("JSONPatch"))
    );
    let patch: json_patch::Patch = serde_json::from_slice(&BASE64_STANDARD.decode(patch).unwrap()).unwrap();
    let mut pod = review["request"]["object"].clone();
    // The API server itself decodes the pod before it asks, and always writes both parts.
    if !pod["metadata"].is_object() || !pod["spec"].is_object() {
        return;
    }
    if serde_json::from_value::<k8s_openapi::api::core::v1::Pod>(pod.clone()).is_err() {
        return;
    }
    json_patch::patch(&mut pod, &patch).unwrap_or_else(|error| panic!("{error}: {patch}\n{review}"));
    let lists = [&pod["spec"]["containers"], &pod["spec"]["initContainers"]];
    let containers = lists.into_iter().filter_map(Value::as_array).flatten();
    assert_eq!(
        containers.filter(|container| container["name"] == "daprd").count(),
        1,
        "{pod}"
    );
}

#[tokio::test]
async fn every_review_is_answered_and_every_patch_applies() {
    let webhook = webhook();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut patched = 0;
    for _ in 0..5_000 {
        let mut review = review();
        for _ in 0..=random.below(4) {
            mutate(&mut review, &mut random);
        }
        let (status, answer) = post(&webhook, review.to_string().into_bytes()).await;
        check(&review, status, &answer);
        patched += usize::from(answer.windows(7).any(|window| window == b"\"patch\""));
    }
    assert!(patched > 500, "most mutations still are pods: {patched}");
}

#[tokio::test]
async fn bytes_that_are_no_review_are_answered() {
    let webhook = webhook();
    let mut random = Random(0x0123_4567_89AB_CDEF);
    let good = review().to_string().into_bytes();
    for _ in 0..5_000 {
        let mut bytes = good.clone();
        for _ in 0..=random.below(8) {
            let at = random.below(bytes.len());
            bytes[at] = u8::try_from(random.below(256)).unwrap();
        }
        bytes.truncate(1 + random.below(bytes.len()));
        let (status, answer) = post(&webhook, bytes).await;
        assert!(matches!(status, 200 | 400), "{status}");
        assert!(status == 400 || serde_json::from_slice::<Value>(&answer).is_ok());
    }
}
