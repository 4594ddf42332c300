//! A sentry over gRPC that answers as a test says, and identities that ask it.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use outrigger_core::{SpiffeId, TrustDomain};
use outrigger_identity::{
    AnchorSource, ClientAuth, Identity, KeyAlgorithm, Limits, Options, Peer, Renewal, Status as Health,
};
use outrigger_proto::sentry::{
    SignCertificateRequest, SignCertificateResponse,
    ca_server::{Ca, CaServer},
};
use parking_lot::Mutex;
use rcgen::CertificateSigningRequestParams;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::support::{Root, TestAuthority, listen, run, signed_by};

const DEADLINE: Duration = Duration::from_secs(60);

type Answers = dyn Fn(usize, &SignCertificateRequest) -> Result<SignCertificateResponse, Status> + Send + Sync;

/// What arrived.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) message: SignCertificateRequest,
    pub(crate) from: SocketAddr,
    pub(crate) retry: Option<String>,
    pub(crate) has_deadline: bool,
}

/// Answers request by request, counted from 0.
struct Sentry {
    answers: Box<Answers>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

#[tonic::async_trait]
impl Ca for Sentry {
    async fn sign_certificate(
        &self,
        request: Request<SignCertificateRequest>,
    ) -> Result<Response<SignCertificateResponse>, Status> {
        let asked = Asked {
            from: request.extensions().get::<Peer>().unwrap().addr,
            retry: request
                .metadata()
                .get("x-retry-attempty")
                .map(|value| value.to_str().unwrap().to_owned()),
            has_deadline: request.metadata().contains_key("grpc-timeout"),
            message: request.into_inner(),
        };
        let number = {
            let mut all = self.asked.lock();
            all.push(asked.clone());
            all.len() - 1
        };
        (self.answers)(number, &asked.message).map(Response::new)
    }
}

pub(crate) struct World {
    pub(crate) root: Root,
    pub(crate) address: String,
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
    stop: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn sentry_id() -> SpiffeId {
    SpiffeId::new(TrustDomain::new("cluster.local").unwrap(), "dapr-system", "dapr-sentry").unwrap()
}

impl World {
    pub(crate) async fn new(
        answers: impl Fn(&Root, usize, &SignCertificateRequest) -> Result<SignCertificateResponse, Status>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        let (root, stop) = (Root::new("root"), CancellationToken::new());
        let anchors = AnchorSource::Static(root.certificate.clone());
        let own = signed_by(TestAuthority::for_id(sentry_id(), &root), anchors, &stop).await;
        let listener = listen(&own, ClientAuth::None, Limits::default()).await;
        let asked = Arc::default();
        let signing = root.clone();
        let sentry = Sentry {
            answers: Box::new(move |number, message| answers(&signing, number, message)),
            asked: Arc::clone(&asked),
        };
        let address = run(CaServer::new(sentry), listener, &stop);
        Self {
            root,
            address,
            asked,
            stop,
        }
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            trust_domain: TrustDomain::new("cluster.local").unwrap(),
            control_plane_namespace: "dapr-system".into(),
            app_id: "cart".into(),
            namespace: "shop".into(),
            sentry_address: self.address.clone(),
            anchors: AnchorSource::Static(self.root.certificate.clone()),
            key: KeyAlgorithm::Ed25519,
            kubernetes: false,
            jwt_audiences: Vec::new(),
        }
    }

    /// What the task reports, as long as it runs.
    pub(crate) fn start(&self, renewal: Renewal) -> watch::Receiver<Vec<Health>> {
        let (sender, reports) = watch::channel(Vec::new());
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let report = move |status| sender.send_modify(|all: &mut Vec<_>| all.push(status));
            renewal.run(report, stop).await.unwrap();
        });
        reports
    }

    pub(crate) async fn identity(&self, options: Options) -> Identity {
        let (identity, renewal) = Identity::new(options).unwrap();
        self.start(renewal);
        in_time(identity.ready()).await;
        identity
    }
}

pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap()
}

/// Signs for who asks, valid for so long from now.
pub(crate) fn signed(root: &Root, message: &SignCertificateRequest, valid: Duration) -> SignCertificateResponse {
    let csr = String::from_utf8(message.certificate_signing_request.to_vec()).unwrap();
    let csr = CertificateSigningRequestParams::from_pem(&csr).unwrap();
    let mut leaf = root.leaf(&format!("spiffe://public/ns/{}/{}", message.namespace, message.id));
    leaf.not_before = OffsetDateTime::now_utc();
    leaf.not_after = leaf.not_before + valid;
    SignCertificateResponse {
        workload_certificate: root.sign(&leaf, &csr.public_key).pem().into_bytes().into(),
        valid_until: Some((SystemTime::now() + valid).into()),
        ..Default::default()
    }
}

pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);
