//! The API as sidecars see it, over an index that the test fills.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod isolation;
mod methods;
mod reports;
#[path = "../support/mod.rs"]
mod support;

use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc, time::Duration};

use outrigger_crds::{Component, Configuration, DaprResource, decode};
use outrigger_operator::{
    api::{Api, MAX_AGE, SILENCE, SPREAD},
    index::State,
    kinds::{Indexes, Kind, Visitor},
    metrics::Metrics,
    pods::Pods,
    scope::Scope,
    secrets::{Content, Found, Secrets, Source, Unavailable},
};
use outrigger_process::kubernetes::watch::ObjectKey;
use outrigger_proto::operator::{
    ComponentUpdateEvent, ComponentUpdateRequest, ConfigurationUpdateRequest, GetConfigurationRequest,
    GetResiliencyRequest, ListComponentsRequest, ListHttpEndpointsRequest, ResourceEventType,
};
use prometheus::Registry;
use serde_json::{Value, json};
use support::{Server, soon};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Code;

const CART: &str = "spiffe://public/ns/shop/cart";

/// One Secret `auth`, which exists or does not.
struct OneSecret(bool);

impl Source for OneSecret {
    fn read(&self, _: ObjectKey) -> Pin<Box<dyn Future<Output = Result<Found, Unavailable>> + Send + '_>> {
        let data = BTreeMap::from([("password".to_owned(), b"hunter1".to_vec())]);
        let found = match self.0 {
            true => Found::Secret(Arc::new(Content::new("1", data))),
            false => Found::Missing,
        };
        Box::pin(async move { Ok(found) })
    }
}

/// An API server that does not answer.
struct Down;

impl Source for Down {
    fn read(&self, key: ObjectKey) -> Pin<Box<dyn Future<Output = Result<Found, Unavailable>> + Send + '_>> {
        Box::pin(async move { Err(Unavailable::new(key, "no answer")) })
    }
}

struct Fixture {
    metrics: Metrics,
    indexes: Indexes,
    pods: Arc<Pods>,
    stop: CancellationToken,
    server: Server,
}

impl Fixture {
    fn new() -> Self {
        Self::with(true, "")
    }

    fn with(secret: bool, watch_namespace: &str) -> Self {
        Self::with_source(OneSecret(secret), watch_namespace)
    }

    fn with_source(source: impl Source + 'static, watch_namespace: &str) -> Self {
        let metrics = Metrics::new(&Registry::new()).unwrap();
        let indexes = Indexes::new(&metrics);
        let (pods, stop) = (Arc::<Pods>::default(), CancellationToken::new());
        let api = Api {
            reports: Arc::default(),
            gathering: None,
            injections: None,
            indexes: indexes.clone(),
            pods: pods.clone(),
            secrets: Arc::new(Secrets::new(Box::new(source), metrics.clone())),
            metrics: metrics.clone(),
            scope: Scope::new(watch_namespace),
            stop: stop.clone(),
        };
        Self {
            metrics,
            indexes,
            pods,
            stop,
            server: Server::start(api),
        }
    }

    fn synced() -> Self {
        let fixture = Self::new();
        fixture.sync();
        fixture
    }

    fn sync(&self) {
        struct Sync;
        impl Visitor for Sync {
            fn visit<K: Kind>(&mut self, index: &Arc<outrigger_operator::index::Index<K>>) {
                index.set_state(State::Synced);
            }
        }
        self.indexes.visit(&mut Sync);
    }

    fn apply<K: Kind>(&self, object: &Value) {
        let object: K = decode(&object.to_string()).unwrap();
        K::index(&self.indexes).apply(object, Instant::now()).unwrap();
    }

    fn delete<K: Kind>(&self, namespace: &str, name: &str) {
        K::index(&self.indexes).delete(&ObjectKey::new(namespace, name), Instant::now());
    }

    fn component(&self, name: &str, type_: &str) {
        self.apply::<Component>(&json!({
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"type": type_, "version": "v1", "metadata": [
                {"name": "password", "secretKeyRef": {"name": "auth", "key": "password"}},
            ]},
        }));
    }
}

fn shop() -> ListComponentsRequest {
    ListComponentsRequest {
        namespace: "shop".into(),
    }
}

fn json_of(payload: &[u8]) -> Value {
    serde_json::from_slice(payload).unwrap()
}

fn password(payload: &[u8]) -> Value {
    json_of(payload)["spec"]["metadata"][0]["value"].clone()
}

fn type_of(event: &ComponentUpdateEvent) -> (ResourceEventType, Value) {
    (event.r#type(), json_of(&event.component)["spec"]["type"].clone())
}

#[tokio::test]
async fn lists_carry_kinds_and_secrets_and_streams_carry_changes() {
    let fixture = Fixture::new();
    fixture.component("db", "state.redis");
    fixture.sync();
    let mut cart = fixture.server.client(CART).await;

    let list = cart.list_components(shop()).await.unwrap().into_inner().components;
    let component = json_of(&list[0]);
    assert_eq!(
        (&component["kind"], &component["apiVersion"]),
        (&json!("Component"), &json!("dapr.io/v1alpha1"))
    );
    assert_eq!(password(&list[0]), "aHVudGVyMQ==");
    assert_eq!(
        component["spec"]["metadata"][0]["secretKeyRef"]["name"], "auth",
        "the reference stays"
    );

    let request = ComponentUpdateRequest {
        namespace: "shop".into(),
    };
    let mut stream = cart.component_update(request).await.unwrap().into_inner();
    fixture.component("db", "state.etcd");
    let event = soon("an update", stream.message()).await.unwrap().unwrap();
    assert_eq!(type_of(&event), (ResourceEventType::Updated, json!("state.etcd")));
    assert_eq!(password(&event.component), "aHVudGVyMQ==");

    fixture
        .indexes
        .components
        .delete(&ObjectKey::new("shop", "db"), Instant::now());
    let event = soon("a deletion", stream.message()).await.unwrap().unwrap();
    assert_eq!(type_of(&event), (ResourceEventType::Deleted, json!("state.etcd")));
    assert_eq!(
        password(&event.component),
        Value::Null,
        "no Secret is read for what is gone"
    );
}

#[tokio::test]
async fn a_missing_secret_fails_nobody_else() {
    let fixture = Fixture::with(false, "");
    fixture.sync();
    fixture.component("db", "state.redis");
    let mut cart = fixture.server.client(CART).await;
    let list = cart.list_components(shop()).await.unwrap().into_inner().components;
    assert_eq!(password(&list[0]), Value::Null);
}

#[tokio::test]
async fn callers_are_kept_to_their_namespace() {
    let fixture = Fixture::synced();
    let mut nobody = fixture.server.client("").await;
    let denied = nobody.list_components(shop()).await.unwrap_err();
    assert_eq!(
        (denied.code(), denied.message()),
        (Code::PermissionDenied, "failed to determine identity")
    );

    let mut cart = fixture.server.client(CART).await;
    let bank = ListComponentsRequest {
        namespace: "bank".into(),
    };
    let denied = cart.list_components(bank).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    assert_eq!(
        denied.message(),
        "identity does not match requested namespace exp=bank got=shop"
    );

    let denied = cart.list_subscriptions(()).await.unwrap_err();
    assert_eq!(
        denied.message(),
        "identity does not match requested namespace exp= got=shop"
    );

    let bank = ConfigurationUpdateRequest {
        namespace: "bank".into(),
    };
    let denied = cart.configuration_update(bank).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    assert_eq!(
        denied.message(),
        "failed to authorize configuration update request: rpc error: code = PermissionDenied desc = identity does not \
         match requested namespace exp=bank got=shop"
    );
}

#[tokio::test]
async fn nothing_final_is_said_before_everything_is_known() {
    let fixture = Fixture::new();
    let mut cart = fixture.server.client(CART).await;
    let configuration = GetConfigurationRequest {
        name: "tracing".into(),
        namespace: "shop".into(),
    };
    let early = cart.get_configuration(configuration.clone()).await.unwrap_err();
    assert_eq!(
        (early.code(), early.message()),
        (Code::Unavailable, "the operator has not read all configurations yet")
    );
    let request = ComponentUpdateRequest {
        namespace: "shop".into(),
    };
    assert_eq!(
        cart.component_update(request).await.unwrap_err().code(),
        Code::Unavailable
    );

    fixture.sync();
    let missing = cart.get_configuration(configuration).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    assert_eq!(
        missing.message(),
        r#"error getting configuration shop/tracing: Configuration.dapr.io "tracing" not found"#
    );
    let resiliency = GetResiliencyRequest {
        name: "retries".into(),
        namespace: "shop".into(),
    };
    let missing = cart.get_resiliency(resiliency).await.unwrap_err();
    assert_eq!(
        missing.message(),
        r#"error getting resiliency: Resiliency.dapr.io "retries" not found"#
    );
    let request = ListHttpEndpointsRequest {
        namespace: "shop".into(),
    };
    assert!(
        cart.list_http_endpoints(request)
            .await
            .unwrap()
            .into_inner()
            .http_endpoints
            .is_empty()
    );
}

#[tokio::test]
async fn other_namespaces_than_the_watched_one_are_refused() {
    let fixture = Fixture::with(true, "bank");
    fixture.sync();
    let mut cart = fixture.server.client(CART).await;
    assert_eq!(
        cart.list_components(shop()).await.unwrap_err().code(),
        Code::FailedPrecondition
    );
}

#[tokio::test]
async fn only_the_assigned_configuration_is_sent_even_if_its_pod_is_seen_late() {
    let fixture = Fixture::synced();
    let mut cart = fixture.server.client(CART).await;
    let request = ConfigurationUpdateRequest {
        namespace: "shop".into(),
    };
    let mut stream = cart.configuration_update(request).await.unwrap().into_inner();
    for name in ["other", "tracing"] {
        fixture.apply::<Configuration>(&json!({"metadata": {"name": name, "namespace": "shop"}}));
    }
    let pod = json!({"metadata": {"name": "cart-1", "namespace": "shop", "annotations": {
        "dapr.io/enabled": "true", "dapr.io/app-id": "cart", "dapr.io/config": "tracing",
    }}});
    fixture.pods.apply(&serde_json::from_value(pod).unwrap());
    let event = soon("the configuration", stream.message()).await.unwrap().unwrap();
    assert_eq!(event.r#type(), ResourceEventType::Created);
    let configuration = json_of(&event.configuration);
    assert_eq!(configuration["metadata"]["name"], "tracing");
    assert_eq!(configuration["kind"], Configuration::KIND);
}

#[tokio::test]
async fn streams_end_well_when_the_operator_stops() {
    let fixture = Fixture::synced();
    let mut cart = fixture.server.client(CART).await;
    let request = ComponentUpdateRequest {
        namespace: "shop".into(),
    };
    let mut stream = cart.component_update(request).await.unwrap().into_inner();
    fixture.stop.cancel();
    assert_eq!(
        soon("the end of the stream", stream.message()).await.unwrap(),
        None,
        "status OK"
    );
    fixture.server.ended().await;
}

#[tokio::test(start_paused = true)]
async fn connections_end_at_their_age_each_at_its_own_moment() {
    let fixture = Fixture::synced();
    let start = Instant::now();
    let mut ends = Vec::new();
    for _ in 0..3 {
        let mut cart = fixture.server.client(CART).await;
        let request = ComponentUpdateRequest {
            namespace: "shop".into(),
        };
        let mut stream = cart.component_update(request).await.unwrap().into_inner();
        ends.push(tokio::spawn(async move {
            (stream.message().await.unwrap(), Instant::now())
        }));
    }
    let mut times = Vec::new();
    for end in ends {
        let (message, at) = end.await.unwrap();
        assert_eq!(message, None, "status OK");
        assert!(
            at - start >= MAX_AGE && at - start <= MAX_AGE + SPREAD + SILENCE,
            "{:?}",
            at - start
        );
        times.push(at);
    }
    times.dedup();
    assert_eq!(times.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_silent_sidecar_is_cut_off_and_counted_and_a_quiet_one_stays() {
    let fixture = Fixture::synced();
    let mut quiet = fixture.server.client(CART).await;
    let request = ComponentUpdateRequest {
        namespace: "shop".into(),
    };
    let mut stream = quiet.component_update(request).await.unwrap().into_inner();
    let silent = fixture.server.silent(CART).await;
    tokio::time::timeout(Duration::from_secs(30), silent.closed())
        .await
        .expect("within half a minute");
    assert_eq!(fixture.metrics.stalled.get(), 1);
    // On the paused clock: pings come and go.
    tokio::time::sleep(Duration::from_secs(300)).await;
    fixture.component("db", "state.redis");
    assert_eq!(
        stream.message().await.unwrap().unwrap().r#type(),
        ResourceEventType::Created
    );
    assert_eq!(fixture.metrics.stalled.get(), 1);
    assert_eq!(fixture.metrics.subscribers.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_cannot_be_read_now_holds_up_nothing_else() {
    let fixture = Fixture::with_source(Down, "");
    fixture.sync();
    let mut cart = fixture.server.client(CART).await;
    let request = ComponentUpdateRequest {
        namespace: "shop".into(),
    };
    let mut stream = cart.component_update(request).await.unwrap().into_inner();
    fixture.component("db", "state.redis");
    for name in ["one", "two"] {
        fixture.apply::<Component>(&json!({
            "metadata": {"name": name, "namespace": "shop"}, "spec": {"type": "state.redis", "version": "v1"},
        }));
        let event = soon("an event", stream.message()).await.unwrap().unwrap();
        assert_eq!(json_of(&event.component)["metadata"]["name"], name);
    }
    // What is gone needs no Secret.
    fixture
        .indexes
        .components
        .delete(&ObjectKey::new("shop", "one"), Instant::now());
    let event = soon("a deletion", stream.message()).await.unwrap().unwrap();
    assert_eq!(event.r#type(), ResourceEventType::Deleted);
    assert_eq!(
        cart.list_components(shop()).await.unwrap_err().code(),
        Code::Unavailable
    );
}
