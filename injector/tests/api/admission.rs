//! Pods created through the API server.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use outrigger_injector::cluster::{Cluster, components};
use outrigger_testkit::{ApiServer, eventually};
use serde_json::{Value, json};

use crate::support::{Injector, Registered, chart, clients, defaults, grant, install, remove, turn};

/// A pod's answer from the API server, with the warnings that kubectl would print.
struct Created {
    body: Value,
    warnings: Vec<String>,
}

async fn create(client: &Client, namespace: &str, pod: &Value) -> Created {
    let body = serde_json::to_vec(pod).unwrap();
    let request = http::Request::post(format!("/api/v1/namespaces/{namespace}/pods"))
        .header("content-type", "application/json")
        .body(kube::client::Body::from(body))
        .unwrap();
    let response = client.send(request).await.unwrap();
    let warnings = response.headers().get_all("warning").iter();
    Created {
        warnings: warnings.map(|value| value.to_str().unwrap().to_owned()).collect(),
        body: serde_json::from_slice(&response.into_body().collect_bytes().await.unwrap()).unwrap(),
    }
}

fn pod(name: &str, annotations: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"containers": [{"name": "main", "image": "app:1"}]},
    })
}

fn names(list: &Value) -> Vec<&str> {
    let list = list.as_array().into_iter().flatten();
    list.map(|item| item["name"].as_str().unwrap()).collect()
}

fn mtls() -> Cluster {
    let cluster = Cluster::default();
    cluster.set_mtls(true);
    cluster
}

/// A registered and served injector.
async fn served(client: &Client, namespace: &str) -> (Injector, Registered) {
    let probe = pod("probe", &json!({"dapr.io/enabled": "true"}));
    served_with(client, namespace, mtls(), &defaults(), &probe).await
}

/// With this environment, once a dry run of `probe` is injected.
async fn served_with(
    client: &Client,
    namespace: &str,
    cluster: Cluster,
    variables: &HashMap<String, String>,
    probe: &Value,
) -> (Injector, Registered) {
    let injector = Injector::start(cluster, variables).await;
    install(client, &injector.url, namespace).await;
    let registered = Registered::start(client, injector.anchors.clone());
    registered.ready().await;
    // The API server takes a moment to see its own object, with our bundle in it.
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let probe: Pod = serde_json::from_value(probe.clone()).unwrap();
    eventually("pods are injected", async || {
        let created = pods.create(&dry, &probe).await.ok()?;
        let names = created.metadata.labels?;
        names.contains_key("dapr.io/sidecar-injected").then_some(())
    })
    .await;
    (injector, registered)
}

#[tokio::test]
async fn pods_are_injected_and_stored() {
    let _turn = turn().await;
    let server = ApiServer::shared().await;
    let (client, namespace) = (server.client(), server.namespace("inject").await.unwrap());
    let (injector, _registered) = served(&client, &namespace).await;

    let annotations = json!({"dapr.io/enabled": "true", "dapr.io/app-id": "myapp", "dapr.io/app-port": "3000"});
    let created = create(&client, &namespace, &pod("ordinary", &annotations)).await;
    assert_eq!(
        names(&created.body["spec"]["containers"]),
        ["main", "daprd"],
        "{}",
        created.body
    );
    assert_eq!(created.warnings, Vec::<String>::new());
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let stored = serde_json::to_value(pods.get("ordinary").await.unwrap()).unwrap();
    let daprd = &stored["spec"]["containers"][1];
    assert_eq!(daprd["args"][0], "/daprd");
    assert_eq!(
        daprd["env"][1],
        json!({"name": "DAPR_TRUST_ANCHORS", "value": injector.anchors.pem()})
    );
    assert_eq!(stored["metadata"]["labels"]["dapr.io/app-id"], "myapp");
    let volumes = stored["spec"]["volumes"].as_array().unwrap();
    let token = volumes
        .iter()
        .find(|volume| volume["name"] == "dapr-identity-token")
        .unwrap();
    assert_eq!(
        token["projected"]["sources"][0]["serviceAccountToken"]["audience"],
        "spiffe://cluster.local/ns/dapr-system/dapr-sentry"
    );

    let everything = json!({
        "dapr.io/enabled": "TRUE",
        "dapr.io/app-id": "all",
        "dapr.io/enable-native-sidecar": "true",
        "dapr.io/unix-domain-socket-path": "/tmp/sockets",
        "dapr.io/sidecar-cpu-limit": "1000m",
        "dapr.io/sidecar-memory-limit": "128Mi",
        "dapr.io/sidecar-seccomp-profile-type": "RuntimeDefault",
        "dapr.io/env": "A=1,B=2",
        "dapr.io/api-token-secret": "tokens",
        "dapr.io/enable-debug": "true",
        "dapr.io/pluggable-components": "main",
    });
    let created = create(&client, &namespace, &pod("everything", &everything)).await;
    assert_eq!(
        names(&created.body["spec"]["initContainers"]),
        ["daprd"],
        "{}",
        created.body
    );
    assert_eq!(
        created.body["spec"]["initContainers"][0]["resources"]["limits"]["cpu"],
        "1"
    );

    let metrics = prometheus::TextEncoder::new()
        .encode_to_string(&injector.registry.gather())
        .unwrap();
    assert!(
        metrics.contains("dapr_injector_sidecar_injection_succeeded_total{app_id=\"myapp\"} 1"),
        "{metrics}"
    );
    remove(&client).await;
}

#[tokio::test]
async fn people_are_told() {
    let _turn = turn().await;
    let server = ApiServer::shared().await;
    let (client, namespace) = (server.client(), server.namespace("told").await.unwrap());
    let (_injector, _registered) = served(&client, &namespace).await;

    let denied = create(
        &client,
        &namespace,
        &pod("denied", &json!({"dapr.io/enabled": "true", "dapr.io/app-id": "No"})),
    )
    .await;
    assert_eq!(denied.body["code"], 400);
    let message = denied.body["message"].as_str().unwrap();
    let expected = "admission webhook \"sidecar-injector.dapr.io\" denied the request: invalid app id (input: 'No'";
    assert!(message.starts_with(expected), "{message}");

    let mistaken = json!({"dapr.io/enabled": "true", "dapr.io/app-id": "mistaken", "dapr.io/app-prot": "http"});
    let warned = create(&client, &namespace, &pod("mistaken", &mistaken)).await;
    assert_eq!(names(&warned.body["spec"]["containers"]), ["main", "daprd"]);
    assert_eq!(
        warned.warnings,
        ["299 - \"annotation dapr.io/app-prot is unknown; did you mean dapr.io/app-port?\""]
    );

    let nearly = create(&client, &namespace, &pod("nearly", &json!({"dapr.io/enabled": "yes"}))).await;
    assert_eq!(names(&nearly.body["spec"]["containers"]), ["main"]);
    assert!(
        nearly.warnings[0].contains("only \\\"true\\\" asks for one"),
        "{:?}",
        nearly.warnings
    );

    let user = "system:serviceaccount:ci:runner";
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["create"]}]);
    grant(&client, user, &rules).await;
    let runner = server.client_as(user, &["system:serviceaccounts"]);
    let enabled = pod(
        "stranger",
        &json!({"dapr.io/enabled": "true", "dapr.io/app-id": "stranger"}),
    );
    let stranger = eventually("the binding counts", async || {
        let created = create(&runner, &namespace, &enabled).await;
        (created.body["code"] != 403).then_some(created)
    })
    .await;
    assert_eq!(
        names(&stranger.body["spec"]["containers"]),
        ["main"],
        "{}",
        stranger.body
    );
    assert!(
        stranger.warnings[0].contains("add ci:runner to the Helm value"),
        "{:?}",
        stranger.warnings
    );
    remove(&client).await;
}

/// Pod Security judges the injected pod, not the one that was asked for. No UID is fixed: whoever assigns them, as OpenShift
/// does, assigns the sidecar's too.
#[tokio::test]
async fn injected_pods_are_admitted_where_pod_security_is_restricted() {
    let _turn = turn().await;
    let server = crate::cluster::server().await;
    let (client, namespace) = (server.client(), server.namespace("restricted").await.unwrap());
    let enforce = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let patch = Patch::Merge(&enforce);
    namespaces
        .patch(&namespace, &PatchParams::default(), &patch)
        .await
        .unwrap();

    let restricted = json!({
        "allowPrivilegeEscalation": false, "runAsNonRoot": true,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    });
    let asked = |name: &str, native: &str| {
        let annotations = json!({"dapr.io/enabled": "true", "dapr.io/enable-native-sidecar": native});
        let mut pod = pod(name, &annotations);
        pod["spec"]["containers"][0]["securityContext"] = restricted.clone();
        pod
    };
    let chart = chart();
    let cluster = mtls();
    let brought = json!({"name": "brought", "image": "store:1", "securityContext": restricted});
    let component = crate::cluster::component("store", &brought.to_string());
    let components = crate::cluster::api(&client, "Component", &namespace);
    components.create(&PostParams::default(), &component).await.unwrap();
    let following = components::follow(clients(&client), namespace.clone(), cluster.clone());
    let _following = tokio::spawn(following);
    eventually("the Component is known", async || {
        let known = cluster.component_containers(&namespace).ok()?;
        (!known.is_empty()).then_some(())
    })
    .await;
    let probe = asked("probe", "false");
    let (_injector, _registered) = served_with(&client, &namespace, cluster, &chart, &probe).await;
    for (mode, native) in [("ordinary", "false"), ("native", "true")] {
        for (kind, uid, components) in [
            ("plain", None, false),
            ("components", None, true),
            ("assigned", Some(1_000_680_000), true),
        ] {
            let mut pod = asked(&format!("{mode}-{kind}"), native);
            if let Some(uid) = uid {
                pod["spec"]["securityContext"] = json!({"runAsUser": uid, "fsGroup": uid});
            }
            if components {
                let annotations = &mut pod["metadata"]["annotations"];
                annotations["dapr.io/app-id"] = "cart".into();
                annotations["dapr.io/inject-pluggable-components"] = "true".into();
                annotations["dapr.io/pluggable-components"] = "own".into();
                let own = json!({"name": "own", "image": "store:2", "securityContext": restricted});
                pod["spec"]["containers"].as_array_mut().unwrap().push(own);
            }
            let created = create(&client, &namespace, &pod).await.body;
            assert_eq!(created["kind"], "Pod", "{created}");
            assert_eq!(created["metadata"]["labels"]["dapr.io/sidecar-injected"], "true");
            let lists = [&created["spec"]["containers"], &created["spec"]["initContainers"]];
            let containers: Vec<_> = lists.into_iter().filter_map(Value::as_array).flatten().collect();
            assert_eq!(containers.len(), if components { 4 } else { 2 }, "{created}");
            for container in containers {
                let context = &container["securityContext"];
                assert!(context.get("runAsUser").is_none() && context.get("runAsGroup").is_none());
                assert_eq!(context["runAsNonRoot"], true);
            }
        }
    }

    // The program's own defaults are upstream's, and those are not enough.
    let mut upstream = chart;
    upstream.extend([
        ("SIDECAR_DROP_ALL_CAPABILITIES".into(), "false".into()),
        ("SIDECAR_SECCOMP_PROFILE_TYPE".into(), String::new()),
    ]);
    let injector = Injector::start(mtls(), &upstream).await;
    install(&client, &injector.url, &namespace).await;
    let registered = Registered::start(&client, injector.anchors.clone());
    registered.ready().await;
    eventually("the pod is refused for its sidecar", async || {
        let refused = create(&client, &namespace, &asked("upstream", "false")).await;
        let message = refused.body["message"].as_str()?;
        (message.contains("PodSecurity") && message.contains("\"daprd\"")).then_some(())
    })
    .await;
}
