//! A certificate authority, identities that it signs for, and a server that says who calls.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use outrigger_core::{SpiffeId, TrustDomain};
use outrigger_identity::{
    AnchorSource, ClientAuth, Expect, FetchError, Identity, Issued, Issuer, KeyAlgorithm, Limits, Listener, Peer,
    SigningRequest, Status,
};
use outrigger_proto::sentry::{
    SignCertificateRequest, SignCertificateResponse,
    ca_client::CaClient,
    ca_server::{Ca, CaServer},
};
use parking_lot::Mutex;
use rcgen::{CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, IsCa, KeyPair, SanType};
use tokio::{net::TcpListener, sync::Notify};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response};

/// A root that signs leaves for one SPIFFE id. Can be replaced, as a rotation does.
pub(crate) struct TestAuthority {
    id: SpiffeId,
    pub(crate) root: Mutex<Root>,
    pub(crate) replaced: Notify,
}

impl TestAuthority {
    pub(crate) fn new(app: &str, root: &Root) -> Arc<Self> {
        Self::for_id(id(app), root)
    }

    pub(crate) fn for_id(id: SpiffeId, root: &Root) -> Arc<Self> {
        Arc::new(Self {
            id,
            root: Mutex::new(root.clone()),
            replaced: Notify::new(),
        })
    }
}

#[derive(Clone)]
pub(crate) struct Root {
    pub(crate) certificate: String,
    key: Arc<KeyPair>,
}

impl Root {
    pub(crate) fn new(name: &str) -> Self {
        Self::changed(name, |_| {})
    }

    /// With other properties than usual.
    pub(crate) fn changed(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, name);
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        change(&mut params);
        Self {
            certificate: params.self_signed(&key).unwrap().pem(),
            key: Arc::new(key),
        }
    }

    /// A leaf with no key usage of either kind.
    pub(crate) fn leaf(&self, uri: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params
    }

    pub(crate) fn sign(&self, params: &CertificateParams, key: &impl rcgen::PublicKeyData) -> rcgen::Certificate {
        let issuer = rcgen::Issuer::from_ca_cert_pem(&self.certificate, &*self.key).unwrap();
        params.signed_by(key, &issuer).unwrap()
    }
}

impl Issuer for TestAuthority {
    fn issue(&self, request: SigningRequest) -> Pin<Box<dyn Future<Output = Result<Issued, FetchError>> + Send + '_>> {
        let root = self.root.lock().clone();
        let csr = CertificateSigningRequestParams::from_pem(&request.csr).unwrap();
        let leaf = root.sign(&root.leaf(&self.id.to_string()), &csr.public_key);
        Box::pin(std::future::ready(Ok(Issued {
            chain: leaf.pem().into_bytes(),
            ..Issued::default()
        })))
    }

    fn superseded(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.replaced.notified())
    }
}

pub(crate) fn id(app: &str) -> SpiffeId {
    SpiffeId::new(TrustDomain::new("public").unwrap(), "shop", app).unwrap()
}

/// An identity that is ready.
pub(crate) async fn identity(app: &str, root: &Root, anchors: AnchorSource, stop: &CancellationToken) -> Identity {
    signed_by(TestAuthority::new(app, root), anchors, stop).await
}

pub(crate) async fn signed_by(
    authority: Arc<TestAuthority>,
    anchors: AnchorSource,
    stop: &CancellationToken,
) -> Identity {
    let (identity, renewal) = Identity::with_issuer(anchors, KeyAlgorithm::Ed25519, authority).unwrap();
    let stop = stop.clone();
    tokio::spawn(async move {
        renewal
            .run(|status| assert_eq!(status, Status::Ready), stop)
            .await
            .unwrap();
    });
    identity.ready().await;
    identity
}

/// Answers with the id of its caller.
pub(crate) struct WhoAmI;

#[tonic::async_trait]
impl Ca for WhoAmI {
    async fn sign_certificate(
        &self,
        request: Request<SignCertificateRequest>,
    ) -> Result<Response<SignCertificateResponse>, tonic::Status> {
        let peer = request.extensions().get::<Peer>().and_then(|peer| peer.id.clone());
        let text = peer.map(|id| id.to_string()).unwrap_or_default();
        Ok(Response::new(SignCertificateResponse {
            workload_certificate: text.into_bytes().into(),
            ..Default::default()
        }))
    }
}

pub(crate) async fn serve(identity: &Identity, stop: &CancellationToken) -> String {
    serve_as(identity, ClientAuth::Required, stop).await
}

pub(crate) async fn serve_as(identity: &Identity, auth: ClientAuth, stop: &CancellationToken) -> String {
    let limits = Limits {
        handshakes: 4,
        timeout: Duration::from_secs(60),
        ..Limits::default()
    };
    run(CaServer::new(WhoAmI), listen(identity, auth, limits).await, stop)
}

pub(crate) async fn listen(identity: &Identity, auth: ClientAuth, limits: Limits) -> Listener {
    let tcp = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    Listener::tls(tcp, identity.server_tls(auth, &[b"h2"]), limits).unwrap()
}

/// Without TLS.
pub(crate) async fn serve_plain(stop: &CancellationToken) -> String {
    let tcp = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    run(CaServer::new(WhoAmI), Listener::plain(tcp).unwrap(), stop)
}

/// Serves until `stop`; returns the address.
pub(crate) fn run<C: Ca>(service: CaServer<C>, listener: Listener, stop: &CancellationToken) -> String {
    let address = listener.local_addr().to_string();
    let stop = stop.clone();
    tokio::spawn(async move {
        let server = tonic::transport::Server::builder().add_service(service);
        server
            .serve_with_incoming_shutdown(listener, stop.cancelled_owned())
            .await
            .unwrap();
    });
    address
}

/// The caller's id as the server sees it, or why the call failed.
pub(crate) async fn ask(client: &Identity, address: &str, expect: Expect) -> Result<String, String> {
    let mut client = CaClient::new(client.channel(address, expect).unwrap());
    let answer = client.sign_certificate(SignCertificateRequest::default()).await;
    answer
        .map(|answer| String::from_utf8(answer.into_inner().workload_certificate.to_vec()).unwrap())
        .map_err(|status| {
            let source = std::error::Error::source(&status)
                .map(|source| format!("{source:?}"))
                .unwrap_or_default();
            format!("{status} {source}")
        })
}
