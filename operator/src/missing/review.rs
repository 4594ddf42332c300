//! Asks the injector, as the API server would, whether it injects a pod: a review with `dryRun`, which has no side effects.
//! No right in the cluster is needed for it.

use std::time::Duration;

use k8s_openapi::{
    api::{admissionregistration::v1::MutatingWebhook, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Client, Config};
use outrigger_process::kubernetes::owner::controller;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::creator::creator;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Injects,
    /// It answers that the pod gets no sidecar, and why.
    Refuses(String),
    /// It answers otherwise than it should.
    Failed(String),
    /// There is no connection that the API server would trust.
    Unreachable(String),
}

/// Why an answer is none.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the webhook has neither a service nor a URL")]
    NoAddress,
    #[error("the webhook's address cannot be used")]
    Address(#[source] http::Error),
    #[error("the webhook's caBundle cannot be read")]
    Bundle,
    #[error("{}", outrigger_core::text::chain(.0))]
    Client(Box<kube::Error>),
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
}

/// Posts a review of the pod, as a new one, and waits so long for an answer.
pub(super) async fn ask(webhook: &MutatingWebhook, pod: &Pod, deadline: Duration) -> Verdict {
    let answer = timeout(deadline, post(webhook, &review(pod), deadline)).await;
    match answer.unwrap_or(Err(Failure::Late(deadline))) {
        Ok(text) => judge(&text),
        Err(Failure::Client(error)) if matches!(*error, kube::Error::Api(_)) => Verdict::Failed(error.to_string()),
        Err(failure) => Verdict::Unreachable(failure.to_string()),
    }
}

async fn post(webhook: &MutatingWebhook, review: &Value, deadline: Duration) -> Result<String, Failure> {
    let address = address(webhook)?
        .parse()
        .map_err(|error| Failure::Address(http::Error::from(error)));
    let address: http::Uri = address?;
    let bundle = webhook.client_config.ca_bundle.as_ref().ok_or(Failure::Bundle)?;
    let roots = outrigger_identity::pem::certificates(&bundle.0).map_err(|_| Failure::Bundle)?;
    let path = address
        .path_and_query()
        .map_or_else(|| "/".to_owned(), ToString::to_string);
    let mut parts = address.into_parts();
    parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
    let server = http::Uri::from_parts(parts).map_err(|error| Failure::Address(http::Error::from(error)))?;
    // Exactly what the API server trusts: the bundle, and the name in the address.
    let mut config = Config::new(server);
    config.root_cert = Some(roots.into_iter().map(|root| root.to_vec()).collect());
    config.connect_timeout = Some(deadline);
    config.read_timeout = Some(deadline);
    config.write_timeout = Some(deadline);
    config.default_retry = false;
    let failed = |error| Failure::Client(Box::new(error));
    let client = Client::try_from(config).map_err(failed)?;
    let request = http::Request::post(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(review.to_string().into_bytes())
        .map_err(Failure::Address)?;
    client.request_text(request).await.map_err(failed)
}

fn address(webhook: &MutatingWebhook) -> Result<String, Failure> {
    let config = &webhook.client_config;
    if let Some(service) = &config.service {
        let (name, namespace) = (&service.name, &service.namespace);
        let (port, path) = (service.port.unwrap_or(443), service.path.as_deref().unwrap_or("/"));
        return Ok(format!("https://{name}.{namespace}.svc:{port}{path}"));
    }
    config.url.clone().ok_or(Failure::NoAddress)
}

/// A review of the pod as its owner's controller would create it again. The pod is what became of the template, so that no
/// right to read templates is needed, whatever kind the owner is of.
fn review(pod: &Pod) -> Value {
    let metadata = &pod.metadata;
    let owned = controller(pod).is_some();
    let new = Pod {
        metadata: ObjectMeta {
            // The name of a pod from a template is chosen after admission.
            name: metadata.name.clone().filter(|_| !owned),
            generate_name: metadata.generate_name.clone(),
            namespace: metadata.namespace.clone(),
            labels: metadata.labels.clone(),
            annotations: metadata.annotations.clone(),
            owner_references: metadata.owner_references.clone(),
            ..ObjectMeta::default()
        },
        spec: pod.spec.clone(),
        status: None,
    };
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": uuid::Uuid::new_v4().to_string(),
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "requestResource": {"group": "", "version": "v1", "resource": "pods"},
            "name": new.metadata.name.as_deref().unwrap_or_default(),
            "namespace": new.metadata.namespace,
            "operation": "CREATE",
            "userInfo": user(pod),
            "object": new,
            "oldObject": null,
            "dryRun": true,
            "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
        },
    })
}

/// The user who creates the pod. One that nobody knows is replaced by one who may everything, so that at least the rest is
/// answered; that such a pod would be injected says nothing of its creator.
fn user(pod: &Pod) -> Value {
    match creator(pod) {
        Some(account) => json!({
            "username": format!("system:serviceaccount:kube-system:{account}"),
            "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"],
        }),
        None => json!({"username": "system:admin", "groups": ["system:masters", "system:authenticated"]}),
    }
}

#[derive(Deserialize)]
struct Review {
    response: Response,
}

#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    allowed: bool,
    patch: Option<String>,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    message: String,
}

fn judge(text: &str) -> Verdict {
    let response = match serde_json::from_str::<Review>(text) {
        Ok(review) => review.response,
        Err(error) => return Verdict::Failed(format!("its answer is no AdmissionReview: {error}")),
    };
    let warnings = response.warnings.join("; ");
    match (response.allowed, response.patch) {
        (true, Some(_)) => Verdict::Injects,
        (true, None) if !warnings.is_empty() => Verdict::Refuses(warnings),
        (true, None) => Verdict::Refuses("no Dapr sidecar: the injector allows the pod and says no more".to_owned()),
        (false, _) => Verdict::Refuses(format!(
            "no Dapr sidecar: the injector denies the pod: {}",
            response.status.message
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::missing::admission::tests::admission;

    fn pod(owner: Option<&str>) -> Pod {
        let mut pod = json!({
            "metadata": {
                "name": "cart-1", "generateName": "cart-", "namespace": "shop", "uid": "u", "resourceVersion": "7",
                "annotations": {"dapr.io/enabled": "true"}, "labels": {"app": "cart"},
            },
            "spec": {"containers": [{"name": "app"}]},
            "status": {"phase": "Running"},
        });
        if let Some(kind) = owner {
            let owner =
                json!([{"apiVersion": "apps/v1", "kind": kind, "name": "cart", "uid": "o", "controller": true}]);
            pod["metadata"]["ownerReferences"] = owner;
        }
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn the_review_is_of_a_new_pod_by_its_owners_controller() {
        let review = review(&pod(Some("StatefulSet")));
        let request = &review["request"];
        assert_eq!(request["dryRun"], true);
        assert_eq!(
            request["userInfo"]["username"],
            "system:serviceaccount:kube-system:statefulset-controller"
        );
        let metadata = request["object"]["metadata"].as_object().unwrap();
        assert_eq!(metadata["annotations"]["dapr.io/enabled"], "true");
        for gone in ["name", "uid", "resourceVersion"] {
            assert!(!metadata.contains_key(gone), "{gone}");
        }
        assert!(request["object"].get("status").is_none());
        assert_eq!(super::review(&pod(None))["request"]["name"], "cart-1");
        for unknown in [None, Some("CloneSet")] {
            let groups = &super::review(&pod(unknown))["request"]["userInfo"]["groups"];
            assert_eq!(groups[0], "system:masters");
        }
    }

    #[test]
    fn the_address_is_the_api_servers() {
        let registered = admission(|_| {});
        let webhook = registered.webhook().unwrap();
        assert_eq!(
            address(webhook).unwrap(),
            "https://dapr-sidecar-injector.dapr-system.svc:443/mutate"
        );
        let url = admission(|c| {
            c["webhooks"][0]["clientConfig"] = json!({"url": "https://127.0.0.1:9443/mutate"});
        });
        assert_eq!(
            address(url.webhook().unwrap()).unwrap(),
            "https://127.0.0.1:9443/mutate"
        );
    }

    #[test]
    fn answers_are_read_as_the_api_server_reads_them() {
        let answer = |response: Value| judge(&json!({"response": response}).to_string());
        assert_eq!(
            answer(json!({"allowed": true, "patch": "W10=", "patchType": "JSONPatch"})),
            Verdict::Injects
        );
        let warned = answer(json!({"allowed": true, "warnings": ["a", "b"]}));
        assert_eq!(warned, Verdict::Refuses("a; b".into()));
        assert!(matches!(answer(json!({"allowed": true})), Verdict::Refuses(_)));
        let denied = answer(json!({"allowed": false, "status": {"message": "invalid app id"}}));
        assert!(matches!(denied, Verdict::Refuses(why) if why.ends_with("invalid app id")));
        assert!(matches!(judge("<html>"), Verdict::Failed(_)));
    }
}
