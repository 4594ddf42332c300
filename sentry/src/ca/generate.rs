//! A new root and issuer, with upstream's profile. The root's key is thrown away.

use aws_lc_rs::signature::Ed25519KeyPair;
use outrigger_core::{SpiffeId, TrustDomain};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls_pki_types::PrivatePkcs8KeyDer;
use time::{Duration, OffsetDateTime};

use super::{Material, serial};

/// Root and issuer expire together after a year.
const LIFETIME: Duration = Duration::days(365);

/// Generates the material of a new authority; certificates are valid from `now - skew`.
///
/// # Errors
/// Only when the system has no randomness.
pub fn generate(
    id: &SpiffeId,
    trust_domain: &TrustDomain,
    skew: Duration,
    now: OffsetDateTime,
) -> Result<Material, rcgen::Error> {
    let root_key = ed25519()?;
    let mut root = authority_params(trust_domain.as_str(), skew, now)?;
    root.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
    let root_certificate = root.self_signed(&root_key)?;

    let issuer_key = ed25519()?;
    let mut issuer = authority_params(&id.to_string(), skew, now)?;
    issuer.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
    ];
    issuer.use_authority_key_identifier_extension = true;
    let issuer_certificate = issuer.signed_by(&issuer_key, &Issuer::from_params(&root, &root_key))?;

    Ok(Material {
        anchors: root_certificate.pem(),
        issuer_chain: issuer_certificate.pem(),
        issuer_key: issuer_key.serialize_pem(),
    })
}

fn authority_params(
    organization: &str,
    skew: Duration,
    now: OffsetDateTime,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.not_before = now - skew;
    params.not_after = now + LIFETIME;
    params.serial_number = Some(serial()?);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Ok(params)
}

/// As PKCS#8 version 1: some older tools cannot read version 2, which carries the public key.
fn ed25519() -> Result<KeyPair, rcgen::Error> {
    let unavailable = |_| rcgen::Error::KeyGenerationUnavailable;
    let der = Ed25519KeyPair::generate()
        .and_then(|key| key.to_pkcs8v1())
        .map_err(unavailable)?;
    KeyPair::try_from(&PrivatePkcs8KeyDer::from(der.as_ref().to_vec()))
}
