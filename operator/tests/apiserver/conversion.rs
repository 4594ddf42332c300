//! What people see who use both versions.

use std::{collections::BTreeMap, process::Stdio};

use futures::{StreamExt, stream};
use kube::{
    Api, Client,
    api::{DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use outrigger_crds::{Subscription, subscription::convert::ROUTES_ANNOTATION};
use outrigger_operator::{core::Core, metrics::Metrics, scope::Scope};
use outrigger_process::{health::Health, kubernetes::watch::ObjectKey, tasks::Tasks};
use outrigger_testkit::{ApiServer, Workloads, toolchain::Toolchain};
use prometheus::Registry;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, process::Command};
use tokio_util::sync::CancellationToken;

use crate::support::{
    DEFINITION, Registered, Webhook, bundle_is, clients, created, definitions, established, eventually, install,
    manifest, remove, rendered, subscriptions, text, turn,
};

/// A namespace in a server whose definition names this webhook.
struct Setup {
    client: Client,
    namespace: String,
    workloads: Workloads,
    webhook: Webhook,
    _registered: Registered,
}

impl Setup {
    async fn new(prefix: &str) -> Self {
        let server = ApiServer::shared().await;
        let client = server.client();
        let namespace = server.namespace(prefix).await.unwrap();
        let workloads = Workloads::new().unwrap();
        let webhook = Webhook::start(&workloads, &namespace, 0).await;
        install(&client, &webhook.url()).await;
        let registered = Registered::start(&client, &namespace, &workloads.anchors());
        bundle_is(&client, &workloads.anchors()).await;
        Self {
            client,
            namespace,
            workloads,
            webhook,
            _registered: registered,
        }
    }

    fn v1(&self) -> Api<DynamicObject> {
        subscriptions(&self.client, "v1alpha1", &self.namespace)
    }

    fn v2(&self) -> Api<DynamicObject> {
        subscriptions(&self.client, "v2alpha1", &self.namespace)
    }
}

fn routed() -> Value {
    json!({"pubsubname": "p", "topic": "t", "bulkSubscribe": {"enabled": false}, "routes": {
        "default": "/other", "rules": [{"match": "event.type == \"a\" && 1 < 2", "path": "/a"}],
    }})
}

#[tokio::test]
async fn each_version_reads_what_the_other_wrote() {
    let _turn = turn().await;
    let setup = Setup::new("versions").await;
    let spec = json!({"pubsubname": "p", "topic": "t", "route": "/r", "deadLetterTopic": "d", "metadata": {"a": "b"}});
    let mut old = manifest("v1alpha1", "old", spec);
    old.data["scopes"] = json!(["cart"]);
    let first = created(&setup.v1(), &old).await;
    let second = setup.v2().get("old").await.unwrap();
    assert_eq!(second.types.as_ref().unwrap().api_version, "dapr.io/v2alpha1");
    assert_eq!(
        second.data["spec"],
        json!({"pubsubname": "p", "topic": "t", "routes": {"default": "/r"}, "deadLetterTopic": "d",
               "metadata": {"a": "b"}, "bulkSubscribe": {"enabled": false}})
    );
    assert_eq!(second.data["scopes"], json!(["cart"]));
    assert_eq!(
        (&second.metadata.uid, second.metadata.generation),
        (&first.metadata.uid, Some(1))
    );

    let mut new = manifest("v2alpha1", "new", routed());
    new.metadata.annotations = Some(BTreeMap::from([("mine".to_owned(), "kept".to_owned())]));
    setup.v2().create(&PostParams::default(), &new).await.unwrap();
    let status = json!({"apiVersion": "dapr.io/v2alpha1", "kind": "Subscription", "status": {"observedGeneration": 1}});
    let params = PatchParams::apply("status");
    setup
        .v2()
        .patch_status("new", &params, &Patch::Apply(&status))
        .await
        .unwrap();
    let first = setup.v1().get("new").await.unwrap();
    assert_eq!(
        first.data["spec"],
        json!({"pubsubname": "p", "topic": "t", "route": "/other", "bulkSubscribe": {"enabled": false}})
    );
    assert_eq!(first.data["status"]["observedGeneration"], 1);
    let annotations = first.metadata.annotations.unwrap();
    assert_eq!(annotations.len(), 2);
    let kept: Value = serde_json::from_str(&annotations[ROUTES_ANNOTATION]).unwrap();
    assert_eq!(kept, json!({"rules": routed()["routes"]["rules"]}));
    assert!(text(&setup.webhook.registry).contains(r#"conversions_total{result="success",version="v1alpha1"}"#));
}

#[tokio::test]
async fn rules_survive_every_way_of_editing_the_old_version() {
    let _turn = turn().await;
    let setup = Setup::new("edits").await;
    let (v1, v2) = (setup.v1(), setup.v2());
    created(&v2, &manifest("v2alpha1", "orders", routed())).await;
    let is = async |default: Option<&str>| {
        let object = v2.get("orders").await.unwrap();
        let mut expected = routed();
        match default {
            Some(default) => expected["routes"]["default"] = default.into(),
            None => drop(expected["routes"].as_object_mut().unwrap().remove("default")),
        }
        assert_eq!(object.data["spec"], expected);
        assert!(
            object.metadata.annotations.is_none(),
            "{:?}",
            object.metadata.annotations
        );
    };
    // kubectl patch and kubectl apply.
    let edit = json!({"spec": {"route": "/merged"}});
    v1.patch("orders", &PatchParams::default(), &Patch::Merge(&edit))
        .await
        .unwrap();
    is(Some("/merged")).await;
    // kubectl apply --server-side, Argo CD, Flux.
    for route in ["/applied", "/again"] {
        let spec = json!({"pubsubname": "p", "topic": "t", "route": route});
        let edit = manifest("v1alpha1", "orders", spec);
        let params = PatchParams::apply("gitops").force();
        v1.patch("orders", &params, &Patch::Apply(&edit)).await.unwrap();
        is(Some(route)).await;
    }
    // kubectl edit, and programs that read, change and write.
    let mut object = v1.get("orders").await.unwrap();
    object.data["spec"]["route"] = "".into();
    v1.replace("orders", &PostParams::default(), &object).await.unwrap();
    is(None).await;
    // Who replaces the object by one without the annotation says that there are no rules.
    let mut object = v1.get("orders").await.unwrap();
    object.metadata.annotations = None;
    object.data["spec"]["route"] = "/only".into();
    v1.replace("orders", &PostParams::default(), &object).await.unwrap();
    let object = v2.get("orders").await.unwrap();
    assert_eq!(object.data["spec"]["routes"], json!({"default": "/only"}));
}

#[tokio::test]
async fn kubectl_applies_either_version_and_shows_both() {
    let _turn = turn().await;
    let setup = Setup::new("kubectl").await;
    let new = manifest("v2alpha1", "orders", routed());
    let old = manifest(
        "v1alpha1",
        "orders",
        json!({"pubsubname": "p", "topic": "t", "route": "/old"}),
    );
    created(&setup.v2(), &manifest("v2alpha1", "warm-up", routed())).await;
    let mut expected = routed()["routes"].clone();
    kubectl(&setup, &["apply", "-f", "-"], Some(&new)).await;
    for flags in [&[][..], &["--server-side", "--force-conflicts"]] {
        kubectl(&setup, &[&["apply", "-f", "-"], flags].concat(), Some(&old)).await;
        expected["default"] = "/old".into();
        assert_eq!(
            setup.v2().get("orders").await.unwrap().data["spec"]["routes"],
            expected,
            "{flags:?}"
        );
        let edit = json!({"spec": {"routes": {"default": "/other"}}});
        setup
            .v2()
            .patch("orders", &PatchParams::default(), &Patch::Merge(&edit))
            .await
            .unwrap();
    }
    let shown =
        async |kind: &str| kubectl(&setup, &["get", kind, "orders", "-o", "jsonpath={.apiVersion}"], None).await;
    assert_eq!(shown("subscriptions").await, "dapr.io/v2alpha1");
    assert_eq!(shown("subscriptions.v1alpha1.dapr.io").await, "dapr.io/v1alpha1");
}

/// What kubectl prints.
async fn kubectl(setup: &Setup, arguments: &[&str], manifest: Option<&DynamicObject>) -> String {
    let mut command = Command::new(Toolchain::find().unwrap().program("kubectl"));
    command
        .args(arguments)
        .args(["--namespace", &setup.namespace, "--kubeconfig"]);
    command.arg(ApiServer::shared().await.kubeconfig());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().unwrap();
    let manifest = manifest.map(|manifest| serde_json::to_vec(manifest).unwrap());
    let mut input = child.stdin.take().unwrap();
    input.write_all(&manifest.unwrap_or_default()).await.unwrap();
    drop(input);
    let output = child.wait_with_output().await.unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn routes_too_long_for_an_annotation_are_not_lost_by_an_edit() {
    let _turn = turn().await;
    let setup = Setup::new("long").await;
    // As many and as long as rules may be; annotations together may have no more than 256 KiB.
    let rules: Vec<_> = (0..125)
        .map(|_| json!({"match": "a".repeat(2048), "path": format!("/{}", "a".repeat(200))}))
        .collect();
    let spec = json!({"pubsubname": "p", "topic": "t", "routes": {"rules": rules, "default": "/d"}});
    created(&setup.v2(), &manifest("v2alpha1", "long", spec)).await;
    assert_eq!(setup.v1().get("long").await.unwrap().data["spec"]["route"], "/d");
    let edit = json!({"spec": {"route": "/new"}});
    let edited = setup
        .v1()
        .patch("long", &PatchParams::default(), &Patch::Merge(&edit))
        .await;
    let error = edited.unwrap_err().to_string();
    assert!(
        error.contains("long: metadata.annotations[dapr.io/v2alpha1-routes]"),
        "{error}"
    );
    assert!(error.contains("edit it as dapr.io/v2alpha1"), "{error}");
    let kept = setup.v2().get("long").await.unwrap();
    assert_eq!(kept.data["spec"]["routes"]["rules"].as_array().unwrap().len(), 125);
}

#[tokio::test]
async fn many_objects_are_listed_in_both_versions() {
    let _turn = turn().await;
    let setup = Setup::new("many").await;
    created(
        &setup.v1(),
        &manifest(
            "v1alpha1",
            "s-0",
            json!({"pubsubname": "p", "topic": "0", "route": "/0"}),
        ),
    )
    .await;
    let others = stream::iter(1..500).for_each_concurrent(8, |number| {
        let (v1, v2) = (setup.v1(), setup.v2());
        async move {
            let (name, route) = (format!("s-{number}"), format!("/{number}"));
            let mut spec = json!({"pubsubname": "p", "topic": number.to_string()});
            let (api, version) = if number % 2 == 0 {
                (v1, "v1alpha1")
            } else {
                (v2, "v2alpha1")
            };
            match version {
                "v1alpha1" => spec["route"] = route.into(),
                _ => spec["routes"] = json!({"default": route, "rules": [{"match": "m", "path": "/p"}]}),
            }
            api.create(&PostParams::default(), &manifest(version, &name, spec))
                .await
                .unwrap();
        }
    });
    others.await;
    let first = setup.v1().list(&ListParams::default()).await.unwrap().items;
    let second = setup.v2().list(&ListParams::default()).await.unwrap().items;
    assert_eq!((first.len(), second.len()), (500, 500));
    for (first, second) in first.iter().zip(&second) {
        let topic = first.data["spec"]["topic"].as_str().unwrap();
        let odd = topic.parse::<u32>().unwrap() % 2 == 1;
        assert_eq!(first.data["spec"]["route"], format!("/{topic}"));
        assert_eq!(second.data["spec"]["routes"]["default"], format!("/{topic}"));
        assert_eq!(first.metadata.annotations.is_some(), odd);
        assert_eq!(second.data["spec"]["routes"]["rules"].is_array(), odd);
        assert!(second.metadata.annotations.is_none());
    }
}

#[tokio::test]
async fn conversions_wait_for_a_webhook_that_is_down() {
    let _turn = turn().await;
    let Setup {
        client,
        namespace,
        workloads,
        webhook,
        _registered,
    } = Setup::new("down").await;
    let (v1, v2) = (
        subscriptions(&client, "v1alpha1", &namespace),
        subscriptions(&client, "v2alpha1", &namespace),
    );
    created(&v2, &manifest("v2alpha1", "orders", routed())).await;
    v1.get("orders").await.unwrap();
    let port = webhook.port;
    drop(webhook);
    eventually("conversions fail", async || v1.get("orders").await.err()).await;
    v2.get("orders").await.expect("the stored version needs no conversion");
    let _again = Webhook::start(&workloads, &namespace, port).await;
    eventually("conversions work", async || v1.get("orders").await.ok()).await;
}

/// The whole of a cluster that upstream's first releases have left: Subscriptions stored as `v1alpha1`, and an operator whose
/// own webhook has to convert them before it can list them.
#[tokio::test(flavor = "multi_thread")]
async fn old_stored_objects_keep_no_operator_from_becoming_ready() {
    let _turn = turn().await;
    let Setup {
        client,
        namespace,
        workloads,
        webhook,
        _registered,
    } = Setup::new("stored").await;
    let stored_as = async |version: &str, url: &Value| {
        let mut definition = rendered(url);
        for entry in definition["spec"]["versions"].as_array_mut().unwrap() {
            entry["storage"] = (entry["name"] == version).into();
        }
        let params = PatchParams::apply("test").force();
        definitions(&client)
            .patch(DEFINITION, &params, &Patch::Apply(&definition))
            .await
            .unwrap();
        established(&client).await;
    };
    stored_as("v1alpha1", &webhook.url()).await;
    let (v1, v2) = (
        subscriptions(&client, "v1alpha1", &namespace),
        subscriptions(&client, "v2alpha1", &namespace),
    );
    created(&v2, &manifest("v2alpha1", "orders", routed())).await;
    eventually("the old version needs no conversion", async || {
        v1.get("orders").await.ok()
    })
    .await;
    let (url, port) = (webhook.url(), webhook.port);
    drop(webhook);
    stored_as("v2alpha1", &url).await;
    let health = Health::default();
    let metrics = Metrics::new(&Registry::new()).unwrap();
    let core = Core::new(
        clients(&client),
        Scope::new(&namespace),
        metrics,
        ObjectKey::new(&*namespace, "daprsystem"),
        "test".into(),
    );
    let stop = CancellationToken::new();
    let mut tasks = Tasks::new(stop.clone());
    core.spawn_watches(&mut tasks, health.target("caches"));
    tokio::spawn(tasks.run(std::time::Duration::from_secs(5)));
    eventually("other lists are complete", async || {
        let missing = health.missing();
        (missing.len() == 1 && missing[0].1.starts_with("waiting for subscriptions (")).then_some(())
    })
    .await;
    // The API server does not even refuse the list: it waits for its cache.
    let listing = async {
        let listed = v2.list(&ListParams::default()).await;
        assert!(listed.is_err(), "Subscriptions are to be had without their webhook");
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = listing => {}
        () = eventually("readiness without Subscriptions", async || health.is_ready().then_some(())) => {}
    }

    let _again = Webhook::start(&workloads, &namespace, port).await;
    let api: Api<Subscription> = Api::namespaced(client.clone(), &namespace);
    let listed = eventually("Subscriptions are listed", async || {
        api.list(&ListParams::default()).await.ok()
    })
    .await;
    let rules = listed.items[0].spec.routes.rules.as_deref().unwrap();
    assert_eq!(rules[0].path, "/a");
    stop.cancel();
    // Without the webhook the definition could not go: the API server lists what it deletes.
    remove(&client).await;
}
