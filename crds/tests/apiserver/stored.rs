//! Objects that were stored before a rule existed stay editable.

use kube::api::{Patch, PatchParams, PostParams};
use outrigger_crds::definition;
use outrigger_testkit::{ApiServer, eventually};
use serde_json::{Value, json};

use crate::{
    corpus::{Case, Outcome, cases},
    server::{api_of, install, messages, under},
};

/// Definitions of this test alone.
const GROUP: &str = "stored.dapr.io";

#[tokio::test]
async fn what_was_stored_before_a_rule_existed_stays_editable() {
    let server = ApiServer::shared().await;
    let client = server.client();
    let namespace = server.namespace("stored").await.unwrap();
    install(
        &client,
        under(GROUP, definition::definitions_without_our_rules().unwrap()),
    )
    .await;

    let mut stored = Vec::new();
    for (index, mut case) in cases()
        .into_iter()
        .enumerate()
        .filter(|(_, case)| case.outcome == Outcome::Rejected)
    {
        case.manifest["metadata"]["name"] = json!(format!("stored-{index}"));
        let version = case.manifest["apiVersion"].as_str().unwrap().replace("dapr.io", GROUP);
        case.manifest["apiVersion"] = json!(version);
        let object = serde_json::from_value(case.manifest.clone()).unwrap();
        // What upstream's definitions refuse cannot have been stored.
        if messages(&client, &namespace, &case.manifest).await.is_empty() {
            api_of(&client, &namespace, &case.manifest)
                .create(&PostParams::default(), &object)
                .await
                .unwrap();
            stored.push(case);
        }
    }
    install(&client, under(GROUP, definition::definitions().unwrap())).await;

    let mut refused = Vec::new();
    for case in &stored {
        until_checked(&client, &namespace, case).await;
        let name = case.manifest["metadata"]["name"].as_str().unwrap();
        let api = api_of(&client, &namespace, &case.manifest);
        let edits = [
            (
                "metadata",
                json!({ "metadata": { "annotations": { "edited": "yes" } } }),
            ),
            ("the field beside it", sibling(case)),
        ];
        for (what, edit) in edits {
            let edited = api.patch(name, &PatchParams::default(), &Patch::Merge(&edit)).await;
            if let Err(error) = edited {
                refused.push(format!("{}: {what}: {edit}: {error}", case.name));
            }
        }
        let status = json!({ "status": { "observedGeneration": 1 } });
        let written = api
            .patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
            .await;
        assert!(written.is_ok(), "{}: status: {}", case.name, written.unwrap_err());
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert!(stored.len() > 30, "{} cases of our own rules", stored.len());
}

/// Waits until the server has taken up the rule that the object breaks.
async fn until_checked(client: &kube::Client, namespace: &str, case: &Case) {
    let mut fresh = case.manifest.clone();
    fresh["metadata"]["name"] = json!("fresh");
    eventually(&format!("{} is refused", case.name), || async {
        (!messages(client, namespace, &fresh).await.is_empty()).then_some(())
    })
    .await;
}

/// An edit beside the field that breaks the rule, in the same object. What has no other field is one value with its parent, and
/// so is a list.
fn sibling(case: &Case) -> Value {
    let (field, _) = case.messages[0].split_once(':').unwrap();
    let mut path = Vec::new();
    // As in the tables of rules.
    let mut plain = Vec::new();
    let mut at = &case.manifest;
    for name in field.split(['.', '[', ']']).filter(|name| !name.is_empty()) {
        let is_key = field.contains(&format!("[{name}]"));
        if at.is_array() {
            break;
        }
        path.push(name);
        plain.push(if is_key { "{}" } else { name });
        at = &at[name];
    }
    loop {
        let own = path
            .pop()
            .expect("every kind has a field beside the one that breaks a rule");
        plain.pop();
        if let Some((name, value)) = other_field(case.manifest["kind"].as_str().unwrap(), &plain.join("."), own) {
            let edit = json!({ name: value });
            return path.iter().rev().fold(edit, |edit, name| json!({ *name: edit }));
        }
    }
}

/// A field of the object at a path that is not `own`, with a correct value.
fn other_field(kind: &str, path: &str, own: &str) -> Option<(&'static str, Value)> {
    let one_of = |fields: [(&'static str, Value); 2]| fields.into_iter().find(|(name, _)| *name != own);
    match path {
        "spec" if kind == "Component" => Some(("version", json!("v7"))),
        "spec" => Some(("wasm", json!({ "strictSandbox": true }))),
        "spec.accessControl" => Some(("trustDomain", json!("other"))),
        "spec.endpoint.sse" | "spec.endpoint.streamableHTTP" => Some(("protocolVersion", json!("7"))),
        "spec.metric.workflow" | "spec.metrics.workflow" => Some(("latencyDistributionBuckets", json!([7]))),
        "spec.policies.circuitBreakers.{}" => one_of([("maxRequests", json!(7)), ("interval", json!("7s"))]),
        "spec.policies.retries.{}" => Some(("maxRetries", json!(7))),
        "spec.policies.retries.{}.matching" => {
            one_of([("httpStatusCodes", json!("500")), ("gRPCStatusCodes", json!("7"))])
        }
        "spec.policies.timeouts" => Some(("another", json!("7s"))),
        "spec.routes" => Some(("default", json!("/other"))),
        "spec.targets.actors.{}" | "spec.targets.apps.{}" => Some(("retry", json!("other"))),
        "spec.tracing" => Some(("stdout", json!(true))),
        "spec.tracing.otel" => Some(("isSecure", json!(true))),
        "spec.workflow.stateRetentionPolicy" => one_of([("failed", json!("7s")), ("completed", json!("7s"))]),
        _ => None,
    }
}
