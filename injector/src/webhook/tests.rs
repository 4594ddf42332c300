//! The webhook as an HTTP client sees it.

mod bad_input;

use axum::{body::Body, http::Method};
use base64::{Engine, prelude::BASE64_STANDARD};
use http_body_util::BodyExt;
use outrigger_proto::outrigger::operator::v1::Refusal;
use outrigger_testkit::Workloads;
use prometheus::Registry;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tower::ServiceExt;

use super::*;
use crate::patch::tests::settings;

struct Server {
    router: Router,
    told: mpsc::Receiver<Refusal>,
    registry: Registry,
}

struct Answered {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Server {
    fn new() -> Self {
        let root = Workloads::new().unwrap().anchors();
        let (_, anchors) = watch::channel(Arc::new(Anchors::from_pem(&root).unwrap()));
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        let allowed = Allowed::new(&[]).unwrap();
        let (refusals, told) = Refusals::new(metrics.clone());
        let webhook = Webhook::new(settings(), allowed, Cluster::default(), anchors, refusals, metrics);
        Self {
            told,
            router: webhook.router(),
            registry,
        }
    }

    async fn send(&self, method: Method, path: &str, content_type: Option<&str>, body: impl Into<Body>) -> Answered {
        let mut request = axum::http::Request::builder().method(method).uri(path);
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let request = request.body(body.into()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        Answered {
            status: response.status(),
            headers: response.headers().clone(),
            body: response.into_body().collect().await.unwrap().to_bytes().to_vec(),
        }
    }

    async fn post(&self, body: impl Into<Body>) -> Answered {
        self.send(Method::POST, "/mutate", Some("application/json"), body).await
    }

    fn metrics(&self) -> String {
        prometheus::TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap()
    }
}

impl Answered {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn json(&self) -> Value {
        assert_eq!(
            (self.status, &self.headers[header::CONTENT_TYPE]),
            (StatusCode::OK, &"application/json".parse().unwrap())
        );
        serde_json::from_slice(&self.body).unwrap()
    }
}

fn review(annotations: Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview",
        "request": {
            "uid": "u1", "kind": {"kind": "Pod"}, "namespace": "shop", "operation": "CREATE",
            "userInfo": {"username": "admin", "groups": ["system:masters"]},
            "object": {"metadata": {"name": "p", "annotations": annotations}, "spec": {"containers": [{"name": "a"}]}},
        },
    })
}

#[tokio::test]
async fn a_pod_is_patched() {
    let server = Server::new();
    let answered = server
        .post(review(json!({"dapr.io/enabled": "true", "dapr.io/appid": "x"})).to_string())
        .await
        .json();
    assert_eq!(
        (&answered["apiVersion"], &answered["kind"]),
        (&json!("admission.k8s.io/v1beta1"), &json!("AdmissionReview"))
    );
    let response = &answered["response"];
    assert_eq!((&response["uid"], &response["allowed"]), (&json!("u1"), &json!(true)));
    assert_eq!(response["patchType"], "JSONPatch");
    let patch = BASE64_STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    let patch: Vec<Value> = serde_json::from_slice(&patch).unwrap();
    assert!(patch.iter().any(|operation| operation["value"]["name"] == "daprd"));
    assert_eq!(
        response["warnings"],
        json!(["annotation dapr.io/appid is unknown; did you mean dapr.io/app-id?"])
    );
    assert!(answered.get("request").is_none());
    let metrics = server.metrics();
    assert!(metrics.contains("requests_total 1"));
    assert!(metrics.contains("succeeded_total{app_id=\"p\"} 1"));
    assert!(metrics.contains("review_duration_seconds_count 1"));
}

#[tokio::test]
async fn a_denial_has_a_message_and_no_code() {
    let server = Server::new();
    let answered = server
        .post(review(json!({"dapr.io/enabled": "true", "dapr.io/app-id": "A"})).to_string())
        .await
        .json();
    let status = answered["response"]["status"].as_object().unwrap();
    assert_eq!(status.keys().collect::<Vec<_>>(), ["message", "metadata"]);
    assert_eq!(answered["response"]["allowed"], false);
    assert!(
        server
            .metrics()
            .contains("failed_total{app_id=\"A\",reason=\"patch\"} 1")
    );
}

#[tokio::test]
async fn requests_that_are_no_reviews_are_refused() {
    let server = Server::new();
    let json = Some("application/json");
    for (content_type, body, status, text) in [
        (json, "", StatusCode::BAD_REQUEST, "empty body\n"),
        (None, "", StatusCode::BAD_REQUEST, "empty body\n"),
        (
            None,
            "{}",
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "invalid Content-Type, expected `application/json`\n",
        ),
        (
            Some("application/json; charset=utf-8"),
            "{}",
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "invalid Content-Type, expected `application/json`\n",
        ),
        (
            json,
            "{}",
            StatusCode::BAD_REQUEST,
            "the AdmissionReview has no request\n",
        ),
    ] {
        let answered = server.send(Method::PUT, "/mutate", content_type, body).await;
        assert_eq!((answered.status, answered.text()), (status, text));
        assert_eq!(answered.headers[header::CONTENT_TYPE], "text/plain; charset=utf-8");
        assert_eq!(answered.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    }
    let answered = server.send(Method::POST, "/other", json, "{}").await;
    assert_eq!(
        (answered.status, answered.text()),
        (StatusCode::NOT_FOUND, "404 page not found\n")
    );
    assert!(server.metrics().contains("requests_total 5"), "only /mutate counts");
}

#[tokio::test]
async fn bodies_are_bounded() {
    let answered = Server::new().post(vec![b' '; (8 << 20) + 1]).await;
    assert_eq!(answered.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test(start_paused = true)]
async fn bodies_have_a_deadline() {
    let never = Body::from_stream(futures::stream::pending::<Result<axum::body::Bytes, std::io::Error>>());
    assert_eq!(Server::new().post(never).await.status, StatusCode::REQUEST_TIMEOUT);
}

#[tokio::test]
async fn undecodable_reviews_are_denied() {
    let server = Server::new();
    let answered = server.post(r#"{"request":{"uid":"u1","userInfo":5}}"#).await.json();
    assert_eq!(
        (&answered["response"]["uid"], &answered["response"]["allowed"]),
        (&json!("u1"), &json!(false))
    );
    assert!(
        answered["response"]["status"]["message"]
            .as_str()
            .unwrap()
            .contains("invalid type")
    );
    assert!(answered.get("kind").is_none());
    server.post("{").await.json();
    assert!(
        server
            .metrics()
            .contains("failed_total{app_id=\"\",reason=\"patch\"} 2")
    );
}

#[tokio::test]
async fn the_operator_is_told_of_pods_without_a_sidecar_and_only_of_real_ones() {
    let mut server = Server::new();
    let review = |user: &str, dry_run: bool, annotations: Value| {
        json!({"request": {
            "uid": "u", "kind": {"kind": "Pod"}, "namespace": "shop", "dryRun": dry_run, "userInfo": {"username": user},
            "object": {"metadata": {
                "generateName": "cart-", "annotations": annotations,
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "Tenant", "name": "t", "uid": "0"},
                    {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart", "uid": "1", "controller": true},
                ]}, "spec": {"containers": [{"name": "main"}]}},
        }})
        .to_string()
    };
    let controller = "system:serviceaccount:kube-system:replicaset-controller";
    let good = json!({"dapr.io/enabled": "true", "dapr.io/app-id": "cart"});
    for (user, dry_run, annotations, expected) in [
        (controller, false, good.clone(), None),
        (controller, false, json!({"dapr.io/enabled": "false"}), None),
        ("jane", true, good.clone(), None),
        ("jane", false, good, Some(("CreatorNotAllowed", false))),
        (
            controller,
            false,
            json!({"dapr.io/enabled": "yes"}),
            Some(("SidecarNotEnabled", false)),
        ),
        (
            controller,
            false,
            json!({"dapr.io/enabled": "true"}),
            Some(("PodDenied", true)),
        ),
    ] {
        server.post(review(user, dry_run, annotations)).await;
        let told = server.told.try_recv().ok();
        assert_eq!(
            told.as_ref().map(|refusal| (&*refusal.reason, refusal.denied)),
            expected
        );
        if let Some(refusal) = told {
            assert_eq!(
                (&*refusal.namespace, &*refusal.pod, &*refusal.generate_name),
                ("shop", "", "cart-")
            );
            assert_eq!(refusal.owner.unwrap().uid, "1");
            assert!(!refusal.message.is_empty());
        }
    }
}
