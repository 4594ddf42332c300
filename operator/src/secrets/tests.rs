use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::AtomicUsize},
};

use outrigger_crds::{Component, decode};
use prometheus::Registry;
use serde_json::json;

use super::{source::KEEP_FAILURE, *};
use crate::{
    index::{Index, State},
    metrics::Metrics,
};

/// Secrets whose reads are counted.
#[derive(Default)]
struct Store {
    secrets: Mutex<HashMap<String, Found>>,
    reads: AtomicUsize,
}

impl Source for Arc<Store> {
    fn read(&self, key: ObjectKey) -> Pin<Box<dyn Future<Output = Result<Found, Unavailable>> + Send + '_>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let found = self.secrets.lock().get(&key.name).cloned();
        Box::pin(async move {
            tokio::task::yield_now().await;
            found.ok_or_else(|| Unavailable::new(key, "down"))
        })
    }
}

fn fixture() -> (Arc<Store>, Secrets, Arc<Version<Component>>) {
    let metrics = Metrics::new(&Registry::new()).unwrap();
    let component = json!({
        "metadata": {"name": "db", "namespace": "shop", "resourceVersion": "1"},
        "spec": {"type": "state.redis", "version": "v1", "metadata": [
            {"name": "host", "value": "redis"},
            {"name": "password", "secretKeyRef": {"name": "auth", "key": "password"}},
        ]},
    });
    let index = Index::<Component>::new(metrics.kind::<Component>());
    index.set_state(State::Synced);
    index
        .apply(decode(&component.to_string()).unwrap(), Instant::now())
        .unwrap();
    let store = Arc::new(Store::default());
    let secrets = Secrets::new(Box::new(store.clone()), metrics.clone());
    (store, secrets, index.get("shop", "db").unwrap())
}

fn set(store: &Store, version: &str, password: &str) {
    let data = BTreeMap::from([("password".to_owned(), password.as_bytes().to_vec())]);
    let found = Found::Secret(Arc::new(Content::new(version, data)));
    store.secrets.lock().insert("auth".into(), found);
}

fn password(payload: &Bytes) -> serde_json::Value {
    let payload: serde_json::Value = serde_json::from_slice(payload).unwrap();
    payload["spec"]["metadata"][1]["value"].clone()
}

#[tokio::test(start_paused = true)]
async fn one_read_and_one_payload_serve_everyone_until_the_secret_is_forgotten() {
    let (store, secrets, version) = fixture();
    set(&store, "1", "hunter1");
    let payload = || async { secrets.payload("shop", &version).await.unwrap() };
    let (first, second) = tokio::join!(payload(), payload());
    assert_eq!(password(&first), "aHVudGVyMQ==");
    assert_eq!(first, second);
    assert_eq!(payload().await.as_ptr(), second.as_ptr(), "the bytes are shared");
    assert_eq!(store.reads.load(Ordering::SeqCst), 1);

    set(&store, "2", "hunter2");
    tokio::time::advance(KEEP).await;
    assert_eq!(password(&payload().await), "aHVudGVyMg==");
    assert_eq!(store.reads.load(Ordering::SeqCst), 2);

    secrets.expire(Instant::now() + KEEP);
    assert!(secrets.reader.is_empty() && secrets.payloads.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_missing_secret_leaves_its_value_unset_and_is_soon_looked_for_again() {
    let (store, secrets, version) = fixture();
    store.secrets.lock().insert("auth".into(), Found::Missing);
    let payload = secrets.payload("shop", &version).await.unwrap();
    assert_eq!(password(&payload), serde_json::Value::Null);
    set(&store, "1", "hunter1");
    tokio::time::advance(KEEP_FAILURE).await;
    let payload = secrets.payload("shop", &version).await.unwrap();
    assert_eq!(password(&payload), "aHVudGVyMQ==");
}

#[tokio::test(start_paused = true)]
async fn a_failed_read_is_an_error_and_not_remembered() {
    let (store, secrets, version) = fixture();
    assert!(secrets.payload("shop", &version).await.is_err());
    set(&store, "1", "hunter1");
    assert!(secrets.payload("shop", &version).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_a_watch_tells_during_a_read_is_what_is_sent() {
    let (store, secrets, version) = fixture();
    secrets.set_followed();
    set(&store, "1", "hunter1");
    let told = async {
        tokio::task::yield_now().await;
        tokio::time::advance(WATCH_PATIENCE).await;
        while store.reads.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        set(&store, "2", "hunter2");
        let new = store.secrets.lock()["auth"].clone();
        let known = secrets.watched.set(&ObjectKey::new("shop", "auth"), new);
        assert!(known.is_none(), "so nobody is told of a change");
    };
    let ((), payload) = tokio::join!(biased; told, secrets.payload("shop", &version));
    assert_eq!(password(&payload.unwrap()), "aHVudGVyMg==");
}
