//! Grants any identity to anyone: for a machine of one's own, never for a network.

use outrigger_core::control_plane::Service;
use outrigger_proto::sentry::SignCertificateRequest;

use super::{Refusal, Validated, check_request};

/// Looks at nothing but the request itself.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct InsecureValidator {
    /// Whether identities of the control plane are for callers on this machine only.
    pub(crate) control_plane_local_only: bool,
}

impl InsecureValidator {
    pub(super) fn validate(self, request: &SignCertificateRequest, local: bool) -> Result<Validated, Refusal> {
        let trust_domain = check_request(request)?;
        if self.control_plane_local_only && !local && Service::from_app_id(&request.id).is_some() {
            return Err(Refusal::Denied(format!(
                "the identity {} is for callers on this machine only (--insecure-control-plane-local-only)",
                request.id
            )));
        }
        Ok(Validated {
            trust_domain,
            images: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_of_the_control_plane_can_be_kept_on_this_machine() {
        let request = |id: &str| SignCertificateRequest {
            id: id.into(),
            namespace: "default".into(),
            certificate_signing_request: b"csr".as_slice().into(),
            ..Default::default()
        };
        let strict = InsecureValidator {
            control_plane_local_only: true,
        };
        assert!(strict.validate(&request("dapr-operator"), true).is_ok());
        assert!(strict.validate(&request("cart"), false).is_ok());
        let refusal = strict.validate(&request("dapr-operator"), false).unwrap_err();
        assert!(refusal.to_string().contains("on this machine only"), "{refusal}");
        assert!(
            InsecureValidator::default()
                .validate(&request("dapr-operator"), false)
                .is_ok()
        );
    }
}
