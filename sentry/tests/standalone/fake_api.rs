//! An API server that serves just what upstream's tests serve: lists and watches of pods and Configurations of the whole cluster,
//! three objects by name, and token reviews. Everything else is an error, and remembered.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::pki::Authority;

pub(crate) struct FakeApi {
    pub(crate) port: u16,
    state: Arc<Fake>,
}

#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) pods: Vec<Value>,
    /// Pods that are so new that only a read by name finds them.
    pub(crate) new_pods: Vec<Value>,
    pub(crate) configurations: Vec<Value>,
    /// User name that a review vouches for, by token.
    pub(crate) users: Vec<(String, String)>,
    /// Answers of the review in place of a good one: status and body.
    pub(crate) review: Mutex<Option<(u16, Value)>>,
    pub(crate) authority: Option<Authority>,
    pub(crate) reviews: Mutex<Vec<(String, Value)>>,
    pub(crate) unexpected: Mutex<Vec<String>>,
}

impl FakeApi {
    pub(crate) async fn start(fake: Fake) -> Self {
        let state = Arc::new(fake);
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new().fallback(answer).with_state(state.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { port, state }
    }

    pub(crate) fn kubeconfig(&self) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": format!("http://127.0.0.1:{}", self.port)}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
            "users": [{"name": "fake", "user": {}}]
        })
        .to_string()
    }

    /// Content type and body of each token review.
    pub(crate) fn reviews(&self) -> Vec<(String, Value)> {
        self.state.reviews.lock().clone()
    }

    /// Requests for what this server does not serve.
    pub(crate) fn unexpected(&self) -> Vec<String> {
        self.state.unexpected.lock().clone()
    }

    pub(crate) fn answer_reviews_with(&self, review: Option<(u16, Value)>) {
        *self.state.review.lock() = review;
    }
}

impl Fake {
    fn new_pod(&self, path: &str) -> Option<&Value> {
        self.new_pods.iter().find(|pod| {
            let text = |name: &str| pod["metadata"][name].as_str().unwrap();
            path == format!("/api/v1/namespaces/{}/pods/{}", text("namespace"), text("name"))
        })
    }
}

fn list(kind: &str, version: &str, items: &[Value], watch: bool) -> Response {
    if watch {
        // Quiet for ever.
        let body = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
        return ([(header::CONTENT_TYPE, "application/json")], body).into_response();
    }
    Json(json!({"apiVersion": version, "kind": kind, "metadata": {"resourceVersion": "1"}, "items": items}))
        .into_response()
}

async fn answer(State(fake): State<Arc<Fake>>, request: Request) -> Response {
    let uri = request.uri().clone();
    let watch = uri.query().unwrap_or_default().contains("watch=");
    let authority = fake.authority.as_ref().unwrap();
    let meta = json!({"name": "dapr-trust-bundle", "namespace": "dapr-system", "resourceVersion": "1"});
    match (request.method().as_str(), uri.path()) {
        ("GET", "/api/v1/pods") => list("PodList", "v1", &fake.pods, watch),
        ("GET", "/apis/dapr.io/v1alpha1/configurations") => {
            list("ConfigurationList", "dapr.io/v1alpha1", &fake.configurations, watch)
        }
        ("GET", "/api/v1/namespaces/dapr-system/secrets/dapr-trust-bundle") => {
            let text = |text: &str| STANDARD.encode(text);
            let data = json!({
                "ca.crt": text(&authority.anchors), "issuer.crt": text(&authority.chain), "issuer.key": text(&authority.key)
            });
            Json(json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data})).into_response()
        }
        ("GET", "/api/v1/namespaces/dapr-system/configmaps/dapr-trust-bundle") => {
            let data = json!({"ca.crt": authority.anchors});
            Json(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})).into_response()
        }
        ("GET", "/apis/dapr.io/v1alpha1/namespaces/dapr-system/configurations/daprsystem") => Json(json!({
            "apiVersion": "dapr.io/v1alpha1", "kind": "Configuration",
            "metadata": {"name": "daprsystem", "namespace": "dapr-system"}
        }))
        .into_response(),
        ("POST", "/apis/authentication.k8s.io/v1/tokenreviews") => review(&fake, request).await,
        ("GET", path) if fake.new_pod(path).is_some() => Json(fake.new_pod(path)).into_response(),
        (method, path) => {
            fake.unexpected.lock().push(format!("{method} {path}"));
            let status =
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404});
            (StatusCode::NOT_FOUND, Json(status)).into_response()
        }
    }
}

async fn review(fake: &Fake, request: Request) -> Response {
    let kind = request.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    let mut body: Value = serde_json::from_slice(&body).unwrap();
    fake.reviews.lock().push((kind, body.clone()));
    if let Some((code, answer)) = fake.review.lock().clone() {
        return (StatusCode::from_u16(code).unwrap(), Json(answer)).into_response();
    }
    let token = body["spec"]["token"].as_str().unwrap_or_default();
    let user = fake.users.iter().find(|(known, _)| known == token);
    // Without audiences, as API servers answer that know none.
    body["status"] = match user {
        Some((_, user)) => json!({"authenticated": true, "user": {"username": user}}),
        None => json!({"authenticated": false}),
    };
    (StatusCode::CREATED, Json(body)).into_response()
}
