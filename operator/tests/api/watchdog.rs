//! Pods that lack their sidecar.

use std::{collections::BTreeSet, time::Duration};

use futures::future::join_all;
use k8s_openapi::{
    api::{apps::v1::ReplicaSet, core::v1::Pod, policy::v1::PodDisruptionBudget},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::{
    Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use outrigger_operator::{core::Features, watchdog};
use outrigger_testkit::ApiServer;
use serde_json::{Value, json};

use crate::{
    fixture::Operator,
    stand_in::{Answer, Injector},
    support::eventually,
};

/// An operator with its watchdog, an injector that is not registered yet, and an owner of pods that no controller looks after.
struct Shop {
    operator: Operator,
    injector: Injector,
    owner: ReplicaSet,
}

impl Shop {
    async fn open(prefix: &str) -> Self {
        let server = ApiServer::shared().await;
        let namespace = server.namespace(prefix).await.unwrap();
        let injector = Injector::start(server.client(), &namespace).await;
        injector.unregister().await;
        let operator = Operator::start_in_namespace(namespace, |_| features(&injector, HOURLY)).await;
        let template = json!({
            "metadata": {"labels": {"app": "cart"}},
            "spec": {"containers": [{"name": "app", "image": "app"}]},
        });
        let owner = json!({"spec": {"selector": {"matchLabels": {"app": "cart"}}, "template": template}});
        let owner = operator.apply::<ReplicaSet>("cart", owner).await;
        Self {
            operator,
            injector,
            owner,
        }
    }

    /// As the owner's controller would.
    async fn create(&self, name: &str, change: impl FnOnce(&mut Value)) -> Pod {
        let owner = self.owner.controller_owner_ref(&()).unwrap();
        let owned = |pod: &mut Value| {
            pod["metadata"]["ownerReferences"] = json!([owner]);
            change(pod);
        };
        self.operator.create_pod(name, owned).await
    }

    async fn pods(&self) -> BTreeSet<String> {
        let list = self.operator.api::<Pod>().list(&ListParams::default()).await.unwrap();
        list.items.iter().map(ResourceExt::name_any).collect()
    }

    fn count(&self, action: &str, reason: &str) -> f64 {
        let labels = [("action", action), ("reason", reason)];
        self.operator.metric("dapr_operator_watchdog_pods_total", &labels)
    }

    async fn until_counted(&self, action: &str, reason: &str, times: f64) {
        let what = format!("{action} for {reason} {times} times");
        eventually(&what, || async { (self.count(action, reason) >= times).then_some(()) }).await;
    }

    async fn until_gone(&self, count: usize, of: &[&str]) {
        eventually(&format!("{count} of {of:?} gone"), || async {
            let left = self.pods().await;
            let gone = of.iter().filter(|name| !left.contains(**name)).count();
            (gone >= count).then_some(())
        })
        .await;
    }

    async fn note(&self, name: &str, part: &str) {
        let what = format!("an Event about {name} with {part:?}");
        eventually(&what, || async {
            let notes = self.operator.notes(name).await;
            notes.iter().any(|note| note.contains(part)).then_some(())
        })
        .await;
    }

    async fn close(self) {
        self.injector.unregister().await;
        self.operator.stop().await;
    }
}

/// Only a watch can be quicker than this.
const HOURLY: watchdog::Mode = watchdog::Mode::Every(Duration::from_secs(3600));

fn features(injector: &Injector, mode: watchdog::Mode) -> Features {
    Features {
        missing: Some(injector.settings()),
        watchdog: Some(watchdog::Settings {
            mode,
            per_minute: 0,
            can_label: true,
        }),
        ..Features::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watchdog_evicts_one_pod_first_and_the_rest_once_its_replacement_has_a_sidecar() {
    let shop = Shop::open("watchdog").await;
    let pods = shop.operator.api::<Pod>();
    shop.create("cart-1", |_| {}).await;
    shop.create("cart-2", |_| {}).await;
    shop.create("bare", |pod| pod["metadata"]["ownerReferences"] = json!([]))
        .await;
    let daprd = json!([{"name": "app", "image": "app"}, {"name": "daprd", "image": "daprd"}]);
    shop.create("labelled", |pod| pod["spec"]["containers"] = daprd).await;
    shop.create("finished", |_| {}).await;
    let owned_by = |api_version: &str, kind: &str| {
        let owner =
            json!([{"apiVersion": api_version, "kind": kind, "name": "other", "uid": kind, "controller": true}]);
        move |pod: &mut Value| pod["metadata"]["ownerReferences"] = owner
    };
    // Whose pods are created by somebody who may not inject, and what would fail for an eviction.
    shop.create("custom", owned_by("apps.kruise.io/v1beta1", "StatefulSet"))
        .await;
    shop.create("job", owned_by("batch/v1", "Job")).await;
    let succeeded = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
    pods.patch_status("finished", &PatchParams::default(), &succeeded)
        .await
        .unwrap();

    // Nothing is evicted while nobody would inject.
    shop.until_counted("held", "WebhookMissing", 1.0).await;
    assert_eq!(shop.count("evicted", "no_sidecar"), 0.0);
    let held = || {
        shop.operator
            .metric("dapr_operator_watchdog_held_pods", &[("reason", "WebhookMissing")])
    };
    eventually("the gauge", || async { (held() >= 3.0).then_some(()) }).await;
    let labelled = async || {
        let labels = pods.get("labelled").await.unwrap();
        labels.labels().contains_key("dapr.io/watchdog-patched").then_some(())
    };
    eventually("the label", &labelled).await;
    shop.note("bare", "no controller would create the pod anew").await;

    // No kubelet runs, so an evicted pod that was never scheduled is gone at once.
    shop.injector.register(|_| {}).await;
    shop.until_gone(1, &["cart-1", "cart-2"]).await;
    shop.until_counted("evicted", "no_sidecar", 1.0).await;
    assert_eq!(shop.count("evicted", "no_sidecar"), 1.0, "the others wait");
    assert_eq!(held(), 0.0);
    let asked = shop.injector.asked.lock().clone();
    assert!(asked.contains(&(
        "system:serviceaccount:kube-system:replicaset-controller".to_owned(),
        true
    )));
    shop.until_counted("refused", "CreatorUnknown", 1.0).await;
    shop.note(
        "other",
        "not known who creates pods of StatefulSet other (apps.kruise.io/v1beta1)",
    )
    .await;
    shop.note("job", "its Job would count a pod that is deleted as failed")
        .await;
    for left in ["bare", "job"] {
        let notes = shop.operator.notes(left).await;
        assert_eq!(notes.len(), 1, "one Event says all: {notes:?}");
    }

    let replacement = shop.create("cart-3", |_| {}).await;
    assert!(replacement.labels().contains_key("dapr.io/sidecar-injected"));
    shop.until_gone(2, &["cart-1", "cart-2"]).await;
    shop.until_counted("replaced", "injected", 1.0).await;
    let left = shop.pods().await;
    for kept in ["bare", "labelled", "finished", "custom", "job", &replacement.name_any()] {
        assert!(left.contains(kept), "{kept} is not to be touched: {left:?}");
    }
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn once_the_first_replacement_has_its_sidecar_all_other_pods_go() {
    const PODS: usize = 50;
    let shop = Shop::open("watchdog-fifty").await;
    let names: Vec<_> = (0..PODS).map(|number| format!("cart-{number}")).collect();
    join_all(names.iter().map(|name| shop.create(name, |_| {}))).await;
    let daprd = json!([{"name": "app", "image": "app"}, {"name": "daprd", "image": "daprd"}]);
    for number in 0..20 {
        let labelled = |pod: &mut Value| pod["spec"]["containers"] = daprd.clone();
        shop.create(&format!("labelled-{number}"), labelled).await;
    }
    shop.until_counted("labelled", "has_sidecar", 20.0).await;
    assert_eq!(shop.count("evicted", "no_sidecar"), 0.0);
    shop.injector.register(|_| {}).await;
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    shop.until_gone(1, &names).await;
    shop.create("cart-new", |_| {}).await;
    shop.until_gone(PODS, &names).await;
    shop.until_counted("evicted", "no_sidecar", 50.0).await;
    let questions = shop
        .injector
        .asked
        .lock()
        .iter()
        .filter(|(_, dry_run)| *dry_run)
        .count();
    assert_eq!(questions, 1, "for the first pod of the owner only");
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_without_a_sidecar_stops_it() {
    let shop = Shop::open("watchdog-stops").await;
    // The dry run promises what the real review does not keep: only the operator can reach it.
    shop.injector
        .register(|webhook| webhook["matchConditions"] = json!([]))
        .await;
    *shop.injector.answer.lock() = Answer::Warn("no Dapr sidecar: not today");
    for name in ["cart-1", "cart-2"] {
        let pod = shop.create(name, |_| {}).await;
        assert!(!pod.labels().contains_key("dapr.io/sidecar-injected"));
    }
    shop.until_counted("refused", "InjectorRefuses", 1.0).await;
    shop.note("cart", "no Dapr sidecar: not today").await;
    assert_eq!(shop.count("evicted", "no_sidecar"), 0.0);

    *shop.injector.answer.lock() = Answer::Inject;
    // Any change of the registration is worth another try.
    shop.injector
        .register(|webhook| webhook["timeoutSeconds"] = 5.into())
        .await;
    shop.until_gone(1, &["cart-1", "cart-2"]).await;
    *shop.injector.answer.lock() = Answer::Warn("no Dapr sidecar: not any more");
    shop.create("cart-3", |_| {}).await;
    shop.until_counted("replaced", "lacking", 1.0).await;
    shop.note("cart", "its replacement got none either").await;
    let labels = [("reason", "ReplacementWithoutSidecar")];
    let stopped = || shop.operator.metric("dapr_operator_watchdog_held_pods", &labels);
    eventually("the gauge", || async { (stopped() == 2.0).then_some(()) }).await;
    assert_eq!(shop.count("evicted", "no_sidecar"), 1.0);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn once_ends_after_a_full_pass_and_budgets_hold() {
    let mut shop = Shop::open("watchdog-once").await;
    let budget = json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "cart"}}}});
    let budget = shop.operator.apply::<PodDisruptionBudget>("cart-budget", budget).await;
    assert_eq!(budget.spec.unwrap().min_available, Some(IntOrString::Int(1)));
    // No controller computes it: without a status nothing is allowed. Only a running pod is protected.
    shop.create("cart-1", |_| {}).await;
    let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    let pods = shop.operator.api::<Pod>();
    pods.patch_status("cart-1", &PatchParams::default(), &Patch::Merge(ready))
        .await
        .unwrap();
    let observed = json!({"status": {
        "observedGeneration": 1, "disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1,
    }});
    let budgets = shop.operator.api::<PodDisruptionBudget>();
    budgets
        .patch_status("cart-budget", &PatchParams::default(), &Patch::Merge(observed))
        .await
        .unwrap();
    // It is about the pods that there are when it starts.
    let once = features(&shop.injector, watchdog::Mode::Once);
    shop.operator = shop.operator.restart_as(once).await;
    shop.injector.register(|_| {}).await;
    shop.until_counted("refused", "disruption_budget", 1.0).await;
    let blocked = || {
        shop.operator
            .metric("dapr_operator_watchdog_held_pods", &[("reason", "DisruptionBudget")])
    };
    eventually("the gauge", || async { (blocked() == 1.0).then_some(()) }).await;
    assert!(shop.pods().await.contains("cart-1"));
    // It ended: a budget that gives way changes nothing any more.
    assert_eq!(shop.count("refused", "disruption_budget"), 1.0);
    shop.close().await;
}
