//! The webhook without a cluster, and what each of its answers has to be like. Tests and the fuzz target share it.

use std::{collections::HashMap, sync::Arc};

use axum::{Router, body::Body, http::Request};
use base64::{Engine, prelude::BASE64_STANDARD};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::Pod;
use outrigger_identity::Anchors;
use outrigger_injector::{
    cluster::Cluster, environment::Environment, metrics::Metrics, refusals::Refusals, settings::Settings,
    webhook::Webhook,
};
use prometheus::Registry;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt;

/// With these trust anchors.
pub(crate) fn webhook(anchors: &str) -> Router {
    let (_, anchors) = watch::channel(Arc::new(Anchors::from_pem(anchors).expect("trust anchors")));
    let variables: HashMap<String, String> = [("SIDECAR_IMAGE", "daprd"), ("NAMESPACE", "dapr-system")]
        .map(|(key, value)| (key.into(), value.into()))
        .into();
    let env = Environment::parse(&variables).expect("an environment");
    let metrics = Metrics::new(&Registry::new()).expect("an empty registry");
    let (refusals, _) = Refusals::new(metrics.clone());
    let settings = Settings::new(&env, "cluster.local", true, true);
    Webhook::new(settings, env.allowed, Cluster::default(), anchors, refusals, metrics).router()
}

/// Status and body of the answer to a review.
pub(crate) async fn post(webhook: &Router, body: &[u8]) -> (u16, Vec<u8>) {
    let request = Request::post("/mutate")
        .header("content-type", "application/json")
        .body(Body::from(body.to_vec()))
        .expect("a request");
    let response = webhook.clone().oneshot(request).await.expect("infallible");
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.expect("an answer");
    (status, body.to_bytes().to_vec())
}

/// An answer has to be one that the API server can work with: a whole AdmissionReview with the UID of the request; who is denied
/// learns why; a patch can be decoded and applied, and adds one sidecar. Only what is no review at all is refused over HTTP.
pub(crate) fn check(body: &[u8], status: u16, answer: &[u8]) {
    let review: Option<Value> = serde_json::from_slice(body).ok();
    let request = review.as_ref().and_then(|review| review.get("request"));
    let shown = String::from_utf8_lossy(body);
    if status == 400 {
        let nothing = body.is_empty() || request.is_none_or(Value::is_null);
        assert!(nothing && !answer.is_empty(), "{shown}");
        return;
    }
    assert_eq!(status, 200, "{shown}");
    let answer: Value = serde_json::from_slice(answer).expect("an AdmissionReview");
    let response = &answer["response"];
    assert!(response["uid"].is_string(), "{shown}");
    if let Some(uid) = request.and_then(|request| request["uid"].as_str()) {
        assert_eq!(response["uid"], uid, "{shown}");
    }
    let Some(patch) = response["patch"].as_str() else {
        let reason = response["status"]["message"].as_str();
        let told = response["allowed"] == false && reason.is_some_and(|reason| !reason.is_empty());
        assert!(response["allowed"] == true || told, "{shown}");
        return;
    };
    assert_eq!(
        (&response["allowed"], &response["patchType"]),
        (&json!(true), &json!("JSONPatch"))
    );
    let patch = BASE64_STANDARD.decode(patch).expect("base64");
    let patch: json_patch::Patch = serde_json::from_slice(&patch).expect("a JSON patch");
    let Some(object) = request.and_then(|request| request.get("object")) else {
        return;
    };
    // The API server itself decodes the pod before it asks, and always writes both parts.
    let whole = object["metadata"].is_object() && object["spec"].is_object();
    if !whole || serde_json::from_value::<Pod>(object.clone()).is_err() {
        return;
    }
    let mut pod = object.clone();
    let applied = json_patch::patch(&mut pod, &patch);
    assert!(applied.is_ok(), "{applied:?}: {patch}\n{shown}");
    let lists = [&pod["spec"]["containers"], &pod["spec"]["initContainers"]];
    let containers = lists.into_iter().filter_map(Value::as_array).flatten();
    let sidecars = containers.filter(|container| container["name"] == "daprd");
    assert_eq!(sidecars.count(), 1, "{pod}");
}
