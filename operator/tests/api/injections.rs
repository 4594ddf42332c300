//! What an injector tells becomes an Event on what people look at.

use std::sync::Arc;

use k8s_openapi::api::{core::v1::Pod, events::v1::Event};
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use outrigger_operator::{
    events::Events,
    injections::Injections,
    metrics::Metrics,
    missing::{Refused, Teller},
    scope::Scope,
};
use outrigger_proto::outrigger::operator::v1::{Owner, Refusal};
use outrigger_testkit::ApiServer;
use prometheus::Registry;
use serde_json::json;

use crate::support::eventually;

#[tokio::test]
async fn refusals_become_events_on_the_owner_or_on_the_pod() {
    let server = ApiServer::shared().await;
    let (client, namespace) = (server.client(), server.namespace("injections").await.unwrap());
    let metrics = Metrics::new(&Registry::new()).unwrap();
    let events = Arc::new(Events::new(
        client.clone(),
        "test".into(),
        metrics.kubernetes_events.clone(),
    ));
    let injector = "spiffe://cluster.local/ns/dapr-system/dapr-injector".parse().unwrap();
    let refused = Refused {
        pods: Arc::default(),
        refusals: Arc::default(),
        teller: Teller {
            events,
            found: metrics.missing_sidecars.clone(),
        },
    };
    let (injections, writer) = Injections::new(injector, client.clone(), refused, Scope::new(&namespace), metrics);
    tokio::spawn(writer.run());

    let told = |pod: &str, reason: &str| Refusal {
        namespace: namespace.clone(),
        pod: pod.into(),
        reason: reason.into(),
        message: format!("no Dapr sidecar: {reason}"),
        ..Refusal::default()
    };
    injections.take(Refusal {
        owner: Some(Owner {
            api_version: "apps/v1".into(),
            kind: "ReplicaSet".into(),
            name: "cart".into(),
            uid: "r1".into(),
        }),
        denied: true,
        ..told("", "PodDenied")
    });
    // Told before the API server has stored the pod.
    injections.take(told("bare", "CreatorNotAllowed"));
    injections.take(Refusal {
        namespace: "elsewhere".into(),
        ..told("foreign", "CreatorNotAllowed")
    });
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "bare"}, "spec": {"containers": [{"name": "main", "image": "app"}]},
    }))
    .unwrap();
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let bare = pods.create(&PostParams::default(), &pod).await.unwrap();

    let written: Api<Event> = Api::namespaced(client.clone(), &namespace);
    let mut found = eventually("two Events", async || {
        let list = written.list(&ListParams::default()).await.ok()?;
        (list.items.len() == 2).then_some(list.items)
    })
    .await;
    found.sort_by_key(|event| event.reason.clone());
    let [pod, owner] = &found[..] else {
        panic!("{found:?}");
    };
    let about = |event: &Event| {
        let regarding = event.regarding.clone().unwrap();
        (regarding.kind.unwrap(), regarding.name.unwrap(), regarding.uid.unwrap())
    };
    assert_eq!(about(owner), ("ReplicaSet".into(), "cart".into(), "r1".into()));
    assert_eq!(owner.reason.as_deref(), Some("PodDenied"));
    assert_eq!(about(pod), ("Pod".into(), "bare".into(), bare.metadata.uid.unwrap()));
    assert_eq!(
        (pod.reason.as_deref(), pod.type_.as_deref(), pod.note.as_deref()),
        (
            Some("CreatorNotAllowed"),
            Some("Warning"),
            Some("no Dapr sidecar: CreatorNotAllowed")
        )
    );
}
