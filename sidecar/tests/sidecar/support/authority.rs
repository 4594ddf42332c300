//! A certificate authority that serves as sentry, for a control plane of its own.

use outrigger_core::{SpiffeId, TrustDomain};
use outrigger_identity::{ClientAuth, Identity, Limits, Listener};
use outrigger_testkit::Workloads;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Trust domain and namespace of the control plane in tests.
pub const CONTROL_PLANE: (&str, &str) = ("cluster.test", "dapr-system");

pub struct Authority {
    workloads: Workloads,
    anchors: String,
}

impl Authority {
    pub fn new() -> Self {
        let workloads = Workloads::new().unwrap();
        let anchors = workloads.anchors();
        Self { workloads, anchors }
    }

    /// The root's certificate.
    pub fn anchors(&self) -> &str {
        &self.anchors
    }

    /// Serves the certificate authority's API until the test ends; returns its address.
    pub async fn serve(&self) -> String {
        let stop = CancellationToken::new();
        let address = self.workloads.serve_sentry(id("dapr-sentry"), &stop).await;
        address.unwrap().to_string()
    }

    /// The identity of a process of the control plane.
    pub async fn control_plane(&self, app_id: &str) -> Identity {
        let stop = CancellationToken::new();
        self.workloads.identity(id(app_id), &stop).await.unwrap()
    }
}

fn id(app_id: &str) -> SpiffeId {
    let (trust_domain, namespace) = CONTROL_PLANE;
    SpiffeId::new(TrustDomain::new(trust_domain).unwrap(), namespace, app_id).unwrap()
}

/// A TLS listener of an identity, and its address.
pub async fn listen(identity: &Identity, auth: ClientAuth) -> (Listener, String) {
    let tcp = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = tcp.local_addr().unwrap().to_string();
    (
        Listener::tls(tcp, identity.server_tls(auth, &[b"h2"]), Limits::default()).unwrap(),
        address,
    )
}
