//! ConfigMaps with the trust anchors, kept with just the rights that the chart grants for them.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::{
    core::v1::{ConfigMap, Pod},
    events::v1::Event,
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use outrigger_identity::Anchors;
use outrigger_operator::{
    events::Events,
    metrics::Metrics,
    pods::{Pods, Selection},
    scope::Scope,
    trust,
};
use outrigger_process::kubernetes::{client::Clients, slim::Slim, watch::ObjectKey};
use outrigger_testkit::{ApiServer, certs::Authority};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::support::{eventually, soon};

const NAME: &str = "dapr-root-ca.crt";

fn anchors(name: &str) -> Arc<Anchors> {
    Arc::new(Anchors::from_pem(&Authority::new(name).unwrap().pem()).unwrap())
}

struct Distribution {
    namespace: String,
    maps: Api<ConfigMap>,
    pods: Arc<Pods>,
    anchors: watch::Sender<Arc<Anchors>>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Distribution {
    /// Works in a namespace of its own as a user with these rights on ConfigMaps.
    async fn start(rules: Value) -> Self {
        let server = ApiServer::shared().await;
        let namespace = server.namespace("trust").await.unwrap();
        let user = format!("operator-{namespace}");
        let params = PatchParams::apply("test").force();
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "trust"}, "rules": rules,
        });
        let roles: Api<Role> = Api::namespaced(server.client(), &namespace);
        roles.patch("trust", &params, &Patch::Apply(&role)).await.unwrap();
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "trust"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "trust"},
            "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}],
        });
        let bindings: Api<RoleBinding> = Api::namespaced(server.client(), &namespace);
        bindings.patch("trust", &params, &Patch::Apply(&binding)).await.unwrap();

        let clients = Clients {
            calls: server.client_as(&user, &[]),
            watches: server.client_as(&user, &[]),
        };
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        let (pods, anchors) = (Arc::new(Pods::default()), watch::Sender::new(anchors("first")));
        let settings = trust::Settings {
            name: NAME.to_owned(),
            anchors: anchors.subscribe(),
        };
        let events = Events::new(server.client(), "test".into(), metrics.kubernetes_events.clone());
        let distributor = trust::Distributor::new(
            clients.calls.clone(),
            settings,
            pods.clone(),
            Arc::new(events),
            metrics.trust_writes.clone(),
        );
        let stop = CancellationToken::new();
        let (scope, stopped) = (Scope::new(&namespace), stop.clone());
        let task = tokio::spawn(async move { distributor.run(&clients, &scope, stopped).await });
        Self {
            maps: Api::namespaced(server.client(), &namespace),
            namespace,
            pods,
            anchors,
            stop,
            task,
        }
    }

    fn pod(&self, injected: bool) {
        let labels = if injected {
            json!({"dapr.io/sidecar-injected": "true"})
        } else {
            json!({})
        };
        let pod: Slim<Pod> = serde_json::from_value(json!({"metadata": {
            "name": "cart", "namespace": self.namespace, "labels": labels, "annotations": {"dapr.io/enabled": "true"},
        }}))
        .unwrap();
        self.pods.apply(&pod);
    }

    async fn data(&self) -> Option<BTreeMap<String, String>> {
        self.maps.get_opt(NAME).await.unwrap()?.data
    }

    async fn has_current_anchors(&self, when: &str) {
        let expected = self.anchors.borrow().pem().to_owned();
        eventually(when, || async {
            let data = self.data().await?;
            (data.get("ca.crt") == Some(&expected)).then_some(())
        })
        .await;
    }

    async fn stop(self) {
        self.stop.cancel();
        soon("its end", self.task).await.unwrap();
    }
}

fn as_granted() -> Value {
    json!([{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [NAME], "verbs": ["create", "list", "patch", "watch"]}])
}

#[tokio::test(flavor = "multi_thread")]
async fn anchors_are_where_sidecars_are_and_stay_right() {
    let distribution = Distribution::start(as_granted()).await;
    // A pod without a sidecar needs none; were one written for it, it would be there before the next.
    distribution.pod(false);
    assert_eq!(distribution.data().await, None);
    distribution.pod(true);
    distribution.has_current_anchors("the first ConfigMap").await;

    distribution.anchors.send_replace(anchors("second"));
    distribution.has_current_anchors("new anchors").await;

    let edit = Patch::Merge(json!({"data": {"ca.crt": "edited", "other": "kept"}}));
    distribution
        .maps
        .patch(NAME, &PatchParams::default(), &edit)
        .await
        .unwrap();
    distribution.has_current_anchors("healing").await;
    assert_eq!(
        distribution.data().await.unwrap()["other"],
        "kept",
        "only our own key is ours"
    );

    distribution.maps.delete(NAME, &DeleteParams::default()).await.unwrap();
    distribution.has_current_anchors("the ConfigMap again").await;

    // What changed while there were no pods is caught up with.
    distribution
        .pods
        .delete(&ObjectKey::new(&distribution.namespace, "cart"), Selection::Injected);
    distribution.anchors.send_replace(anchors("third"));
    distribution.pod(true);
    distribution
        .has_current_anchors("the newest anchors when pods are back")
        .await;
    distribution.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_is_reported() {
    let distribution = Distribution::start(json!([])).await;
    distribution.pod(true);
    let events: Api<Event> = Api::namespaced(ApiServer::shared().await.client(), &distribution.namespace);
    let note = eventually("an Event", || async {
        events.list(&ListParams::default()).await.unwrap().items.pop()?.note
    })
    .await;
    assert!(
        note.starts_with("sidecars in this namespace do not learn of new trust anchors"),
        "{note}"
    );
    assert_eq!(distribution.data().await, None);
    distribution.stop().await;
}
