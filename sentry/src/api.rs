//! The gRPC service: validate, look at the request, sign.

use std::{sync::Arc, time::Instant};

use outrigger_core::{SpiffeId, TrustDomain};
use outrigger_proto::sentry::{SignCertificateRequest, SignCertificateResponse, ca_server::Ca};
use time::OffsetDateTime;
use tonic::{Request, Response, Status};

use crate::{
    bundle::Current,
    ca::{Authority, Leaf, PublicKey, Signed},
    metrics::Metrics,
    names::dns_names,
    settings::Settings,
    validate::{Refusal, Validated, Validators},
};

/// Answers `SignCertificate`.
pub(crate) struct Api {
    pub(crate) current: Current,
    pub(crate) validators: Arc<Validators>,
    pub(crate) settings: Settings,
    pub(crate) namespace: String,
    pub(crate) cluster_domain: String,
    pub(crate) metrics: Metrics,
}

impl Api {
    async fn sign(&self, request: &SignCertificateRequest) -> Result<SignCertificateResponse, Status> {
        let Validated { trust_domain, images } =
            self.validators
                .validate(request)
                .await
                .map_err(|refusal| match refusal {
                    Refusal::Invalid(_) => Status::invalid_argument(refusal.to_string()),
                    Refusal::Denied(_) => Status::permission_denied(refusal.to_string()),
                    Refusal::Unavailable(_) => Status::unavailable(refusal.to_string()),
                })?;
        let key = PublicKey::from_request(&request.certificate_signing_request)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let authority = self
            .current
            .get()
            .ok_or_else(|| Status::unavailable("no certificate authority yet"))?;
        let leaf = self.leaf(trust_domain, request, images)?;
        let signed = sign_leaf(&authority, &leaf, &key)?;
        Ok(response(&authority, signed))
    }

    fn leaf(
        &self,
        trust_domain: TrustDomain,
        request: &SignCertificateRequest,
        images: Vec<crate::ca::ContainerImage>,
    ) -> Result<Leaf, Status> {
        let id = SpiffeId::new(trust_domain, &request.namespace, &request.id).map_err(|error| {
            tracing::error!(app_id = request.id, namespace = request.namespace, %error, "no SPIFFE id can be made");
            Status::internal("failed to sign certificate")
        })?;
        let dns_names = dns_names(&request.id, &request.namespace, &self.namespace, &self.cluster_domain);
        Ok(Leaf {
            id,
            dns_names,
            ttl: self.settings.ttl,
            skew: self.settings.skew,
            images,
        })
    }
}

fn sign_leaf(authority: &Authority, leaf: &Leaf, key: &PublicKey) -> Result<Signed, Status> {
    authority.sign(leaf, key, OffsetDateTime::now_utc()).map_err(|error| {
        tracing::error!(id = %leaf.id, %error, "cannot sign");
        Status::internal("failed to sign certificate")
    })
}

fn response(authority: &Authority, signed: Signed) -> SignCertificateResponse {
    SignCertificateResponse {
        workload_certificate: signed.chain_pem.into_bytes().into(),
        trust_chain_certificates: vec![authority.anchors_pem().as_bytes().to_vec().into()],
        valid_until: Some(prost_types::Timestamp {
            seconds: signed.not_after.unix_timestamp(),
            nanos: 0,
        }),
        jwt: None,
        per_audience_jwts: Default::default(),
    }
}

#[tonic::async_trait]
impl Ca for Api {
    async fn sign_certificate(
        &self,
        request: Request<SignCertificateRequest>,
    ) -> Result<Response<SignCertificateResponse>, Status> {
        let request = request.into_inner();
        self.metrics.requests.inc();
        let started = Instant::now();
        let result = self.sign(&request).await;
        let outcome = match &result {
            Ok(_) => {
                self.metrics.signed.inc();
                tracing::debug!(app_id = request.id, namespace = request.namespace, "certificate signed");
                "signed"
            }
            Err(status) => {
                self.metrics.failed();
                tracing::warn!(
                    app_id = request.id,
                    namespace = request.namespace,
                    code = ?status.code(),
                    reason = status.message(),
                    "certificate not signed"
                );
                if status.code() == tonic::Code::Unavailable {
                    "unavailable"
                } else {
                    "refused"
                }
            }
        };
        let labels = [self.validators.name(), outcome];
        self.metrics
            .duration
            .with_label_values(&labels)
            .observe(started.elapsed().as_secs_f64());
        result.map(Response::new)
    }
}
