//! The operator's library at an API server that a test may break.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use futures::FutureExt;
use http_body::Frame;
use kube::client::Body;
use outrigger_operator::{core::Core, metrics::Metrics, scope::Scope};
use outrigger_process::{
    health::Health,
    kubernetes::{
        client::{self, Clients},
        watch::ObjectKey,
    },
    tasks::Tasks,
};
use outrigger_testkit::FaultyApiServer;
use parking_lot::Mutex;
use prometheus::Registry;
use serde_json::json;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::support::{DEADLINE, Server, eventually};

/// Held by each test with a server of its own: several at once would slow down each other, and everybody else.
pub(crate) static ONE_SERVER: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(1);

/// What happens to requests on their way.
#[derive(Clone, Default)]
pub(crate) struct Faults {
    /// Lists and watches are answered with 429.
    pub(crate) busy: Arc<AtomicBool>,
    /// Cutting ends every answer that is under way.
    cut: Arc<Mutex<CancellationToken>>,
}

impl Faults {
    pub(crate) fn cut_watches(&self) {
        std::mem::take(&mut *self.cut.lock()).cancel();
    }

    /// A client whose requests meet the faults.
    fn client(&self, inner: kube::Client) -> kube::Client {
        let faults = self.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let (inner, faults) = (inner.clone(), faults.clone());
            async move {
                if faults.busy.load(Ordering::SeqCst) {
                    return too_many_requests();
                }
                let token = faults.cut.lock().clone();
                let answer = inner.send(request).await.map_err(tower::BoxError::from)?;
                Ok(answer.map(|body| Cut { body, token }))
            }
        });
        kube::Client::new(service, "default")
    }
}

fn too_many_requests() -> Result<http::Response<Cut>, tower::BoxError> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "too many requests",
        "reason": "TooManyRequests", "code": 429, "metadata": {}, "details": {"retryAfterSeconds": 1},
    });
    let body = Body::from(status.to_string().into_bytes());
    let token = CancellationToken::new();
    Ok(http::Response::builder().status(429).body(Cut { body, token })?)
}

/// A body that may end too early.
pub(crate) struct Cut {
    body: Body,
    token: CancellationToken,
}

impl http_body::Body for Cut {
    type Data = Bytes;
    type Error = tower::BoxError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, tower::BoxError>>> {
        let cut = std::pin::pin!(self.token.clone().cancelled_owned())
            .poll_unpin(cx)
            .is_ready();
        if cut {
            return std::task::Poll::Ready(Some(Err("the connection was cut".into())));
        }
        std::pin::Pin::new(&mut self.body).poll_frame(cx).map_err(Into::into)
    }
}

/// An operator at a server.
pub(crate) struct Operator {
    pub(crate) server: Server,
    _stop: DropGuard,
}

impl Operator {
    /// Starts it, with access to everything, and waits until it is ready.
    pub(crate) async fn start(api_server: &FaultyApiServer, faults: &Faults) -> Self {
        let clients = client::clients(Some(&api_server.kubeconfig()), true).await.unwrap();
        let clients = Clients {
            calls: faults.client(clients.calls),
            watches: faults.client(clients.watches),
        };
        let (stop, health) = (CancellationToken::new(), Health::default());
        let metrics = Metrics::new(&Registry::new()).unwrap();
        let system = ObjectKey::new("dapr-system", "daprsystem");
        let core = Core::new(clients, Scope::default(), metrics, system, "test".into());
        let mut tasks = Tasks::new(stop.clone());
        core.spawn_watches(&mut tasks, health.target("caches"));
        tokio::spawn(tasks.run(DEADLINE));
        eventually("readiness", || async { health.is_ready().then_some(()) }).await;
        Self {
            server: Server::start(core.api(stop.clone())),
            _stop: stop.drop_guard(),
        }
    }
}

pub(crate) async fn apply_crds(api_server: &FaultyApiServer) {
    let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/dapr/crds");
    api_server.apply_crds(&crds).await.unwrap();
}
