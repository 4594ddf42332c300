//! Pods that lack their sidecar.

use std::time::Duration;

use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::MutatingWebhookConfiguration,
        apps::v1::{Deployment, ReplicaSet},
        core::v1::Pod,
    },
};
use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use outrigger_operator::{core::Features, watchdog};
use serde_json::json;

use crate::{fixture::Operator, support::eventually};

#[tokio::test(flavor = "multi_thread")]
async fn the_watchdog_evicts_one_pod_first_and_the_rest_once_its_replacement_has_a_sidecar() {
    let operator = Operator::start("watchdog", |namespace| Features {
        watchdog: Some(watchdog::Settings {
            mode: watchdog::Mode::Every(Duration::from_secs(1)),
            per_minute: 0,
            can_label: true,
            control_plane_namespace: namespace.to_owned(),
        }),
        ..Features::default()
    })
    .await;
    let template = json!({
        "metadata": {"labels": {"app": "cart"}},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    });
    let owner = json!({"spec": {"selector": {"matchLabels": {"app": "cart"}}, "template": template}});
    let owner = operator.apply::<ReplicaSet>("cart", owner).await;
    let pods = operator.api::<Pod>();
    let pod = |name: &str, owned: bool, injected: bool| {
        let mut pod = json!({
            "metadata": {"name": name, "annotations": {"dapr.io/enabled": "true", "dapr.io/app-id": "cart"}},
            "spec": {"containers": [{"name": "app", "image": "app"}]},
        });
        if owned {
            pod["metadata"]["ownerReferences"] = json!([owner.controller_owner_ref(&()).unwrap()]);
        }
        if injected {
            pod["metadata"]["labels"] = json!({"dapr.io/sidecar-injected": "true"});
        }
        serde_json::from_value::<Pod>(pod).unwrap()
    };
    let create = async |pod: Pod| pods.create(&PostParams::default(), &pod).await.unwrap();
    create(pod("cart-1", true, false)).await;
    create(pod("cart-2", true, false)).await;
    create(pod("bare", false, false)).await;
    let mut with_sidecar = pod("labelled", true, false);
    let mut container = with_sidecar.spec.as_ref().unwrap().containers[0].clone();
    container.name = "daprd".into();
    with_sidecar.spec.as_mut().unwrap().containers.push(container);
    create(with_sidecar).await;

    // Nothing is evicted while no injector is ready.
    let evicted = || operator.metric("dapr_operator_watchdog_pods_total", &[("action", "evicted")]);
    let held = || operator.metric("dapr_operator_watchdog_pods_total", &[("action", "held")]);
    eventually("holding back", || async { (held() > 0.0).then_some(()) }).await;
    assert_eq!(evicted(), 0.0);
    let labelled = async || {
        let labels = pods.get("labelled").await.unwrap();
        labels.labels().contains_key("dapr.io/watchdog-patched").then_some(())
    };
    eventually("the label", &labelled).await;
    let note = eventually("an Event", || async { operator.notes("bare").await.pop() }).await;
    assert!(note.starts_with("the pod has no sidecar, and no controller"), "{note}");

    let webhooks: Api<MutatingWebhookConfiguration> = Api::all(operator.client.clone());
    // It calls nobody: no operation matches.
    let webhook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "dapr-sidecar-injector"},
        "webhooks": [{
            "name": "sidecar-injector.dapr.io", "admissionReviewVersions": ["v1"], "sideEffects": "None", "rules": [],
            "clientConfig": {"url": "https://127.0.0.1:1/mutate", "caBundle": authority()},
        }],
    });
    let params = PatchParams::apply("test").force();
    webhooks
        .patch("dapr-sidecar-injector", &params, &Patch::Apply(&webhook))
        .await
        .unwrap();
    let injector = json!({
        "metadata": {"labels": {"app": "dapr-sidecar-injector"}},
        "spec": {"selector": {"matchLabels": {"app": "cart"}}, "template": template},
    });
    operator.apply::<Deployment>("dapr-sidecar-injector", injector).await;
    let ready = Patch::Merge(json!({"status": {"replicas": 1, "readyReplicas": 1}}));
    let deployments = operator.api::<Deployment>();
    deployments
        .patch_status("dapr-sidecar-injector", &PatchParams::default(), &ready)
        .await
        .unwrap();

    // No kubelet runs, so an evicted pod that was never scheduled is gone at once.
    let remaining = async || {
        let list = pods.list(&ListParams::default()).await.unwrap();
        let names: Vec<_> = list.items.iter().map(ResourceExt::name_any).collect();
        ["cart-1", "cart-2"]
            .into_iter()
            .filter(|name| names.iter().any(|other| other == name))
            .collect::<Vec<_>>()
    };
    eventually("the first eviction", || async {
        (remaining().await.len() == 1).then_some(())
    })
    .await;
    assert_eq!(evicted(), 1.0);
    create(pod("cart-3", true, true)).await;
    eventually("the second eviction", || async {
        remaining().await.is_empty().then_some(())
    })
    .await;
    assert_eq!(evicted(), 2.0);
    assert_eq!(
        operator.metric("dapr_operator_watchdog_pods_total", &[("reason", "injected")]),
        1.0
    );
    assert!(
        pods.get_opt("bare").await.unwrap().is_some(),
        "nobody would create it anew"
    );
    operator.stop().await;
}

/// A PEM certificate, which the API server insists on.
fn authority() -> ByteString {
    let pem = outrigger_testkit::certs::Authority::new("test").unwrap().pem();
    ByteString(pem.into_bytes())
}
