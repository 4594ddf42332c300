//! With no more rights than upstream's chart grants, everything works that upstream does.

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::Service,
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use outrigger_crds::{Component, status::ConditionType};
use outrigger_operator::core::{Features, Services};
use outrigger_process::kubernetes::client::Clients;
use outrigger_proto::operator::ListComponentsRequest;
use outrigger_testkit::ApiServer;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{fixture::Operator, policy::Policy, support::eventually};

/// Upstream's rules, as far as they concern one namespace.
fn rules() -> Value {
    json!([
        {"apiGroups": ["dapr.io"], "verbs": ["get", "list", "watch"], "resources": [
            "components", "configurations", "subscriptions", "resiliencies", "httpendpoints",
        ]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch", "delete"]},
        {"apiGroups": ["apps"], "resources": ["deployments", "statefulsets"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["apps"], "resources": ["deployments/finalizers", "statefulsets/finalizers"], "verbs": ["update"]},
        {"apiGroups": [""], "resources": ["services"], "verbs": ["get", "list", "watch", "create", "update", "delete"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]},
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_grants_are_enough() {
    let api_server = ApiServer::shared().await;
    let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/dapr/crds");
    api_server.apply_crds(&crds).await.unwrap();
    let namespace = api_server.namespace("grants").await.unwrap();
    let params = PatchParams::apply("test").force();
    let mut role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "operator"}, "rules": rules(),
    });
    let roles: Api<Role> = Api::namespaced(api_server.client(), &namespace);
    roles.patch("operator", &params, &Patch::Apply(&role)).await.unwrap();
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "operator"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "operator"},
        "subjects": [{"kind": "User", "name": "operator", "apiGroup": "rbac.authorization.k8s.io"}],
    });
    let bindings: Api<RoleBinding> = Api::namespaced(api_server.client(), &namespace);
    bindings
        .patch("operator", &params, &Patch::Apply(&binding))
        .await
        .unwrap();

    let clients = Clients {
        calls: api_server.client_as("operator", &[]),
        watches: api_server.client_as("operator", &[]),
    };
    // It becomes ready although it may not list two of the kinds.
    let operator = Operator::start_in(namespace.clone(), clients, |_| Features {
        services: Some(Services {
            mtls: watch::channel(true).1,
            rollouts: false,
        }),
        ..Features::default()
    })
    .await;

    let spec = json!({"spec": {"type": "stat.redis", "version": "v1", "metadata": []}});
    operator.apply::<Component>("db", spec).await;
    let sidecar = operator
        .server
        .client(&format!("spiffe://public/ns/{namespace}/cart"))
        .await;
    eventually("the component", || {
        let (mut sidecar, namespace) = (sidecar.clone(), namespace.clone());
        async move {
            let list = sidecar.list_components(ListComponentsRequest { namespace }).await;
            list.unwrap().into_inner().components.pop()
        }
    })
    .await;
    let refused = || operator.metric("dapr_operator_status_writes_total", &[("result", "forbidden")]);
    eventually("that statuses may not be written", || async {
        (refused() > 0.0).then_some(())
    })
    .await;
    let off = || {
        let labels = [("kind", "Component"), ("reason", "forbidden")];
        operator.metric("dapr_operator_status_refused", &labels)
    };
    eventually("that the metric says it is off", || async {
        (off() == 1.0).then_some(())
    })
    .await;

    // Without the right to apply, Services are created and updated.
    let deployment = |port: &str| {
        json!({"spec": {
            "selector": {"matchLabels": {"app": "cart"}},
            "template": {
                "metadata": {"labels": {"app": "cart"}, "annotations": {
                    "dapr.io/enabled": "true", "dapr.io/app-id": "cart", "dapr.io/grpc-port": port,
                }},
                "spec": {"containers": [{"name": "app", "image": "app"}]},
            },
        }})
    };
    let services = operator.api::<Service>();
    for port in ["6001", "6002"] {
        operator.apply::<Deployment>("cart", deployment(port)).await;
        let number: i32 = port.parse().unwrap();
        eventually(&format!("the Service with port {port}"), || async {
            let service = services.get_opt("cart-dapr").await.unwrap()?;
            let ports = service.spec?.ports?;
            (ports[1].port == number).then_some(())
        })
        .await;
    }

    // Nobody has to touch the component, nor the operator, once the right is granted.
    let right = json!({"apiGroups": ["dapr.io"], "resources": ["components/status"], "verbs": ["patch"]});
    role["rules"].as_array_mut().unwrap().push(right);
    roles.patch("operator", &params, &Patch::Apply(&role)).await.unwrap();
    operator
        .condition::<Component>("db", ConditionType::Accepted, "Accepted")
        .await;
    eventually("that the metric says it is on", || async {
        (off() == 0.0).then_some(())
    })
    .await;
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_refuses_one_status_holds_up_no_other() {
    let operator = Operator::plain("policy").await;
    let not_frozen = "object.metadata.name != 'frozen'";
    let policy = Policy::new(&operator, "dapr.io", "components/status", not_frozen).await;

    let spec =
        |version: usize| json!({"spec": {"type": "state.redis", "version": format!("v{version}"), "metadata": []}});
    let failed = || operator.metric("dapr_operator_status_writes_total", &[("result", "error")]);
    let version = AtomicUsize::new(0);
    // It takes the API server a while to know the policy.
    eventually("that the policy refuses a status", || async {
        let version = version.fetch_add(1, Ordering::Relaxed);
        operator.apply::<Component>("frozen", spec(version)).await;
        (failed() > 0.0).then_some(())
    })
    .await;
    operator.apply::<Component>("free", spec(1)).await;
    operator
        .condition::<Component>("free", ConditionType::Accepted, "Accepted")
        .await;
    for (metric, label) in [
        ("dapr_operator_status_writes_total", ("result", "forbidden")),
        ("dapr_operator_status_refused", ("reason", "forbidden")),
    ] {
        assert_eq!(operator.metric(metric, &[label]), 0.0, "{metric}");
    }
    policy.lift().await;
}
