use super::*;
use crate::components::state::{Set, Store};

fn loader() -> (Loader, Arc<Components>) {
    let components = Arc::new(Components::default());
    let context = Context {
        app_id: "cart".into(),
        namespace: "shop".into(),
        pod_name: None,
        kubernetes: true,
        env_keys: None,
        env: |_| None,
    };
    let metrics = Metrics::new(&prometheus::Registry::new(), "cart", "shop").unwrap();
    (
        Loader::new(
            components.clone(),
            context,
            DenyList::default(),
            metrics,
            Reports::default(),
        ),
        components,
    )
}

fn component(name: &str, kind: &str, extra: &str) -> Component {
    let json = format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{{"type":"{kind}","version":"v1"{extra}}}}}"#);
    Component::from_json(json.as_bytes()).unwrap()
}

fn store(components: &Components) -> Arc<dyn Store> {
    components.state("store").unwrap().store.clone()
}

#[tokio::test]
async fn a_start_fails_with_a_sentence_unless_errors_are_ignored() {
    let (mut loader, components) = loader();
    let ignored = component("a", "state.redis", r#","ignoreErrors":true"#);
    loader
        .start(vec![ignored, component("store", "state.in-memory", "")])
        .await
        .unwrap();
    assert_eq!(components.summaries().len(), 1);

    let error = self::loader()
        .0
        .start(vec![component("b", "state.redis", "")])
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(
            "process component b error: [INIT_COMPONENT_FAILURE]: initialization error occurred for b (state.redis/v1): couldn't \
             find state store state.redis/v1: this release has state.in-memory/v1"
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_replacement_that_fails_leaves_the_old_one_serving() {
    let (mut loader, components) = loader();
    loader
        .start(vec![component("store", "state.in-memory", "")])
        .await
        .unwrap();
    let before = store(&components);
    loader.apply(Change::Put(component("store", "state.redis", ""))).await;
    assert!(Arc::ptr_eq(&before, &store(&components)));
    assert!(loader.rejected["store"].contains("state.redis/v1"));
    assert_eq!(components.summaries()[0].kind, "state.in-memory");

    let repaired = component(
        "store",
        "state.in-memory",
        r#","metadata":[{"name":"keyPrefix","value":"none"}]"#,
    );
    loader.apply(Change::Put(repaired)).await;
    assert!(!Arc::ptr_eq(&before, &store(&components)));
    assert!(loader.rejected.is_empty());
}

#[tokio::test]
async fn an_edit_keeps_the_data_and_an_equal_resource_changes_nothing() {
    let (mut loader, components) = loader();
    loader
        .start(vec![component("store", "state.in-memory", "")])
        .await
        .unwrap();
    store(&components)
        .set(Set {
            key: "k".into(),
            value: "v".into(),
            ..Set::default()
        })
        .await
        .unwrap();
    let before = store(&components);
    loader
        .apply(Change::Put(component("store", "state.in-memory", "")))
        .await;
    assert!(Arc::ptr_eq(&before, &store(&components)));
    loader
        .apply(Change::Put(component(
            "store",
            "state.in-memory",
            r#","initTimeout":"1s""#,
        )))
        .await;
    assert!(!Arc::ptr_eq(&before, &store(&components)));
    assert_eq!(store(&components).get("k").await.unwrap().unwrap().value, "v");
}

#[tokio::test]
async fn reconciling_removes_adds_and_tries_again() {
    let (mut loader, components) = loader();
    let waiting = component(
        "store",
        "state.in-memory",
        r#","metadata":[{"name":"x","secretKeyRef":{"name":"s"},"value":"%"}]"#,
    );
    loader
        .start(vec![component("old", "state.in-memory", "")])
        .await
        .unwrap();
    loader
        .reconcile(vec![waiting.clone(), component("new", "state.in-memory", "")], false)
        .await;
    assert_eq!(components.summaries().len(), 2, "an incomplete list removes nothing");
    loader
        .reconcile(vec![waiting.clone(), component("new", "state.in-memory", "")], true)
        .await;
    let names = |components: &Components| {
        components
            .summaries()
            .into_iter()
            .map(|summary| summary.name)
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&components), ["new"]);
    assert!(loader.rejected.contains_key("store"));
    loader
        .reconcile(vec![component("store", "state.in-memory", "")], true)
        .await;
    assert_eq!(names(&components), ["store"]);
}

#[tokio::test]
async fn the_deny_list_is_followed_live() {
    let (mut loader, components) = loader();
    loader
        .start(vec![component("store", "state.in-memory", "")])
        .await
        .unwrap();
    loader.set_deny(DenyList::new(&["state.in-memory".into()])).await;
    assert!(components.state("store").is_none());
    loader.set_deny(DenyList::default()).await;
    assert!(components.state("store").is_some());
}

#[tokio::test]
async fn the_deny_list_reaches_what_serves_from_before_a_failed_edit() {
    for failed in [
        component("store", "state.redis", ""),
        component(
            "store",
            "state.in-memory",
            r#","metadata":[{"name":"keyPrefix","value":"a||b"}]"#,
        ),
    ] {
        let (mut loader, components) = loader();
        loader
            .start(vec![component("store", "state.in-memory", "")])
            .await
            .unwrap();
        loader.apply(Change::Put(failed)).await;
        assert!(components.state("store").is_some());
        loader.set_deny(DenyList::new(&["state.in-memory".into()])).await;
        assert!(components.state("store").is_none());
    }
}

#[test]
fn timeouts() {
    assert_eq!(init_timeout("250ms"), Duration::from_millis(250));
    for text in ["", "soon", "0s", "-1s"] {
        assert_eq!(init_timeout(text), INIT_TIMEOUT);
    }
}

#[tokio::test]
async fn what_could_not_be_read_is_judged_again_when_it_is_as_before() {
    let (mut loader, components) = loader();
    let known = component("store", "state.in-memory", "");
    loader.start(vec![known.clone()]).await.unwrap();
    let broken = br#"{"metadata":{"name":"store"},"spec":{"type":5}}"#;
    let error = Component::from_json(broken).unwrap_err();
    let never_read = br#"{"metadata":{"name":"other"},"spec":{"type":5}}"#;

    loader.unreadable(broken, &error);
    assert!(loader.reports().any_rejected());
    loader.apply(Change::Put(known.clone())).await;
    assert!(!loader.reports().any_rejected());

    loader.unreadable(broken, &error);
    loader.unreadable(never_read, &error);
    loader.reconcile(vec![known], true).await;
    assert!(!loader.reports().any_rejected(), "one is as before, the other is gone");
    assert!(components.state("store").is_some());
}
