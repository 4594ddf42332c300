//! Servers and clients of live identities, against a certificate authority in the test.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

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
struct TestAuthority {
    id: SpiffeId,
    root: Mutex<Root>,
    replaced: Notify,
}

impl TestAuthority {
    fn new(app: &str, root: &Root) -> Arc<Self> {
        Arc::new(Self {
            id: id(app),
            root: Mutex::new(root.clone()),
            replaced: Notify::new(),
        })
    }
}

#[derive(Clone)]
struct Root {
    certificate: String,
    key: Arc<KeyPair>,
}

impl Root {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, name);
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self {
            certificate: params.self_signed(&key).unwrap().pem(),
            key: Arc::new(key),
        }
    }
}

impl Issuer for TestAuthority {
    fn issue(&self, request: SigningRequest) -> Pin<Box<dyn Future<Output = Result<Issued, FetchError>> + Send + '_>> {
        let root = self.root.lock().clone();
        let issuer = rcgen::Issuer::from_ca_cert_pem(&root.certificate, &*root.key).unwrap();
        let csr = CertificateSigningRequestParams::from_pem(&request.csr).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(self.id.to_string().try_into().unwrap())];
        let leaf = params.signed_by(&csr.public_key, &issuer).unwrap();
        Box::pin(std::future::ready(Ok(Issued {
            chain: leaf.pem().into_bytes(),
            ..Issued::default()
        })))
    }

    fn superseded(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.replaced.notified())
    }
}

fn id(app: &str) -> SpiffeId {
    SpiffeId::new(TrustDomain::new("public").unwrap(), "shop", app).unwrap()
}

/// An identity that is ready.
async fn identity(app: &str, root: &Root, anchors: AnchorSource, stop: &CancellationToken) -> Identity {
    signed_by(TestAuthority::new(app, root), anchors, stop).await
}

async fn signed_by(authority: Arc<TestAuthority>, anchors: AnchorSource, stop: &CancellationToken) -> Identity {
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
struct WhoAmI;

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

async fn serve(identity: &Identity, stop: &CancellationToken) -> String {
    let tcp = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = tcp.local_addr().unwrap().to_string();
    let tls = identity.server_tls(ClientAuth::Required, &[b"h2"]);
    let limits = Limits {
        handshakes: 4,
        timeout: Duration::from_secs(60),
    };
    let listener = Listener::tls(tcp, tls, limits).unwrap();
    let stop = stop.clone();
    tokio::spawn(async move {
        let server = tonic::transport::Server::builder().add_service(CaServer::new(WhoAmI));
        server
            .serve_with_incoming_shutdown(listener, stop.cancelled_owned())
            .await
            .unwrap();
    });
    address
}

/// The caller's id as the server sees it, or why the call failed.
async fn ask(client: &Identity, address: &str, expect: Expect) -> Result<String, String> {
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

#[tokio::test]
async fn both_sides_know_each_other() {
    let stop = CancellationToken::new();
    let root = Root::new("one");
    let anchors = || AnchorSource::Static(root.certificate.clone());
    let server = identity("cart", &root, anchors(), &stop).await;
    let client = identity("orders", &root, anchors(), &stop).await;
    let address = serve(&server, &stop).await;

    let workload = |app: &str| Expect::Workload {
        namespace: "shop".into(),
        app_id: app.into(),
    };
    assert_eq!(
        ask(&client, &address, Expect::Id(id("cart"))).await.unwrap(),
        "spiffe://public/ns/shop/orders"
    );
    assert!(
        ask(&client, &address, workload("cart")).await.is_ok(),
        "any trust domain will do"
    );

    let error = ask(&client, &address, Expect::Id(id("other"))).await.unwrap_err();
    assert!(error.contains("Unexpected") && error.contains("shop/cart"), "{error}");
    assert!(ask(&client, &address, workload("other")).await.is_err());
    stop.cancel();
}

#[tokio::test]
async fn strangers_are_refused() {
    let stop = CancellationToken::new();
    let (root, other) = (Root::new("one"), Root::new("two"));
    let server = identity("cart", &root, AnchorSource::Static(root.certificate.clone()), &stop).await;
    let address = serve(&server, &stop).await;
    // It trusts the server, but its own certificate comes from elsewhere.
    let stranger = identity("orders", &other, AnchorSource::Static(root.certificate.clone()), &stop).await;
    assert!(ask(&stranger, &address, Expect::Id(id("cart"))).await.is_err());
    stop.cancel();
}

#[tokio::test]
async fn silent_clients_hold_up_nobody() {
    let stop = CancellationToken::new();
    let root = Root::new("one");
    let anchors = || AnchorSource::Static(root.certificate.clone());
    let server = identity("cart", &root, anchors(), &stop).await;
    let address = serve(&server, &stop).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(tokio::net::TcpStream::connect(&address).await.unwrap());
    }
    let client = identity("orders", &root, anchors(), &stop).await;
    assert!(ask(&client, &address, Expect::Id(id("cart"))).await.is_ok());
    stop.cancel();
}

#[tokio::test]
async fn new_anchors_reach_the_next_handshake() {
    let stop = CancellationToken::new();
    let (old, new) = (Root::new("old"), Root::new("new"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.crt");
    std::fs::write(&file, &old.certificate).unwrap();

    let server = identity("cart", &old, AnchorSource::File(file.clone()), &stop).await;
    let address = serve(&server, &stop).await;
    let both = AnchorSource::Static(format!("{}{}", old.certificate, new.certificate));
    let client = identity("orders", &new, both, &stop).await;
    assert!(
        ask(&client, &address, Expect::Id(id("cart"))).await.is_err(),
        "the server does not know the new root yet"
    );

    let mut anchors = server.anchors();
    std::fs::write(&file, format!("{}{}", old.certificate, new.certificate)).unwrap();
    anchors
        .wait_for(|anchors| anchors.certificates().count() == 2)
        .await
        .unwrap();
    assert!(ask(&client, &address, Expect::Id(id("cart"))).await.is_ok());
    stop.cancel();
}

#[tokio::test]
async fn a_static_set_and_a_file_count_together() {
    let stop = CancellationToken::new();
    let (old, new) = (Root::new("old"), Root::new("new"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.crt");
    let source = AnchorSource::StaticAndFile {
        pem: old.certificate.clone(),
        file: file.clone(),
    };
    // The file does not exist yet, and nobody waits for it.
    let identity = identity("cart", &old, source, &stop).await;
    let mut anchors = identity.anchors();
    assert_eq!(anchors.borrow_and_update().certificates().count(), 1);
    std::fs::write(&file, &new.certificate).unwrap();
    anchors
        .wait_for(|anchors| anchors.certificates().count() == 2)
        .await
        .unwrap();
    stop.cancel();
}

#[tokio::test]
async fn a_replaced_authority_signs_anew_at_once() {
    let stop = CancellationToken::new();
    let (old, new) = (Root::new("old"), Root::new("new"));
    let authority = TestAuthority::new("cart", &old);
    let server = signed_by(authority.clone(), AnchorSource::Static(new.certificate.clone()), &stop).await;
    let address = serve(&server, &stop).await;
    let client = identity("orders", &new, AnchorSource::Static(new.certificate.clone()), &stop).await;
    assert!(ask(&client, &address, Expect::Id(id("cart"))).await.is_err());

    *authority.root.lock() = new;
    authority.replaced.notify_one();
    let wait = async { while ask(&client, &address, Expect::Id(id("cart"))).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
    stop.cancel();
}
