//! Reviews that nobody would send: whatever comes, the webhook answers, and a patch that it answers with can be applied.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod answers;

use axum::Router;
use outrigger_testkit::Workloads;
use serde_json::{Value, json};

use answers::{check, post};

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
    answers::webhook(&Workloads::new().unwrap().anchors())
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
        let body = review.to_string();
        let (status, answer) = post(&webhook, body.as_bytes()).await;
        check(body.as_bytes(), status, &answer);
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
        let (status, answer) = post(&webhook, &bytes).await;
        check(&bytes, status, &answer);
    }
}
