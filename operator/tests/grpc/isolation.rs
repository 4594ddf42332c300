//! Whatever is edited, an app is sent nothing that is not its own: no resource of another namespace or scope, no value of a
//! Secret of another namespace, no Configuration that its pods do not name.

use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc};

use base64::prelude::{BASE64_STANDARD, Engine};
use outrigger_crds::{Component, Configuration, HTTPEndpoint};
use outrigger_operator::secrets::{Content, Found, Source, Unavailable};
use outrigger_process::kubernetes::watch::ObjectKey;
use outrigger_proto::operator::{
    ComponentUpdateRequest, ConfigurationUpdateRequest, HttpEndpointUpdateRequest, ListComponentsRequest,
    ListHttpEndpointsRequest, ResourceEventType, operator_client::OperatorClient,
};
use serde_json::{Value, json};
use tokio::sync::Barrier;
use tonic::transport::Channel;

use crate::{
    fixture::{Fixture, json_of},
    support::{Server, soon},
};

const NAMESPACES: [&str; 2] = ["shop", "bank"];
const APPS: [&str; 3] = ["cart", "pay", "ship"];
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const EDITS: usize = 150;

/// Secrets whose values say whose they are.
struct Telling;

impl Source for Telling {
    fn read(&self, key: ObjectKey) -> Pin<Box<dyn Future<Output = Result<Found, Unavailable>> + Send + '_>> {
        let data = BTreeMap::from([("key".to_owned(), key.to_string().into_bytes())]);
        let found = Found::Secret(Arc::new(Content::new("1", data)));
        Box::pin(async move { Ok(found) })
    }
}

fn secret(name: &str) -> Value {
    json!({"name": "secret", "secretKeyRef": {"name": name, "key": "key"}})
}

fn component(namespace: &str, name: &str, edit: usize, scopes: &[&str]) -> Value {
    json!({
        "metadata": {"name": name, "namespace": namespace, "resourceVersion": edit.to_string()}, "scopes": scopes,
        "spec": {"type": "state.redis", "version": "v1", "metadata": [{"name": "edit", "value": edit.to_string()}, secret(name)]},
    })
}

fn endpoint(namespace: &str, name: &str, edit: usize, scopes: &[&str]) -> Value {
    json!({
        "metadata": {"name": name, "namespace": namespace, "resourceVersion": edit.to_string()}, "scopes": scopes,
        "spec": {"baseUrl": format!("http://{edit}"), "headers": [secret(name)]},
    })
}

fn configuration(namespace: &str, name: &str, edit: usize) -> Value {
    json!({
        "metadata": {"name": name, "namespace": namespace, "resourceVersion": edit.to_string()},
        "spec": {"tracing": {"samplingRate": edit.to_string(), "otel": {"headers": [secret(name)]}}},
    })
}

struct Sidecar {
    namespace: &'static str,
    app: &'static str,
    client: OperatorClient<Channel>,
}

impl Sidecar {
    async fn connect(server: &Server, namespace: &'static str, app: &'static str) -> Self {
        let client = server.client(&format!("spiffe://public/ns/{namespace}/{app}")).await;
        Self { namespace, app, client }
    }

    /// Checks a payload. For a deletion it is the object as the app saw it last. Returns the name.
    fn check(&self, payload: &[u8], seed: u64) -> String {
        let object = json_of(payload);
        let context = format!("seed {seed}: {} in {} was sent {object}", self.app, self.namespace);
        assert_eq!(object["metadata"]["namespace"], self.namespace, "{context}");
        let scopes = object["scopes"].as_array().map_or(&[][..], Vec::as_slice);
        assert!(scopes.is_empty() || scopes.contains(&json!(self.app)), "{context}");
        let name = object["metadata"]["name"].as_str().unwrap();
        let spec = &object["spec"];
        let properties = [&spec["metadata"], &spec["headers"], &spec["tracing"]["otel"]["headers"]];
        let properties = properties.into_iter().filter_map(Value::as_array).flatten();
        for value in properties.filter(|property| property["name"] == "secret") {
            if let Some(value) = value["value"].as_str() {
                let decoded = BASE64_STANDARD.decode(value).unwrap_or_default();
                let own = format!("{}/{name}", self.namespace);
                assert!(value == own || decoded == own.as_bytes(), "{context}");
            }
        }
        name.to_owned()
    }

    /// Reads everything up to what was edited last, and lists. Returns how many payloads were checked.
    async fn run(mut self, seed: u64, open: Arc<Barrier>) -> usize {
        let namespace = self.namespace.to_owned();
        let mut checked = 0;
        let request = ComponentUpdateRequest {
            namespace: namespace.clone(),
        };
        let mut components = self.client.component_update(request).await.unwrap().into_inner();
        let request = HttpEndpointUpdateRequest {
            namespace: namespace.clone(),
        };
        let mut endpoints = self.client.http_endpoint_update(request).await.unwrap().into_inner();
        let request = ConfigurationUpdateRequest {
            namespace: namespace.clone(),
        };
        let mut configurations = self.client.configuration_update(request).await.unwrap().into_inner();
        open.wait().await;
        let request = ListComponentsRequest {
            namespace: namespace.clone(),
        };
        for payload in self
            .client
            .list_components(request)
            .await
            .unwrap()
            .into_inner()
            .components
        {
            self.check(&payload, seed);
        }
        let request = ListHttpEndpointsRequest { namespace };
        for payload in self
            .client
            .list_http_endpoints(request)
            .await
            .unwrap()
            .into_inner()
            .http_endpoints
        {
            self.check(&payload, seed);
        }
        loop {
            let event = soon("a component", components.message()).await.unwrap().unwrap();
            checked += 1;
            if self.check(&event.component, seed) == "last" {
                break;
            }
        }
        loop {
            let event = soon("an endpoint", endpoints.message()).await.unwrap().unwrap();
            checked += 1;
            if self.check(&event.http_endpoints, seed) == "last" {
                break;
            }
        }
        loop {
            let event = soon("a configuration", configurations.message())
                .await
                .unwrap()
                .unwrap();
            checked += 1;
            // Each app's pods name the one with the app's name.
            assert_eq!(self.check(&event.configuration, seed), self.app, "seed {seed}");
            let last = json_of(&event.configuration)["spec"]["tracing"]["samplingRate"] == "last";
            if last && event.r#type() != ResourceEventType::Deleted {
                return checked;
            }
        }
    }
}

async fn run(seed: u64) {
    let fixture = Fixture::with_source(Telling, "");
    fixture.sync();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut sidecars = Vec::new();
    let open = Arc::new(Barrier::new(NAMESPACES.len() * APPS.len() + 1));
    for namespace in NAMESPACES {
        for app in APPS {
            let pod = json!({"metadata": {"name": app, "namespace": namespace, "annotations": {
                "dapr.io/enabled": "true", "dapr.io/app-id": app, "dapr.io/config": app,
            }}});
            fixture.pods.apply(&serde_json::from_value(pod).unwrap());
            let sidecar = Sidecar::connect(&fixture.server, namespace, app).await;
            sidecars.push(tokio::spawn(sidecar.run(seed, open.clone())));
        }
    }
    let mut of = |all: &[&'static str]| all[random.usize(..all.len())];
    for edit in 0..EDITS {
        // Sidecars come in between, each at another moment.
        tokio::task::yield_now().await;
        let (namespace, name, app) = (of(&NAMESPACES), of(&NAMES), of(&APPS));
        let scopes: &[&str] = match edit % 4 {
            0 => &[],
            1 => &[app],
            2 => &[app, "other"],
            _ => &["other"],
        };
        match of(&["component", "component", "endpoint", "configuration", "delete"]) {
            "component" => fixture.apply::<Component>(&component(namespace, name, edit, scopes)),
            "endpoint" => fixture.apply::<HTTPEndpoint>(&endpoint(namespace, name, edit, scopes)),
            "configuration" => fixture.apply::<Configuration>(&configuration(namespace, app, edit)),
            _ => fixture.delete::<Component>(namespace, name),
        }
    }
    soon("all streams", open.wait()).await;
    for namespace in NAMESPACES {
        fixture.apply::<Component>(&component(namespace, "last", EDITS, &[]));
        fixture.apply::<HTTPEndpoint>(&endpoint(namespace, "last", EDITS, &[]));
        for app in APPS {
            let mut last = configuration(namespace, app, EDITS);
            last["spec"]["tracing"]["samplingRate"] = json!("last");
            fixture.apply::<Configuration>(&last);
        }
    }
    for sidecar in sidecars {
        assert!(soon("the end of a sidecar", sidecar).await.unwrap() >= 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_app_is_sent_what_is_not_its_own() {
    for seed in 1..=20 {
        run(seed).await;
    }
}
