//! What tests of the authority have in common.

use outrigger_core::{TrustDomain, control_plane::Service};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls_pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

use super::{Authority, Leaf, Material, Profile, PublicKey, authority::list};

/// Certificates for a year, as sentry makes them by default.
pub(super) fn profile(trust_domain: &str) -> Profile {
    let trust_domain = TrustDomain::new(trust_domain).unwrap();
    Profile {
        id: Service::Sentry.spiffe_id(&trust_domain, "dapr-system").unwrap(),
        trust_domain,
        ttl: Duration::days(365),
        skew: Duration::minutes(15),
    }
}

pub(super) fn public_key() -> PublicKey {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    PublicKey::from_request(request.pem().unwrap().as_bytes()).unwrap()
}

pub(super) fn leaf(ttl: Duration) -> Leaf {
    Leaf {
        id: "spiffe://public/ns/shop/cart".parse().unwrap(),
        dns_names: Vec::new(),
        ttl,
        skew: Duration::minutes(15),
        images: Vec::new(),
    }
}

/// What a workload shows: its certificate, then those that it carries.
pub(super) fn signed(authority: &Authority, now: OffsetDateTime) -> Vec<CertificateDer<'static>> {
    let signed = authority.sign(&leaf(Duration::hours(24)), &public_key(), now).unwrap();
    list(&signed.chain_pem).unwrap()
}

/// An authority that somebody brings along, and the key of its issuer.
pub(crate) struct Supplied {
    pub(crate) material: Material,
    pub(super) key: KeyPair,
}

/// An issuer below a root, both with keys of one kind and valid for two days; `change` has the last word about the issuer.
pub(crate) fn supplied(
    algorithm: &'static rcgen::SignatureAlgorithm,
    now: OffsetDateTime,
    change: impl FnOnce(&mut CertificateParams),
) -> Supplied {
    let params = |name: &str| {
        let mut params = CertificateParams::default();
        params.not_before = now - Duration::hours(1);
        params.not_after = now + Duration::days(2);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params
    };
    let root_key = KeyPair::generate_for(algorithm).unwrap();
    let root = params("Shop root");
    let mut issuer = params("Shop issuer");
    change(&mut issuer);
    let key = KeyPair::generate_for(algorithm).unwrap();
    let certificate = issuer.signed_by(&key, &Issuer::from_params(&root, &root_key)).unwrap();
    Supplied {
        material: Material {
            anchors: root.self_signed(&root_key).unwrap().pem(),
            issuer_chain: certificate.pem(),
            issuer_key: key.serialize_pem(),
            cross: String::new(),
            next: None,
        },
        key,
    }
}
