//! Authorities and keys of the tests, made without the code under test.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SignatureAlgorithm,
};
use time::{Duration, OffsetDateTime};

/// A root and an issuer below it, PEM.
pub(crate) struct Authority {
    pub(crate) anchors: String,
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Authority {
    /// Valid for `life` from now; the names have nothing to do with any trust domain.
    pub(crate) fn new(algorithm: &'static SignatureAlgorithm, life: Duration) -> Self {
        let params = |name: &str| {
            let mut params = CertificateParams::default();
            params.not_before = OffsetDateTime::now_utc() - Duration::hours(1);
            params.not_after = OffsetDateTime::now_utc() + life;
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            params
        };
        let (root_key, key) = (
            KeyPair::generate_for(algorithm).unwrap(),
            KeyPair::generate_for(algorithm).unwrap(),
        );
        let root = params("a root of one's own");
        let chain = params("an issuer of one's own").signed_by(&key, &Issuer::from_params(&root, &root_key));
        Self {
            anchors: root.self_signed(&root_key).unwrap().pem(),
            chain: chain.unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    pub(crate) fn write(&self, folder: &Path) {
        for (name, text) in [
            ("ca.crt", &self.anchors),
            ("issuer.crt", &self.chain),
            ("issuer.key", &self.key),
        ] {
            std::fs::write(folder.join(name), text).unwrap();
        }
    }
}

/// A request with a subject and names that nobody asked for.
pub(crate) fn request(algorithm: &'static SignatureAlgorithm) -> Vec<u8> {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let mut params = CertificateParams::new(["ignored.example".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "ignored");
    params.serialize_request(&key).unwrap().pem().unwrap().into_bytes()
}

/// A certificate for `localhost` under a CA of its own, with Ed25519 keys: CA, certificate, key, all PEM.
pub(crate) fn server() -> (String, String, String) {
    let ca_key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names)
        .unwrap()
        .signed_by(&key, &Issuer::from_params(&ca, &ca_key));
    (
        ca.self_signed(&ca_key).unwrap().pem(),
        certificate.unwrap().pem(),
        key.serialize_pem(),
    )
}
