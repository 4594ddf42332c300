//! The Services of apps.

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use kube::{ResourceExt, api::DeleteParams};
use outrigger_operator::core::{Features, Services};
use serde_json::{Value, json};

use crate::{fixture::Operator, support::eventually};

#[tokio::test(flavor = "multi_thread")]
async fn apps_get_services_and_foreign_ones_are_left_alone() {
    let operator = Operator::start("services", |_| Features {
        services: Some(Services { mtls: true }),
        ..Features::default()
    })
    .await;
    let deployment = |app: &str, annotations: Value| {
        let mut annotations = annotations;
        annotations["dapr.io/app-id"] = app.into();
        json!({"spec": {
            "selector": {"matchLabels": {"app": app}},
            "template": {
                "metadata": {"labels": {"app": app}, "annotations": annotations},
                "spec": {"containers": [{"name": "app", "image": "app"}]},
            },
        }})
    };
    let enabled = || json!({"dapr.io/enabled": "true"});
    let services = operator.api::<Service>();
    let service = || async { services.get_opt("cart-dapr").await.unwrap() };

    let cart = operator
        .apply::<Deployment>("cart", deployment("cart", enabled()))
        .await;
    let created = eventually("the Service", service).await;
    assert_eq!(created.owner_references()[0].uid, cart.uid().unwrap());
    let spec = created.spec.unwrap();
    assert_eq!(spec.cluster_ip.as_deref(), Some("None"));
    let ports: Vec<_> = spec.ports.unwrap().into_iter().map(|port| port.name.unwrap()).collect();
    assert_eq!(ports, ["dapr-http", "dapr-grpc", "dapr-internal", "dapr-metrics"]);

    // Deleted by hand, it comes back.
    services.delete("cart-dapr", &DeleteParams::default()).await.unwrap();
    eventually("the Service again", service).await;
    // It is counted once the API server has answered, which may be after it can be seen.
    let created = || operator.metric("dapr_operator_service_created_total", &[("app_id", "cart")]);
    eventually("the second creation", || async { (created() == 2.0).then_some(()) }).await;

    // Someone else's of that name is not touched.
    let foreign = json!({"spec": {"selector": {"app": "other"}, "ports": [{"port": 80}]}});
    operator.apply::<Service>("pay-dapr", foreign).await;
    operator.apply::<Deployment>("pay", deployment("pay", enabled())).await;
    let note = eventually("an Event", || async { operator.notes("pay").await.pop() }).await;
    assert_eq!(
        note,
        "Service pay-dapr exists and is not changed: it was not created for a workload"
    );
    let foreign = services.get("pay-dapr").await.unwrap();
    assert_eq!(foreign.spec.unwrap().selector.unwrap()["app"], "other");

    // An app that opts out loses its Service.
    operator
        .apply::<Deployment>("cart", deployment("cart", json!({"dapr.io/enabled": "false"})))
        .await;
    eventually("the Service's end", || async {
        service().await.is_none().then_some(())
    })
    .await;
    operator.stop().await;
}
