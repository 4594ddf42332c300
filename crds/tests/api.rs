//! The definitions in a real API server: what it takes, fills in, prunes and shows, and what watches make of it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod corpus;
#[path = "api/upstream.rs"]
mod upstream;
#[path = "api/valid.rs"]
mod valid;

use std::{path::Path, time::Duration};

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use outrigger_crds::{
    Component, Configuration, DaprResource, Guarded, HTTPEndpoint, MCPServer, NameValuePair, WorkflowAccessPolicy,
};
use outrigger_testkit::ApiServer;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(60);

fn folder(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A server with the definitions, and a new namespace in it.
async fn server(prefix: &str) -> (Client, String) {
    let server = ApiServer::shared().await;
    server.apply_crds(&folder("../charts/dapr/crds")).await.unwrap();
    (server.client(), server.namespace(prefix).await.unwrap())
}

fn untyped<K: DaprResource>(client: &Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &ApiResource::erase::<K>(&()))
}

async fn create<K: DaprResource>(client: &Client, namespace: &str, object: Value) -> Result<Value, String> {
    let mut object = object;
    object["apiVersion"] = json!(K::api_version_text());
    object["kind"] = json!(K::KIND);
    let object = serde_json::from_value(object).unwrap();
    match untyped::<K>(client, namespace)
        .create(&PostParams::default(), &object)
        .await
    {
        Ok(created) => Ok(serde_json::to_value(created).unwrap()),
        Err(kube::Error::Api(status)) => Err(status.message),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn typed_objects_are_accepted_as_they_are_written() {
    let (client, ns) = &server("typed").await;
    let mut component = Component::default();
    component.metadata.name = Some("c".into());
    component.spec.type_ = "state.in-memory".into();
    component.spec.metadata = Some(vec![NameValuePair {
        name: "x".into(),
        ..Default::default()
    }]);
    let components = Api::<Component>::namespaced(client.clone(), ns);
    let created = components.create(&PostParams::default(), &component).await.unwrap();
    assert_eq!(created.spec.type_, "state.in-memory");
    assert_eq!(created.properties()[0].value, None);

    let mut endpoint = HTTPEndpoint::default();
    endpoint.metadata.name = Some("e".into());
    let endpoints = Api::<HTTPEndpoint>::namespaced(client.clone(), ns);
    endpoints.create(&PostParams::default(), &endpoint).await.unwrap();
}

#[tokio::test]
async fn get_shows_columns() {
    let (client, ns) = &server("columns").await;
    let spec = json!({ "type": "state.in-memory", "version": "v1", "metadata": [] });
    create::<Component>(
        client,
        ns,
        json!({ "metadata": { "name": "store" }, "spec": spec, "scopes": ["a", "b"] }),
    )
    .await
    .unwrap();
    let status = json!({
        "apiVersion": "dapr.io/v1alpha1", "kind": "Component",
        "status": {
            "observedGeneration": 1,
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "NoSidecars", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
            "sidecars": { "matching": 0, "loaded": 0, "rejected": 0 },
        },
    });
    let components = Api::<Component>::namespaced(client.clone(), ns);
    let how = PatchParams::apply("test");
    let applied = components
        .patch_status("store", &how, &Patch::Apply(&status))
        .await
        .unwrap();
    assert_eq!(
        applied.metadata.generation,
        Some(1),
        "a status does not change the generation"
    );

    let request = http::Request::get(format!("/apis/dapr.io/v1alpha1/namespaces/{ns}/components"))
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())
        .unwrap();
    let table: Value = client.request(request).await.unwrap();
    let columns = table["columnDefinitions"].as_array().unwrap().iter();
    let names: Vec<_> = columns.map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Name", "Type", "Version", "Scopes", "Ready", "Reason", "Age"]);
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    let shown: Vec<_> = cells[..6].iter().map(|cell| cell.as_str().unwrap()).collect();
    assert_eq!(
        shown,
        ["store", "state.in-memory", "v1", r#"["a","b"]"#, "True", "NoSidecars"]
    );
}

#[tokio::test]
async fn short_names_and_category_are_known() {
    let (client, _) = &server("names").await;
    for version in ["v1alpha1", "v2alpha1"] {
        let list = client
            .list_api_group_resources(&format!("dapr.io/{version}"))
            .await
            .unwrap();
        for resource in list.resources.iter().filter(|resource| !resource.name.contains('/')) {
            assert_eq!(
                resource.categories.as_deref().unwrap_or_default(),
                ["dapr"],
                "{}",
                resource.name
            );
            let [short] = resource.short_names.as_deref().unwrap_or_default() else {
                panic!("one short name expected for {}", resource.name)
            };
            assert!(short.starts_with('d'), "{short}");
        }
        assert!(
            list.resources
                .iter()
                .any(|resource| resource.name == "subscriptions/status")
        );
    }
}

#[tokio::test]
async fn unknown_fields_are_pruned_and_free_ones_kept() {
    let (client, ns) = &server("pruning").await;
    let value = json!({ "nested": { "anything": [1, true, "x"] } });
    let object = json!({
        "metadata": { "name": "c" }, "bogus": 1,
        "spec": { "type": "state.redis", "version": "v1", "bogus": 1, "metadata": [{ "name": "n", "value": value, "bogus": 1 }] },
    });
    let stored = create::<Component>(client, ns, object).await.unwrap();
    assert_eq!(
        stored["spec"],
        json!({ "type": "state.redis", "version": "v1", "metadata": [{ "name": "n", "value": value }] })
    );
    assert_eq!(stored.get("bogus"), None);

    let tls = json!({ "baseUrl": "u", "clientTLS": {} });
    let stored = create::<HTTPEndpoint>(client, ns, json!({ "metadata": { "name": "e" }, "spec": tls })).await;
    assert_eq!(
        stored.unwrap()["spec"]["clientTLS"],
        json!({ "renegotiation": "Never" })
    );
}

#[tokio::test]
async fn a_spec_is_not_required_and_gets_no_defaults() {
    let (client, ns) = &server("bare").await;
    for (name, stored) in [
        (
            "component",
            create::<Component>(client, ns, json!({ "metadata": { "name": "x" } })).await,
        ),
        (
            "configuration",
            create::<Configuration>(client, ns, json!({ "metadata": { "name": "x" } })).await,
        ),
        (
            "policy",
            create::<WorkflowAccessPolicy>(client, ns, json!({ "metadata": { "name": "x" } })).await,
        ),
    ] {
        assert_eq!(stored.unwrap().get("spec"), None, "{name}");
    }
}

#[tokio::test]
async fn rules_reject_with_upstreams_words() {
    let (client, ns) = &server("rules").await;
    let rejected = |error: Result<Value, String>, expected: &str| {
        let message = error.expect_err(expected);
        assert!(message.contains(expected), "{message}");
    };
    let named = |spec: Value| json!({ "metadata": { "name": "x" }, "spec": spec });

    let both = json!({ "endpoint": { "sse": { "url": "u" }, "stdio": { "command": "c" } } });
    let message = "exactly one of streamableHTTP, sse, or stdio must be set";
    rejected(create::<MCPServer>(client, ns, named(both)).await, message);
    rejected(
        create::<MCPServer>(client, ns, named(json!({ "endpoint": {} }))).await,
        message,
    );
    let empty = json!({ "endpoint": { "sse": { "url": "" } } });
    rejected(
        create::<MCPServer>(client, ns, named(empty)).await,
        "spec.endpoint.sse.url",
    );

    let rules = |rule: Value| named(json!({ "rules": [rule] }));
    let callers = json!([{ "appID": "a" }]);
    rejected(
        create::<WorkflowAccessPolicy>(client, ns, rules(json!({ "callers": callers }))).await,
        "at least one of workflows or activities must contain a rule",
    );
    let requires = json!([{ "eventType": "event.raised", "name": "n", "appID": "a" }]);
    let workflow = |operations: Value| json!([{ "name": "w", "operations": operations, "requires": requires }]);
    rejected(
        create::<WorkflowAccessPolicy>(
            client,
            ns,
            rules(json!({ "callers": callers, "workflows": workflow(json!(["schedule", "get"])) })),
        )
        .await,
        "requires is only valid when the rule's only operation is 'schedule'",
    );
    rejected(
        create::<WorkflowAccessPolicy>(
            client,
            ns,
            rules(json!({ "callers": callers, "workflows": workflow(json!(["start"])) })),
        )
        .await,
        "Unsupported value: \"start\"",
    );
    let twice = json!([{ "name": "w", "operations": ["get", "get"] }]);
    rejected(
        create::<WorkflowAccessPolicy>(client, ns, rules(json!({ "callers": callers, "workflows": twice }))).await,
        "Duplicate value",
    );
    rejected(
        create::<Component>(client, ns, named(json!({ "type": "state.redis" }))).await,
        "spec.version: Required value",
    );
    let validator = json!({ "mtls": {
        "enabled": true, "sentryAddress": "s", "controlPlaneTrustDomain": "d", "tokenValidators": [{ "name": "other" }],
    } });
    rejected(
        create::<Configuration>(client, ns, named(validator)).await,
        "Unsupported value: \"other\"",
    );
}

#[tokio::test]
async fn a_duration_out_of_range_is_stored_but_spoils_no_list() {
    let (client, ns) = &server("duration").await;
    let retention = |text: &str| json!({ "workflow": { "stateRetentionPolicy": { "completed": text } } });
    for (name, text) in [("good", "1h"), ("bad", "3000000h")] {
        let object = json!({ "metadata": { "name": name }, "spec": retention(text) });
        create::<Configuration>(client, ns, object).await.unwrap();
    }
    let objects = Api::<Guarded<Configuration>>::namespaced(client.clone(), ns);
    let listed = objects.list(&ListParams::default()).await.unwrap().items;
    let (bad, good): (Vec<_>, Vec<_>) = listed.into_iter().partition(|object| object.0.is_err());
    assert_eq!((bad.len(), good.len()), (1, 1));
    let invalid = bad[0].0.as_ref().unwrap_err();
    assert_eq!(invalid.metadata.name.as_deref(), Some("bad"));
    assert!(
        invalid
            .error
            .starts_with("spec.workflow.stateRetentionPolicy.completed: "),
        "{invalid}"
    );
}
