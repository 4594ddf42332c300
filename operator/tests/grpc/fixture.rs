//! The API over an index that the test fills.

use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc};

use outrigger_crds::{Component, decode};
use outrigger_operator::{
    api::Api,
    index::State,
    kinds::{Indexes, Kind, Visitor},
    metrics::Metrics,
    pods::Pods,
    scope::Scope,
    secrets::{Content, Found, Secrets, Source, Unavailable},
};
use outrigger_process::kubernetes::watch::ObjectKey;
use outrigger_proto::operator::{
    ComponentUpdateEvent, ComponentUpdateRequest, ListComponentsRequest, ResourceEventType,
};
use prometheus::Registry;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::Server;

pub(crate) const CART: &str = "spiffe://public/ns/shop/cart";

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
pub(crate) struct Down;

impl Source for Down {
    fn read(&self, key: ObjectKey) -> Pin<Box<dyn Future<Output = Result<Found, Unavailable>> + Send + '_>> {
        Box::pin(async move { Err(Unavailable::new(key, "no answer")) })
    }
}

pub(crate) struct Fixture {
    pub(crate) metrics: Metrics,
    pub(crate) indexes: Indexes,
    pub(crate) pods: Arc<Pods>,
    pub(crate) stop: CancellationToken,
    pub(crate) server: Server,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::with(true, "")
    }

    pub(crate) fn with(secret: bool, watch_namespace: &str) -> Self {
        Self::with_source(OneSecret(secret), watch_namespace)
    }

    pub(crate) fn with_source(source: impl Source + 'static, watch_namespace: &str) -> Self {
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

    pub(crate) fn synced() -> Self {
        let fixture = Self::new();
        fixture.sync();
        fixture
    }

    pub(crate) fn sync(&self) {
        struct Sync;
        impl Visitor for Sync {
            fn visit<K: Kind>(&mut self, index: &Arc<outrigger_operator::index::Index<K>>) {
                index.set_state(State::Synced);
            }
        }
        self.indexes.visit(&mut Sync);
    }

    pub(crate) fn apply<K: Kind>(&self, object: &Value) {
        let object: K = decode(&object.to_string()).unwrap();
        K::index(&self.indexes).apply(object, Instant::now()).unwrap();
    }

    pub(crate) fn delete<K: Kind>(&self, namespace: &str, name: &str) {
        K::index(&self.indexes).delete(&ObjectKey::new(namespace, name), Instant::now());
    }

    pub(crate) fn component(&self, name: &str, type_: &str) {
        self.apply::<Component>(&json!({
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"type": type_, "version": "v1", "metadata": [
                {"name": "password", "secretKeyRef": {"name": "auth", "key": "password"}},
            ]},
        }));
    }
}

pub(crate) fn shop() -> ListComponentsRequest {
    ListComponentsRequest {
        namespace: "shop".into(),
    }
}

pub(crate) fn shop_updates() -> ComponentUpdateRequest {
    ComponentUpdateRequest {
        namespace: "shop".into(),
    }
}

pub(crate) fn json_of(payload: &[u8]) -> Value {
    serde_json::from_slice(payload).unwrap()
}

pub(crate) fn password(payload: &[u8]) -> Value {
    json_of(payload)["spec"]["metadata"][0]["value"].clone()
}

pub(crate) fn type_of(event: &ComponentUpdateEvent) -> (ResourceEventType, Value) {
    (event.r#type(), json_of(&event.component)["spec"]["type"].clone())
}
