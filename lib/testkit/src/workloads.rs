//! A certificate authority for workloads, which certifies whoever asks: identities for a test's own processes, bare
//! certificates for many clients, and sentry as far as the programs under test need it.

use std::{
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
};

use outrigger_core::{
    SpiffeId, TrustDomain,
    control_plane::{PUBLIC_TRUST_DOMAIN, SIDECAR_INJECTOR, Service},
};
use outrigger_identity::{
    AnchorSource, ClientAuth, FetchError, Identity, Issued, Issuer, KeyAlgorithm, Limits, Listener, SigningRequest,
};
use outrigger_proto::sentry::{
    SignCertificateRequest, SignCertificateResponse,
    ca_server::{Ca, CaServer},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DistinguishedName, IsCa,
    KeyPair, PKCS_ECDSA_P256_SHA256, SanType,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, transport::Server};

/// The authority; clones share it.
#[derive(Clone)]
pub struct Workloads {
    root: Arc<CertifiedIssuer<'static, KeyPair>>,
}

/// A client's certificate and key, DER.
pub struct Leaf {
    pub certificate: Vec<u8>,
    /// PKCS #8.
    pub key: Vec<u8>,
}

impl Workloads {
    /// A new authority.
    ///
    /// # Errors
    /// The certificate library's.
    pub fn new() -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        Ok(Self {
            root: Arc::new(CertifiedIssuer::self_signed(params, key)?),
        })
    }

    /// The trust anchors, PEM.
    pub fn anchors(&self) -> String {
        self.root.pem()
    }

    /// The trust anchor, DER.
    pub fn anchor(&self) -> Vec<u8> {
        self.root.der().to_vec()
    }

    /// A certificate with a key of its own.
    ///
    /// # Errors
    /// The certificate library's, as for an id that is no URI.
    pub fn leaf(&self, id: &SpiffeId) -> Result<Leaf, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = template(id)?.signed_by(&key, &*self.root)?;
        Ok(Leaf {
            certificate: certificate.der().to_vec(),
            key: key.serialize_der(),
        })
    }

    fn certify(&self, csr: &str, id: &SpiffeId) -> Result<Vec<u8>, rcgen::Error> {
        let csr = CertificateSigningRequestParams::from_pem(csr)?;
        let mut params = template(id)?;
        // A webhook in a test's own process is called by address, others by their Service.
        params
            .subject_alt_names
            .push(SanType::IpAddress(Ipv4Addr::LOCALHOST.into()));
        if let Some(name) = webhook_name(id) {
            params.subject_alt_names.push(SanType::DnsName(name.try_into()?));
        }
        let certificate = params.signed_by(&csr.public_key, &*self.root)?;
        Ok(certificate.pem().into_bytes())
    }

    /// A live identity for the test's own process.
    ///
    /// # Errors
    /// The identity library's.
    pub async fn identity(
        &self,
        id: SpiffeId,
        stop: &CancellationToken,
    ) -> Result<Identity, outrigger_identity::Error> {
        self.identity_from(self, KeyAlgorithm::Ed25519, id, stop).await
    }

    /// The same for somebody who trusts this authority and has its certificate from another one.
    ///
    /// # Errors
    /// The identity library's.
    pub async fn stranger(
        &self,
        issuer: &Self,
        id: SpiffeId,
        stop: &CancellationToken,
    ) -> Result<Identity, outrigger_identity::Error> {
        self.identity_from(issuer, KeyAlgorithm::Ed25519, id, stop).await
    }

    /// The same as [`Self::identity`] with a key as webhooks have it, which not every API server takes Ed25519 from.
    ///
    /// # Errors
    /// The identity library's.
    pub async fn webhook_identity(
        &self,
        id: SpiffeId,
        stop: &CancellationToken,
    ) -> Result<Identity, outrigger_identity::Error> {
        self.identity_from(self, KeyAlgorithm::Rsa2048, id, stop).await
    }

    async fn identity_from(
        &self,
        issuer: &Self,
        key: KeyAlgorithm,
        id: SpiffeId,
        stop: &CancellationToken,
    ) -> Result<Identity, outrigger_identity::Error> {
        let anchors = AnchorSource::Static(self.anchors());
        let issuer = Arc::new(Certified(issuer.clone(), id));
        let (identity, renewal) = Identity::with_issuer(anchors, key, issuer)?;
        tokio::spawn(renewal.run(|_| {}, stop.clone()));
        identity.ready().await;
        Ok(identity)
    }

    /// Serves sentry's API on loopback, as `id`, for as long as the runtime lives, and returns its address.
    ///
    /// # Errors
    /// When there is no free port, or no identity.
    pub async fn serve_sentry(&self, id: SpiffeId, stop: &CancellationToken) -> io::Result<SocketAddr> {
        let control_plane = id.trust_domain().clone();
        let identity = self.identity(id, stop).await.map_err(io::Error::other)?;
        let tcp = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = tcp.local_addr()?;
        let tls = identity.server_tls(ClientAuth::None, &[b"h2"]);
        let listener = Listener::tls(tcp, tls, Limits::default())?;
        let service = CaServer::new(Sentry(self.clone(), control_plane));
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(listener));
        Ok(address)
    }
}

fn template(id: &SpiffeId) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id.to_string().try_into()?)];
    Ok(params)
}

/// What the API server calls the webhook of a process of the control plane by.
fn webhook_name(id: &SpiffeId) -> Option<String> {
    let workload = id.workload()?;
    let service = match Service::from_app_id(workload.app_id)? {
        Service::Injector => SIDECAR_INJECTOR,
        Service::Operator => "dapr-webhook",
        _ => return None,
    };
    Some(format!("{service}.{}.svc", workload.namespace))
}

/// Gives the test's own process its identity.
struct Certified(Workloads, SpiffeId);

impl Issuer for Certified {
    fn issue(&self, request: SigningRequest) -> Pin<Box<dyn Future<Output = Result<Issued, FetchError>> + Send + '_>> {
        let chain = self.0.certify(&request.csr, &self.1).unwrap_or_default();
        let issued = Issued {
            chain,
            ..Issued::default()
        };
        Box::pin(std::future::ready(Ok(issued)))
    }
}

/// Believes whoever asks: processes of the control plane are of its trust domain, everybody else of the public one.
struct Sentry(Workloads, TrustDomain);

#[tonic::async_trait]
impl Ca for Sentry {
    async fn sign_certificate(
        &self,
        request: Request<SignCertificateRequest>,
    ) -> Result<Response<SignCertificateResponse>, Status> {
        let request = request.into_inner();
        let refused = |error: &dyn std::fmt::Display| Status::invalid_argument(error.to_string());
        let trust_domain = match Service::from_app_id(&request.id) {
            Some(_) => Ok(self.1.clone()),
            None => TrustDomain::new(PUBLIC_TRUST_DOMAIN),
        };
        let trust_domain = trust_domain.map_err(|error| refused(&error))?;
        let id = SpiffeId::new(trust_domain, &request.namespace, &request.id).map_err(|error| refused(&error))?;
        let csr = std::str::from_utf8(&request.certificate_signing_request).map_err(|error| refused(&error))?;
        let certificate = self.0.certify(csr, &id).map_err(|error| refused(&error))?;
        Ok(Response::new(SignCertificateResponse {
            workload_certificate: certificate.into(),
            valid_until: Some(std::time::SystemTime::now().into()),
            ..Default::default()
        }))
    }
}
