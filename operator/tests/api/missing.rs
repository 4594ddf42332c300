//! Each reason why a pod has no sidecar, as an Event on that pod.

use k8s_openapi::api::{
    core::v1::{Pod, Service},
    events::v1::Event,
};
use kube::{Resource, ResourceExt, api::PostParams};
use outrigger_operator::core::Features;
use outrigger_proto::outrigger::operator::v1::Refusal;
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

    async fn create(&self, name: &str, change: impl FnOnce(&mut Value)) -> Pod {
        let mut pod = json!({
            "metadata": {"name": name, "annotations": {"dapr.io/enabled": "true", "dapr.io/app-id": "cart"}},
            "spec": {"containers": [{"name": "app", "image": "app"}]},
        });
        change(&mut pod);
        let pod: Pod = serde_json::from_value(pod).unwrap();
        self.operator
            .api::<Pod>()
            .create(&PostParams::default(), &pod)
            .await
            .unwrap()
    }

    /// The Event about a pod; there is one.
    async fn event(&self, pod: &Pod) -> (String, String) {
        let events = self.operator.api::<Event>();
        let name = format!("missing-sidecar.{}", pod.uid().unwrap());
        let what = format!("an Event about {}", pod.name_any());
        let event = eventually(&what, || async { events.get_opt(&name).await.unwrap() }).await;
        let regarding = event.regarding.unwrap();
        assert_eq!((regarding.kind.as_deref(), regarding.uid), (Some("Pod"), pod.uid()));
        assert_eq!(event.type_.as_deref(), Some("Warning"));
        (event.reason.unwrap(), event.note.unwrap())
    }

    /// Creates a pod, and checks reason and a part of the sentence.
    async fn expect(&self, reason: &str, sentence: &str, change: impl FnOnce(&mut Value)) {
        let pod = self.create(&format!("p-{}", reason.to_lowercase()), change).await;
        let labels = pod.labels();
        assert!(
            !labels.contains_key("dapr.io/sidecar-injected"),
            "{reason}: the pod was injected"
        );
        let (found, note) = self.event(&pod).await;
        assert_eq!(found, reason, "{note}");
        assert!(
            note.starts_with("no Dapr sidecar: ") && note.contains(sentence),
            "{note}"
        );
        let counted = self
            .operator
            .metric("dapr_operator_missing_sidecars_total", &[("reason", reason)]);
        assert_eq!(counted, 1.0, "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reason_is_told_on_the_pod() {
    let cluster = Cluster::start("missing").await;
    let Cluster { operator, injector } = &cluster;
    let same = |_: &mut Value| {};
    let own = operator.namespace.clone();
    *injector.answer.lock() = Answer::Warn("no Dapr sidecar: because");

    let older = cluster.create("older", same).await;
    assert_eq!(cluster.event(&older).await.0, "WebhookMissing");
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
    let (injections, _writer) = operator.injections(identity);
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
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart", "uid": "r", "controller": true});
    let owned = |pod: &mut Value| pod["metadata"]["ownerReferences"] = json!([owner]);
    let (missed, bare) = (
        cluster.create("missed", owned).await,
        cluster.create("bare", same).await,
    );
    *injector.answer.lock() = Answer::Inject;
    let (reason, note) = cluster.event(&missed).await;
    assert_eq!(reason, "InjectorMissedPod", "{note}");
    let (reason, note) = cluster.event(&bare).await;
    assert_eq!(
        reason, "CreatorUnknown",
        "an injector may have told another replica: {note}"
    );

    // The webhook answers at last: no Event about a pod that got its sidecar.
    let injected = cluster.create("injected", same).await;
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
    let pods = kube::Api::<Pod>::namespaced(server.client(), &namespace);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "older", "annotations": {"dapr.io/enabled": "true"}},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    }))
    .unwrap();
    let older = pods.create(&PostParams::default(), &pod).await.unwrap();
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
    let events = operator.api::<Event>();
    let name = format!("missing-sidecar.{}", older.uid().unwrap());
    let event = eventually("an Event", || async { events.get_opt(&name).await.unwrap() }).await;
    assert_eq!(event.reason.as_deref(), Some("PodOlderThanWebhook"));
    assert_eq!(event.regarding.unwrap().kind.unwrap(), Pod::kind(&()));
    injector.unregister().await;
    operator.stop().await;
}
