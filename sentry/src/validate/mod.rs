//! Validators decide whether a caller may have the identity it asks for.

mod expected;
mod insecure;
mod kubernetes;
mod pod;
mod token;

pub(crate) use kubernetes::KubernetesValidator;
pub(crate) use kubernetes::configuration_resource;

use outrigger_core::{TrustDomain, control_plane::PUBLIC_TRUST_DOMAIN};
use outrigger_proto::sentry::{SignCertificateRequest, sign_certificate_request::TokenValidator};

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
pub(crate) enum Validators {
    Insecure,
    Kubernetes(Box<KubernetesValidator>),
}

impl Validators {
    /// Name of the validator for logs and metrics.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Insecure => "insecure",
            Self::Kubernetes(_) => "kubernetes",
        }
    }

    /// Decides about a request.
    ///
    /// # Errors
    /// Whose mistake it is, or that it should be tried again.
    pub(crate) async fn validate(&self, request: &SignCertificateRequest) -> Result<Validated, Refusal> {
        let own = match self {
            Self::Insecure => TokenValidator::Insecure,
            Self::Kubernetes(_) => TokenValidator::Kubernetes,
        };
        match TokenValidator::try_from(request.token_validator) {
            Ok(TokenValidator::Unknown) => {}
            Ok(asked) if asked == own => {}
            _ => return Err(Refusal::Invalid("the requested validator is not enabled")),
        }
        match self {
            Self::Insecure => insecure::validate(request),
            Self::Kubernetes(validator) => validator.validate(request).await,
        }
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

    #[tokio::test]
    async fn other_validators_are_off() {
        let mut asked = request("cart");
        for value in [TokenValidator::Kubernetes.into(), TokenValidator::Jwks.into(), -1] {
            asked.token_validator = value;
            let refusal = Validators::Insecure.validate(&asked).await.unwrap_err();
            assert_eq!(refusal, Refusal::Invalid("the requested validator is not enabled"));
        }
        asked.token_validator = TokenValidator::Insecure.into();
        assert!(Validators::Insecure.validate(&asked).await.is_ok());
    }
}
