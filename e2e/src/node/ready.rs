//! Waiting for the parts of a cluster, and the few objects that are the node's to make. Every wait goes on until it is
//! satisfied; the start as a whole has the deadline.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{Api, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::Error;
use super::layout::DNS_READY;

const RETRY: Duration = Duration::from_millis(100);
const ANSWER: Duration = Duration::from_secs(5);
/// Set on a new node until it is ready; pods are not scheduled on it before the controller manager took it away.
const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub(super) async fn client(kubeconfig: &Path) -> Result<Client, Error> {
    let failed = |source| Error::Request {
        what: "read the administrator's kubeconfig",
        source,
    };
    let kubeconfig = Kubeconfig::read_from(kubeconfig).map_err(|error| failed(error.into()))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    Client::try_from(config.map_err(|error| failed(error.into()))?).map_err(|error| failed(error.into()))
}

pub(super) async fn api_server(client: &Client) -> Result<(), Error> {
    while !is_ready(client).await {
        sleep(RETRY).await;
    }
    Ok(())
}

/// Whether the API server says so within a few seconds.
pub(crate) async fn is_ready(client: &Client) -> bool {
    let request = http::Request::get("/readyz")
        .body(Vec::new())
        .expect("a constant path is a valid request");
    matches!(timeout(ANSWER, client.request_text(request)).await, Ok(Ok(_)))
}

pub(super) async fn node(client: &Client, name: &str) -> Result<(), Error> {
    let nodes = Api::<Node>::all(client.clone());
    while !matches!(timeout(ANSWER, nodes.get(name)).await, Ok(Ok(node)) if takes_pods(&node)) {
        sleep(RETRY).await;
    }
    Ok(())
}

fn takes_pods(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
        && !taints.into_iter().any(|taint| taint.key == NOT_READY)
}

pub(super) async fn dns() -> Result<(), Error> {
    while !matches!(timeout(ANSWER, dns_is_ready()).await, Ok(Ok(true))) {
        sleep(RETRY).await;
    }
    Ok(())
}

async fn dns_is_ready() -> std::io::Result<bool> {
    let mut connection = TcpStream::connect(DNS_READY).await?;
    connection.write_all(b"GET /ready HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    Ok(answer.split(' ').nth(1) == Some("200"))
}

/// The controller manager makes it, and pods are not admitted before.
pub(super) async fn service_account(client: &Client) -> Result<(), Error> {
    let accounts = Api::<ServiceAccount>::default_namespaced(client.clone());
    while !matches!(timeout(ANSWER, accounts.get("default")).await, Ok(Ok(_))) {
        sleep(RETRY).await;
    }
    Ok(())
}

/// Lets CoreDNS read what it answers from; all other parts have rights that the API server brings along.
pub(super) async fn grant_dns(client: &Client) -> Result<(), Error> {
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "system:coredns"},
        "rules": [
            {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        ],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "system:coredns"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:coredns"}],
    });
    apply(Api::<ClusterRole>::all(client.clone()), &role).await?;
    apply(Api::<ClusterRoleBinding>::all(client.clone()), &binding).await
}

async fn apply<K>(api: Api<K>, object: &serde_json::Value) -> Result<(), Error>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let failed = |source| Error::Request {
        what: "grant CoreDNS its rights",
        source,
    };
    let how = PatchParams::apply("outrigger-node").force();
    match timeout(ANSWER, api.patch("system:coredns", &how, &Patch::Apply(object))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(failed(error.into())),
        Err(elapsed) => Err(failed(elapsed.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(ready: &str, taints: serde_json::Value) -> Node {
        let condition = json!({"type": "Ready", "status": ready});
        serde_json::from_value(json!({"spec": {"taints": taints}, "status": {"conditions": [condition]}})).unwrap()
    }

    #[test]
    fn a_node_takes_pods_when_ready_and_not_tainted() {
        assert!(takes_pods(&node("True", json!([]))));
        assert!(!takes_pods(&node("False", json!([]))));
        assert!(!takes_pods(&node(
            "True",
            json!([{"key": NOT_READY, "effect": "NoSchedule"}])
        )));
        assert!(!takes_pods(&Node::default()));
    }
}
