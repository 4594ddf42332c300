mod sidecars;

use outrigger_crds::{Component, Configuration, HTTPEndpoint, Subscription, status::Reason};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::*;
use crate::{
    controllers::status::{Verdict, decision::MAX_WARNINGS, links::Store, next_status, reported::RETURNS},
    pods::{PodMetadata, Pods, Selection},
};

const ACCEPTED: Outcome = Outcome {
    accepted: true,
    reason: Reason::Accepted,
};
const MISSING: Outcome = Outcome {
    accepted: false,
    reason: Reason::SecretNotFound,
};

fn board() -> Board {
    let board = Board::new(ObjectKey::new("shop", "daprsystem"), Arc::default());
    for source in [Source::Components, Source::Subscriptions, Source::Pods] {
        board.known(source, Knowledge::Complete, Instant::now());
    }
    board
}

fn observe<K: Related>(board: &Board, name: &str, mut object: Value) -> Id {
    object["metadata"] = json!({"name": name, "namespace": "shop", "uid": name});
    let object: Guarded<K> = serde_json::from_str(&object.to_string()).unwrap();
    board.observe(&object, &Arc::new(ApiResource::erase::<K>(&())), Instant::now());
    Id {
        kind: K::KIND,
        key: ObjectKey::new("shop", name),
    }
}

fn component(board: &Board, name: &str, type_: &str) -> Id {
    observe::<Component>(
        board,
        name,
        json!({"spec": {"type": type_, "version": "v1", "metadata": []}}),
    )
}

fn look(board: &Board, id: &Id) -> Option<Look> {
    board.look(id, Instant::now())
}

fn warnings(board: &Board, id: &Id) -> Vec<String> {
    look(board, id).unwrap().surroundings.warnings
}

/// The objects that are due, in any order.
async fn due(board: &Board) -> BTreeSet<Id> {
    let mut all = BTreeSet::new();
    while let Ok(id) = timeout(Duration::from_millis(1), board.queue.next()).await {
        all.insert(id);
    }
    all
}

#[tokio::test(start_paused = true)]
async fn an_object_is_looked_at_once_for_many_changes_and_not_soon_after_a_write() {
    let board = board();
    let id = component(&board, "db", "state.redis");
    component(&board, "db", "state.redis");
    assert_eq!(board.queue.next().await, id);
    let view = look(&board, &id).unwrap().view;
    component(&board, "db", "state.redis");
    board.written(&id, &view, Status::default(), Instant::now() + PACE);
    assert_eq!(
        board.queue.next().await,
        id,
        "it changed while its status was being written"
    );
    assert!(look(&board, &id).is_none(), "which has to wait");
    assert_eq!(board.queue.next().await, id);
    let now = look(&board, &id).unwrap();
    assert!(
        now.current.is_none(),
        "what was written is not the status of the new version"
    );

    board.written(&id, &now.view, Status::default(), Instant::now() + PACE);
    component(&board, "till", "state.redis");
    assert_eq!(board.queue.next().await.key.name, "till");
    component(&board, "db", "state.redis");
    assert!(timeout(PACE / 2, board.queue.next()).await.is_err());
    assert_eq!(board.queue.next().await, id);

    component(&board, "db", "state.redis");
    board.forget(&id, Instant::now());
    assert!(look(&board, &id).is_none());
    assert!(timeout(PACE * 2, board.queue.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn who_refers_to_a_secret_is_looked_at_when_it_changes() {
    let board = board();
    let referring = |secret: &str| {
        let property = json!({"name": "password", "secretKeyRef": {"name": secret, "key": "password"}});
        let spec = json!({"spec": {"type": "state.redis", "version": "v1", "metadata": [property]}});
        observe::<Component>(&board, "db", spec)
    };
    let id = referring("auth");
    component(&board, "till", "state.redis");
    assert_eq!(due(&board).await.len(), 2);
    let change = |namespace: &str, name: &str| board.secret_changed(&ObjectKey::new(namespace, name), Instant::now());
    change("shop", "other");
    change("bank", "auth");
    assert!(due(&board).await.is_empty());
    change("shop", "auth");
    assert_eq!(due(&board).await, BTreeSet::from([id.clone()]));
    referring("other");
    due(&board).await;
    change("shop", "auth");
    assert!(due(&board).await.is_empty(), "it refers to another one now");
    change("shop", "other");
    assert_eq!(due(&board).await, BTreeSet::from([id.clone()]));
    board.forget(&id, Instant::now());
    change("shop", "other");
    assert!(due(&board).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_hot_edit_loop_is_looked_at_once_a_second() {
    let board = board();
    let id = component(&board, "db", "state.redis");
    let start = Instant::now();
    let mut writes = Vec::new();
    while start.elapsed() < Duration::from_secs(10) {
        component(&board, "db", "state.redis");
        if let Ok(id) = timeout(Duration::from_millis(10), board.queue.next()).await {
            let view = look(&board, &id).unwrap().view;
            writes.push(start.elapsed());
            board.written(&id, &view, Status::default(), Instant::now() + PACE);
        }
    }
    assert_eq!(writes.len(), 11, "one at once, then one a second: {writes:?}");
    assert!(writes.windows(2).all(|pair| pair[1] - pair[0] >= PACE), "{writes:?}");
    board.forget(&id, Instant::now());
}

#[tokio::test(start_paused = true)]
async fn edits_do_not_hurry_what_failed() {
    let board = board();
    let id = component(&board, "db", "state.redis");
    board.queue.next().await;
    let mut pauses = Vec::new();
    for _ in 0..4 {
        let failed = Instant::now();
        board.failed(&id, failed);
        component(&board, "db", "state.redis");
        board.queue.next().await;
        pauses.push(failed.elapsed());
    }
    assert!(pauses[0] >= PACE && pauses[3] >= PACE * 4, "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_looks_at_everything() {
    let board = board();
    let id = component(&board, "db", "state.redis");
    board.queue.next().await;
    board.begin_term(Instant::now());
    assert_eq!(board.queue.next().await, id);
}

#[tokio::test(start_paused = true)]
async fn a_change_has_those_looked_at_that_refer_to_it_and_nobody_else() {
    let board = board();
    let bus = json!({"spec": {"pubsubname": "bus", "topic": "orders", "routes": {"default": "/"}}});
    let subscription = observe::<Subscription>(&board, "orders", bus.clone());
    let endpoint = observe::<HTTPEndpoint>(
        &board,
        "api",
        json!({"spec": {"baseUrl": "http://x"}, "auth": {"secretStore": "vault"}, "scopes": ["cart"]}),
    );
    let configuration = observe::<Configuration>(&board, "quiet", json!({"spec": {}}));
    let system = observe::<Configuration>(&board, "daprsystem", json!({"spec": {}}));
    component(&board, "other", "state.redis");
    assert_eq!(due(&board).await.len(), 5);
    let text = r#"spec.pubsubname: there is no component "bus" in this namespace, expected one of type pubsub.*"#;
    assert_eq!(warnings(&board, &subscription), [text]);
    let text =
        r#"auth.secretStore: there is no component "vault" in this namespace, expected one of type secretstores.*"#;
    assert_eq!(
        look(&board, &endpoint).unwrap().surroundings.store,
        Store::Missing(text.into())
    );
    assert_eq!(
        warnings(&board, &endpoint),
        [r#"scopes[0]: no pod in this namespace has the app id "cart", expected one"#]
    );
    assert_eq!(warnings(&board, &configuration).len(), 1);
    assert_eq!(warnings(&board, &system), [""; 0]);
    let waiting = |text: Option<&str>| board.control_plane_waits(text.map(str::to_owned), Instant::now());
    waiting(Some("spec.mtls: later"));
    assert_eq!(due(&board).await, BTreeSet::from([system.clone()]));
    assert_eq!(warnings(&board, &system), ["spec.mtls: later"]);
    assert_eq!(warnings(&board, &configuration).len(), 1);
    waiting(Some("spec.mtls: later"));
    assert!(due(&board).await.is_empty(), "that is no news");
    waiting(None);
    assert_eq!(warnings(&board, &system), [""; 0]);
    due(&board).await;

    let bus_id = component(&board, "bus", "state.redis");
    assert_eq!(
        due(&board).await,
        BTreeSet::from([bus_id.clone(), subscription.clone()])
    );
    let text = r#"spec.pubsubname: component "bus" has the type "state.redis", expected pubsub.*"#;
    assert_eq!(warnings(&board, &subscription), [text]);
    component(&board, "bus", "PubSub.redis");
    assert_eq!(due(&board).await.len(), 2);
    assert_eq!(warnings(&board, &subscription), [""; 0]);
    component(&board, "bus", "PubSub.redis");
    assert_eq!(
        due(&board).await,
        BTreeSet::from([bus_id.clone()]),
        "nothing others look at changed"
    );

    let second = observe::<Subscription>(&board, "again", bus);
    assert_eq!(
        due(&board).await,
        BTreeSet::from([second.clone(), subscription.clone()])
    );
    let text = r#"spec.topic: "orders" of component "bus" is subscribed to by "again" too, expected one Subscription for an app and a topic"#;
    assert_eq!(warnings(&board, &subscription), [text]);
    board.forget(&second, Instant::now());
    assert_eq!(due(&board).await, BTreeSet::from([subscription.clone()]));
    assert_eq!(warnings(&board, &subscription), [""; 0]);

    board.forget(&bus_id, Instant::now());
    assert_eq!(due(&board).await, BTreeSet::from([subscription.clone()]));
    assert_eq!(warnings(&board, &subscription).len(), 1);

    let vault = json!({"spec": {"type": "secretstores.vault", "version": "v1", "metadata": []}, "scopes": ["till"]});
    let vault = observe::<Component>(&board, "vault", vault);
    assert_eq!(due(&board).await, BTreeSet::from([endpoint.clone(), vault]));
    let surroundings = look(&board, &endpoint).unwrap().surroundings;
    assert_eq!(surroundings.store, Store::Fine);
    let text =
        r#"auth.secretStore: component "vault" has the scopes till, expected one of the apps in scopes among them"#;
    assert_eq!(surroundings.warnings[1], text);
}

#[tokio::test(start_paused = true)]
async fn many_scopes_are_compared_fast_and_few_are_shown() {
    const MANY: usize = 100_000;
    let board = Board::new(ObjectKey::new("shop", "daprsystem"), Arc::default());
    board.known(Source::Components, Knowledge::Complete, Instant::now());
    board.known(Source::Subscriptions, Knowledge::Complete, Instant::now());
    board.known(Source::Pods, Knowledge::Unavailable, Instant::now());
    let apps = |prefix: &str| -> Vec<_> { (0..MANY).map(|n| format!("{prefix}-{n:06}")).collect() };
    let subscription = |prefix: &str, name: &str| {
        let spec = json!({"spec": {"pubsubname": "bus", "topic": "orders"}, "scopes": apps(prefix)});
        observe::<Subscription>(&board, name, spec)
    };
    let bus = json!({"spec": {"type": "pubsub.redis", "version": "v1", "metadata": []}, "scopes": apps("b")});
    observe::<Component>(&board, "bus", bus);
    let one = subscription("a", "one");
    subscription("c", "two");
    let text = "spec.pubsubname: component \"bus\" has the scopes b-000000, b-000001, b-000002 and others, expected one of \
                the apps in scopes among them";
    assert_eq!(warnings(&board, &one), [text]);
    board.known(Source::Pods, Knowledge::Complete, Instant::now());
    let found = warnings(&board, &one).len();
    assert!(
        found <= MAX_WARNINGS + 3,
        "{found} warnings of as many apps that nobody has"
    );
}

#[tokio::test(start_paused = true)]
async fn a_further_subscription_of_a_topic_changes_no_text_that_names_three() {
    let board = board();
    component(&board, "bus", "pubsub.redis");
    let subscription = |name: &str| {
        let spec = json!({"spec": {"pubsubname": "bus", "topic": "orders"}});
        observe::<Subscription>(&board, name, spec)
    };
    let first = subscription("a");
    for name in ["b", "c", "d", "e"] {
        subscription(name);
    }
    let before = warnings(&board, &first);
    assert!(before[0].contains(r#"by "b", "c", "d" and others too"#), "{before:?}");
    subscription("f");
    assert_eq!(warnings(&board, &first), before);
}

#[tokio::test(start_paused = true)]
async fn the_first_and_the_last_pod_of_an_app_count() {
    let board = board();
    let pods = Pods::default();
    let pod = |name: &str, app: &str| -> PodMetadata {
        let annotations = json!({"dapr.io/enabled": "true", "dapr.io/app-id": app, "dapr.io/config": "quiet"});
        serde_json::from_value(
            json!({"metadata": {"name": name, "namespace": "shop", "uid": name, "annotations": annotations}}),
        )
        .unwrap()
    };
    let scoped = json!({"spec": {"type": "state.redis", "version": "v1", "metadata": []}, "scopes": ["cart"]});
    let scoped = observe::<Component>(&board, "db", scoped);
    let configuration = observe::<Configuration>(&board, "quiet", json!({"spec": {}}));
    due(&board).await;
    let apply = |name, app| board.observe_pod(pods.apply(&pod(name, app)), Instant::now());

    apply("a", "cart");
    assert_eq!(
        due(&board).await,
        BTreeSet::from([scoped.clone(), configuration.clone()])
    );
    assert!(warnings(&board, &scoped).is_empty() && warnings(&board, &configuration).is_empty());
    apply("b", "cart");
    apply("b", "cart");
    assert!(due(&board).await.is_empty());
    apply("c", "till");
    assert_eq!(
        due(&board).await,
        BTreeSet::from([configuration.clone()]),
        "it has one more app"
    );
    apply("a", "till");
    assert!(due(&board).await.is_empty());
    apply("b", "till");
    assert_eq!(
        due(&board).await,
        BTreeSet::from([scoped.clone(), configuration.clone()])
    );
    assert_eq!(warnings(&board, &scoped).len(), 1);
    for name in ["a", "b", "c"] {
        board.observe_pod(
            pods.delete(&ObjectKey::new("shop", name), Selection::NotInjected),
            Instant::now(),
        );
    }
    assert_eq!(due(&board).await, BTreeSet::from([configuration.clone()]));
    assert_eq!(warnings(&board, &configuration).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_said_before_everything_it_depends_on_is_known() {
    let board = Board::new(ObjectKey::new("shop", "daprsystem"), Arc::default());
    let plain = component(&board, "db", "state.redis");
    let stored = json!({"spec": {"baseUrl": "http://x"}, "auth": {"secretStore": "vault"}, "scopes": ["cart"]});
    let stored = observe::<HTTPEndpoint>(&board, "api", stored);
    due(&board).await;
    assert!(look(&board, &plain).is_some() && look(&board, &stored).is_none());
    board.known(Source::Components, Knowledge::Unavailable, Instant::now());
    assert!(look(&board, &stored).is_none());
    assert_eq!(due(&board).await, BTreeSet::from([stored.clone()]));
    board.known(Source::Pods, Knowledge::Unavailable, Instant::now());
    assert_eq!(due(&board).await, BTreeSet::from([stored.clone()]));
    let surroundings = look(&board, &stored).unwrap().surroundings;
    let text = "auth.secretStore: the operator may not list Components, so component \"vault\" was not checked, expected one of type \
                secretstores.*";
    assert_eq!(
        (surroundings.store, surroundings.warnings),
        (Store::Fine, vec![text.to_owned()])
    );
    board.known(Source::Components, Knowledge::Complete, Instant::now());
    assert_eq!(due(&board).await, BTreeSet::from([stored.clone()]));
    assert!(matches!(
        look(&board, &stored).unwrap().surroundings.store,
        Store::Missing(_)
    ));
}

#[tokio::test(start_paused = true)]
async fn only_changes_are_news() {
    let board = board();
    let id = component(&board, "db", "state.redis");
    assert!(!board.is_news(&id, None, ACCEPTED), "accepted from the start");
    assert!(board.is_news(&id, None, MISSING));
    assert!(!board.is_news(&id, None, MISSING), "the status could not be written");
    assert!(
        !board.is_news(&id, Some(ACCEPTED), MISSING),
        "nor does it matter what others write"
    );
    assert!(board.is_news(&id, Some(MISSING), ACCEPTED));

    let id = component(&board, "restarted", "state.redis");
    assert!(
        !board.is_news(&id, Some(MISSING), MISSING),
        "the status said it before the restart"
    );
    let id = component(&board, "changed", "state.redis");
    assert!(board.is_news(&id, Some(MISSING), ACCEPTED));
    let id = component(&board, "refused", "state.redis");
    assert!(board.is_news(&id, None, MISSING), "refused from the start");
}

#[tokio::test(start_paused = true)]
async fn a_term_begins_with_what_the_statuses_say() {
    let board = board();
    let id = component(&board, "db", "state.redis");
    board.begin_term(Instant::now());
    assert!(board.is_news(&id, Some(ACCEPTED), MISSING));
    // Another leader wrote, and told, that all was well again.
    board.begin_term(Instant::now());
    assert!(board.is_news(&id, Some(ACCEPTED), MISSING));
    board.begin_term(Instant::now());
    assert!(!board.is_news(&id, Some(MISSING), MISSING), "the status says it");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_of_what_is_gone() {
    let board = board();
    let ids = [
        observe::<Subscription>(
            &board,
            "s",
            json!({"spec": {"pubsubname": "bus", "topic": "t"}, "scopes": ["cart"]}),
        ),
        component(&board, "bus", "pubsub.redis"),
    ];
    observe::<Subscription>(
        &board,
        "s",
        json!({"spec": {"pubsubname": "other", "topic": "u"}, "scopes": ["till"]}),
    );
    for id in &ids {
        board.forget(id, Instant::now());
    }
    let inner = board.inner.lock();
    assert!(inner.entries.is_empty() && inner.dependents.is_empty());
    assert!(inner.facts.is_empty());
}
