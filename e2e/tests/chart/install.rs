//! The chart on a real API server: everything is accepted, pods pass Pod Security `restricted`, the webhook sees whom it
//! should, and an upgrade leaves alone what the programs wrote.

use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use kube::api::{Api, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use outrigger_testkit::ApiServer;
use outrigger_testkit::certs::Authority;
use serde_json::{Value, json};

use crate::helm::{chart, path, run, stderr};

const DEADLINE: Duration = Duration::from_secs(120);

// One test, since the objects of the cluster exist once.
#[tokio::test]
async fn installs_and_upgrades() {
    let server = ApiServer::shared().await;
    let client = server.client();
    let namespace = server.namespace("control-plane").await.expect("a namespace");
    let restricted = json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": "restricted" } } });
    merge::<Namespace>(Api::all(client.clone()), &namespace, restricted).await;

    helm(server, &namespace, "install", "");
    let pods = pods_of_deployments(&client, &namespace).await;
    assert_eq!(pods.len(), 3);
    for pod in &pods {
        dry_run(&client, &namespace, pod).await.expect("the pod is admitted");
    }
    let mut loose = pods[0].clone();
    loose.spec.as_mut().expect("a spec").containers[0].security_context = None;
    let refusal = dry_run(&client, &namespace, &loose)
        .await
        .expect_err("restricted refuses it");
    assert!(refusal.to_string().contains("PodSecurity"), "{refusal}");

    service_accounts_have_their_rights(server, &namespace).await;

    // The API server refuses a CA bundle that holds no certificate.
    let authority = Authority::new("programs").expect("a certificate");
    let bundle = BASE64_STANDARD.encode(authority.pem());
    write_as_the_programs_do(&client, &namespace, &bundle).await;
    helm(
        server,
        &namespace,
        "upgrade",
        "dapr_sidecar_injector: {webhookFailurePolicy: Fail, logLevel: debug}",
    );
    what_the_programs_wrote_is_there(&client, &namespace, &bundle).await;
    the_webhook_sees_only_pods_that_ask(server, &namespace, &pods[0]).await;
}

fn helm(server: &ApiServer, namespace: &str, verb: &str, values: &str) {
    let kubeconfig = server.kubeconfig();
    let chart = chart();
    let arguments = [
        verb,
        "dapr",
        path(&chart),
        "--namespace",
        namespace,
        "--kubeconfig",
        path(&kubeconfig),
    ];
    let output = run(&arguments, values);
    assert!(output.status.success(), "helm {verb}: {}", stderr(&output));
}

async fn pods_of_deployments(client: &Client, namespace: &str) -> Vec<Pod> {
    let deployments = Api::<Deployment>::namespaced(client.clone(), namespace);
    let deployments = deployments.list(&ListParams::default()).await.expect("the deployments");
    let pod = |deployment: Deployment| {
        let name = deployment.name_any();
        let template = deployment.spec.expect("a spec").template;
        Pod {
            metadata: ObjectMeta {
                name: Some(name),
                ..template.metadata.unwrap_or_default()
            },
            spec: template.spec,
            status: None,
        }
    };
    deployments.items.into_iter().map(pod).collect()
}

async fn dry_run(client: &Client, namespace: &str, pod: &Pod) -> kube::Result<Pod> {
    let how = PostParams {
        dry_run: true,
        ..Default::default()
    };
    Api::namespaced(client.clone(), namespace).create(&how, pod).await
}

async fn merge<K>(api: Api<K>, name: &str, patch: Value)
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .expect("the patch");
}

async fn service_accounts_have_their_rights(server: &ApiServer, namespace: &str) {
    for (account, group, resource, verb, scope, name, expected) in [
        ("dapr-operator", "dapr.io", "components", "watch", "", "", true),
        (
            "dapr-operator",
            "dapr.io",
            "components/status",
            "patch",
            "shop",
            "",
            true,
        ),
        ("dapr-operator", "", "pods", "delete", "shop", "", false),
        ("dapr-operator", "", "pods/eviction", "create", "shop", "", false),
        (
            "dapr-operator",
            "coordination.k8s.io",
            "leases",
            "update",
            namespace,
            "operator.dapr.io",
            true,
        ),
        (
            "dapr-operator",
            "coordination.k8s.io",
            "leases",
            "update",
            namespace,
            "other",
            false,
        ),
        (
            "dapr-sentry",
            "",
            "secrets",
            "update",
            namespace,
            "dapr-trust-bundle",
            true,
        ),
        ("dapr-sentry", "", "secrets", "get", namespace, "other", false),
        (
            "dapr-injector",
            "",
            "secrets",
            "get",
            namespace,
            "dapr-trust-bundle",
            false,
        ),
        ("dapr-operator", "", "secrets", "get", "shop", "redis", true),
        ("dapr-operator", "", "secrets", "watch", "shop", "redis", true),
        ("dapr-operator", "", "secrets", "update", "shop", "redis", false),
        ("dapr-injector", "", "secrets", "list", "shop", "", false),
        ("dapr-injector", "", "serviceaccounts", "get", "shop", "deployer", true),
        ("dapr-injector", "", "serviceaccounts", "list", "", "", false),
        (
            "dapr-injector",
            "admissionregistration.k8s.io",
            "mutatingwebhookconfigurations",
            "watch",
            "",
            "dapr-sidecar-injector",
            true,
        ),
    ] {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": { "resourceAttributes": {
                "group": group, "resource": resource, "subresource": subresource, "verb": verb,
                "namespace": scope, "name": name,
            } },
        });
        let review: SelfSubjectAccessReview = serde_json::from_value(review).expect("a review");
        let groups = [
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
        ];
        let client = server.client_as(
            &format!("system:serviceaccount:{namespace}:{account}"),
            &groups.each_ref().map(String::as_str),
        );
        let allowed = async || {
            let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await;
            answer.expect("an answer").status.is_some_and(|status| status.allowed)
        };
        // The authorizer learns of new roles through a watch.
        if expected {
            until(&format!("{account} may {verb} {resource}"), &allowed).await;
        } else {
            assert!(!allowed().await, "{account} may {verb} {resource} in {scope:?}");
        }
    }
}

/// Server-side apply of the fields that the chart leaves out.
async fn write_as_the_programs_do(client: &Client, namespace: &str, bundle: &str) {
    let how = PatchParams::apply("outrigger-test");
    let webhook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": { "name": "dapr-sidecar-injector" },
        "webhooks": [{ "name": "sidecar-injector.dapr.io", "clientConfig": { "caBundle": bundle } }],
    });
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": "dapr-trust-bundle" },
        "data": { "ca.crt": bundle },
    });
    let webhooks = Api::<MutatingWebhookConfiguration>::all(client.clone());
    let answer = webhooks
        .patch("dapr-sidecar-injector", &how, &Patch::Apply(webhook))
        .await;
    answer.expect("the CA bundle is written");
    let secrets = Api::<Secret>::namespaced(client.clone(), namespace);
    let answer = secrets.patch("dapr-trust-bundle", &how, &Patch::Apply(secret)).await;
    answer.expect("the Secret is written");
}

async fn what_the_programs_wrote_is_there(client: &Client, namespace: &str, bundle: &str) {
    let webhooks = Api::<MutatingWebhookConfiguration>::all(client.clone());
    let webhook = webhooks.get("dapr-sidecar-injector").await.expect("the configuration");
    let webhook = serde_json::to_value(webhook).expect("JSON");
    assert_eq!(
        webhook["webhooks"][0]["failurePolicy"], "Fail",
        "the upgrade took place"
    );
    assert_eq!(webhook["webhooks"][0]["clientConfig"]["caBundle"], bundle);
    let secrets = Api::<Secret>::namespaced(client.clone(), namespace);
    let secret = secrets.get("dapr-trust-bundle").await.expect("the Secret");
    assert_eq!(serde_json::to_value(secret).expect("JSON")["data"]["ca.crt"], bundle);
}

/// No injector runs, and failurePolicy is Fail: who is refused is who the webhook sees.
async fn the_webhook_sees_only_pods_that_ask(server: &ApiServer, release: &str, of_the_release: &Pod) {
    let client = server.client();
    let shop = server.namespace("shop").await.expect("a namespace");
    until_refused(&client, &shop).await;
    for annotations in [json!(null), json!({}), json!({ "dapr.io.example.com/enabled": "true" })] {
        let answer = dry_run(&client, &shop, &app(annotations)).await;
        answer.expect("the webhook is not called");
    }
    // Mistakes have to get there, or nobody would be told of them.
    for mistyped in ["dapr.io/enable", "dapr.io/Enabled", "dapr.io/app-id"] {
        let answer = dry_run(&client, &shop, &app(json!({ mistyped: "yes" }))).await;
        assert!(is_refused(&answer), "{mistyped}: {answer:?}");
    }
    let answer = dry_run(&client, "kube-system", &app(json!({ "dapr.io/enabled": "true" }))).await;
    assert!(
        !is_refused(&answer),
        "a cluster has to start without the injector: {answer:?}"
    );
    let answer = dry_run(&client, release, of_the_release).await;
    answer.expect("the control plane's pods do not need the injector");

    let namespaced = format!(
        "{{global: {{rbac: {{namespaced: true}}}}, dapr_operator: {{watchNamespace: {release}}},
        dapr_sidecar_injector: {{webhookFailurePolicy: Fail}}}}"
    );
    helm(server, release, "upgrade", &namespaced);
    until_refused(&client, release).await;
    let answer = dry_run(&client, &shop, &app(json!({ "dapr.io/enabled": "true" }))).await;
    answer.expect("other namespaces are not the webhook's");
    let answer = dry_run(&client, release, of_the_release).await;
    answer.expect("the control plane's pods do not need the injector");
}

fn app(annotations: Value) -> Pod {
    let pod = json!({
        "metadata": { "name": "app", "annotations": annotations },
        "spec": { "containers": [{ "name": "app", "image": "app" }] },
    });
    serde_json::from_value(pod).expect("a pod")
}

/// The API server learns of a webhook's new configuration through a watch.
async fn until_refused(client: &Client, namespace: &str) {
    let asks = app(json!({ "dapr.io/enabled": "true" }));
    let refused = async || is_refused(&dry_run(client, namespace, &asks).await);
    until("a pod that asks for a sidecar is refused", &refused).await;
}

/// By the webhook, which nobody answers.
fn is_refused(answer: &kube::Result<Pod>) -> bool {
    let error = answer.as_ref().err().map(ToString::to_string);
    error.is_some_and(|error| error.contains("sidecar-injector.dapr.io"))
}

async fn until(what: &str, condition: &impl AsyncFn() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect(what);
}
