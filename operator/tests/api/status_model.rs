//! A thousand random edits, after which every status is right for what the API server holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams},
};
use outrigger_crds::{
    Component, Configuration, HTTPEndpoint, MCPServer, Resiliency, Subscription, WorkflowAccessPolicy,
};
use serde_json::{Value, json};

use crate::{fixture::Operator, status_oracle::World};

const EDITS: usize = 1000;
/// A Secret that vanishes, and that no sidecar needs, is noticed within three minutes.
const DEADLINE: Duration = Duration::from_secs(240);

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const APPS: [&str; 3] = ["cart", "till", "stock"];
const SECRETS: [&str; 3] = ["auth", "tls", "spare"];
const KEYS: [&str; 2] = ["password", "user"];
const TYPES: [&str; 5] = [
    "state.redis",
    "pubsub.redis",
    "secretstores.vault",
    "middleware.http.ratelimit",
    "PubSub.kafka",
];

pub(crate) fn resources() -> [ApiResource; 7] {
    [
        ApiResource::erase::<Component>(&()),
        ApiResource::erase::<Configuration>(&()),
        ApiResource::erase::<HTTPEndpoint>(&()),
        ApiResource::erase::<MCPServer>(&()),
        ApiResource::erase::<Resiliency>(&()),
        ApiResource::erase::<Subscription>(&()),
        ApiResource::erase::<WorkflowAccessPolicy>(&()),
    ]
}

/// SplitMix64: the same edits in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    fn pick<T: Clone>(&mut self, all: &[T]) -> T {
        all[(self.next() % all.len() as u64) as usize].clone()
    }

    /// Some of them, in order.
    fn some(&mut self, all: &[&str]) -> Vec<String> {
        let chosen = all.iter().filter(|_| self.chance(40));
        chosen.map(ToString::to_string).collect()
    }

    fn pairs(&mut self) -> Value {
        let mut pairs = vec![json!({"name": "plain", "value": "x"})];
        for name in ["first", "second"] {
            if self.chance(40) {
                let secret = json!({"name": self.pick(&SECRETS), "key": self.pick(&KEYS)});
                pairs.push(json!({"name": name, "secretKeyRef": secret}));
            }
        }
        pairs.into()
    }

    fn store(&mut self) -> &'static str {
        match self.chance(30) {
            true => self.pick(&NAMES),
            false => self.pick(&["", "kubernetes"]),
        }
    }

    /// Sometimes what no Go program would read.
    fn duration(&mut self) -> &'static str {
        match self.chance(25) {
            true => "3000000h",
            false => self.pick(&["5s", "1m30s"]),
        }
    }

    fn manifest(&mut self, kind: &str) -> Value {
        let scopes = self.some(&APPS);
        match kind {
            "Component" => json!({
                "spec": {"type": self.pick(&TYPES), "version": "v1", "metadata": self.pairs()},
                "auth": {"secretStore": self.store()}, "scopes": scopes,
            }),
            "Configuration" => json!({"spec": {
                "tracing": {"samplingRate": "1", "otel": {
                    "protocol": "grpc", "endpointAddress": "otel:4317", "isSecure": false,
                    "timeout": self.duration(), "headers": self.pairs(),
                }},
                "httpPipeline": {"handlers": [{"name": self.pick(&NAMES), "type": "middleware.http.ratelimit"}]},
                "secrets": {"scopes": [{"storeName": self.pick(&NAMES)}]},
            }}),
            "HTTPEndpoint" => json!({
                "spec": {"baseUrl": "http://example.com", "headers": self.pairs()},
                "auth": {"secretStore": self.store()}, "scopes": scopes,
            }),
            "MCPServer" => {
                let transport = self.pick(&["streamableHTTP", "sse"]);
                let mut manifest = json!({"spec": {
                    "endpoint": {},
                    "middleware": {"beforeCallTool": [{"workflow": {"workflowName": "w", "appID": self.pick(&APPS)}}]},
                }, "scopes": scopes});
                manifest["spec"]["endpoint"][transport] = json!({
                    "url": "http://example.com", "timeout": self.duration(), "headers": self.pairs(),
                    "auth": {"secretStore": self.store()},
                });
                manifest
            }
            "Resiliency" => {
                let mut targets = json!({"apps": {}, "components": {}});
                targets["apps"][self.pick(&APPS)] = json!({"timeout": "quick"});
                targets["components"][self.pick(&NAMES)] = json!({"outbound": {"timeout": "quick"}});
                json!({"spec": {"policies": {"timeouts": {"quick": "5s"}}, "targets": targets}, "scopes": scopes})
            }
            "Subscription" => json!({
                "spec": {
                    "pubsubname": self.pick(&NAMES), "topic": self.pick(&["orders", "bills"]),
                    "routes": {"default": "/orders"},
                },
                "scopes": scopes,
            }),
            _ => json!({"spec": {"rules": [{
                "callers": [{"appID": self.pick(&APPS)}],
                "workflows": [{"name": "w", "operations": ["schedule"]}],
            }]}, "scopes": scopes}),
        }
    }
}

pub(crate) fn api(operator: &Operator, resource: &ApiResource) -> Api<DynamicObject> {
    Api::namespaced_with(operator.client.clone(), &operator.namespace, resource)
}

async fn edit(operator: &Operator, random: &mut Random) {
    let params = PatchParams::apply("kubectl").force();
    let name = random.pick(&NAMES);
    match random.next() % 20 {
        0..3 => {
            let name = random.pick(&SECRETS);
            let _ = operator.api::<Secret>().delete(name, &DeleteParams::default()).await;
            if random.chance(70) {
                let data: BTreeMap<_, _> = random.some(&KEYS).into_iter().map(|key| (key, "x")).collect();
                operator.apply::<Secret>(name, json!({"stringData": data})).await;
            }
        }
        3..5 => {
            let now = DeleteParams::default().grace_period(0);
            let _ = operator.api::<Pod>().delete(name, &now).await;
            if random.chance(70) {
                let annotations = json!({
                    "dapr.io/enabled": random.pick(&["true", "true", "false"]),
                    "dapr.io/app-id": random.pick(&APPS),
                    "dapr.io/config": random.pick(&NAMES),
                });
                let mut pod = json!({
                    "metadata": {"annotations": annotations},
                    "spec": {"containers": [{"name": "app", "image": "app"}]},
                });
                pod["metadata"]["namespace"] = json!(operator.namespace);
                operator.apply::<Pod>(name, pod).await;
            }
        }
        5..7 => {
            let resource = random.pick(&resources());
            let _ = api(operator, &resource).delete(name, &DeleteParams::default()).await;
        }
        7 => {
            let resource = random.pick(&resources());
            let foreign = json!({"status": {"observedGeneration": 1, "conditions": [{
                "type": "Ready", "status": "Unknown", "reason": "Touched", "message": "by somebody else",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]}});
            let patch = Patch::Merge(&foreign);
            let _ = api(operator, &resource)
                .patch_status(name, &PatchParams::default(), &patch)
                .await;
        }
        _ => {
            let resource = random.pick(&resources());
            let mut manifest = random.manifest(&resource.kind);
            manifest["apiVersion"] = json!(resource.api_version);
            manifest["kind"] = json!(resource.kind);
            manifest["metadata"] = json!({"name": name});
            match api(operator, &resource)
                .patch(name, &params, &Patch::Apply(&manifest))
                .await
            {
                Ok(_) => {}
                // What the definitions refuse is no edit.
                Err(kube::Error::Api(status)) if status.code == 422 => {}
                Err(error) => panic!("{manifest}: {error}"),
            }
        }
    }
}

async fn until_right(operator: &Operator) {
    let start = tokio::time::Instant::now();
    loop {
        let mistakes = World::read(operator).await.mistakes();
        if mistakes.is_empty() {
            return;
        }
        assert!(start.elapsed() < DEADLINE, "{}", mistakes.join("\n"));
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_random_edits_end_in_right_statuses() {
    let mut operator = Operator::plain("model").await;
    let mut random = Random(4);
    for number in 0..EDITS {
        edit(&operator, &mut random).await;
        if number == EDITS / 2 {
            operator = operator.restart().await;
        }
    }
    let world = World::read(&operator).await;
    assert!(world.objects.len() >= 20, "too few objects are left to say anything");
    until_right(&operator).await;
    // The ends differ enough for the test to mean something.
    let world = World::read(&operator).await;
    let reasons: BTreeSet<_> = world
        .objects
        .keys()
        .map(|(kind, name)| world.expected(kind, name).1)
        .collect();
    assert!(reasons.len() >= 4, "{reasons:?}");
    operator.stop().await;
}
