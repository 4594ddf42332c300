//! What stands in for the injector: a webhook in this process that the real API server calls, and its registration.

use std::sync::Arc;

use axum::{Json, Router, routing::post};
use k8s_openapi::{ByteString, api::admissionregistration::v1::MutatingWebhookConfiguration};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
};
use outrigger_core::{TrustDomain, control_plane::Service};
use outrigger_identity::{Anchors, ClientAuth, Limits, Listener};
use outrigger_operator::missing::Settings;
use outrigger_process::kubernetes::webhook;
use outrigger_testkit::Workloads;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, SemaphorePermit, watch},
};
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) const NAME: &str = "dapr-sidecar-injector";

/// How it answers.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// With the label that tells of a sidecar.
    Inject,
    /// Allows the pod as it is, and says why.
    Warn(&'static str),
    /// As an injector that is broken.
    Break,
    /// Not at all.
    Silence,
}

pub(crate) struct Injector {
    client: Client,
    namespace: String,
    port: u16,
    workloads: Workloads,
    anchors: watch::Sender<Arc<Anchors>>,
    pub(crate) answer: Arc<Mutex<Answer>>,
    /// Users of reviews that were no dry runs, and of those that were.
    pub(crate) asked: Arc<Mutex<Vec<(String, bool)>>>,
    _turn: SemaphorePermit<'static>,
    _stop: DropGuard,
}

impl Injector {
    /// Serves, and is not registered yet. The registration is one object with a fixed name: tests take turns.
    pub(crate) async fn start(client: Client, namespace: &str) -> Self {
        static TURN: Semaphore = Semaphore::const_new(1);
        let turn = TURN.acquire().await.unwrap();
        let (workloads, stop) = (Workloads::new().unwrap(), CancellationToken::new());
        let id = Service::Injector.spiffe_id(&TrustDomain::new("cluster.local").unwrap(), "dapr-system");
        let identity = workloads.identity(id.unwrap(), &stop).await.unwrap();
        let tcp = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = tcp.local_addr().unwrap().port();
        let tls = identity.server_tls(ClientAuth::None, &[b"h2", b"http/1.1"]);
        let listener = Listener::tls(tcp, tls, Limits::default()).unwrap();
        let (answer, asked) = (Arc::new(Mutex::new(Answer::Inject)), Arc::new(Mutex::new(Vec::new())));
        let router = {
            let (answer, asked) = (answer.clone(), asked.clone());
            let mutate = async move |Json(review): Json<Value>| {
                let request = &review["request"];
                let user = request["userInfo"]["username"].as_str().unwrap().to_owned();
                asked.lock().push((user, request["dryRun"] == true));
                let answer = answer.lock().clone();
                if matches!(answer, Answer::Silence) {
                    std::future::pending::<()>().await;
                }
                respond(&answer, request)
            };
            Router::new().route("/mutate", post(mutate))
        };
        tokio::spawn(webhook::serve(listener, router, stop.clone()));
        let anchors = Anchors::from_pem(&workloads.anchors()).unwrap();
        Self {
            client,
            namespace: namespace.to_owned(),
            port,
            workloads,
            anchors: watch::Sender::new(Arc::new(anchors)),
            answer,
            asked,
            _turn: turn,
            _stop: stop.drop_guard(),
        }
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            control_plane_namespace: self.namespace.clone(),
            anchors: self.anchors.subscribe(),
        }
    }

    /// Registers the webhook for pods of the test's namespace only, after a change.
    pub(crate) async fn register(&self, change: impl FnOnce(&mut Value)) {
        let bundle = ByteString(self.workloads.anchors().into_bytes());
        let mut webhook = json!({
            "name": "sidecar-injector.dapr.io", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "failurePolicy": "Ignore", "timeoutSeconds": 10,
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}},
            "clientConfig": {"url": format!("https://127.0.0.1:{}/mutate", self.port), "caBundle": bundle},
        });
        change(&mut webhook);
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": NAME}, "webhooks": [webhook],
        });
        let params = PatchParams::apply("test").force();
        self.api()
            .patch(NAME, &params, &Patch::Apply(&configuration))
            .await
            .unwrap();
    }

    pub(crate) async fn unregister(&self) {
        let _ = self.api().delete(NAME, &DeleteParams::default()).await;
    }

    fn api(&self) -> Api<MutatingWebhookConfiguration> {
        Api::all(self.client.clone())
    }
}

fn respond(answer: &Answer, request: &Value) -> Json<Value> {
    let mut response = json!({"uid": request["uid"], "allowed": true});
    match answer {
        Answer::Inject => {
            let mut labels = request["object"]["metadata"]["labels"].clone();
            if labels.is_null() {
                labels = json!({});
            }
            labels["dapr.io/sidecar-injected"] = "true".into();
            let patch = json!([{"op": "add", "path": "/metadata/labels", "value": labels}]);
            response["patchType"] = "JSONPatch".into();
            response["patch"] = serde_json::to_value(ByteString(patch.to_string().into_bytes())).unwrap();
        }
        Answer::Warn(why) => response["warnings"] = json!([why]),
        Answer::Break | Answer::Silence => response = json!("nonsense"),
    }
    Json(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}))
}
