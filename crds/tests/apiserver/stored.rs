//! Objects that were stored before a rule existed stay editable.

use kube::api::{Patch, PatchParams, PostParams};
use outrigger_crds::definition;
use outrigger_testkit::ApiServer;
use serde_json::{Value, json};

use crate::{
    corpus::{Case, Outcome, cases},
    server::{api_of, eventually, install, messages, under},
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

    for case in &stored {
        until_checked(&client, &namespace, case).await;
        let name = case.manifest["metadata"]["name"].as_str().unwrap();
        let api = api_of(&client, &namespace, &case.manifest);
        let edits = [
            (
                "metadata",
                json!({ "metadata": { "annotations": { "edited": "yes" } } }),
            ),
            ("another field", another_field(&case.manifest)),
        ];
        for (what, edit) in edits {
            let edited = api.patch(name, &PatchParams::default(), &Patch::Merge(&edit)).await;
            assert!(edited.is_ok(), "{}: {what}: {}", case.name, edited.unwrap_err());
        }
        let status = json!({ "status": { "observedGeneration": 1 } });
        let written = api
            .patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
            .await;
        assert!(written.is_ok(), "{}: status: {}", case.name, written.unwrap_err());
    }
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

/// An edit of a field that no rule is about.
fn another_field(manifest: &Value) -> Value {
    match manifest["kind"].as_str().unwrap() {
        "Component" => json!({ "spec": { "ignoreErrors": true } }),
        "Configuration" => json!({ "spec": { "wasm": { "strictSandbox": true } } }),
        "MCPServer" => json!({ "spec": { "ignoreErrors": true } }),
        "Resiliency" => json!({ "spec": { "policies": { "timeouts": { "another": "1s" } } } }),
        "Subscription" => json!({ "spec": { "deadLetterTopic": "dead" } }),
        kind => panic!("{kind} has no rules of ours"),
    }
}
