//! Keys and certificate requests. Every certificate gets a new key, which leaves memory only for the identity directory.

use rcgen::{CertificateParams, DistinguishedName, KeyPair};

/// Kind of the key. Upstream uses RSA for processes that serve webhooks, since some managed API servers refuse Ed25519.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyAlgorithm {
    Ed25519,
    Rsa2048,
}

impl KeyAlgorithm {
    /// A new key. RSA takes a noticeable part of a second: call it off the runtime's workers.
    pub(crate) fn generate(self) -> Result<KeyPair, rcgen::Error> {
        match self {
            Self::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
            Self::Rsa2048 => KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256),
        }
    }
}

/// PEM of a PKCS#10 request with an empty subject and no extensions.
pub(crate) fn request(key: &KeyPair) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serialize_request(key)?.pem()
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::{FromDer, X509CertificationRequest};

    #[test]
    fn requests_carry_nothing_but_the_key() {
        for algorithm in [KeyAlgorithm::Ed25519, KeyAlgorithm::Rsa2048] {
            let key = algorithm.generate().unwrap();
            let pem = request(&key).unwrap();
            assert!(pem.starts_with("-----BEGIN CERTIFICATE REQUEST-----"));
            let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
            let (_, csr) = X509CertificationRequest::from_der(&block.contents).unwrap();
            csr.verify_signature().unwrap();
            assert_eq!(csr.certification_request_info.subject.iter().count(), 0);
            assert!(csr.requested_extensions().is_none());
        }
    }
}
