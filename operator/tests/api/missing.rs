//! Each reason why a pod has no sidecar, as an Event on that pod.

use futures::future::join_all;
use k8s_openapi::api::{
    core::v1::{Pod, Service},
    events::v1::Event,
};
use kube::ResourceExt;
use outrigger_operator::core::Features;
use outrigger_proto::outrigger::operator::v1::{Owner, Refusal};
use outrigger_testkit::ApiServer;
use serde_json::{Value, json};

use crate::{
    fixture::Operator,
    stand_in::{Answer, Injector, NAME},
    support::eventually,
};

struct Cluster {
    operator: Operator,
    injector: Injector,
}

impl Cluster {
    async fn start(prefix: &str) -> Self {
        let server = ApiServer::shared().await;
        let namespace = server.namespace(prefix).await.unwrap();
        let injector = Injector::start(server.client(), &namespace).await;
        injector.unregister().await;
        let settings = injector.settings();
        let operator = Operator::start_in_namespace(namespace, |_| Features {
            missing: Some(settings),
            ..Features::default()
        })
        .await;
        Self { operator, injector }
    }

    /// Creates a pod, and checks reason and a part of the sentence.
    async fn expect(&self, reason: &str, sentence: &str, change: impl FnOnce(&mut Value)) {
        let name = format!("p-{}", reason.to_lowercase());
        let pod = self.operator.create_pod(&name, change).await;
        let labels = pod.labels();
        assert!(
            !labels.contains_key("dapr.io/sidecar-injected"),
            "{reason}: the pod was injected"
        );
        let (found, note) = event(&self.operator, &pod).await;
        assert_eq!(found, reason, "{note}");
        assert!(
            note.starts_with("no Dapr sidecar: ") && note.contains(sentence),
            "{note}"
        );
        counted(&self.operator, reason).await;
    }
}

/// Reason and note of the Event about a pod; there is one.
async fn event(operator: &Operator, pod: &Pod) -> (String, String) {
    let events = operator.api::<Event>();
    let name = format!("missing-sidecar.{}", pod.uid().unwrap());
    let what = format!("an Event about {}", pod.name_any());
    let event = eventually(&what, || async { events.get_opt(&name).await.unwrap() }).await;
    let regarding = event.regarding.unwrap();
    assert_eq!((regarding.kind.as_deref(), regarding.uid), (Some("Pod"), pod.uid()));
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    (event.reason.unwrap(), event.note.unwrap())
}

/// Waits until a pod was counted, which may be after its Event can be seen.
async fn counted(operator: &Operator, reason: &str) {
    let count = || operator.metric("dapr_operator_missing_sidecars_total", &[("reason", reason)]);
    eventually(&format!("one pod with {reason}"), || async {
        (count() == 1.0).then_some(())
    })
    .await;
}

/// With an owner of this name, which nobody looks after.
fn owned_by(name: &str) -> impl Fn(&mut Value) {
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": name, "controller": true});
    move |pod| pod["metadata"]["ownerReferences"] = json!([owner])
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reason_is_told_on_the_pod() {
    let cluster = Cluster::start("missing").await;
    let Cluster { operator, injector } = &cluster;
    let same = |_: &mut Value| {};
    let own = operator.namespace.clone();
    *injector.answer.lock() = Answer::Warn("no Dapr sidecar: because");

    let older = operator.create_pod("older", same).await;
    assert_eq!(event(operator, &older).await.0, "WebhookMissing");
    cluster
        .expect("SidecarNotEnabled", "\"yes\"", |pod| {
            pod["metadata"]["annotations"]["dapr.io/enabled"] = "yes".into();
        })
        .await;
    cluster
        .expect("ContainerNamedDaprd", "named daprd", |pod| {
            pod["spec"]["initContainers"] = json!([{"name": "daprd", "image": "app"}]);
        })
        .await;

    injector
        .register(|webhook| webhook["name"] = "other.example.com".into())
        .await;
    cluster
        .expect("WebhookIncomplete", "sidecar-injector.dapr.io", same)
        .await;
    injector
        .register(|webhook| webhook["rules"][0]["operations"] = json!(["UPDATE"]))
        .await;
    cluster.expect("WebhookIgnoresPods", "rules", same).await;
    injector
        .register(|webhook| {
            let out = json!({"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [own]});
            webhook["namespaceSelector"] = json!({"matchExpressions": [out]});
        })
        .await;
    cluster.expect("NamespaceExcluded", &own, same).await;
    injector
        .register(|webhook| webhook["namespaceSelector"]["matchLabels"]["dapr"] = "on".into())
        .await;
    cluster.expect("NamespaceNotSelected", "dapr=on", same).await;
    injector
        .register(|webhook| webhook["objectSelector"] = json!({"matchLabels": {"team": "blue"}}))
        .await;
    cluster.expect("PodNotSelected", "team=blue", same).await;
    let condition = json!([{"name": "blue-only", "expression": "object.metadata.name == 'blue'"}]);
    injector
        .register(|webhook| webhook["matchConditions"] = condition)
        .await;
    cluster.expect("MatchConditionNotMet", "blue-only", same).await;
    injector
        .register(|webhook| webhook["clientConfig"]["caBundle"] = Value::Null)
        .await;
    cluster.expect("CaBundleMissing", "caBundle", same).await;
    let foreign = outrigger_testkit::certs::Authority::new("other").unwrap().pem();
    let foreign = k8s_openapi::ByteString(foreign.into_bytes());
    injector
        .register(|webhook| webhook["clientConfig"]["caBundle"] = json!(foreign))
        .await;
    cluster.expect("CaBundleForeign", "trust anchors", same).await;

    let service = |namespace: &str| json!({"namespace": namespace, "name": NAME, "path": "/mutate"});
    let at_service = async |namespace: &str| {
        let change = |webhook: &mut Value| {
            let config = &mut webhook["clientConfig"];
            config.as_object_mut().unwrap().remove("url");
            config["service"] = service(namespace);
        };
        injector.register(change).await;
    };
    at_service("elsewhere").await;
    cluster.expect("ServiceForeign", "elsewhere/", same).await;
    at_service(&own).await;
    cluster.expect("ServiceMissing", NAME, same).await;
    let ports = json!({"spec": {"ports": [{"port": 443}]}});
    operator.apply::<Service>(NAME, ports).await;
    cluster.expect("InjectorNotReady", "no replica", same).await;
    injector
        .register(|webhook| webhook["clientConfig"]["url"] = "https://127.0.0.1:1/mutate".into())
        .await;
    cluster.expect("InjectorUnreachable", "cannot be reached", same).await;

    *injector.answer.lock() = Answer::Break;
    injector.register(|_| {}).await;
    cluster.expect("InjectorFailed", "AdmissionReview", same).await;
    *injector.answer.lock() = Answer::Warn("no Dapr sidecar: because");
    cluster.expect("InjectorRefuses", "because", same).await;

    // What the injector told counts more than what can be guessed.
    let identity = "spiffe://cluster.local/ns/dapr-system/dapr-injector".parse().unwrap();
    let (injections, writer) = operator.injections(identity);
    tokio::spawn(writer.run());
    injections.take(Refusal {
        namespace: own.clone(),
        pod: "p-creatornotallowed".into(),
        reason: "CreatorNotAllowed".into(),
        message: "no Dapr sidecar: mallory may not".into(),
        ..Refusal::default()
    });
    cluster.expect("CreatorNotAllowed", "mallory", same).await;

    // Its answer is nonsense when the pod is created, and right when it is asked about it.
    *injector.answer.lock() = Answer::Break;
    let (missed, bare) = (
        operator.create_pod("missed", owned_by("cart")).await,
        operator.create_pod("bare", same).await,
    );
    *injector.answer.lock() = Answer::Inject;
    let (reason, note) = event(operator, &missed).await;
    assert_eq!(reason, "InjectorMissedPod", "{note}");
    assert!(note.ends_with("; replace the pod"), "{note}");
    let (reason, note) = event(operator, &bare).await;
    assert_eq!(reason, "CreatorUnknown", "{note}");
    assert!(note.contains("no controller would create the pod anew"), "{note}");

    // The webhook answers at last: no Event about a pod that got its sidecar.
    let injected = operator.create_pod("injected", same).await;
    assert!(injected.labels().contains_key("dapr.io/sidecar-injected"));
    let asked = injector.asked.lock().clone();
    assert!(asked.iter().any(|(_, dry_run)| *dry_run) && asked.iter().any(|(_, dry_run)| !dry_run));
    injector.unregister().await;
    cluster.operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_were_there_before_are_told_apart() {
    let server = ApiServer::shared().await;
    let namespace = server.namespace("older").await.unwrap();
    let injector = Injector::start(server.client(), &namespace).await;
    injector.unregister().await;
    let before = Operator::start_in_namespace(namespace.clone(), |_| Features::default()).await;
    let older = before.create_pod("older", |_| {}).await;
    // Creation times are in whole seconds: registered until it is in a later one.
    let configurations =
        kube::Api::<k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration>::all(server.client());
    eventually("a later second", || async {
        injector.unregister().await;
        injector.register(|_| {}).await;
        let created = configurations.get(NAME).await.unwrap().creation_timestamp()?;
        (created > older.creation_timestamp()?).then_some(())
    })
    .await;
    let settings = injector.settings();
    let operator = Operator::start_in_namespace(namespace, |_| Features {
        missing: Some(settings),
        ..Features::default()
    })
    .await;
    assert_eq!(event(&operator, &older).await.0, "PodOlderThanWebhook");
    injector.unregister().await;
    before.stop().await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_injector_is_not_waited_for_again_for_each_pod() {
    let Cluster { operator, injector } = Cluster::start("silent").await;
    *injector.answer.lock() = Answer::Silence;
    injector.register(|webhook| webhook["timeoutSeconds"] = 1.into()).await;
    let names: Vec<_> = (0..40).map(|number| format!("cart-{number}")).collect();
    let pods = join_all(names.iter().map(|name| operator.create_pod(name, owned_by("cart")))).await;
    for pod in &pods {
        let (reason, note) = event(&operator, pod).await;
        assert_eq!(reason, "InjectorUnreachable", "{note}");
        assert!(note.contains("no answer within 2 s"), "{note}");
    }
    let questions = injector.asked.lock().iter().filter(|(_, dry_run)| *dry_run).count();
    assert!(questions <= pods.len() / 2, "asked {questions} times");
    injector.unregister().await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_injector_tells_any_replica_counts_whoever_leads() {
    let Cluster {
        operator: leader,
        injector,
    } = Cluster::start("told").await;
    *injector.answer.lock() = Answer::Warn("no Dapr sidecar: because");
    injector.register(|_| {}).await;
    let namespace = leader.namespace.clone();
    let other = Operator::start_in_namespace(namespace.clone(), |_| Features::default()).await;
    let identity = "spiffe://cluster.local/ns/dapr-system/dapr-injector".parse().unwrap();
    let (injections, writer) = other.injections(identity);
    tokio::spawn(writer.run());
    injections.take(Refusal {
        namespace: namespace.clone(),
        generate_name: "cart-".into(),
        owner: Some(Owner {
            api_version: "apps/v1".into(),
            kind: "ReplicaSet".into(),
            name: "cart".into(),
            uid: "cart".into(),
        }),
        reason: "CreatorNotAllowed".into(),
        message: "no Dapr sidecar: mallory may not".into(),
        ..Refusal::default()
    });
    let told = leader.create_pod("cart-1", owned_by("cart")).await;
    let untold = leader.create_pod("web-1", owned_by("web")).await;
    assert_eq!(event(&leader, &told).await.0, "CreatorNotAllowed");
    assert_eq!(event(&leader, &untold).await.0, "InjectorRefuses");

    // Whoever leads looks into the pods too, and finds their Events.
    let known = async |leader: &Operator, pods: f64| {
        let known = || leader.metric("dapr_operator_kubernetes_events_total", &[("result", "known")]);
        eventually("a look at the pods", || async { (known() == pods).then_some(()) }).await;
    };
    known(&leader, 1.0).await;
    leader.stop().await;
    let settings = injector.settings();
    let leader = Operator::start_in_namespace(namespace, |_| Features {
        missing: Some(settings),
        ..Features::default()
    })
    .await;
    known(&leader, 2.0).await;
    let only = ["no Dapr sidecar: mallory may not"];
    assert_eq!(leader.notes("cart-1").await, only);
    assert_eq!(leader.notes("cart").await, only);
    counted(&other, "CreatorNotAllowed").await;
    let refuses = [("reason", "InjectorRefuses")];
    assert_eq!(leader.metric("dapr_operator_missing_sidecars_total", &refuses), 0.0);
    injector.unregister().await;
    other.stop().await;
    leader.stop().await;
}
