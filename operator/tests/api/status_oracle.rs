//! What every status has to say, computed from the stored objects alone, by other code than the operator's. It knows the shapes
//! of the objects that the model writes, no others.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use serde_json::Value;

use crate::{
    fixture::Operator,
    status_model::{api, resources},
};

/// What the API server holds in the namespace.
pub(crate) struct World {
    pub(crate) objects: BTreeMap<(String, String), Value>,
    secrets: BTreeMap<String, BTreeSet<String>>,
    apps: BTreeSet<String>,
    configurations: BTreeSet<String>,
}

impl World {
    pub(crate) async fn read(operator: &Operator) -> Self {
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
    pub(crate) fn expected(&self, kind: &str, name: &str) -> (&'static str, &'static str, BTreeSet<String>) {
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
        if durations.iter().any(|duration| *duration == "3000000h") {
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
    pub(crate) fn mistakes(&self) -> Vec<String> {
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
