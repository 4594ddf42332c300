//! How often statuses are written and Events published, counted in the API server's audit log.

use k8s_openapi::api::core::v1::Secret;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, api::DeleteParams};
use outrigger_crds::{Component, Configuration, HTTPEndpoint, Resiliency, Subscription, status::ConditionType};
use outrigger_proto::operator::SubscriptionUpdateRequest;
use outrigger_testkit::{ApiServer, apiserver::audit::Request};
use serde_json::{Value, json};

use crate::{
    fixture::Operator,
    support::{eventually, soon},
};

fn redis(host: &str) -> Value {
    json!({"spec": {"type": "state.redis", "version": "v1", "metadata": [{"name": "redisHost", "value": host}]}})
}

async fn requests(operator: &Operator, wanted: impl Fn(&Request) -> bool) -> Vec<Request> {
    let mut requests = ApiServer::shared().await.requests(&operator.namespace).unwrap();
    requests.retain(wanted);
    requests
}

fn is_status_write(request: &Request) -> bool {
    let about = request.object_ref.as_ref().unwrap();
    about.subresource == "status" && request.verb != "get"
}

fn is_event(request: &Request) -> bool {
    request.object_ref.as_ref().unwrap().resource == "events" && ["create", "patch"].contains(&request.verb.as_str())
}

/// Statuses written and Events published so far. Returns when everything that was due is done: what is applied now is looked at
/// after it.
async fn done_so_far(operator: &Operator, marker: &str) -> (usize, usize) {
    operator.apply::<Component>(marker, redis("marker")).await;
    let writes = eventually("the marker's status in the audit log", || async {
        let writes = requests(operator, is_status_write).await;
        let marked = writes
            .iter()
            .any(|write| write.object_ref.as_ref().unwrap().name == marker);
        marked.then_some(writes)
    })
    .await;
    operator
        .api::<Component>()
        .delete(marker, &DeleteParams::default())
        .await
        .unwrap();
    (writes.len(), requests(operator, is_event).await.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_resyncs_and_restarts_write_nothing() {
    const OBJECTS: usize = 100;
    const ROUNDS: usize = 100;
    let operator = Operator::plain("resync").await;
    operator
        .apply::<Secret>("auth", json!({"stringData": {"password": "hunter1"}}))
        .await;
    for n in 0..OBJECTS / 5 {
        let name = format!("object-{n}");
        let key = ["password", "pass"][n % 2];
        let secret = json!({"spec": {"type": "state.redis", "version": "v1", "metadata": [
            // Every second one is refused.
            {"name": "redisPassword", "secretKeyRef": {"name": "auth", "key": key}},
        ]}, "scopes": ["nobody"]});
        operator.apply::<Component>(&name, secret).await;
        operator.apply::<Configuration>(&name, json!({"spec": {}})).await;
        let endpoint = json!({"spec": {"baseUrl": "http://x"}, "auth": {"secretStore": "vault"}});
        operator.apply::<HTTPEndpoint>(&name, endpoint).await;
        let resiliency = json!({"spec": {"policies": {}, "targets": {"components": {"absent": {}}}}});
        operator.apply::<Resiliency>(&name, resiliency).await;
        let subscription = json!({"spec": {"pubsubname": "bus", "topic": "orders", "routes": {"default": "/"}}});
        operator.apply::<Subscription>(&name, subscription).await;
    }
    // Each new Subscription of the topic is news for the others.
    let everything = async |operator: &Operator| -> Vec<(Option<String>, Value)> {
        let mut all = Vec::new();
        for resource in [
            ApiResource::erase::<Component>(&()),
            ApiResource::erase::<Configuration>(&()),
            ApiResource::erase::<HTTPEndpoint>(&()),
            ApiResource::erase::<Resiliency>(&()),
            ApiResource::erase::<Subscription>(&()),
        ] {
            let api: Api<DynamicObject> = Api::namespaced_with(operator.client.clone(), &operator.namespace, &resource);
            let objects = api.list(&Default::default()).await.unwrap().items;
            all.extend(
                objects
                    .into_iter()
                    .map(|object| (object.metadata.name, object.data["status"].clone())),
            );
        }
        all
    };
    let settled = eventually("that every object has its status", || async {
        let all = everything(&operator).await;
        let settled = all.iter().all(|(_, status)| status["conditions"].is_array());
        let known = all
            .iter()
            .filter(|(_, status)| status.to_string().contains("and others too"))
            .count();
        (settled && all.len() == OBJECTS && known == OBJECTS / 5).then_some(all)
    })
    .await;

    let mut sidecar = operator
        .server
        .client(&format!("spiffe://public/ns/{}/cart", operator.namespace))
        .await;
    let request = SubscriptionUpdateRequest {
        namespace: operator.namespace.clone(),
    };
    let mut stream = sidecar.subscription_update(request).await.unwrap().into_inner();
    // It counts for what is not limited to other apps: three kinds of the five.
    eventually("that the sidecar is counted", || async {
        let all = everything(&operator).await;
        let counted = all.iter().filter(|(_, status)| status["sidecars"]["matching"] == 1);
        (counted.count() == OBJECTS / 5 * 3).then_some(())
    })
    .await;
    // First the stream repeats what changed last.
    let edit = async |name: &str| {
        let other = json!({"spec": {"pubsubname": "bus", "topic": name, "routes": {"default": "/"}}});
        operator.apply::<Subscription>(name, other).await;
    };
    let mut next = async || {
        let event = soon("an event", stream.message()).await.unwrap().unwrap();
        let subscription: Value = serde_json::from_slice(&event.subscription).unwrap();
        subscription["metadata"]["name"].as_str().unwrap().to_owned()
    };
    edit("zeroth").await;
    while next().await != "zeroth" {}
    let (writes, events) = done_so_far(&operator, "before").await;
    for _ in 0..ROUNDS {
        operator.relist().await;
    }
    let after = done_so_far(&operator, "after").await;
    assert_eq!(after, (writes + 1, events), "the marker's own and no other");
    // Nor did a sidecar hear of it: what it hears first is the next edit.
    edit("next").await;
    assert_eq!(next().await, "next");
    let after = done_so_far(&operator, "heard").await;

    // Another writer adds what is not ours to touch.
    let status = &settled[0].1;
    let mut conditions = status["conditions"].as_array().unwrap().clone();
    conditions.insert(0, json!({
        "type": "Synced", "status": "True", "reason": "Synced", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
    }));
    let patch = json!({"status": {"conditions": conditions}});
    let name = settled[0].0.as_deref().unwrap();
    let (params, patch) = (PatchParams::apply("gitops"), Patch::Merge(&patch));
    operator
        .api::<Component>()
        .patch_status(name, &params, &patch)
        .await
        .unwrap();
    let (writes, events) = done_so_far(&operator, "touched").await;
    assert_eq!((writes, events), (after.0 + 2, after.1), "theirs and the marker's");

    let operator = operator.restart().await;
    let (writes, events) = (writes + 1, events);
    assert_eq!(done_so_far(&operator, "restarted").await, (writes, events));
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_edit_loop_is_written_once_a_second() {
    const EDITS: usize = 300;
    let operator = Operator::plain("hot").await;
    for edit in 0..EDITS {
        operator.apply::<Component>("db", redis(&edit.to_string())).await;
    }
    let ready = operator
        .condition::<Component>("db", ConditionType::Ready, "NoSidecars")
        .await;
    assert!(ready.starts_with("True"), "{ready}");
    done_so_far(&operator, "marker").await;
    let writes = requests(&operator, is_status_write).await.into_iter();
    let writes = writes.filter(|write| write.object_ref.as_ref().unwrap().name == "db");
    let times: Vec<jiff::Timestamp> = writes
        .map(|write| write.request_received_timestamp.parse().unwrap())
        .collect();
    // However slow the machine is, it only makes the span longer.
    let span = times.last().unwrap().duration_since(times[0]).as_secs_f64();
    let most = (span.ceil() + 1.0) as usize;
    assert!(
        (1..=most).contains(&times.len()),
        "{} writes within {span} s",
        times.len()
    );
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_changes_and_not_again_after_a_restart() {
    let operator = Operator::plain("news").await;
    let component = json!({"spec": {"type": "state.redis", "version": "v1", "metadata": [
        {"name": "redisPassword", "secretKeyRef": {"name": "auth", "key": "password"}},
    ]}});
    operator.apply::<Component>("db", component.clone()).await;
    operator
        .condition::<Component>("db", ConditionType::Accepted, "SecretNotFound")
        .await;
    eventually("an Event", || async { operator.notes("db").await.pop() }).await;
    let operator = operator.restart().await;
    let mut edited = component;
    edited["scopes"] = json!(["cart"]);
    operator.apply::<Component>("db", edited).await;
    let refused = operator
        .condition::<Component>("db", ConditionType::Accepted, "SecretNotFound")
        .await;
    assert!(
        refused.contains(r#"no pod in this namespace has the app id "cart""#),
        "{refused}"
    );
    done_so_far(&operator, "marker").await;
    assert_eq!(
        operator.notes("db").await.len(),
        1,
        "another message, and the same reason"
    );

    operator
        .apply::<Secret>("auth", json!({"stringData": {"user": "u"}}))
        .await;
    operator
        .condition::<Component>("db", ConditionType::Accepted, "SecretKeyNotFound")
        .await;
    eventually("another Event", || async {
        (operator.notes("db").await.len() == 2).then_some(())
    })
    .await;
    operator
        .apply::<Secret>("auth", json!({"stringData": {"password": "p"}}))
        .await;
    operator
        .condition::<Component>("db", ConditionType::Accepted, "Accepted")
        .await;
    eventually("a third Event", || async {
        (operator.notes("db").await.len() == 3).then_some(())
    })
    .await;

    // The same mistake twice, of other Secrets: people read of both.
    for name in ["lost", "forgotten"] {
        let properties = json!([{"name": "redisPassword", "secretKeyRef": {"name": name, "key": "password"}}]);
        let component = json!({"spec": {"type": "state.redis", "version": "v1", "metadata": properties}});
        operator.apply::<Component>("db", component).await;
        eventually(name, || async {
            let notes = operator.notes("db").await;
            notes.iter().any(|note| note.contains(name)).then_some(())
        })
        .await;
        let component = json!({"spec": {"type": "state.redis", "version": "v1", "metadata": []}});
        operator.apply::<Component>("db", component).await;
        operator
            .condition::<Component>("db", ConditionType::Accepted, "Accepted")
            .await;
    }
    operator.stop().await;
}
