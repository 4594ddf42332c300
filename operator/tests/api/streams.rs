//! What sidecars are told.

use kube::api::{DeleteParams, Patch, PatchParams};
use outrigger_crds::{Component, status::ConditionType};
use outrigger_proto::operator::{ComponentUpdateRequest, ListComponentsRequest, ResourceEventType};
use serde_json::{Value, json};

use crate::{fixture::Operator, support::soon};

fn redis(host: &str) -> Value {
    json!({"spec": {"type": "state.redis", "version": "v1", "metadata": [{"name": "redisHost", "value": host}]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_applied_reaches_the_sidecar_and_statuses_do_not() {
    let operator = Operator::plain("stream").await;
    let mut sidecar = operator
        .server
        .client(&format!("spiffe://public/ns/{}/cart", operator.namespace))
        .await;
    let namespace = operator.namespace.clone();
    let request = ComponentUpdateRequest {
        namespace: namespace.clone(),
    };
    let mut stream = sidecar.component_update(request).await.unwrap().into_inner();
    let mut next = async || {
        let event = soon("an event", stream.message()).await.unwrap().unwrap();
        let component: Value = serde_json::from_slice(&event.component).unwrap();
        (event.r#type(), component["spec"]["metadata"][0]["value"].clone())
    };

    operator.apply::<Component>("db", redis("one")).await;
    assert_eq!(next().await, (ResourceEventType::Created, json!("one")));
    let ready = operator
        .condition::<Component>("db", ConditionType::Ready, "NoSidecars")
        .await;
    assert_eq!(ready, "True: accepted; no sidecar has reported on it");

    operator.apply::<Component>("db", redis("two")).await;
    assert_eq!(
        next().await,
        (ResourceEventType::Updated, json!("two")),
        "the status in between was no event"
    );
    operator
        .condition::<Component>("db", ConditionType::Ready, "NoSidecars")
        .await;
    let foreign = json!({"status": {"conditions": []}});
    operator
        .api::<Component>()
        .patch_status("db", &PatchParams::default(), &Patch::Merge(&foreign))
        .await
        .unwrap();
    operator
        .condition::<Component>("db", ConditionType::Ready, "NoSidecars")
        .await;

    operator
        .api::<Component>()
        .delete("db", &DeleteParams::default())
        .await
        .unwrap();
    assert_eq!(
        next().await,
        (ResourceEventType::Deleted, json!("two")),
        "nor were the second one, somebody else's, and ours again"
    );
    assert_eq!(
        operator.metric("dapr_operator_stream_events_total", &[("outcome", "sent")]),
        3.0
    );
    assert_eq!(operator.metric("dapr_operator_streams", &[("kind", "Component")]), 1.0);

    let list = sidecar
        .list_components(ListComponentsRequest { namespace })
        .await
        .unwrap();
    assert!(list.into_inner().components.is_empty());
    operator.stop().await;
}
