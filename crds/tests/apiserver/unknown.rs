//! Unknown fields warn, as with `kubectl apply --validate=warn`.

use outrigger_crds::definition;
use outrigger_testkit::ApiServer;
use serde_json::{Value, json};

use crate::server::install;

#[tokio::test]
async fn unknown_fields_warn_and_are_left_out() {
    let server = ApiServer::shared().await;
    let client = server.client();
    install(&client, definition::definitions().unwrap()).await;
    let namespace = server.namespace("unknown").await.unwrap();
    let manifest = json!({
        "apiVersion": "dapr.io/v1alpha1", "kind": "Component", "metadata": { "name": "x" },
        "spec": {
            "type": "state.redis", "version": "v1", "initTimeuot": "10s",
            "metadata": [{ "name": "redisHost", "valeu": "redis:6379" }],
        },
        "scope": ["checkout"],
    });
    let path = format!("/apis/dapr.io/v1alpha1/namespaces/{namespace}/components?fieldValidation=Warn");
    let request = http::Request::post(path)
        .header("content-type", "application/json")
        .body(serde_json::to_vec(&manifest).unwrap().into())
        .unwrap();
    let answer = client.send(request).await.unwrap();
    assert_eq!(answer.status(), http::StatusCode::CREATED);
    let warnings: Vec<_> = answer
        .headers()
        .get_all("warning")
        .iter()
        .map(|text| text.to_str().unwrap())
        .collect();
    for field in ["scope", "spec.initTimeuot", "spec.metadata[0].valeu"] {
        let expected = format!("299 - \"unknown field \\\"{field}\\\"\"");
        assert!(
            warnings.contains(&expected.as_str()),
            "{expected} is not in {warnings:?}"
        );
    }
    assert_eq!(warnings.len(), 3, "{warnings:?}");

    let path = format!("/apis/dapr.io/v1alpha1/namespaces/{namespace}/components/x");
    let stored: Value = client
        .request(http::Request::get(path).body(Vec::new()).unwrap())
        .await
        .unwrap();
    assert_eq!(stored["spec"]["metadata"], json!([{ "name": "redisHost" }]));
}
