use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize},
    },
};

use base64::{Engine, engine::general_purpose::STANDARD};
use outrigger_crds::{Component, decode};
use prometheus::Registry;
use serde_json::json;

use super::{source::KEEP_FAILURE, *};
use crate::{
    index::{Index, List, State},
    metrics::Metrics,
};

/// Secrets whose reads are counted, and take a second if they are slow.
#[derive(Default)]
struct Store {
    secrets: Mutex<HashMap<String, Found>>,
    reads: AtomicUsize,
    reading: AtomicUsize,
    most_at_once: AtomicUsize,
    slow: AtomicBool,
}

const SLOW: Duration = Duration::from_secs(1);

impl Source for Arc<Store> {
    fn read(&self, key: ObjectKey) -> Pin<Box<dyn Future<Output = Result<Found, Unavailable>> + Send + '_>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let found = self.secrets.lock().get(&key.name).cloned();
        Box::pin(async move {
            let reading = self.reading.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_at_once.fetch_max(reading, Ordering::SeqCst);
            match self.slow.load(Ordering::SeqCst) {
                true => tokio::time::sleep(SLOW).await,
                false => tokio::task::yield_now().await,
            }
            self.reading.fetch_sub(1, Ordering::SeqCst);
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

/// Twenty components that refer to twenty Secrets each, no two to the same.
fn many(secrets: &Secrets) -> Arc<List<Component>> {
    let index = Index::<Component>::new(secrets.metrics.kind::<Component>());
    for component in 0..20 {
        let properties: Vec<_> = (0..20)
            .map(|secret| json!({"name": "p", "secretKeyRef": {"name": format!("s-{component}-{secret}"), "key": "password"}}))
            .collect();
        let component = json!({
            "metadata": {"name": format!("c-{component:02}"), "namespace": "shop", "resourceVersion": "1"},
            "spec": {"type": "state.redis", "version": "v1", "metadata": properties},
        });
        index
            .apply(decode(&component.to_string()).unwrap(), Instant::now())
            .unwrap();
    }
    index.list("shop", "cart")
}

#[tokio::test(start_paused = true)]
async fn a_list_waits_once_for_all_its_secrets_and_reads_some_at_a_time() {
    let (store, secrets, _) = fixture();
    secrets.set_followed();
    let list = many(&secrets);
    let versions: Vec<_> = list.with_secrets().collect();
    for secret in versions.iter().flat_map(|version| version.secret_names()) {
        store.secrets.lock().insert(secret.clone(), Found::Missing);
    }
    let start = Instant::now();
    let payloads = async || secrets.payloads("shop", &versions).await.unwrap();

    assert_eq!(payloads().await.len(), 20);
    assert_eq!(
        start.elapsed().as_secs(),
        WATCH_PATIENCE.as_secs(),
        "no watch ever tells"
    );
    assert_eq!(store.reads.load(Ordering::SeqCst), 400);
    assert_eq!(payloads().await.len(), 20);
    assert_eq!(
        start.elapsed().as_secs(),
        WATCH_PATIENCE.as_secs(),
        "what was read is known"
    );

    secrets.watched.keep(&HashMap::new(), start + WATCH_PATIENCE + KEEP);
    tokio::time::advance(KEEP).await;
    store.slow.store(true, Ordering::SeqCst);
    let start = Instant::now();
    payloads().await;
    assert_eq!(
        start.elapsed().as_secs(),
        (WATCH_PATIENCE + SLOW * 400 / READS as u32).as_secs()
    );
    assert_eq!(store.most_at_once.load(Ordering::SeqCst), READS);
}

#[tokio::test(start_paused = true)]
async fn a_list_keeps_its_order_whatever_is_known_first() {
    let (_, secrets, _) = fixture();
    secrets.set_followed();
    let list = many(&secrets);
    let versions: Vec<_> = list.with_secrets().collect();
    let telling = async {
        tokio::task::yield_now().await;
        for version in versions.iter().rev() {
            for name in version.secret_names() {
                tokio::time::advance(Duration::from_millis(1)).await;
                let data = BTreeMap::from([("password".to_owned(), name.clone().into_bytes())]);
                let found = Found::Secret(Arc::new(Content::new("1", data)));
                secrets.watched.set(&ObjectKey::new("shop", name), found);
            }
        }
    };
    let (payloads, ()) = tokio::join!(biased; secrets.payloads("shop", &versions), telling);
    for (version, payload) in versions.iter().zip(payloads.unwrap()) {
        let payload: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(payload["metadata"]["name"], **version.name());
        let last = version.secret_names().last().unwrap();
        let encoded = STANDARD.encode(last);
        assert!(payload.to_string().contains(&encoded), "{last} in {payload}");
    }
}
