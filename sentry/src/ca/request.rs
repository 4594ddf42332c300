//! Certificate requests. Only the public key of a request is believed.

use rcgen::SubjectPublicKeyInfo;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use super::signature;

/// Why a request cannot be signed. The texts are upstream's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("invalid certificate signing request")]
    Pem,
    #[error("failed to parse certificate signing request: {0}")]
    Malformed(String),
    #[error("invalid signature")]
    Signature,
}

/// The public key of a verified request.
pub struct PublicKey(pub(super) SubjectPublicKeyInfo);

impl PublicKey {
    /// Reads a PEM request whose first block is a PKCS#10 request, and verifies that its sender holds the key. Names, attributes
    /// and extensions are ignored.
    ///
    /// # Errors
    /// Which step failed.
    pub fn from_request(pem: &[u8]) -> Result<Self, RequestError> {
        let (_, block) = x509_parser::pem::parse_x509_pem(pem).map_err(|_| RequestError::Pem)?;
        // Clients up to 1.11 label their requests CERTIFICATE.
        if !matches!(block.label.as_str(), "CERTIFICATE REQUEST" | "CERTIFICATE") {
            return Err(RequestError::Pem);
        }
        let malformed = |reason: String| RequestError::Malformed(reason);
        let (rest, request) =
            X509CertificationRequest::from_der(&block.contents).map_err(|error| malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed("trailing data".to_owned()));
        }
        if !signature::request_is_signed(&request) {
            return Err(RequestError::Signature);
        }
        // The key's own algorithm, not the one the request was signed with.
        SubjectPublicKeyInfo::from_der(request.certification_request_info.subject_pki.raw)
            .map(Self)
            .map_err(|error| malformed(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    fn error(pem: &[u8]) -> RequestError {
        PublicKey::from_request(pem).err().expect("refused")
    }

    #[test]
    fn accepts_the_keys_that_sidecars_send() {
        for algorithm in [
            &rcgen::PKCS_ED25519,
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ECDSA_P521_SHA512,
            &rcgen::PKCS_ECDSA_P521_SHA256,
            &rcgen::PKCS_RSA_SHA256,
        ] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let pem = CertificateParams::new(["ignored.example".to_owned()])
                .unwrap()
                .serialize_request(&key)
                .unwrap()
                .pem()
                .unwrap();
            assert!(PublicKey::from_request(pem.as_bytes()).is_ok(), "{algorithm:?}");
        }
    }

    #[test]
    fn names_the_step_that_failed() {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let request = CertificateParams::default().serialize_request(&key).unwrap();
        assert_eq!(error(b"hello"), RequestError::Pem);
        assert_eq!(error(key.serialize_pem().as_bytes()), RequestError::Pem);
        let label = request.pem().unwrap().replace("CERTIFICATE REQUEST", "CERTIFICATE");
        assert!(PublicKey::from_request(label.as_bytes()).is_ok());

        use base64::{Engine, engine::general_purpose::STANDARD};
        let mut der = request.der().to_vec();
        *der.last_mut().unwrap() ^= 1;
        let pem = |der: &[u8]| {
            format!(
                "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
                STANDARD.encode(der)
            )
        };
        assert_eq!(error(pem(&der).as_bytes()), RequestError::Signature);
        assert!(matches!(error(pem(&der[..20]).as_bytes()), RequestError::Malformed(_)));
    }
}
