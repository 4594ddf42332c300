//! New roots and issuers, with upstream's profile. A root's key is thrown away.

use aws_lc_rs::signature::Ed25519KeyPair;
use outrigger_core::{SpiffeId, TrustDomain};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use time::{Duration, OffsetDateTime};

use super::{Material, serial};

/// What generated authorities say, and how long they last.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Sentry's own id, which names its issuers.
    pub id: SpiffeId,
    /// Names its roots.
    pub trust_domain: TrustDomain,
    /// Lifetime after now, of root and issuer alike.
    pub ttl: Duration,
    /// Backdating, for clocks that are behind.
    pub skew: Duration,
}

/// A root and an issuer below it. The root's key lives as long as this.
pub(super) struct Generation {
    pub(super) root: Authored,
    pub(super) issuer: Authored,
}

/// A certificate with what it was made of.
pub(super) struct Authored {
    params: CertificateParams,
    pub(super) key: KeyPair,
    pub(super) certificate: Certificate,
}

impl Authored {
    /// A second certificate for the same key and name, signed by another authority, which it does not outlive.
    pub(super) fn certified_by(
        &self,
        issuer: &Issuer<'_, KeyPair>,
        not_after: OffsetDateTime,
    ) -> Result<Certificate, rcgen::Error> {
        let mut params = self.params.clone();
        params.not_after = params.not_after.min(not_after);
        params.serial_number = Some(serial()?);
        params.use_authority_key_identifier_extension = true;
        params.signed_by(&self.key, issuer)
    }
}

impl Generation {
    /// Certificates are valid from `now - skew` to `not_after`.
    pub(super) fn new(profile: &Profile, now: OffsetDateTime, not_after: OffsetDateTime) -> Result<Self, rcgen::Error> {
        let validity = (now - profile.skew, not_after);
        let root_key = ed25519()?;
        let mut root = authority_params(profile.trust_domain.as_str(), validity)?;
        root.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
        let root_certificate = root.self_signed(&root_key)?;

        let issuer_key = ed25519()?;
        let mut issuer = authority_params(&profile.id.to_string(), validity)?;
        issuer.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
        ];
        issuer.use_authority_key_identifier_extension = true;
        let issuer_certificate = issuer.signed_by(&issuer_key, &Issuer::from_params(&root, &root_key))?;
        Ok(Self {
            root: Authored {
                params: root,
                key: root_key,
                certificate: root_certificate,
            },
            issuer: Authored {
                params: issuer,
                key: issuer_key,
                certificate: issuer_certificate,
            },
        })
    }
}

/// Generates the material of a new authority.
///
/// # Errors
/// Only when the system has no randomness.
pub fn generate(profile: &Profile, now: OffsetDateTime) -> Result<Material, rcgen::Error> {
    let Generation { root, issuer } = Generation::new(profile, now, now + profile.ttl)?;
    Ok(Material {
        anchors: root.certificate.pem(),
        issuer_chain: issuer.certificate.pem(),
        issuer_key: issuer.key.serialize_pem(),
        cross: String::new(),
        next: None,
    })
}

fn authority_params(
    organization: &str,
    (not_before, not_after): (OffsetDateTime, OffsetDateTime),
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.not_before = not_before;
    params.not_after = not_after;
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
