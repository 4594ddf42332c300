//! `kubectl explain` reads the server's OpenAPI document.

use outrigger_crds::definition;
use outrigger_testkit::{ApiServer, eventually};
use serde_json::Value;

use crate::server::install;

#[tokio::test]
async fn every_field_of_every_kind_is_explained() {
    let server = ApiServer::shared().await;
    let client = server.client();
    install(&client, definition::definitions().unwrap()).await;
    let mut kinds = 0;
    for version in ["v1alpha1", "v2alpha1"] {
        let document = openapi(&client, version).await;
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            if name.starts_with("io.dapr.") && !name.ends_with("List") {
                kinds += 1;
                explained(name, schema);
            }
        }
    }
    assert_eq!(kinds, 8);
}

/// The document, once the server has made it from the definitions.
async fn openapi(client: &kube::Client, version: &str) -> Value {
    eventually(&format!("an OpenAPI document of dapr.io/{version}"), || async {
        let request = http::Request::get(format!("/openapi/v3/apis/dapr.io/{version}"));
        client.request::<Value>(request.body(Vec::new()).unwrap()).await.ok()
    })
    .await
}

fn explained(path: &str, schema: &Value) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        assert!(
            property["description"].as_str().is_some_and(|text| !text.is_empty()),
            "{path} is not explained"
        );
        explained(&path, property);
    }
    for part in ["items", "additionalProperties"] {
        if schema[part].is_object() {
            explained(path, &schema[part]);
        }
    }
}
