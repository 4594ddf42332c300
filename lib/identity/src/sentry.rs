//! Getting a certificate: from sentry over gRPC, or from whoever else implements [`Issuer`] (sentry itself, tests).

use std::{collections::HashMap, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use outrigger_core::{SpiffeId, TrustDomain, backoff::Backoff, control_plane::Service, text::chain};
use outrigger_proto::sentry::{SignCertificateRequest, SignCertificateResponse, ca_client::CaClient};
use tonic::transport::Channel;

use crate::{
    anchors::Anchors,
    channel,
    error::{Error, FetchError},
    pem,
    token::TokenSource,
    verify::{self, Expect},
};

/// One try of the signing call; upstream's deadline.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// Tries over one connection, as upstream has them.
const ATTEMPTS: u32 = 5;
/// Between those. Upstream waits 50 ms each time, which a sentry under load would feel.
const PAUSE: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
/// Tells sentry which retry a request is; the spelling is upstream's.
const RETRY_HEADER: &str = "x-retry-attempty";

/// What an issuer is asked to sign.
#[derive(Debug, Clone)]
pub struct SigningRequest {
    /// PEM of the PKCS#10 request.
    pub csr: String,
    /// Anchors of the moment, to verify the issuer with.
    pub anchors: Arc<Anchors>,
}

/// What an issuer answers.
#[derive(Clone, Default)]
pub struct Issued {
    /// PEM: leaf first, then the issuer chain.
    pub chain: Vec<u8>,
    /// A JWT-SVID for the trust domain and all audiences asked for.
    pub jwt: Option<String>,
    /// JWT-SVIDs for one audience each.
    pub per_audience_jwts: HashMap<String, String>,
}

impl fmt::Debug for Issued {
    /// Never shows tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued")
            .field("chain", &String::from_utf8_lossy(&self.chain))
            .finish_non_exhaustive()
    }
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
            token: TokenSource::from_environment(options.kubernetes)?,
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
        let mut pause = PAUSE;
        for attempt in 0..ATTEMPTS - 1 {
            match call(&mut client, &message, attempt).await {
                Err(error) if error.is_transient() => {
                    tracing::debug!(attempt, %error, "sentry cannot sign now; asking again");
                    tokio::time::sleep(pause.next_pause()).await;
                }
                result => return result.and_then(|response| self.read(response)),
            }
        }
        self.read(call(&mut client, &message, ATTEMPTS - 1).await?)
    }

    fn read(&self, response: SignCertificateResponse) -> Result<Issued, FetchError> {
        let legal = |time: &prost_types::Timestamp| time.seconds > 0 && (0..1_000_000_000).contains(&time.nanos);
        if !response.valid_until.as_ref().is_some_and(legal) {
            return Err(FetchError::Timestamp);
        }
        self.compare(&response.workload_certificate);
        Ok(Issued {
            chain: response.workload_certificate.to_vec(),
            jwt: response.jwt.filter(|jwt| !jwt.is_empty()),
            per_audience_jwts: response.per_audience_jwts,
        })
    }

    /// Sentry decides who we are. When that is somebody else than we asked for, our peers will refuse us: say so.
    fn compare(&self, chain: &[u8]) {
        let Ok(chain) = pem::certificates(chain) else { return };
        let Some(id) = chain.first().and_then(|leaf| verify::spiffe_id_of(leaf).ok()) else {
            return;
        };
        let is_ours =
            |found: outrigger_core::spiffe::Workload<'_>| found.namespace == self.namespace && found.app_id == self.id;
        if !id.workload().is_some_and(is_ours) {
            tracing::warn!(%id, asked = format!("{}/{}", self.namespace, self.id), "sentry issued another identity than asked for");
        }
    }
}

/// One attempt, counted from 0.
async fn call(
    client: &mut CaClient<Channel>,
    message: &SignCertificateRequest,
    attempt: u32,
) -> Result<SignCertificateResponse, FetchError> {
    let mut request = tonic::Request::new(message.clone());
    // Sentry hears when we give up and does not work for nobody.
    request.set_timeout(CALL_TIMEOUT);
    if attempt > 0 {
        request.metadata_mut().insert(RETRY_HEADER, attempt.into());
    }
    match tokio::time::timeout(CALL_TIMEOUT, client.sign_certificate(request)).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
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
