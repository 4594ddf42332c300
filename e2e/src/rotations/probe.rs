//! A workload's identity that opens a new connection for every call.

use std::{future::Future, path::PathBuf, pin::Pin, sync::Arc, time::SystemTime};

use anyhow::Context;
use outrigger_core::SpiffeId;
use outrigger_identity::{
    AnchorSource, Anchors, Expect, FetchError, Identity, Issued, Issuer, KeyAlgorithm, SigningRequest,
    anonymous_channel,
};
use outrigger_proto::sentry::{SignCertificateRequest, ca_client::CaClient, sign_certificate_request::TokenValidator};
use outrigger_testkit::Anyone;
use rustls::{ClientConfig, crypto::aws_lc_rs::default_provider};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::stage::Stage;

/// Who is called.
pub(super) struct Target {
    pub(super) kind: &'static str,
    pub(super) address: String,
    pub(super) expect: Expect,
}

pub(super) struct Probe {
    identity: Identity,
}

/// Gets certificates from sentry with a pod's token.
struct Workload {
    sentry: (String, SpiffeId),
    app_id: String,
    namespace: String,
    token: String,
}

impl Workload {
    async fn sign(&self, request: SigningRequest) -> Result<Issued, FetchError> {
        let failed = |status: Status| FetchError::Response(status.to_string());
        let (address, id) = &self.sentry;
        let channel = anonymous_channel(address, &request.anchors, &Expect::Id(id.clone()))
            .await
            .map_err(|error| FetchError::Response(error.to_string()))?;
        let message = SignCertificateRequest {
            id: self.app_id.clone(),
            namespace: self.namespace.clone(),
            token: self.token.clone(),
            token_validator: TokenValidator::Kubernetes.into(),
            certificate_signing_request: request.csr.into_bytes().into(),
            ..Default::default()
        };
        let answer = CaClient::new(channel).sign_certificate(message).await.map_err(failed)?;
        Ok(Issued {
            chain: answer.into_inner().workload_certificate.to_vec(),
            ..Issued::default()
        })
    }
}

impl Issuer for Workload {
    fn issue(&self, request: SigningRequest) -> Pin<Box<dyn Future<Output = Result<Issued, FetchError>> + Send + '_>> {
        Box::pin(self.sign(request))
    }
}

impl Probe {
    /// With a file it follows that, beside the first anchors.
    pub(super) async fn new(
        stage: &Stage,
        file: Option<PathBuf>,
        first: &str,
        stop: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let pem = first.to_owned();
        let anchors = match file {
            Some(file) => AnchorSource::StaticAndFile { pem, file },
            None => AnchorSource::Static(pem),
        };
        let (app_id, namespace, token) = stage.probe_pod().await?;
        let issuer = Workload {
            sentry: stage.sentry()?,
            app_id,
            namespace,
            token,
        };
        let (identity, renewal) = Identity::with_issuer(anchors, KeyAlgorithm::Ed25519, Arc::new(issuer))?;
        tokio::spawn(renewal.run(|_| {}, stop.clone()));
        identity.ready().await;
        Ok(Self { identity })
    }

    /// Calls something that the target does not serve: its answer shows that the handshake succeeded.
    pub(super) async fn shake_hands(&self, target: &Target) -> anyhow::Result<()> {
        let channel = self.identity.channel(&target.address, target.expect.clone())?;
        match CaClient::new(channel)
            .sign_certificate(SignCertificateRequest::default())
            .await
        {
            Err(status) if status.code() == Code::Unavailable => Err(status).context(target.address.clone()),
            _ => Ok(()),
        }
    }
}

/// The algorithm of the key in the certificate that a server shows to anybody, as an object identifier.
pub(super) async fn serving_key(address: &str) -> anyhow::Result<String> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(address).await?;
    let connected = TlsConnector::from(Arc::new(config)).connect("localhost".try_into()?, tcp);
    // The server may want a certificate, and says so only after this.
    let connected = connected.await?;
    let shown = connected.get_ref().1.peer_certificates();
    let leaf = shown.and_then(<[_]>::first).context("no certificate")?;
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf)?;
    Ok(certificate.public_key().algorithm.algorithm.to_id_string())
}

/// When the first of these anchors expires.
pub(super) fn expiry(anchors: &str) -> anyhow::Result<SystemTime> {
    let anchors = Anchors::from_pem(anchors)?;
    let der = anchors.certificates().next().context("no anchors")?;
    let (_, certificate) = x509_parser::parse_x509_certificate(der)?;
    Ok(SystemTime::from(certificate.validity().not_after.to_datetime()))
}
