//! What a running operator makes of an edit of the control plane's Configuration.

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service, events::v1::Event};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use outrigger_crds::{Configuration, status::ConditionType};
use outrigger_testkit::ApiServer;
use serde_json::{Value, json};

use crate::{setup::Setup, support::eventually};

#[tokio::test(flavor = "multi_thread")]
async fn mtls_is_followed_and_what_waits_for_a_restart_is_told() {
    let setup = Setup::new("system").await;
    let operator = setup.start().await;
    let client = ApiServer::shared().await.client();
    let edit = async |mtls: Value| {
        let configurations: Api<Configuration> = Api::namespaced(client.clone(), &setup.namespace);
        let patch = Patch::Merge(json!({"spec": {"mtls": mtls}}));
        configurations
            .patch("daprsystem", &PatchParams::default(), &patch)
            .await
            .unwrap();
    };
    let warning = async |text: &str| {
        let configurations: Api<Configuration> = Api::namespaced(client.clone(), &setup.namespace);
        eventually(text, || async {
            let status = configurations.get("daprsystem").await.unwrap().status?;
            let accepted = status.condition(ConditionType::Accepted)?;
            (accepted.status == "True" && accepted.message.contains(text)).then_some(())
        })
        .await;
    };

    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &setup.namespace);
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "cart"},
        "spec": {
            "selector": {"matchLabels": {"app": "cart"}},
            "template": {
                "metadata": {
                    "labels": {"app": "cart"},
                    "annotations": {"dapr.io/enabled": "true", "dapr.io/app-id": "cart"},
                },
                "spec": {"containers": [{"name": "app", "image": "app"}]},
            },
        },
    });
    let params = PatchParams::apply("test");
    deployments
        .patch("cart", &params, &Patch::Apply(&deployment))
        .await
        .unwrap();
    let protocol = async |expected: &str| {
        let services: Api<Service> = Api::namespaced(client.clone(), &setup.namespace);
        eventually(expected, || async {
            let service = services.get_opt("cart-dapr").await.unwrap()?;
            let ports = service.spec?.ports?;
            let internal = ports
                .iter()
                .find(|port| port.name.as_deref() == Some("dapr-internal"))?;
            (internal.app_protocol.as_deref() == Some(expected)).then_some(())
        })
        .await;
    };
    protocol("tls").await;
    edit(json!({"enabled": false})).await;
    protocol("grpc").await;
    edit(json!({"enabled": true})).await;
    protocol("tls").await;

    // Sidecars know the operator by the old name.
    edit(json!({"controlPlaneTrustDomain": "other.example"})).await;
    let text = "spec.mtls.controlPlaneTrustDomain: found \"other.example\", the operator goes on with \"example.org\" until it is restarted";
    warning(text).await;
    let events: Api<Event> = Api::namespaced(client.clone(), &setup.namespace);
    eventually("an Event", || async {
        let all = events.list(&ListParams::default()).await.unwrap().items;
        let mut told = all
            .iter()
            .filter(|event| event.reason.as_deref() == Some("RestartRequired"));
        told.any(|event| event.note.as_deref() == Some(text)).then_some(())
    })
    .await;
    edit(json!({"controlPlaneTrustDomain": "example.org"})).await;
    let configurations: Api<Configuration> = Api::namespaced(client.clone(), &setup.namespace);
    eventually("no warning", || async {
        let status = configurations.get("daprsystem").await.unwrap().status?;
        let accepted = status.condition(ConditionType::Accepted)?;
        (!accepted.message.contains("restarted")).then_some(())
    })
    .await;
    operator.kill().await;
}
