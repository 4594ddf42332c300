//! Validators decide whether a caller may have the identity it asks for.

mod cache;
mod configuration;
mod expected;
mod insecure;
mod jwks;
mod kubernetes;
mod pod;
mod review;
mod token;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use outrigger_core::{TrustDomain, control_plane::PUBLIC_TRUST_DOMAIN};
use outrigger_proto::sentry::{SignCertificateRequest, sign_certificate_request::TokenValidator};

pub(crate) use insecure::InsecureValidator;
pub(crate) use jwks::{JwksOptions, JwksValidator};
pub(crate) use kubernetes::KubernetesValidator;

use crate::ca::ContainerImage;

/// What a validator found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Validated {
    /// Trust domain of the identity.
    pub trust_domain: TrustDomain,
    pub images: Vec<ContainerImage>,
}

/// Why a request was not granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The request names no validator, or one that is off: a mistake of the caller.
    #[error("{0}")]
    Invalid(&'static str),
    /// The caller may not have this identity.
    #[error("{0}")]
    Denied(String),
    /// It could not be decided now; the caller should try again.
    #[error("{0}")]
    Unavailable(String),
}

/// The validators that are on.
#[derive(Default)]
pub(crate) struct Validators {
    pub(crate) insecure: Option<InsecureValidator>,
    pub(crate) kubernetes: Option<Box<KubernetesValidator>>,
    /// The Configuration may switch it on and off at any time.
    pub(crate) jwks: Arc<ArcSwapOption<JwksValidator>>,
}

impl Validators {
    /// The validator that a request means: the one it names, or the mode's default. The JWKS validator is nobody's default.
    ///
    /// # Errors
    /// When there is none, or it is off.
    pub(crate) fn choose(&self, asked: i32) -> Result<TokenValidator, Refusal> {
        let on = |validator: &TokenValidator| match validator {
            TokenValidator::Unknown => false,
            TokenValidator::Insecure => self.insecure.is_some(),
            TokenValidator::Kubernetes => self.kubernetes.is_some(),
            TokenValidator::Jwks => self.jwks.load().is_some(),
        };
        if asked == i32::from(TokenValidator::Unknown) {
            let default = [TokenValidator::Kubernetes, TokenValidator::Insecure]
                .into_iter()
                .find(on);
            return default.ok_or(Refusal::Invalid(
                "a validator name must be specified in this environment",
            ));
        }
        let chosen = TokenValidator::try_from(asked).ok().filter(on);
        chosen.ok_or(Refusal::Invalid("the requested validator is not enabled"))
    }

    /// Decides about a request with a validator that [`Validators::choose`] has chosen. `local` says that the caller is on this
    /// machine.
    ///
    /// # Errors
    /// Whose mistake it is, or that it should be tried again.
    pub(crate) async fn validate(
        &self,
        chosen: TokenValidator,
        request: &SignCertificateRequest,
        local: bool,
    ) -> Result<Validated, Refusal> {
        let off = || Refusal::Invalid("the requested validator is not enabled");
        match chosen {
            TokenValidator::Unknown => Err(off()),
            TokenValidator::Insecure => self.insecure.as_ref().ok_or_else(off)?.validate(request, local),
            TokenValidator::Kubernetes => self.kubernetes.as_ref().ok_or_else(off)?.validate(request).await,
            TokenValidator::Jwks => self.jwks.load().as_ref().ok_or_else(off)?.validate(request),
        }
    }
}

/// Name of a validator for logs and metrics.
pub(crate) fn name(validator: TokenValidator) -> &'static str {
    match validator {
        TokenValidator::Unknown => "none",
        TokenValidator::Insecure => "insecure",
        TokenValidator::Kubernetes => "kubernetes",
        TokenValidator::Jwks => "jwks",
    }
}

/// Checks that all validators share; the answer is the trust domain that was asked for.
fn check_request(request: &SignCertificateRequest) -> Result<TrustDomain, Refusal> {
    let mut problems = Vec::new();
    if request.id.is_empty() {
        problems.push("parameter app-id cannot be empty".to_owned());
    }
    if request.id.contains('.') {
        problems.push("parameter app-id cannot contain dots".to_owned());
    }
    if request.id.len() > 64 {
        problems.push("app ID must be 64 characters or less".to_owned());
    }
    if request.certificate_signing_request.is_empty() {
        problems.push("CSR is required".to_owned());
    }
    if request.namespace.is_empty() {
        problems.push("namespace is required".to_owned());
    }
    let asked = if request.trust_domain.is_empty() {
        PUBLIC_TRUST_DOMAIN
    } else {
        &request.trust_domain
    };
    match TrustDomain::new(asked) {
        Ok(trust_domain) if problems.is_empty() => Ok(trust_domain),
        Ok(_) => Err(Refusal::Denied(format!("invalid request: {}", problems.join("\n")))),
        Err(error) => {
            problems.push(error.to_string());
            Err(Refusal::Denied(format!("invalid request: {}", problems.join("\n"))))
        }
    }
}

#[cfg(fuzzing)]
pub(crate) mod fuzzing {
    pub(crate) fn token(text: &str) {
        let _ = super::token::bound_pod(text);
        let _ = super::token::service_account(text);
    }

    pub(crate) fn signed_token(token: &str, keys: &str) {
        super::jwks::fuzzing::verify(token, keys);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: &str) -> SignCertificateRequest {
        SignCertificateRequest {
            id: id.to_owned(),
            namespace: "shop".to_owned(),
            certificate_signing_request: b"csr".as_slice().into(),
            ..Default::default()
        }
    }

    #[test]
    fn all_mistakes_are_reported_together() {
        assert_eq!(check_request(&request("cart")).unwrap().as_str(), "public");
        assert!(check_request(&request(&"a".repeat(64))).is_ok());
        let refusal = check_request(&SignCertificateRequest {
            id: format!("{}.", "a".repeat(64)),
            ..Default::default()
        });
        assert_eq!(
            refusal.unwrap_err().to_string(),
            "invalid request: parameter app-id cannot contain dots\napp ID must be 64 characters or less\nCSR is required\nnamespace is required"
        );
    }

    fn validators(insecure: bool, jwks: bool) -> Validators {
        let validators = Validators {
            insecure: insecure.then(InsecureValidator::default),
            ..Validators::default()
        };
        let sentry = "spiffe://cluster.local/ns/dapr-system/dapr-sentry".parse().unwrap();
        validators
            .jwks
            .store(jwks.then(|| Arc::new(JwksValidator::new(&sentry))));
        validators
    }

    #[test]
    fn the_mode_has_a_default_and_others_are_off() {
        let off = Err(Refusal::Invalid("the requested validator is not enabled"));
        let insecure = validators(true, false);
        assert_eq!(insecure.choose(0), Ok(TokenValidator::Insecure));
        assert_eq!(
            insecure.choose(TokenValidator::Insecure.into()),
            Ok(TokenValidator::Insecure)
        );
        for value in [TokenValidator::Kubernetes.into(), TokenValidator::Jwks.into(), -1] {
            assert_eq!(insecure.choose(value), off);
        }
        let jwks = validators(false, true);
        assert_eq!(jwks.choose(TokenValidator::Jwks.into()), Ok(TokenValidator::Jwks));
        assert_eq!(jwks.choose(TokenValidator::Insecure.into()), off);
        assert_eq!(
            jwks.choose(0),
            Err(Refusal::Invalid(
                "a validator name must be specified in this environment"
            ))
        );
    }
}
