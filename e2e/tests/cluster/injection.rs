//! Pods that get their sidecar in other ways, or in places with rules of their own.

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt,
    api::{ListParams, PostParams},
};
use outrigger_e2e::{observe::within, sample::container};
use serde_json::{Value, json};

use crate::frame::{World, component, tests};

tests![
    a_native_sidecar_serves_init_containers_and_ends_after_the_app,
    pod_security_restricted_admits_pods_with_sidecars,
    a_platform_that_assigns_user_ids_assigns_the_sidecars,
];

/// The user id that a platform assigns to all pods of a namespace.
const ASSIGNED: i64 = 1_000_650_000;

async fn a_native_sidecar_serves_init_containers_and_ends_after_the_app(world: World) -> anyhow::Result<()> {
    world.seen.until_injected(true).await?;
    world.apply(&component("store", "state.in-memory", "")).await?;
    let once = ["--first", "state/store/first", "--once"];
    let mut pod = pod("report", "native", json!([container("app", &once)]));
    // The app never listens on this port: the sidecar does not become ready, and has to serve all the same.
    pod["metadata"]["annotations"]["dapr.io/app-port"] = "3000".into();
    pod["spec"]["restartPolicy"] = "Never".into();
    pod["spec"]["initContainers"] = json!([container("early", &once)]);
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "report"},
        "spec": {"backoffLimit": 0, "template": {"metadata": pod["metadata"], "spec": pod["spec"]}},
    });
    world.apply(&job.to_string()).await?;
    world
        .kubectl(&["wait", "--for=condition=Complete", "job/report", "--timeout=120s"])
        .await?;
    let pods = world.seen.pods().list(&ListParams::default()).await?;
    let status = pods
        .items
        .first()
        .and_then(|pod| pod.status.as_ref())
        .context("a status")?;
    let ended = |name: &str| {
        let mut all = status
            .init_container_statuses
            .iter()
            .chain(&status.container_statuses)
            .flatten();
        let container = all.find(|container| container.name == name)?;
        container.state.as_ref()?.terminated.clone()
    };
    let (app, daprd) = (ended("app").context("app")?, ended("daprd").context("daprd")?);
    ensure!(
        daprd.exit_code == 0 && app.finished_at <= daprd.finished_at,
        "{app:?} {daprd:?}"
    );
    Ok(())
}

async fn pod_security_restricted_admits_pods_with_sidecars(world: World) -> anyhow::Result<()> {
    enforce_restricted(&world).await?;
    for kind in ["ordinary", "native"] {
        let manifest = pod(kind, kind, json!([restricted(container("app", &[]))]));
        world.apply(&manifest.to_string()).await?;
        world.seen.pod_with_sidecar(kind).await?;
    }
    let mut lax = pod("lax", "ordinary", json!([container("app", &[])]));
    lax["metadata"]["name"] = "lax".into();
    let refused = world
        .apply(&lax.to_string())
        .await
        .err()
        .map(|error| format!("{error:#}"));
    ensure!(
        refused
            .as_ref()
            .is_some_and(|error| error.contains("restricted") && !error.contains("daprd")),
        "the level counts, and only the app offends it: {refused:?}"
    );
    Ok(())
}

/// As OpenShift does: no container says which user it runs as, and the namespace's is put into all pods.
async fn a_platform_that_assigns_user_ids_assigns_the_sidecars(world: World) -> anyhow::Result<()> {
    enforce_restricted(&world).await?;
    let name = &world.seen.namespace;
    let scope = json!({
        "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
    });
    let assign =
        format!("Object{{spec: Object.spec{{securityContext: Object.spec.securityContext{{runAsUser: {ASSIGNED}}}}}}}");
    let fixed = "(object.spec.containers + object.spec.?initContainers.orValue([]))\
        .all(c, !has(c.securityContext) || !has(c.securityContext.runAsUser))";
    let policies = json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": scope, "reinvocationPolicy": "IfNeeded",
                "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": assign}}],
            },
        },
        {
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
            "metadata": {"name": name}, "spec": {"policyName": name},
        },
        {
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": scope,
                "validations": [{"expression": fixed, "message": "no container may choose its user"}],
            },
        },
        {
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]},
        },
    ]});
    world.apply(&policies.to_string()).await?;
    let trial: Pod = serde_json::from_value(pod("trial", "ordinary", json!([restricted(container("app", &[]))])))?;
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    within("the platform to assign users", async || {
        let pod = world.seen.pods().create(&dry, &trial).await?;
        let user = pod.spec.and_then(|spec| spec.security_context?.run_as_user);
        Ok((user == Some(ASSIGNED)).then_some(()))
    })
    .await?;
    for kind in ["ordinary", "native"] {
        let manifest = pod(kind, kind, json!([restricted(container("app", &[]))]));
        world.apply(&manifest.to_string()).await?;
        world.seen.pod_with_sidecar(kind).await?;
    }
    for pod in world.seen.pods().list(&ListParams::default()).await? {
        let status = pod.status.as_ref().context("a status")?;
        let all = status
            .init_container_statuses
            .iter()
            .chain(&status.container_statuses)
            .flatten();
        let users = all.map(|container| Some(container.user.as_ref()?.linux.as_ref()?.uid));
        let users: Vec<_> = users.collect();
        ensure!(users == [Some(ASSIGNED); 2], "{}: {users:?}", pod.name_any());
    }
    Ok(())
}

async fn enforce_restricted(world: &World) -> anyhow::Result<()> {
    world.seen.until_injected(true).await?;
    let label = "pod-security.kubernetes.io/enforce=restricted";
    world
        .access
        .kubectl(["label", "namespace", &world.seen.namespace, label])
        .await?;
    Ok(())
}

/// A pod with a sidecar of a kind, `native` or not.
fn pod(app: &str, kind: &str, containers: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": app, "labels": {"app": app},
            "annotations": {
                "dapr.io/enabled": "true", "dapr.io/app-id": app,
                "dapr.io/enable-native-sidecar": (kind == "native").to_string(),
            },
        },
        "spec": {"containers": containers, "terminationGracePeriodSeconds": 1},
    })
}

/// What the level asks of a container.
fn restricted(mut container: Value) -> Value {
    container["securityContext"] = json!({
        "runAsNonRoot": true, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    container
}
