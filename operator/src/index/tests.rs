//! Events in, values out.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use outrigger_crds::{Component, decode};
use outrigger_process::kubernetes::watch::ObjectKey;
use outrigger_proto::operator::{
    ListComponentResponse,
    ResourceEventType::{self, Created, Deleted, Updated},
};
use prometheus::Registry;
use prost::Message;
use serde_json::json;
use tokio::time::Instant;

use super::{Index, State, Subscription, WINDOW};
use crate::metrics::Metrics;

struct Fixture {
    index: Arc<Index<Component>>,
    now: Instant,
    version: std::cell::Cell<u64>,
}

impl Fixture {
    /// A synced, empty index.
    fn new() -> Self {
        let fixture = Self::syncing();
        fixture.index.set_state(State::Synced);
        fixture
    }

    fn syncing() -> Self {
        let metrics = Metrics::new(&Registry::new()).unwrap();
        Self {
            index: Arc::new(Index::new(metrics.kind::<Component>())),
            now: Instant::now(),
            version: std::cell::Cell::new(0),
        }
    }

    /// Applies a component; every call has another `resourceVersion`, as in an API server.
    fn apply(&self, name: &str, type_: &str, scopes: &[&str]) -> bool {
        self.version.set(self.version.get() + 1);
        let component = json!({
            "metadata": {"name": name, "namespace": "shop", "resourceVersion": self.version.get().to_string()},
            "spec": {"type": type_, "version": "v1", "metadata": []},
            "scopes": scopes,
            "status": {"observedGeneration": self.version.get()},
        });
        let component = decode::<Component>(&component.to_string()).unwrap();
        self.index.apply(component, self.now).unwrap()
    }

    fn delete(&self, name: &str) {
        self.index.delete(&ObjectKey::new("shop", name), self.now);
    }

    fn subscribe(&self, app: &str) -> Subscription<Component> {
        self.index.subscribe("shop", app, self.now)
    }

    /// A subscriber for whom nothing is recent.
    fn subscribe_later(&mut self, app: &str) -> Subscription<Component> {
        self.now += WINDOW + Duration::from_millis(1);
        self.subscribe(app)
    }
}

/// What waits for a subscriber: event, object, its type and its scopes.
fn drain(subscription: &Subscription<Component>) -> Vec<(ResourceEventType, String, String)> {
    std::iter::from_fn(|| subscription.try_next())
        .map(|event| {
            let payload: serde_json::Value = serde_json::from_slice(event.version.payload()).unwrap();
            let type_ = payload["spec"]["type"].as_str().unwrap().to_owned();
            (event.type_, event.version.name().to_string(), type_)
        })
        .collect()
}

fn event(type_: ResourceEventType, name: &str, spec: &str) -> (ResourceEventType, String, String) {
    (type_, name.to_owned(), spec.to_owned())
}

#[test]
fn a_life_in_three_events() {
    let mut fixture = Fixture::new();
    let cart = fixture.subscribe_later("cart");
    assert!(drain(&cart).is_empty(), "there is no initial list");
    fixture.apply("db", "state.a", &[]);
    assert_eq!(drain(&cart), [event(Created, "db", "state.a")]);
    fixture.apply("db", "state.b", &[]);
    assert_eq!(drain(&cart), [event(Updated, "db", "state.b")]);
    fixture.delete("db");
    assert_eq!(drain(&cart), [event(Deleted, "db", "state.b")]);
}

#[test]
fn the_first_list_is_no_news() {
    let fixture = Fixture::syncing();
    let cart = fixture.subscribe("cart");
    fixture.apply("db", "state.a", &[]);
    fixture.index.set_state(State::Synced);
    assert!(drain(&cart).is_empty());
    assert_eq!(fixture.index.list("shop", "cart").versions().len(), 1);
    assert!(drain(&fixture.subscribe("late")).is_empty(), "nor is it replayed");
}

#[test]
fn a_status_or_a_new_resource_version_is_no_version() {
    let mut fixture = Fixture::new();
    assert!(fixture.apply("db", "state.a", &[]));
    let cart = fixture.subscribe_later("cart");
    assert!(!fixture.apply("db", "state.a", &[]));
    assert!(drain(&cart).is_empty());
    assert_eq!(fixture.index.metrics().suppressed.get(), 1);
}

#[test]
fn waiting_events_coalesce() {
    let mut fixture = Fixture::new();
    fixture.apply("old", "state.a", &[]);
    let cart = fixture.subscribe_later("cart");

    fixture.apply("new", "state.a", &[]);
    fixture.apply("new", "state.b", &[]);
    fixture.apply("old", "state.b", &[]);
    fixture.apply("old", "state.c", &[]);
    assert_eq!(
        drain(&cart),
        [event(Created, "new", "state.b"), event(Updated, "old", "state.c")],
        "in the order in which the objects changed first"
    );

    fixture.apply("brief", "state.a", &[]);
    fixture.delete("brief");
    assert!(drain(&cart).is_empty(), "it never knew");

    fixture.delete("old");
    fixture.apply("old", "state.d", &[]);
    assert_eq!(
        drain(&cart),
        [event(Updated, "old", "state.d")],
        "deleted and created again"
    );

    fixture.apply("old", "state.e", &[]);
    fixture.delete("old");
    assert_eq!(drain(&cart), [event(Deleted, "old", "state.d")], "the version it knew");
}

#[test]
fn memory_is_bounded_by_objects_not_events() {
    let mut fixture = Fixture::new();
    let stalled = fixture.subscribe_later("cart");
    for round in 0..1000 {
        fixture.apply("a", &format!("state.a{round}"), &[]);
        fixture.apply("b", &format!("state.b{round}"), &[]);
        fixture.apply("c", "state.c", &[]);
        fixture.delete("c");
    }
    assert_eq!(
        drain(&stalled),
        [event(Created, "a", "state.a999"), event(Created, "b", "state.b999")]
    );
}

#[test]
fn scopes_decide_what_each_subscriber_sees() {
    let mut fixture = Fixture::new();
    let (cart, pay) = (fixture.subscribe_later("cart"), fixture.subscribe_later("pay"));

    fixture.apply("db", "state.a", &["cart"]);
    assert_eq!(drain(&cart), [event(Created, "db", "state.a")], "none to in");
    assert!(drain(&pay).is_empty(), "none to out");

    fixture.apply("db", "state.b", &["cart"]);
    assert_eq!(drain(&cart), [event(Updated, "db", "state.b")], "in to in");
    assert!(drain(&pay).is_empty(), "out to out");

    fixture.apply("db", "state.c", &["pay"]);
    assert_eq!(
        drain(&cart),
        [event(Deleted, "db", "state.b")],
        "in to out: the old one"
    );
    assert_eq!(drain(&pay), [event(Created, "db", "state.c")], "out to in");

    fixture.delete("db");
    assert!(drain(&cart).is_empty(), "deleted, out");
    assert_eq!(drain(&pay), [event(Deleted, "db", "state.c")], "deleted, in");
}

#[test]
fn scopes_that_change_while_waiting() {
    let mut fixture = Fixture::new();
    fixture.apply("db", "state.a", &[]);
    let cart = fixture.subscribe_later("cart");
    fixture.apply("db", "state.a", &["pay"]);
    fixture.apply("db", "state.b", &["cart"]);
    assert_eq!(drain(&cart), [event(Updated, "db", "state.b")], "out and in again");
    fixture.apply("db", "state.b", &["pay"]);
    fixture.delete("db");
    assert_eq!(drain(&cart), [event(Deleted, "db", "state.b")]);
}

#[test]
fn lists_are_scoped_and_sorted() {
    let fixture = Fixture::new();
    fixture.apply("z", "state.a", &[]);
    fixture.apply("a", "state.a", &["cart"]);
    fixture.apply("m", "state.a", &["pay"]);
    let names = |app| {
        let list = fixture.index.list("shop", app);
        list.versions()
            .iter()
            .map(|version| version.name().to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("cart"), ["a", "z"]);
    assert_eq!(names("pay"), ["m", "z"]);
    assert!(fixture.index.list("other", "cart").versions().is_empty());
    assert!(fixture.index.get("shop", "m").is_some());
}

#[test]
fn a_list_is_put_together_once_for_all_who_see_the_same() {
    let fixture = Fixture::new();
    fixture.apply("a", "state.a", &[]);
    fixture.apply("b", "state.a", &["cart", "pay"]);
    let list = |app| fixture.index.list("shop", app);
    let bytes = |app| list(app).encoded(Vec::new());
    assert!(Arc::ptr_eq(&list("ship"), &list("other")), "no object names them");
    assert!(
        Arc::ptr_eq(&list("cart"), &list("pay")),
        "they are named by the same objects"
    );
    assert_eq!(bytes("cart").as_ptr(), bytes("pay").as_ptr(), "the bytes are shared");
    let decoded = ListComponentResponse::decode(bytes("pay")).unwrap().components;
    let payloads: Vec<_> = list("pay")
        .versions()
        .iter()
        .map(|version| version.payload().clone())
        .collect();
    assert_eq!(decoded, payloads);

    fixture.apply("c", "state.a", &["cart"]);
    assert_eq!(
        [list("ship"), list("pay"), list("cart")].map(|list| list.versions().len()),
        [1, 2, 3]
    );
    fixture.delete("a");
    assert_eq!(
        [list("ship"), list("pay"), list("cart")].map(|list| list.versions().len()),
        [0, 1, 2]
    );
}

#[test]
fn a_list_with_other_values_of_secrets_is_encoded_anew() {
    let fixture = Fixture::new();
    let property = json!({"name": "password", "secretKeyRef": {"name": "auth", "key": "password"}});
    let component = json!({
        "metadata": {"name": "b", "namespace": "shop"}, "spec": {"type": "state.a", "version": "v1", "metadata": [property]},
    });
    fixture.apply("a", "state.a", &[]);
    let component = decode::<Component>(&component.to_string()).unwrap();
    fixture.index.apply(component, fixture.now).unwrap();
    fixture.apply("c", "state.a", &[]);
    let list = fixture.index.list("shop", "cart");
    assert_eq!(list.with_secrets().count(), 1);
    let items = |filled: &Bytes| {
        ListComponentResponse::decode(list.encoded(vec![filled.clone()]))
            .unwrap()
            .components
    };
    let values = ["one", "two"].map(|value| Bytes::from(value.to_owned()));
    for value in [&values[0], &values[1], &values[0]] {
        assert_eq!(items(value)[1], value);
        assert_eq!(items(value).len(), 3);
    }
    let again = || list.encoded(vec![values[0].clone()]).as_ptr();
    assert_eq!(again(), again());
}

#[test]
fn other_namespaces_hear_nothing() {
    let fixture = Fixture::new();
    let elsewhere = fixture.index.subscribe("elsewhere", "cart", fixture.now);
    fixture.apply("db", "state.a", &[]);
    assert!(drain(&elsewhere).is_empty());
}

#[test]
fn a_new_subscriber_is_replayed_what_just_changed() {
    let mut fixture = Fixture::new();
    fixture.apply("old", "state.a", &[]);
    fixture.apply("gone", "state.a", &[]);
    fixture.apply("moved", "state.a", &["cart"]);
    fixture.now += WINDOW + Duration::from_millis(1);
    fixture.apply("new", "state.a", &[]);
    fixture.apply("old", "state.b", &[]);
    fixture.delete("gone");
    fixture.apply("moved", "state.a", &["pay"]);
    fixture.apply("foreign", "state.a", &["pay"]);
    fixture.apply("brief", "state.a", &[]);
    fixture.delete("brief");

    let cart = fixture.subscribe("cart");
    assert_eq!(
        drain(&cart),
        [
            event(Created, "new", "state.a"),
            event(Updated, "old", "state.b"),
            event(Deleted, "gone", "state.a"),
            event(Deleted, "moved", "state.a"),
            // It may have been listed.
            event(Deleted, "brief", "state.a"),
        ]
    );
    assert!(drain(&fixture.subscribe_later("cart")).is_empty(), "too old by now");
}

#[test]
fn ended_subscriptions_leave_nothing_behind() {
    let mut fixture = Fixture::new();
    let (first, second) = (fixture.subscribe("cart"), fixture.subscribe("cart"));
    assert_eq!(fixture.index.metrics().streams.get(), 2);
    drop(first);
    fixture.apply("db", "state.a", &[]);
    assert_eq!(drain(&second).len(), 1, "its sibling goes on");
    drop(second);
    assert_eq!(fixture.index.metrics().streams.get(), 0);
    fixture.delete("db");
    fixture.now += WINDOW * 2;
    let other = decode::<Component>(r#"{"metadata":{"name":"db","namespace":"bank"}}"#).unwrap();
    fixture.index.apply(other, fixture.now).unwrap();
    fixture.index.expire(fixture.now);
    let inner = fixture.index.inner.read();
    let namespaces: Vec<_> = inner.namespaces.keys().map(|name| &**name).collect();
    assert_eq!(namespaces, ["bank"], "however busy others are");
}

#[tokio::test]
async fn a_waiting_stream_is_woken() {
    let fixture = Fixture::new();
    let cart = fixture.subscribe("cart");
    let next = tokio::spawn(async move { cart.next().await.type_ });
    tokio::task::yield_now().await;
    fixture.apply("db", "state.a", &[]);
    assert_eq!(next.await.unwrap(), Created);
}

#[test]
#[ignore = "a measurement"]
fn cost_of_a_list() {
    let fixture = Fixture::new();
    for number in 0..100 {
        fixture.apply(&format!("component-{number:03}"), &"x".repeat(500), &[]);
    }
    let lists = |forget: bool| {
        let start = std::time::Instant::now();
        for _ in 0..1000 {
            if forget {
                fixture.index.expire(fixture.now);
            }
            std::hint::black_box(fixture.index.list("shop", "cart").encoded(Vec::new()));
        }
        start.elapsed()
    };
    let (kept, anew) = (lists(false), lists(true));
    println!("a list of 100 components: kept {kept:?} for a thousand, made anew {anew:?}");
}
