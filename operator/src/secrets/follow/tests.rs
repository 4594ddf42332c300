use std::{collections::BTreeMap, convert::Infallible, future::Future, pin::Pin};

use kube::{api::ApiResource, client::Body};
use outrigger_crds::{Component, Guarded, decode};
use parking_lot::Mutex;
use prometheus::Registry;
use serde_json::{Value, json};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};

use super::*;
use crate::{
    index::State,
    metrics::Metrics,
    secrets::{Content, Source, Unavailable, watched::Seen},
};

/// For what has to happen; time stands still while anything can.
const DEADLINE: Duration = Duration::from_secs(3600);

/// Secrets whose reads can be held up.
struct Store {
    secret: Mutex<Found>,
    reads: Semaphore,
}

impl Source for Arc<Store> {
    fn read(&self, _: ObjectKey) -> Pin<Box<dyn Future<Output = Result<Found, Unavailable>> + Send + '_>> {
        let found = self.secret.lock().clone();
        Box::pin(async move {
            self.reads.acquire().await.unwrap().forget();
            Ok(found)
        })
    }
}

fn secret(version: &str, password: &str) -> Found {
    let data = BTreeMap::from([("password".to_owned(), password.as_bytes().to_vec())]);
    Found::Secret(Arc::new(Content::new(version, data)))
}

/// A follower of a Secret that a component refers to.
fn fixture(client: Client, found: Found) -> (Arc<Store>, Arc<Follower>) {
    let board = Arc::new(Board::new(ObjectKey::new("dapr-system", "daprsystem"), Arc::default()));
    let store = Arc::new(Store {
        secret: Mutex::new(found),
        reads: Semaphore::new(0),
    });
    let metrics = Metrics::new(&Registry::new()).unwrap();
    let indexes = Indexes::new(&metrics);
    let component = json!({
        "metadata": {"name": "db", "namespace": "shop", "resourceVersion": "1"},
        "spec": {"type": "state.redis", "version": "v1", "metadata": [
            {"name": "password", "secretKeyRef": {"name": "auth", "key": "password"}},
        ]},
    });
    indexes.components.set_state(State::Synced);
    let guarded: Guarded<Component> = serde_json::from_value(component.clone()).unwrap();
    board.observe(
        &guarded,
        &Arc::new(ApiResource::erase::<Component>(&())),
        Instant::now(),
    );
    let component: Component = decode(&component.to_string()).unwrap();
    indexes.components.apply(component, Instant::now()).unwrap();
    let secrets = Arc::new(Secrets::new(Box::new(store.clone()), metrics));
    (store, Follower::new(secrets, indexes, board, client))
}

/// A client whose requests are answered by the test.
fn scripted() -> (Client, mpsc::UnboundedReceiver<Asked>) {
    let (sender, asked) = mpsc::unbounded_channel();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (answer, answered) = oneshot::channel();
        let _ = sender.send((request.uri().to_string(), answer));
        async move {
            let (status, body): (u16, Value) = answered.await.unwrap();
            let response = http::Response::builder().status(status);
            Ok::<_, Infallible>(response.body(Body::from(body.to_string().into_bytes())).unwrap())
        }
    });
    (Client::new(service, "default"), asked)
}

type Asked = (String, oneshot::Sender<(u16, Value)>);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen"),
    }
}

fn named(version: &str) -> Slim<Secret> {
    let metadata = json!({"name": "auth", "namespace": "shop", "resourceVersion": version});
    serde_json::from_value(json!({ "metadata": metadata })).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_read_under_way_brings_no_deleted_secret_back() {
    let (store, follower) = fixture(scripted().0, secret("1", "hunter1"));
    let mut seen = follower.secrets.watched.get("shop", "auth", Instant::now());
    let watch = Arc::new(Metadata {
        namespace: "shop".into(),
        stale: Queue::default(),
    });
    let reading = tokio::spawn({
        let (follower, watch) = (follower.clone(), watch.clone());
        async move { follower.read_stale(&watch).await }
    });
    let mut unlisted = HashSet::new();
    follower.take_metadata(&watch, Event::Apply(named("1")), &mut unlisted);
    // The read has its answer, which is on its way while the Secret is deleted.
    while !watch.stale.is_empty() {
        tokio::task::yield_now().await;
    }
    *store.secret.lock() = Found::Missing;
    follower.take_metadata(&watch, Event::Delete(named("2")), &mut unlisted);
    store.reads.add_permits(2);
    let missing = seen.wait_for(|seen| matches!(seen, Seen::Known(Found::Missing)));
    drop(soon("the end of the Secret", missing).await);
    assert!(
        watch.stale.is_empty() && store.reads.available_permits() == 0,
        "there is nothing more to read"
    );
    reading.abort();
}

#[tokio::test(start_paused = true)]
async fn a_right_to_read_that_comes_back_is_noticed_among_many() {
    let (store, follower) = fixture(scripted().0, Found::Forbidden);
    store.reads.add_permits(100);
    let component = follower
        .indexes
        .components
        .subscribe("shop", "cart", Instant::now() + DEADLINE);
    let mut seen = follower.secrets.watched.get("shop", "auth", Instant::now());
    let watch = Metadata {
        namespace: "shop".into(),
        stale: Queue::default(),
    };
    follower.take_metadata(&watch, Event::Apply(named("1")), &mut HashSet::new());
    let coming_back = async {
        drop(soon("a refusal", seen.wait_for(|seen| matches!(seen, Seen::Refused(_)))).await);
        // A sidecar is sent what there is.
        drop(follower.secrets.get("shop", ["auth"].into()).await.unwrap());
        assert!(component.try_next().is_none());
        *store.secret.lock() = secret("1", "hunter1");
        soon("the announcement", component.next()).await
    };
    tokio::select! {
        event = coming_back => assert_eq!(&**event.version.name(), "db"),
        () = follower.read_stale(&watch) => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_was_refused_announces_the_secret_when_it_is_not() {
    let (client, mut asked) = scripted();
    let (store, follower) = fixture(client, Found::Forbidden);
    store.reads.add_permits(100);
    follower.secrets.set_followed();
    assert_eq!(follower.board.next().await.key.name, "db");
    let component = follower
        .indexes
        .components
        .subscribe("shop", "cart", Instant::now() + DEADLINE);
    let key = ObjectKey::new("shop", "auth");
    let sent = follower.secrets.get("shop", ["auth"].into());
    let scenario = async {
        let refusal = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403, "metadata": {}});
        let (_, answer) = soon("a list", asked.recv()).await.unwrap();
        answer.send((403, refusal)).unwrap();
        drop(soon("what a sidecar is sent", sent).await.unwrap());
        let (uri, answer) = soon("another list", asked.recv()).await.unwrap();
        assert!(uri.contains("fieldSelector=metadata.name%3Dauth"), "{uri}");
        let secret = json!({"metadata": {"name": "auth", "namespace": "shop", "resourceVersion": "1"}, "data": {"password": "aHVudGVyMQ=="}});
        let list =
            json!({"kind": "SecretList", "apiVersion": "v1", "metadata": {"resourceVersion": "9"}, "items": [secret]});
        answer.send((200, list)).unwrap();
        soon("the announcement", component.next()).await
    };
    // It is watched because a sidecar asked for it.
    let watched = follower.secrets.watched.get("shop", "auth", Instant::now());
    tokio::select! {
        event = scenario => assert_eq!(&**event.version.name(), "db"),
        () = follower.follow_one(key) => {}
    }
    drop(watched);
    assert_eq!(soon("a look at its status", follower.board.next()).await.key.name, "db");
}
