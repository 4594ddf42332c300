//! What sidecars are told of the Secrets that resources refer to.

use k8s_openapi::api::core::v1::Secret;
use outrigger_crds::{Component, HTTPEndpoint};
use outrigger_proto::operator::{
    ComponentUpdateRequest, HttpEndpointUpdateRequest, ListComponentsRequest, ResourceEventType,
};
use serde_json::{Value, json};

use crate::{
    fixture::Operator,
    support::{eventually, soon},
};

fn component(secret: &str) -> Value {
    json!({"spec": {"type": "state.redis", "version": "v1", "metadata": [
        {"name": "password", "secretKeyRef": {"name": secret, "key": "password"}},
    ]}})
}

fn secret(password: &str) -> Value {
    json!({"stringData": {"password": password}})
}

fn value(payload: &[u8], pointer: &str) -> Value {
    let payload: Value = serde_json::from_slice(payload).unwrap();
    payload.pointer(pointer).cloned().unwrap_or_default()
}

/// A sidecar's stream of components.
struct Components(tonic::Streaming<outrigger_proto::operator::ComponentUpdateEvent>);

impl Components {
    async fn open(operator: &Operator) -> Self {
        let mut sidecar = operator.sidecar("cart").await;
        let request = ComponentUpdateRequest {
            namespace: operator.namespace.clone(),
        };
        Self(sidecar.component_update(request).await.unwrap().into_inner())
    }

    /// Type, name, and value of the first property of the next event.
    async fn next(&mut self) -> (ResourceEventType, String, Value) {
        let event = soon("an event", self.0.message()).await.unwrap().unwrap();
        let name = value(&event.component, "/metadata/name");
        let password = value(&event.component, "/spec/metadata/0/value");
        (event.r#type(), name.as_str().unwrap_or_default().to_owned(), password)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_secret_reaches_what_reloads_and_restarts_nothing() {
    let operator = Operator::plain("secrets").await;
    operator.apply::<Secret>("auth", secret("one")).await;
    let mut components = Components::open(&operator).await;
    let request = HttpEndpointUpdateRequest {
        namespace: operator.namespace.clone(),
    };
    let mut sidecar = operator.sidecar("cart").await;
    let mut endpoints = sidecar.http_endpoint_update(request).await.unwrap().into_inner();

    operator.apply::<Component>("db", component("auth")).await;
    let db = |type_, password: &str| (type_, "db".to_owned(), json!(password));
    assert_eq!(components.next().await, db(ResourceEventType::Created, "b25l"));
    let endpoint = |url: &str| {
        let header = json!({"name": "token", "secretKeyRef": {"name": "auth", "key": "password"}});
        json!({"spec": {"baseUrl": url, "headers": [header]}})
    };
    operator.apply::<HTTPEndpoint>("bank", endpoint("https://one")).await;
    let mut endpoint_event = async || {
        let event = soon("an endpoint", endpoints.message()).await.unwrap().unwrap();
        let [url, token] = ["/spec/baseUrl", "/spec/headers/0/value"].map(|path| value(&event.http_endpoints, path));
        (event.r#type(), url, token)
    };
    let created = (ResourceEventType::Created, json!("https://one"), json!("b25l"));
    assert_eq!(endpoint_event().await, created);

    operator.apply::<Secret>("auth", secret("two")).await;
    assert_eq!(components.next().await, db(ResourceEventType::Updated, "dHdv"));

    // What does not change the value is no event; the next one is the one after it.
    let labelled = json!({"metadata": {"labels": {"team": "a"}}, "stringData": {"password": "two", "other": "x"}});
    operator.apply::<Secret>("auth", labelled).await;
    operator.apply::<Secret>("auth", secret("three")).await;
    assert_eq!(components.next().await, db(ResourceEventType::Updated, "dGhyZWU="));

    // Stock sidecars restart for an endpoint, so that waits for its own edit.
    operator.apply::<HTTPEndpoint>("bank", endpoint("https://two")).await;
    let updated = (ResourceEventType::Updated, json!("https://two"), json!("dGhyZWU="));
    assert_eq!(endpoint_event().await, updated);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_comes_late_is_sent_when_it_is_there() {
    let operator = Operator::plain("late").await;
    let mut components = Components::open(&operator).await;
    operator.apply::<Component>("db", component("auth")).await;
    assert_eq!(
        components.next().await,
        (ResourceEventType::Created, "db".into(), Value::Null)
    );
    operator.apply::<Secret>("auth", secret("one")).await;
    assert_eq!(
        components.next().await,
        (ResourceEventType::Updated, "db".into(), json!("b25l"))
    );
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_secrets_of_a_namespace_are_followed_too() {
    const SECRETS: usize = 24;
    let operator = Operator::plain("many").await;
    let mut components = Components::open(&operator).await;
    for number in 0..SECRETS {
        let name = format!("s{number}");
        operator.apply::<Secret>(&name, secret("one")).await;
        operator.apply::<Component>(&name, component(&name)).await;
        assert_eq!(
            components.next().await,
            (ResourceEventType::Created, name, json!("b25l"))
        );
    }
    for number in [0, SECRETS - 1] {
        let name = format!("s{number}");
        operator.apply::<Secret>(&name, secret("two")).await;
        assert_eq!(
            components.next().await,
            (ResourceEventType::Updated, name, json!("dHdv"))
        );
    }
    let gone = kube::api::DeleteParams::default();
    operator.api::<Secret>().delete("s7", &gone).await.unwrap();
    assert_eq!(
        components.next().await,
        (ResourceEventType::Updated, "s7".into(), Value::Null)
    );
    // Below the limit again, each is watched by itself.
    for number in 8..SECRETS {
        operator
            .api::<Component>()
            .delete(&format!("s{number}"), &gone)
            .await
            .unwrap();
        assert_eq!(components.next().await.0, ResourceEventType::Deleted);
    }
    operator.apply::<Secret>("s1", secret("three")).await;
    assert_eq!(
        components.next().await,
        (ResourceEventType::Updated, "s1".into(), json!("dGhyZWU="))
    );
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_secret_that_is_missing_harms_no_other_component_and_no_later_edit() {
    const SIDECARS: usize = 20;
    const EDITS: usize = 17;
    let operator = Operator::plain("poison").await;
    let healthy = |edit: usize| {
        let property = json!({"name": "edit", "value": edit.to_string()});
        json!({"spec": {"type": "state.redis", "version": "v1", "metadata": [property]}})
    };
    operator.apply::<Component>("healthy", healthy(0)).await;
    let mut streams = Vec::new();
    for _ in 0..SIDECARS {
        streams.push(Components::open(&operator).await);
    }
    // The streams may replay what has just happened.
    let poison = operator.apply::<Component>("poison", component("nowhere"));
    poison.await;
    for stream in &mut streams {
        while stream.next().await.1 != "poison" {}
    }
    for edit in 1..=EDITS {
        operator.apply::<Component>("healthy", healthy(edit)).await;
        for stream in &mut streams {
            let expected = (
                ResourceEventType::Updated,
                "healthy".to_owned(),
                json!(edit.to_string()),
            );
            assert_eq!(stream.next().await, expected);
        }
    }
    // Nor a list.
    let mut sidecar = operator.sidecar("cart").await;
    let namespace = operator.namespace.clone();
    let list = sidecar
        .list_components(ListComponentsRequest { namespace })
        .await
        .unwrap();
    let names: Vec<_> = list
        .get_ref()
        .components
        .iter()
        .map(|payload| value(payload, "/metadata/name"))
        .collect();
    assert_eq!(names, ["healthy", "poison"]);

    // A component that goes together with its Secret is gone for everyone.
    operator
        .api::<Component>()
        .delete("poison", &Default::default())
        .await
        .unwrap();
    for stream in &mut streams {
        assert_eq!(
            stream.next().await,
            (ResourceEventType::Deleted, "poison".into(), Value::Null)
        );
    }
    assert_eq!(operator.metric("dapr_operator_pending_events", &[]), 0.0);
    eventually("every write to be counted", || async {
        (operator.count("dapr_operator_propagation_seconds") > 0).then_some(())
    })
    .await;
    operator.stop().await;
}
