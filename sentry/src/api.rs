//! The gRPC service: validate, look at the request, sign.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use outrigger_core::{SpiffeId, text::shortened};
use outrigger_identity::Peer;
use outrigger_proto::sentry::{
    SignCertificateRequest, SignCertificateResponse, ca_server::Ca, sign_certificate_request::TokenValidator,
};
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use crate::{
    args::Policy,
    bundle::Current,
    ca::{Authority, Leaf, PublicKey, Signed},
    jwt::{
        CurrentMinter,
        issue::{MAX_AUDIENCES, Tokens},
    },
    metrics::Metrics,
    names::Names,
    settings::LiveSettings,
    validate::{self, Refusal, Validated, Validators},
};

/// Requests are a CSR and a token, some kilobytes each. Anybody may send one, so there is a bound far below gRPC's.
pub(crate) const MAX_REQUEST: usize = 128 * 1024;
/// Names that a caller has sent are logged up to this length, and what is said about them up to a longer one.
const MAX_LOGGED: usize = 64;
const MAX_REASON: usize = 512;

/// Answers `SignCertificate`.
pub(crate) struct Api {
    pub(crate) current: Current,
    pub(crate) minter: CurrentMinter,
    /// Tokens are signed by this many threads at most.
    pub(crate) minting: Semaphore,
    pub(crate) validators: Arc<Validators>,
    pub(crate) settings: LiveSettings,
    pub(crate) names: Names,
    pub(crate) policy: Policy,
    pub(crate) metrics: Metrics,
}

/// Why a request was not answered, and the metric's word for it.
struct Failure {
    reason: &'static str,
    status: Status,
}

impl Failure {
    fn new(reason: &'static str, status: Status) -> Self {
        Self { reason, status }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::Invalid(_) => Self::new("validator", Status::invalid_argument(text)),
            Refusal::Denied(_) => Self::new("denied", Status::permission_denied(text)),
            Refusal::Unavailable(_) => Self::new("unavailable", Status::unavailable(text)),
        }
    }
}

/// What was signed, for the log.
struct Answer {
    response: SignCertificateResponse,
    id: SpiffeId,
    not_after: OffsetDateTime,
}

impl Api {
    async fn answer(
        &self,
        validator: TokenValidator,
        request: &SignCertificateRequest,
        local: bool,
    ) -> Result<Answer, Failure> {
        let Validated { trust_domain, images } = self.validators.validate(validator, request, local).await?;
        let key = PublicKey::from_request(&request.certificate_signing_request)
            .map_err(|error| Failure::new("csr", Status::invalid_argument(error.to_string())))?;
        let authority = self.current.get();
        let authority = authority
            .ok_or_else(|| Failure::new("unavailable", Status::unavailable("no certificate authority yet")))?;
        let cannot_sign = || Failure::new("sign", Status::internal("failed to sign certificate"));
        let id = SpiffeId::new(trust_domain, &request.namespace, &request.id).map_err(|error| {
            tracing::error!(
                error = shortened(error.to_string(), MAX_REASON),
                "no SPIFFE id can be made"
            );
            cannot_sign()
        })?;
        if self.policy.denied.contains(&id) {
            let text = format!("{id} gets no certificate: it is one of --denied-ids");
            return Err(Failure::new("denied", Status::permission_denied(text)));
        }
        let settings = self.settings.get();
        let leaf = Leaf {
            id: id.clone(),
            dns_names: self.names.of(&request.id, &request.namespace),
            ttl: settings.ttl,
            skew: settings.skew,
            images,
        };
        let signed = authority
            .sign(&leaf, &key, OffsetDateTime::now_utc())
            .map_err(|error| {
                tracing::error!(%id, error = format!("{:#}", anyhow::Error::from(error)), "cannot sign");
                cannot_sign()
            })?;
        let not_after = signed.not_after;
        let tokens = self.tokens(&id, &request.jwt_audiences).await?;
        Ok(Answer {
            response: response(&authority, signed, tokens),
            id,
            not_after,
        })
    }

    /// `None` while JWT-SVIDs are off.
    async fn tokens(&self, id: &SpiffeId, audiences: &[String]) -> Result<Option<Tokens>, Failure> {
        let Some(minter) = self.minter.load_full() else {
            return Ok(None);
        };
        if audiences.len() > MAX_AUDIENCES {
            let text = format!(
                "jwt_audiences: found {}, expected at most {MAX_AUDIENCES}",
                audiences.len()
            );
            return Err(Failure::new("jwt", Status::invalid_argument(text)));
        }
        let skew = self.settings.get().skew;
        let minted = minter
            .mint_aside(&self.minting, id.clone(), audiences.to_vec(), skew)
            .await;
        minted.map(Some).map_err(|error| {
            tracing::error!(%id, %error, "cannot sign a JWT");
            Failure::new("jwt", Status::internal(error.to_string()))
        })
    }

    /// Counts, logs and answers.
    fn report(
        &self,
        request: &SignCertificateRequest,
        validator: TokenValidator,
        took: Duration,
        result: Result<Answer, Failure>,
    ) -> Result<SignCertificateResponse, Status> {
        let validator = validate::name(validator);
        match result {
            Ok(Answer {
                response,
                id,
                not_after,
            }) => {
                self.metrics.signed(validator, took);
                tracing::info!(%id, validator, expires = %not_after, jwt = response.jwt.is_some(), "certificate signed");
                Ok(response)
            }
            Err(Failure { reason, status }) => {
                self.metrics.failed(validator, reason, took);
                tracing::warn!(
                    app_id = shortened(request.id.clone(), MAX_LOGGED),
                    namespace = shortened(request.namespace.clone(), MAX_LOGGED),
                    validator,
                    code = ?status.code(),
                    reason = shortened(status.message().to_owned(), MAX_REASON),
                    "certificate not signed"
                );
                Err(status)
            }
        }
    }
}

fn response(authority: &Authority, signed: Signed, tokens: Option<Tokens>) -> SignCertificateResponse {
    let (jwt, per_audience_jwts) = match tokens {
        None => (None, Default::default()),
        Some(Tokens { base, per_audience }) => (Some(base), per_audience.into_iter().collect()),
    };
    SignCertificateResponse {
        workload_certificate: signed.chain_pem.into_bytes().into(),
        trust_chain_certificates: vec![authority.anchors_pem().as_bytes().to_vec().into()],
        valid_until: Some(prost_types::Timestamp {
            seconds: signed.not_after.unix_timestamp(),
            nanos: 0,
        }),
        jwt,
        per_audience_jwts,
    }
}

#[tonic::async_trait]
impl Ca for Api {
    async fn sign_certificate(
        &self,
        request: Request<SignCertificateRequest>,
    ) -> Result<Response<SignCertificateResponse>, Status> {
        let local = request
            .extensions()
            .get::<Peer>()
            .is_some_and(|peer| peer.addr.ip().to_canonical().is_loopback());
        let request = request.into_inner();
        self.metrics.requests.inc();
        let started = Instant::now();
        let (validator, result) = match self.validators.choose(request.token_validator) {
            Ok(validator) => (validator, self.answer(validator, &request, local).await),
            Err(refusal) => (TokenValidator::Unknown, Err(refusal.into())),
        };
        self.report(&request, validator, started.elapsed(), result)
            .map(Response::new)
    }
}
