//! What sidecars are told.

use std::sync::Arc;

use kube::api::{DeleteParams, Patch, PatchParams};
use outrigger_crds::{Component, Configuration, status::ConditionType};
use outrigger_operator::{
    index::{Index, WINDOW},
    kinds::{Kind, Visitor},
};
use outrigger_proto::operator::{ComponentUpdateRequest, ListComponentsRequest, ResourceEventType};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    fixture::Operator,
    support::{eventually, soon},
};

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
        .condition::<Component>("db", ConditionType::Ready, "NotReported")
        .await;
    assert_eq!(ready, "True: accepted; of 1 sidecar none reports on it");

    operator.apply::<Component>("db", redis("two")).await;
    assert_eq!(
        next().await,
        (ResourceEventType::Updated, json!("two")),
        "the status in between was no event"
    );
    operator
        .condition::<Component>("db", ConditionType::Ready, "NotReported")
        .await;
    let foreign = json!({"status": {"conditions": []}});
    operator
        .api::<Component>()
        .patch_status("db", &PatchParams::default(), &Patch::Merge(&foreign))
        .await
        .unwrap();
    operator
        .condition::<Component>("db", ConditionType::Ready, "NotReported")
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

/// A stream: the kind of what waits to be sent on it, if anything does.
type News = Box<dyn Fn() -> Option<&'static str> + Send>;

struct Subscribe<'a> {
    namespace: &'a str,
    app: String,
    streams: &'a mut Vec<News>,
}

impl Visitor for Subscribe<'_> {
    fn visit<K: Kind>(&mut self, index: &Arc<Index<K>>) {
        // For whom nothing is recent.
        let subscription = index.subscribe(self.namespace, &self.app, Instant::now() + 2 * WINDOW);
        self.streams
            .push(Box::new(move || subscription.try_next().map(|_| K::KIND)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resync_without_a_change_sends_a_thousand_sidecars_nothing() {
    const OBJECTS: usize = 20;
    const SIDECARS: usize = 1000;
    let operator = Operator::plain("resync").await;
    for number in 0..OBJECTS {
        operator.apply::<Component>(&format!("db-{number}"), redis("one")).await;
        let spec = json!({"spec": {"tracing": {"samplingRate": "1"}}});
        operator.apply::<Configuration>(&format!("app-{number}"), spec).await;
    }
    let indexes = operator.indexes();
    let known = || {
        let components = indexes.components.list(&operator.namespace, "app-0");
        let configurations = indexes.configurations.list(&operator.namespace, "app-0");
        let all = components.versions().len() == OBJECTS && configurations.versions().len() == OBJECTS;
        async move { all.then_some(()) }
    };
    // Each kind has a watch of its own, and what comes late would be news.
    eventually("the components and configurations", known).await;
    operator
        .condition::<Component>("db-0", ConditionType::Ready, "NoSidecars")
        .await;
    let mut streams = Vec::new();
    for number in 0..SIDECARS {
        let app = format!("app-{number}");
        indexes.visit(&mut Subscribe {
            namespace: &operator.namespace,
            app,
            streams: &mut streams,
        });
    }
    for _ in 0..3 {
        operator.relist().await;
    }
    assert_eq!(streams.len(), 7 * SIDECARS);
    let news: Vec<_> = streams.iter().filter_map(|news| news()).collect();
    assert!(news.is_empty(), "{} events: {:?}", news.len(), news.first());
    // They would have been told.
    operator.apply::<Component>("db-0", redis("two")).await;
    let told = || async { streams.iter().find_map(|news| news()) };
    eventually("an edit", told).await;
    drop(streams);
    operator.stop().await;
}
