//! A thousand random edits, after which every status is right for what the API server holds. What is right is computed from
//! the stored objects alone, by other code than the operator's.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams},
};
use outrigger_crds::{
    Component, Configuration, HTTPEndpoint, MCPServer, Resiliency, Subscription, WorkflowAccessPolicy,
};
use serde_json::{Value, json};

use crate::fixture::Operator;

const EDITS: usize = 1000;
/// A Secret that vanishes is noticed within a minute.
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

fn resources() -> [ApiResource; 7] {
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
            true => "soon",
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

fn api(operator: &Operator, resource: &ApiResource) -> Api<DynamicObject> {
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

/// What the API server holds in the namespace.
struct World {
    objects: BTreeMap<(String, String), Value>,
    secrets: BTreeMap<String, BTreeSet<String>>,
    apps: BTreeSet<String>,
    configurations: BTreeSet<String>,
}

impl World {
    async fn read(operator: &Operator) -> Self {
        let mut objects = BTreeMap::new();
        for resource in resources() {
            for object in api(operator, &resource).list(&Default::default()).await.unwrap() {
                let value = serde_json::to_value(&object).unwrap();
                objects.insert((resource.kind.clone(), object.name_any()), value);
            }
        }
        let secrets = operator.api::<Secret>().list(&Default::default()).await.unwrap();
        let keys = |secret: &Secret| secret.data.iter().flatten().map(|(key, _)| key.clone()).collect();
        let pods = operator.api::<Pod>().list(&Default::default()).await.unwrap();
        let annotated = |name: &str| -> BTreeSet<String> {
            let asking = pods.iter().map(ResourceExt::annotations);
            let asking = asking.filter(|annotations| annotations.get("dapr.io/enabled").is_some_and(|on| on == "true"));
            asking
                .filter_map(|annotations| annotations.get(name).cloned())
                .collect()
        };
        Self {
            objects,
            secrets: secrets.iter().map(|secret| (secret.name_any(), keys(secret))).collect(),
            apps: annotated("dapr.io/app-id"),
            configurations: annotated("dapr.io/config"),
        }
    }

    /// Whether a component has a type of the category and shares an app with the scopes.
    fn fits(&self, name: &str, category: &str, scopes: &BTreeSet<&str>) -> (bool, bool) {
        match self.objects.get(&("Component".to_owned(), name.to_owned())) {
            None => (false, true),
            Some(component) => {
                let type_ = component["spec"]["type"].as_str().unwrap().to_lowercase();
                let theirs = texts(&component["scopes"]);
                let shared = theirs.is_empty() || scopes.is_empty() || !theirs.is_disjoint(scopes);
                (type_.starts_with(category), shared)
            }
        }
    }

    /// Status and reason of `Accepted`, and the fields of the warnings.
    fn expected(&self, kind: &str, name: &str) -> (&'static str, &'static str, BTreeSet<String>) {
        let object = &self.objects[&(kind.to_owned(), name.to_owned())];
        let spec = &object["spec"];
        let scopes = texts(&object["scopes"]);
        let mut warnings = BTreeSet::new();
        let mut warn = |bad: bool, field: String| {
            if bad {
                warnings.insert(field);
            }
        };
        let has_app = |app: &Value| self.apps.contains(app.as_str().unwrap());
        for (index, app) in object["scopes"].as_array().into_iter().flatten().enumerate() {
            warn(!has_app(app), format!("scopes[{index}]"));
        }
        let (mut pairs, mut durations, mut store, mut auth) = (vec![], vec![], "", "auth.secretStore".to_owned());
        match kind {
            "Component" => {
                pairs.push(&spec["metadata"]);
                store = object["auth"]["secretStore"].as_str().unwrap();
            }
            "HTTPEndpoint" => {
                pairs.push(&spec["headers"]);
                store = object["auth"]["secretStore"].as_str().unwrap();
            }
            "MCPServer" => {
                for (transport, settings) in spec["endpoint"].as_object().unwrap() {
                    pairs.push(&settings["headers"]);
                    durations.push(&settings["timeout"]);
                    store = settings["auth"]["secretStore"].as_str().unwrap();
                    auth = format!("spec.endpoint.{transport}.auth.secretStore");
                }
                let hook = &spec["middleware"]["beforeCallTool"][0]["workflow"]["appID"];
                warn(
                    !has_app(hook),
                    "spec.middleware.beforeCallTool[0].workflow.appID".into(),
                );
            }
            "Configuration" => {
                let otel = &spec["tracing"]["otel"];
                pairs.push(&otel["headers"]);
                durations.push(&otel["timeout"]);
                let used = self.configurations.contains(name);
                warn(!used, "metadata.name".into());
                let handler = spec["httpPipeline"]["handlers"][0]["name"].as_str().unwrap();
                let (fits, shared) = self.fits(handler, "middleware.", &scopes);
                warn(!(fits && shared), "spec.httpPipeline.handlers[0].name".into());
                let named = spec["secrets"]["scopes"][0]["storeName"].as_str().unwrap();
                let (fits, shared) = self.fits(named, "secretstores.", &scopes);
                warn(!(fits && shared), "spec.secrets.scopes[0].storeName".into());
            }
            "Resiliency" => {
                for app in spec["targets"]["apps"].as_object().unwrap().keys() {
                    warn(!self.apps.contains(app), format!("spec.targets.apps[{app}]"));
                }
                for component in spec["targets"]["components"].as_object().unwrap().keys() {
                    let (fits, shared) = self.fits(component, "", &scopes);
                    warn(!(fits && shared), format!("spec.targets.components[{component}]"));
                }
            }
            "Subscription" => {
                let (fits, shared) = self.fits(spec["pubsubname"].as_str().unwrap(), "pubsub.", &scopes);
                warn(!(fits && shared), "spec.pubsubname".into());
                let twin = self.objects.iter().any(|((other_kind, other_name), other)| {
                    let theirs = texts(&other["scopes"]);
                    other_kind == kind
                        && other_name != name
                        && other["spec"]["pubsubname"] == spec["pubsubname"]
                        && other["spec"]["topic"] == spec["topic"]
                        && (theirs.is_empty() || scopes.is_empty() || !theirs.is_disjoint(&scopes))
                });
                warn(twin, "spec.topic".into());
            }
            _ => {
                let caller = &spec["rules"][0]["callers"][0]["appID"];
                warn(!has_app(caller), "spec.rules[0].callers[0].appID".into());
            }
        }
        if durations.iter().any(|duration| *duration == "soon") {
            return ("False", "InvalidSpec", BTreeSet::new());
        }
        if !["", "kubernetes"].contains(&store) {
            let (fits, shared) = self.fits(store, "secretstores.", &scopes);
            if !fits {
                return ("False", "SecretStoreNotFound", warnings);
            }
            if !shared {
                warnings.insert(auth);
            }
            return ("True", "Accepted", warnings);
        }
        for pair in pairs.into_iter().flat_map(|pairs| pairs.as_array().unwrap()) {
            let Some(secret) = pair["secretKeyRef"]["name"].as_str() else {
                continue;
            };
            match self.secrets.get(secret) {
                None => return ("False", "SecretNotFound", warnings),
                Some(keys) if !keys.contains(pair["secretKeyRef"]["key"].as_str().unwrap()) => {
                    return ("False", "SecretKeyNotFound", warnings);
                }
                Some(_) => {}
            }
        }
        ("True", "Accepted", warnings)
    }

    /// What is wrong with the statuses.
    fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        for ((kind, name), object) in &self.objects {
            let (accepted, reason, warnings) = self.expected(kind, name);
            let (ready, ready_reason) = match accepted {
                "True" => ("True", "NoSidecars"),
                _ => (accepted, "NotAccepted"),
            };
            let generation = &object["metadata"]["generation"];
            let status = &object["status"];
            let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
            let find = |type_: &str| conditions.iter().find(|condition| condition["type"] == type_);
            let right = |type_, status: &str, reason: &str| {
                find(type_).is_some_and(|condition| {
                    condition["status"] == status
                        && condition["reason"] == reason
                        && condition["observedGeneration"] == *generation
                })
            };
            let message = find("Accepted").and_then(|condition| condition["message"].as_str());
            if status["observedGeneration"] != *generation
                || !right("Accepted", accepted, reason)
                || !right("Ready", ready, ready_reason)
                || message.is_none_or(|message| warned(message) != warnings)
            {
                mistakes.push(format!(
                    "{kind} {name}: expected {accepted} {reason} {warnings:?}, found {status}"
                ));
            }
        }
        mistakes
    }
}

fn texts(list: &Value) -> BTreeSet<&str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// The fields of the warnings about other objects.
fn warned(message: &str) -> BTreeSet<String> {
    const ABOUT_OTHERS: [&str; 6] = [
        "no pod in this namespace",
        "there is no component",
        "has the type",
        "has the scopes",
        "is subscribed to by",
        "names this Configuration",
    ];
    let Some((_, warnings)) = message.rsplit_once("warnings: ") else {
        return BTreeSet::new();
    };
    let about_others = warnings
        .split("; ")
        .filter(|text| ABOUT_OTHERS.iter().any(|about| text.contains(about)));
    about_others
        .map(|text| text.split_once(": ").unwrap().0.to_owned())
        .collect()
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
