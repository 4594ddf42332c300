//! The Services of apps.

use std::sync::atomic::{AtomicUsize, Ordering};

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::{DaemonSet, Deployment, StatefulSet},
        core::v1::Service,
    },
};
use kube::{
    Api, Resource, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams},
};
use outrigger_operator::{
    controllers::services::Rollout,
    core::{Features, Services},
};
use outrigger_testkit::{ApiServer, apiserver::audit::Request};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{fixture::Operator, policy::Policy, support::eventually};

async fn start(prefix: &str, rollouts: bool) -> Operator {
    Operator::start(prefix, |_| Features {
        services: Some(Services {
            mtls: watch::channel(true).1,
            rollouts,
        }),
        ..Features::default()
    })
    .await
}

/// A workload whose pods have these annotations, without their prefix.
fn workload(annotations: &[(&str, &str)]) -> Value {
    let annotations: serde_json::Map<String, Value> = annotations
        .iter()
        .map(|(key, value)| (format!("dapr.io/{key}"), (*value).into()))
        .collect();
    json!({"spec": {
        "selector": {"matchLabels": {"app": "a"}},
        "template": {
            "metadata": {"labels": {"app": "a"}, "annotations": annotations},
            "spec": {"containers": [{"name": "app", "image": "app"}]},
        },
    }})
}

fn app(id: &str) -> Value {
    workload(&[("enabled", "true"), ("app-id", id)])
}

/// The Service of an app, once it is this workload's.
async fn service_of(operator: &Operator, app: &str, owner: &str) -> Service {
    let services = operator.api::<Service>();
    eventually(&format!("{owner} has the Service of {app}"), || async {
        let service = services.get_opt(&format!("{app}-dapr")).await.unwrap()?;
        (service.owner_references().first()?.name == owner).then_some(service)
    })
    .await
}

/// The note of an Event about a workload.
async fn note(operator: &Operator, workload: &str) -> String {
    eventually(&format!("an Event about {workload}"), || async {
        operator.notes(workload).await.pop()
    })
    .await
}

/// Requests that write or delete Services of the namespace, whoever made them.
fn writes(operator: &Operator, server: &ApiServer) -> Vec<Request> {
    let mut requests = server.requests(&operator.namespace).unwrap();
    requests.retain(|request| {
        let of_services = request.object_ref.as_ref().map(|object| object.resource == "services");
        of_services == Some(true) && !["get", "list", "watch"].contains(&request.verb.as_str())
    });
    requests
}

#[tokio::test(flavor = "multi_thread")]
async fn apps_get_services_and_foreign_ones_are_left_alone() {
    let operator = start("services", false).await;
    let services = operator.api::<Service>();
    let service = || async { services.get_opt("cart-dapr").await.unwrap() };

    let cart = operator.apply::<Deployment>("cart", app("cart")).await;
    let created = service_of(&operator, "cart", "cart").await;
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

    // So does what somebody edits, also without the label by which it is watched.
    for edit in [
        json!({"spec": {"selector": {"app": "other"}}}),
        json!({"metadata": {"labels": {"dapr.io/enabled": null}}, "spec": {"selector": {"app": "other"}}}),
    ] {
        let params = PatchParams::default();
        services.patch("cart-dapr", &params, &Patch::Merge(edit)).await.unwrap();
        eventually("the edit is undone", || async {
            let service = service().await?;
            let selector = service.spec.as_ref()?.selector.as_ref()?;
            (selector["app"] == "a" && service.labels().contains_key("dapr.io/enabled")).then_some(())
        })
        .await;
    }

    // Someone else's of that name is not touched.
    let foreign = json!({"spec": {"selector": {"app": "other"}, "ports": [{"port": 80}]}});
    operator.apply::<Service>("pay-dapr", foreign).await;
    operator.apply::<Deployment>("pay", app("pay")).await;
    assert_eq!(
        note(&operator, "pay").await,
        "Service pay-dapr exists and is not changed: it was not created for a workload"
    );
    let foreign = services.get("pay-dapr").await.unwrap();
    assert_eq!(foreign.spec.unwrap().selector.unwrap()["app"], "other");

    // An app that opts out loses its Service.
    let out = workload(&[("enabled", "false"), ("app-id", "cart")]);
    operator.apply::<Deployment>("cart", out).await;
    eventually("the Service's end", || async {
        service().await.is_none().then_some(())
    })
    .await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_an_app_id_first_keeps_it() {
    let operator = start("conflicts", false).await;
    // The older workload comes second: it has another app id at first.
    operator.apply::<Deployment>("older", app("pay")).await;
    service_of(&operator, "pay", "older").await;
    operator.apply::<StatefulSet>("first", app("cart")).await;
    let held = service_of(&operator, "cart", "first").await;

    operator.apply::<Deployment>("older", app("cart")).await;
    assert_eq!(
        note(&operator, "older").await,
        "Service cart-dapr belongs to StatefulSet first, which has the same app id"
    );
    let refused = operator.metric("dapr_operator_service_refused_total", &[("reason", "conflict")]);
    assert_eq!(refused, 1.0);
    // The one that it had is no longer wanted.
    let services = operator.api::<Service>();
    eventually("the end of the old Service", || async {
        let gone = services.get_opt("pay-dapr").await.unwrap().is_none();
        gone.then_some(())
    })
    .await;
    let now = services.get("cart-dapr").await.unwrap();
    assert_eq!(
        (now.uid(), now.resource_version()),
        (held.uid(), held.resource_version())
    );

    // An operator that starts anew finds the same.
    let operator = operator
        .restart_with(Services {
            mtls: watch::channel(true).1,
            rollouts: false,
        })
        .await;
    operator.apply::<Deployment>("marker", app("marker")).await;
    service_of(&operator, "marker", "marker").await;
    let now = operator.api::<Service>().get("cart-dapr").await.unwrap();
    assert_eq!(now.resource_version(), held.resource_version());

    // Given up, it is the other's.
    operator.apply::<StatefulSet>("first", app("else")).await;
    service_of(&operator, "cart", "older").await;
    service_of(&operator, "else", "first").await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_told_once_and_not_tried_again() {
    let server = ApiServer::shared().await;
    let operator = start("invalid", false).await;
    for (name, annotations, expected) in [
        (
            "nameless",
            &[("enabled", "true")][..],
            "no Service for this app: value for the dapr.io/app-id annotation is empty",
        ),
        (
            "capitals",
            &[("enabled", "true"), ("app-id", "Cart")],
            "no Service for this app: invalid app id (input: 'Cart', service: 'Cart-dapr')",
        ),
        (
            "clash",
            &[("enabled", "true"), ("app-id", "clash"), ("metrics-port", "50001")],
            "no Service for this app: dapr-grpc and dapr-metrics both have port 50001",
        ),
        (
            "range",
            &[("enabled", "true"), ("app-id", "range"), ("grpc-port", "70000")],
            "no Service for this app: port 70000 of dapr-grpc is not between 1 and 65535",
        ),
    ] {
        operator.apply::<Deployment>(name, workload(annotations)).await;
        let note = note(&operator, name).await;
        assert!(note.starts_with(expected), "{note}");
    }
    assert!(writes(&operator, server).is_empty());

    // Only the API server knows that this is no key.
    let bad = workload(&[
        ("enabled", "true"),
        ("app-id", "bad"),
        ("sidecar-svc-annotations", "no key!=1"),
    ]);
    operator.apply::<Deployment>("bad", bad).await;
    let told = note(&operator, "bad").await;
    assert!(told.contains("no key!"), "{told}");
    for round in 0..5 {
        let touched = json!({"metadata": {"annotations": {"round": round.to_string()}}});
        let deployments = operator.api::<Deployment>();
        let params = PatchParams::default();
        deployments.patch("bad", &params, &Patch::Merge(touched)).await.unwrap();
    }
    operator.apply::<Deployment>("marker", app("marker")).await;
    service_of(&operator, "marker", "marker").await;
    let all = eventually("the writes are logged", || async {
        let writes = writes(&operator, server).len();
        (writes >= 2).then_some(writes)
    })
    .await;
    assert_eq!(all, 2, "one that was refused, and the marker's");
    operator.stop().await;
}

/// Upstream hears of every object again every ten hours. Here that is a start, and ten hours are many of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_refuses_one_service_changes_nothing_for_others() {
    let operator = start("frozen", false).await;
    let server = ApiServer::shared().await;
    let not_frozen = "!object.metadata.name.startsWith('frozen')";
    let policy = Policy::new(&operator, "", "services", not_frozen).await;
    let refused = || {
        let is_refusal = |request: &Request| {
            request
                .response_status
                .as_ref()
                .is_some_and(|status| status.code == 403)
        };
        writes(&operator, server).iter().any(is_refusal)
    };
    let number = AtomicUsize::new(0);
    eventually("that the policy refuses a Service", || async {
        let app_id = format!("frozen-{}", number.fetch_add(1, Ordering::Relaxed));
        operator.apply::<Deployment>(&app_id, app(&app_id)).await;
        refused().then_some(())
    })
    .await;
    operator.apply::<Deployment>("free", app("free")).await;
    service_of(&operator, "free", "free").await;
    // Where a right is missing, others are tried.
    let writes = writes(&operator, server);
    assert!(writes.iter().all(|request| request.verb == "patch"), "{writes:?}");
    policy.lift().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_seen_again_is_not_written_again() {
    const APPS: usize = 20;
    const STARTS: usize = 5;
    let server = ApiServer::shared().await;
    let mut operator = start("resyncs", false).await;
    for number in 0..APPS {
        let id = format!("app-{number}");
        operator.apply::<Deployment>(&id, app(&id)).await;
        service_of(&operator, &id, &id).await;
    }
    for start in 0..STARTS {
        // Changes that do not concern the Service, as those of a rollout.
        for number in 0..APPS {
            let touched =
                json!({"metadata": {"annotations": {"round": start.to_string()}}, "spec": {"replicas": start}});
            let deployments = operator.api::<Deployment>();
            let params = PatchParams::default();
            let name = format!("app-{number}");
            deployments.patch(&name, &params, &Patch::Merge(touched)).await.unwrap();
        }
        operator = operator
            .restart_with(Services {
                mtls: watch::channel(true).1,
                rollouts: false,
            })
            .await;
        // What is seen is worked off in order.
        let marker = format!("marker-{start}");
        operator.apply::<Deployment>(&marker, app(&marker)).await;
        service_of(&operator, &marker, &marker).await;
    }
    let all = eventually("the writes are logged", || async {
        let writes = writes(&operator, server).len();
        (writes >= APPS + STARTS).then_some(writes)
    })
    .await;
    assert_eq!(all, APPS + STARTS, "one for each app");
    operator.stop().await;
}

async fn kind_gets_a_service<K>(operator: &Operator, name: &str)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let mut manifest = app(name);
    if K::kind(&()) == "StatefulSet" {
        manifest["spec"]["serviceName"] = name.into();
    }
    let owner = operator.apply::<K>(name, manifest).await;
    let service = service_of(operator, name, name).await;
    let reference = &service.owner_references()[0];
    assert_eq!(
        (
            reference.kind.as_str(),
            reference.api_version.as_str(),
            Some(&reference.uid)
        ),
        (&*K::kind(&()), &*K::api_version(&()), owner.meta().uid.as_ref())
    );
    assert_eq!(
        (reference.controller, reference.block_owner_deletion),
        (Some(true), Some(true))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_workload_and_rollouts_whose_definition_comes_later() {
    let operator = start("kinds", true).await;
    kind_gets_a_service::<Deployment>(&operator, "deployment").await;
    kind_gets_a_service::<StatefulSet>(&operator, "stateful-set").await;
    kind_gets_a_service::<DaemonSet>(&operator, "daemon-set").await;

    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "rollouts.argoproj.io"},
        "spec": {
            "group": "argoproj.io", "scope": "Namespaced", "names": {"plural": "rollouts", "kind": "Rollout"},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true}}}],
        },
    });
    let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let definitions: Api<DynamicObject> = Api::all_with(operator.client.clone(), &ApiResource::from_gvk(&kind));
    let params = PatchParams::apply("test").force();
    definitions
        .patch("rollouts.argoproj.io", &params, &Patch::Apply(definition))
        .await
        .unwrap();
    eventually("Rollouts are served", || async {
        operator
            .api::<Rollout>()
            .list(&kube::api::ListParams::default())
            .await
            .ok()
    })
    .await;
    kind_gets_a_service::<Rollout>(&operator, "rollout").await;

    // One that gives it up loses it, as the others do.
    let out = workload(&[("enabled", "false")]);
    operator.apply::<Rollout>("rollout", out).await;
    let services = operator.api::<Service>();
    eventually("the Service's end", || async {
        services.get_opt("rollout-dapr").await.unwrap().is_none().then_some(())
    })
    .await;
    operator.stop().await;
}
