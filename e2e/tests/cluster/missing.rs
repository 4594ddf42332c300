//! Why a pod has no sidecar: each way to lose one is seeded, and told in an Event on the pod or, when there is no pod, on its
//! owner. Last of all tests, for it changes what they share.

mod stage;

use std::time::Duration;

use anyhow::ensure;
use futures::future::try_join_all;
use k8s_openapi::ByteString;
use outrigger_e2e::sample::container;
use outrigger_testkit::certs::Authority;
use serde_json::{Value, json};

use self::stage::{INJECTOR, SYSTEM, Stage};
use crate::frame::{World, tests};

tests![every_pod_without_a_sidecar_is_told_why];

/// What an Event has to say, and how long after the pod's creation it was there.
struct Told {
    reason: &'static str,
    after: Duration,
}

async fn every_pod_without_a_sidecar_is_told_why(world: World) -> anyhow::Result<()> {
    let stage = Stage::new(world).await?;
    let mut told = Vec::new();
    let seeded = async {
        told.extend(mistakes_of_pods(&stage).await?);
        told.extend(changes_of_the_webhook(&stage).await?);
        told.extend(outages_of_the_injector(&stage).await?);
        anyhow::Ok(())
    };
    let seeded = seeded.await;
    stage.restore().await?;
    seeded?;
    told.push(stage.denied().await?);
    for Told { reason, after } in &told {
        println!("{reason}: {:.1} s", after.as_secs_f64());
    }
    ensure!(told.len() >= 20, "{} reasons", told.len());
    Ok(())
}

/// Nothing is changed for these, so they are all there at once.
async fn mistakes_of_pods(stage: &Stage) -> anyhow::Result<Vec<Told>> {
    let mut seeded = Vec::new();
    for value in ["yes", "1", "on"] {
        let change = |pod: &mut Value| pod["metadata"]["annotations"]["dapr.io/enabled"] = value.into();
        seeded.push((
            stage.pod(change).await?,
            "SidecarNotEnabled",
            "only \"true\" asks for one",
        ));
    }
    for list in ["containers", "initContainers"] {
        let change = |pod: &mut Value| pod["spec"][list] = json!([container("daprd", &[])]);
        seeded.push((stage.pod(change).await?, "ContainerNamedDaprd", "named daprd"));
    }
    for namespace in ["kube-system", SYSTEM] {
        seeded.push((
            stage.pod_in(namespace, |_| {}).await?,
            "NamespaceExcluded",
            "leaves out namespace",
        ));
    }
    stage.let_stranger_create_pods().await?;
    let pod = stage.pod_by_stranger(|_| {}).await?;
    seeded.push((pod, "CreatorNotAllowed", "allowedServiceAccounts"));
    // A node, which makes these, is no creator of pods with sidecars either.
    let mirror = |pod: &mut Value| {
        pod["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "seeded".into();
        pod["spec"] = json!({"nodeName": "nowhere", "containers": [container("app", &[])]});
    };
    seeded.push((stage.pod_by_stranger(mirror).await?, "StaticPod", "static pod"));
    let told = seeded
        .into_iter()
        .map(|(pod, reason, sentence)| stage.told(pod, reason, sentence));
    try_join_all(told).await
}

async fn changes_of_the_webhook(stage: &Stage) -> anyhow::Result<Vec<Told>> {
    let no_creation = json!(["DELETE"]);
    let changes: [(&str, Value, &'static str, &str); 7] = [
        (
            "/namespaceSelector",
            json!({"matchLabels": {"dapr": "on"}}),
            "NamespaceNotSelected",
            "dapr=on",
        ),
        (
            "/namespaceSelector",
            json!({"matchExpressions": [{"key": "dapr", "operator": "Exists"}]}),
            "NamespaceNotSelected",
            "no label dapr",
        ),
        (
            "/objectSelector",
            json!({"matchLabels": {"team": "blue"}}),
            "PodNotSelected",
            "team=blue",
        ),
        (
            "/objectSelector",
            json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["dry-run", "seeded"]}]}),
            "PodNotSelected",
            "app notin (",
        ),
        (
            "/matchConditions",
            json!([{"name": "blue-only", "expression": "object.metadata.name == 'blue'"}]),
            "MatchConditionNotMet",
            "blue-only",
        ),
        (
            "/rules/0/operations",
            no_creation.clone(),
            "WebhookIgnoresPods",
            "rules",
        ),
        ("/clientConfig/service/name", "other".into(), "ServiceForeign", "/other"),
    ];
    let mut told = Vec::new();
    for (field, value, reason, sentence) in changes {
        let set = |webhook: &mut Value| match webhook.pointer_mut(field) {
            Some(found) => *found = value,
            None => webhook[&field[1..]] = value,
        };
        told.push(stage.told_with(set, reason, sentence).await?);
    }
    let rename = |webhook: &mut Value| {
        webhook["name"] = "other.example.com".into();
        webhook["rules"][0]["operations"] = no_creation;
    };
    told.push(stage.told_with(rename, "WebhookIncomplete", "no webhook").await?);
    stage.set_webhook(|_| {}).await?;
    Ok(told)
}

async fn outages_of_the_injector(stage: &Stage) -> anyhow::Result<Vec<Told>> {
    let mut told = Vec::new();
    stage.set_injector_port(json!(9)).await?;
    // The API server holds on to a connection from before.
    stage.scale(0).await?;
    stage.scale(1).await?;
    let pod = stage.unseen().await?;
    told.push(stage.told(pod, "InjectorUnreachable", "cannot be reached").await?);
    stage.set_injector_port(json!("https")).await?;

    stage.scale(0).await?;
    let pod = stage.pod(|_| {}).await?;
    told.push(stage.told(pod, "InjectorNotReady", "no replica").await?);
    // The injector would heal these.
    let none = |webhook: &mut Value| webhook["clientConfig"]["caBundle"] = Value::Null;
    told.push(stage.told_with(none, "CaBundleMissing", "caBundle").await?);
    let foreign = json!(ByteString(Authority::new("other")?.pem().into_bytes()));
    let foreign = |webhook: &mut Value| webhook["clientConfig"]["caBundle"] = foreign;
    told.push(stage.told_with(foreign, "CaBundleForeign", "trust anchors").await?);
    stage.set_webhook(|_| {}).await?;

    let service = stage.take_service().await?;
    let pod = stage.pod(|_| {}).await?;
    let missing = stage.told(pod, "ServiceMissing", INJECTOR).await;
    stage.put_service(service).await?;
    told.push(missing?);

    stage.delete_webhook().await?;
    let pod = stage.pod(|_| {}).await?;
    let sentence = "no MutatingWebhookConfiguration";
    told.push(stage.told(pod, "WebhookMissing", sentence).await?);
    Ok(told)
}
