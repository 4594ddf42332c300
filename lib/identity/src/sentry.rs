//! Getting a certificate: from sentry over gRPC, or from whoever else implements [`Issuer`] (sentry itself, tests).

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use outrigger_core::{SpiffeId, TrustDomain, control_plane::Service};
use outrigger_proto::sentry::{SignCertificateRequest, ca_client::CaClient};

use crate::{
    anchors::Anchors,
    channel,
    error::{Error, FetchError, chain},
    token::TokenSource,
    verify::Expect,
};

/// One try of the signing call; upstream's deadline.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// What an issuer is asked to sign.
#[derive(Debug, Clone)]
pub struct SigningRequest {
    /// PEM of the PKCS#10 request.
    pub csr: String,
    /// Anchors of the moment, to verify the issuer with.
    pub anchors: Arc<Anchors>,
}

/// What an issuer answers.
#[derive(Debug, Clone)]
pub struct Issued {
    /// PEM: leaf first, then the issuer chain.
    pub chain: Vec<u8>,
}

/// Signs certificate requests for the process's own identity.
pub trait Issuer: Send + Sync + 'static {
    fn issue(&self, request: SigningRequest) -> Pin<Box<dyn Future<Output = Result<Issued, FetchError>> + Send + '_>>;

    /// Waits until the certificate issued last should be replaced before its time. Sentry does not tell its clients.
    fn superseded(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::pending())
    }
}

/// Asks sentry, over a fresh connection for each certificate.
pub(crate) struct SentryClient {
    pub(crate) address: String,
    pub(crate) expect: SpiffeId,
    pub(crate) id: String,
    pub(crate) namespace: String,
    /// Only control-plane processes in the control plane's namespace name a trust domain; sentry decides for apps.
    pub(crate) trust_domain: String,
    pub(crate) token: TokenSource,
    pub(crate) jwt_audiences: Vec<String>,
}

impl SentryClient {
    pub(crate) fn new(options: &crate::Options) -> Result<Self, Error> {
        let expect = Service::Sentry.spiffe_id(&options.trust_domain, &options.control_plane_namespace)?;
        channel::endpoint(&options.sentry_address, channel::SLOW_KEEPALIVE)?;
        Ok(Self {
            address: options.sentry_address.clone(),
            expect,
            // Upstream lets this variable override the id that is asked for.
            id: std::env::var("SENTRY_LOCAL_IDENTITY")
                .ok()
                .filter(|id| !id.is_empty())
                .unwrap_or_else(|| options.app_id.clone()),
            namespace: options.namespace.clone(),
            trust_domain: requested_trust_domain(&options.trust_domain, options),
            token: TokenSource::from_environment(options.kubernetes),
            jwt_audiences: options.jwt_audiences.clone(),
        })
    }

    async fn sign(&self, request: SigningRequest) -> Result<Issued, FetchError> {
        let unreachable = |reason: String| FetchError::Connect {
            address: self.address.clone(),
            reason,
        };
        let channel = channel::anonymous_channel(&self.address, &request.anchors, &Expect::Id(self.expect.clone()))
            .await
            .map_err(|error| unreachable(chain(&error)))?;
        // Read last: a projected token may have been rotated while we waited for the connection.
        let token = self.token.read()?;
        let message = SignCertificateRequest {
            id: self.id.clone(),
            token: token.token,
            trust_domain: self.trust_domain.clone(),
            namespace: self.namespace.clone(),
            certificate_signing_request: request.csr.into_bytes().into(),
            token_validator: token.validator.into(),
            jwt_audiences: self.jwt_audiences.clone(),
        };
        let mut client = CaClient::new(channel);
        match tokio::time::timeout(CALL_TIMEOUT, client.sign_certificate(message)).await {
            Ok(Ok(response)) => {
                let response = response.into_inner();
                if response.valid_until.is_none() {
                    return Err(FetchError::Response("valid_until is missing".to_owned()));
                }
                Ok(Issued {
                    chain: response.workload_certificate.to_vec(),
                })
            }
            Ok(Err(status)) => Err(FetchError::Sign {
                code: status.code(),
                message: status.message().to_owned(),
            }),
            Err(_) => Err(FetchError::Sign {
                code: tonic::Code::DeadlineExceeded,
                message: format!("no answer within {} s", CALL_TIMEOUT.as_secs()),
            }),
        }
    }
}

fn requested_trust_domain(trust_domain: &TrustDomain, options: &crate::Options) -> String {
    let control_plane =
        Service::from_app_id(&options.app_id).is_some() && options.namespace == options.control_plane_namespace;
    if control_plane {
        trust_domain.to_string()
    } else {
        String::new()
    }
}

impl Issuer for SentryClient {
    fn issue(&self, request: SigningRequest) -> Pin<Box<dyn Future<Output = Result<Issued, FetchError>> + Send + '_>> {
        Box::pin(self.sign(request))
    }
}
