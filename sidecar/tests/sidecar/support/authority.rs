//! A certificate authority that serves as sentry.

use std::{future::Future, pin::Pin, sync::Arc};

use outrigger_core::{SpiffeId, TrustDomain};
use outrigger_identity::{
    AnchorSource, ClientAuth, FetchError, Identity, Issued, Issuer, KeyAlgorithm, Limits, Listener, SigningRequest,
};
use outrigger_proto::sentry::{
    SignCertificateRequest, SignCertificateResponse,
    ca_server::{Ca, CaServer},
};
use rcgen::{CertificateParams, CertificateSigningRequestParams, DistinguishedName, IsCa, KeyPair, SanType};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// Trust domain and namespace of the control plane in tests.
pub const CONTROL_PLANE: (&str, &str) = ("cluster.test", "dapr-system");

/// A root key and everything signed with it.
#[derive(Clone)]
pub struct Authority {
    root: Arc<(String, KeyPair)>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().pem();
        Self {
            root: Arc::new((certificate, key)),
        }
    }

    /// The root's certificate.
    pub fn anchors(&self) -> &str {
        &self.root.0
    }

    /// Serves the certificate authority's API until the test ends; returns its address.
    pub async fn serve(&self) -> String {
        let identity = self.control_plane("dapr-sentry").await;
        let (listener, address) = listen(&identity, ClientAuth::None).await;
        let server = tonic::transport::Server::builder().add_service(CaServer::new(self.clone()));
        tokio::spawn(async move { server.serve_with_incoming(listener).await.unwrap() });
        address
    }

    /// The identity of a process of the control plane.
    pub async fn control_plane(&self, app_id: &str) -> Identity {
        let (trust_domain, namespace) = CONTROL_PLANE;
        let id = SpiffeId::new(TrustDomain::new(trust_domain).unwrap(), namespace, app_id).unwrap();
        let issuer = Arc::new(Fixed {
            authority: self.clone(),
            id,
        });
        let anchors = AnchorSource::Static(self.anchors().to_owned());
        let (identity, renewal) = Identity::with_issuer(anchors, KeyAlgorithm::Ed25519, issuer).unwrap();
        tokio::spawn(async move { renewal.run(|_| {}, CancellationToken::new()).await.unwrap() });
        identity.ready().await;
        identity
    }

    fn sign(&self, csr: &str, id: &SpiffeId) -> String {
        let issuer = rcgen::Issuer::from_ca_cert_pem(&self.root.0, &self.root.1).unwrap();
        let csr = CertificateSigningRequestParams::from_pem(csr).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.to_string().try_into().unwrap())];
        params.signed_by(&csr.public_key, &issuer).unwrap().pem()
    }
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

#[tonic::async_trait]
impl Ca for Authority {
    async fn sign_certificate(
        &self,
        request: Request<SignCertificateRequest>,
    ) -> Result<Response<SignCertificateResponse>, Status> {
        let request = request.into_inner();
        let id = SpiffeId::new(TrustDomain::new("public").unwrap(), &request.namespace, &request.id)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let csr = String::from_utf8_lossy(&request.certificate_signing_request).into_owned();
        let hour_from_now = std::time::SystemTime::now() + std::time::Duration::from_secs(3600);
        Ok(Response::new(SignCertificateResponse {
            workload_certificate: self.sign(&csr, &id).into_bytes().into(),
            valid_until: Some(hour_from_now.into()),
            ..SignCertificateResponse::default()
        }))
    }
}

struct Fixed {
    authority: Authority,
    id: SpiffeId,
}

impl Issuer for Fixed {
    fn issue(&self, request: SigningRequest) -> Pin<Box<dyn Future<Output = Result<Issued, FetchError>> + Send + '_>> {
        let chain = self.authority.sign(&request.csr, &self.id).into_bytes();
        Box::pin(std::future::ready(Ok(Issued {
            chain,
            ..Issued::default()
        })))
    }
}
