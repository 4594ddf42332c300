//! An authority loaded from stored material, verified before it is used.

use outrigger_identity::pem;
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate, X509Version};

use super::{
    Material,
    paths::{arrange, expiry},
    signature,
};

/// Why stored material cannot be used. Every text says which part is wrong and how.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    #[error("trust anchors: {0}")]
    Anchors(String),
    #[error("issuer chain: {0}")]
    IssuerChain(String),
    #[error("issuer key: {0}")]
    IssuerKey(String),
    #[error("cross certificates: {0}")]
    Cross(String),
}

/// A verified authority, ready to sign. Immutable: a change makes a new one.
pub struct Authority {
    anchors_pem: String,
    chain_pem: String,
    issuer: Issuer<'static, KeyPair>,
    /// The issuer's name, DER as it stands in its certificate.
    subject: Vec<u8>,
    /// Its subject key identifier, if it has one.
    key_identifier: Option<Vec<u8>>,
    /// The chain as it is stored, without a root.
    chain: Vec<CertificateDer<'static>>,
    not_after: OffsetDateTime,
}

impl Authority {
    /// Verifies and loads material at `now`.
    ///
    /// # Errors
    /// Says which part is wrong: not PEM, not self-signed, out of order, expired, or a key that does not fit.
    pub fn load(material: &Material, now: OffsetDateTime) -> Result<Self, MaterialError> {
        let anchors = list(&material.anchors).map_err(MaterialError::Anchors)?;
        check_anchors(&parse(&anchors).map_err(MaterialError::Anchors)?).map_err(MaterialError::Anchors)?;

        let chain = chain(&material.issuer_chain).map_err(MaterialError::IssuerChain)?;
        let cross = optional_list(&material.cross).map_err(MaterialError::Cross)?;
        let (not_after, sent) = {
            let parsed_anchors = parse(&anchors).map_err(MaterialError::Anchors)?;
            let parsed = parse(&chain).map_err(MaterialError::IssuerChain)?;
            check_chain(&parsed, &parsed_anchors, now).map_err(MaterialError::IssuerChain)?;
            // The issuer and what is below roots that have expired meanwhile leads nowhere.
            let unexpired = parsed.iter().zip(&chain).filter(|(parsed, _)| expiry(parsed) >= now);
            let mut sent: Vec<_> = unexpired.map(|(_, certificate)| certificate.clone()).collect();
            if !cross.is_empty() {
                let others = [&chain[1..], &cross].concat();
                let arranged = arrange(&chain[0], &others, &anchors, now).map_err(MaterialError::Cross)?;
                let further = [arranged.chain, arranged.cross].concat();
                let further = further.into_iter().filter(|certificate| !sent.contains(certificate));
                let further: Vec<_> = further.collect();
                sent.extend(further);
            }
            (expiry(&parsed[0]), sent)
        };

        let key = PrivateKeyDer::from_pem_slice(material.issuer_key.as_bytes())
            // The error is left out: some of its texts show the line that they are about, which may be the key.
            .map_err(|_| MaterialError::IssuerKey("no usable PEM block".to_owned()))?;
        let key = KeyPair::try_from(&key)
            .map_err(|error| MaterialError::IssuerKey(format!("unsupported kind of key or encoding: {error}")))?;
        check_key(&key, &chain[0])?;
        let (subject, key_identifier) = names(&chain[0]).map_err(MaterialError::IssuerChain)?;
        // The library reads simple names only; certificates carry the bytes of `subject` in any case.
        let issuer = match Issuer::from_ca_cert_der(&chain[0], &key).is_ok() {
            true => Issuer::from_ca_cert_der(&chain[0], key),
            false => Ok(Issuer::new(CertificateParams::default(), key)),
        };
        let issuer = issuer.map_err(|error| MaterialError::IssuerChain(error.to_string()))?;
        Ok(Self {
            anchors_pem: pem::encode(&anchors),
            chain_pem: pem::encode(&sent),
            issuer,
            subject,
            key_identifier,
            chain,
            not_after,
        })
    }

    /// PEM of the trust anchors, without comments.
    pub fn anchors_pem(&self) -> &str {
        &self.anchors_pem
    }

    /// PEM of what follows the leaf in every certificate: the issuer chain without a root, and what leads to other anchors.
    pub fn chain_pem(&self) -> &str {
        &self.chain_pem
    }

    /// When the signing certificate expires.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    pub(super) fn subject(&self) -> &[u8] {
        &self.subject
    }

    pub(super) fn key_identifier(&self) -> Option<&[u8]> {
        self.key_identifier.as_deref()
    }

    pub(super) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }
}

/// An issuer chain. A root at the end of the file is tolerated and not handed out.
pub(super) fn chain(text: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut chain = list(text)?;
    if chain.len() > 1 && parse(&chain)?.last().is_some_and(is_self_signed) {
        chain.pop();
    }
    Ok(chain)
}

/// A list that may be empty.
pub(super) fn optional_list(text: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    if text.is_empty() { Ok(Vec::new()) } else { list(text) }
}

pub(super) fn list(text: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    pem::certificates(text.as_bytes()).map_err(|error| error.to_string())
}

pub(super) fn parse<'a>(chain: &'a [CertificateDer<'static>]) -> Result<Vec<X509Certificate<'a>>, String> {
    chain
        .iter()
        .map(|der| {
            X509Certificate::from_der(der)
                .map(|(_, parsed)| parsed)
                .map_err(|error| error.to_string())
        })
        .collect()
}

fn check_anchors(anchors: &[X509Certificate<'_>]) -> Result<(), String> {
    for (index, anchor) in anchors.iter().enumerate() {
        if !is_self_signed(anchor) {
            return Err(format!(
                "certificate {} ({}) is not self-signed",
                index + 1,
                anchor.subject()
            ));
        }
    }
    Ok(())
}

/// Each certificate is signed by the next, and one of them by an anchor; up to there all are valid now. What follows may have
/// expired: it led to an older root.
fn check_chain(
    chain: &[X509Certificate<'_>],
    anchors: &[X509Certificate<'_>],
    now: OffsetDateTime,
) -> Result<(), String> {
    let first = chain.first().ok_or("it is empty")?;
    if is_self_signed(first) {
        return Err("the issuer is self-signed: it has to be an intermediate below a trust anchor".to_owned());
    }
    if !may_sign(first) {
        return Err(format!(
            "{} may not sign: it is not the certificate of an authority",
            first.subject()
        ));
    }
    for (child, parent) in chain.iter().zip(chain.iter().skip(1)) {
        if !is_signed_by(child, parent) {
            return Err(format!(
                "{} is not signed by {}, the next certificate of the file",
                child.subject(),
                parent.subject()
            ));
        }
    }
    chain.iter().try_for_each(check_purposes)?;
    let last = chain.last().unwrap_or(first);
    let mut refusal = format!("{} is signed by none of the trust anchors", last.subject());
    // From the longest way to the shortest, so that the reason given in the end is that of the shortest.
    for (number, certificate) in chain.iter().enumerate().rev() {
        for anchor in anchors.iter().filter(|anchor| is_signed_by(certificate, anchor)) {
            let mut way = chain[..=number].iter().chain([anchor]);
            match way.try_for_each(|certificate| check_validity(certificate, now)) {
                Ok(()) => return Ok(()),
                Err(reason) => refusal = reason,
            }
        }
    }
    Err(refusal)
}

fn check_validity(certificate: &X509Certificate<'_>, now: OffsetDateTime) -> Result<(), String> {
    let validity = certificate.validity();
    if now > validity.not_after.to_datetime() {
        return Err(format!("{} expired at {}", certificate.subject(), validity.not_after));
    }
    if now < validity.not_before.to_datetime() {
        return Err(format!(
            "{} is valid only from {}",
            certificate.subject(),
            validity.not_before
        ));
    }
    Ok(())
}

pub(super) fn is_self_signed(certificate: &X509Certificate<'_>) -> bool {
    is_signed_by(certificate, certificate)
}

pub(super) fn is_signed_by(child: &X509Certificate<'_>, parent: &X509Certificate<'_>) -> bool {
    child.issuer().as_raw() == parent.subject().as_raw()
        && signature::certificate_is_signed_by(child, parent)
        && may_sign(parent)
}

/// Upstream's conditions for a parent: an authority, and if the certificate says what its key is for, then for certificates.
fn may_sign(certificate: &X509Certificate<'_>) -> bool {
    let for_certificates = match certificate.key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
        Err(_) => false,
    };
    for_certificates && (certificate.version() != X509Version::V3 || certificate.is_ca())
}

/// Purposes bind what is below: with any at all, serving TLS has to be one of them, or peers refuse every certificate.
fn check_purposes(certificate: &X509Certificate<'_>) -> Result<(), String> {
    match certificate.extended_key_usage() {
        Ok(None) => Ok(()),
        Ok(Some(purposes)) if purposes.value.any || purposes.value.server_auth => Ok(()),
        _ => Err(format!(
            "{} is for other purposes than serving TLS (its extended key usage lacks serverAuth)",
            certificate.subject()
        )),
    }
}

/// The name of a certificate's subject, DER, and the identifier of its key.
fn names(certificate: &CertificateDer<'_>) -> Result<(Vec<u8>, Option<Vec<u8>>), String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    let identifier = parsed
        .iter_extensions()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0.to_vec()),
            _ => None,
        });
    Ok((parsed.subject().as_raw().to_vec(), identifier))
}

fn check_key(key: &KeyPair, certificate: &CertificateDer<'_>) -> Result<(), MaterialError> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|error| MaterialError::IssuerChain(error.to_string()))?;
    if parsed.public_key().subject_public_key.data.as_ref() == key.public_key_raw() {
        return Ok(());
    }
    Err(MaterialError::IssuerKey(format!(
        "it does not belong to the certificate of {}",
        parsed.subject()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::generate;
    use crate::ca::testing::profile;

    fn material(domain: &str) -> Material {
        generate(&profile(domain), OffsetDateTime::now_utc()).unwrap()
    }

    fn refusal(material: &Material, now: OffsetDateTime) -> String {
        Authority::load(material, now).err().expect("refused").to_string()
    }

    #[test]
    fn loads_what_it_generates() {
        let now = OffsetDateTime::now_utc();
        let material = material("cluster.local");
        let authority = Authority::load(&material, now).unwrap();
        assert!(authority.not_after() > now + time::Duration::days(364));
        let commented = Material {
            anchors: format!("# root\n{}", material.anchors),
            ..material
        };
        assert_eq!(
            Authority::load(&commented, now).unwrap().anchors_pem(),
            authority.anchors_pem(),
            "comments are dropped"
        );
    }

    #[test]
    fn a_root_at_the_end_of_the_chain_is_dropped() {
        let good = material("a");
        let with_root = Material {
            issuer_chain: format!("{}{}", good.issuer_chain, good.anchors),
            ..good.clone()
        };
        let authority = Authority::load(&with_root, OffsetDateTime::now_utc()).unwrap();
        assert_eq!(authority.chain_pem().matches("BEGIN").count(), 1);
    }

    #[test]
    fn says_which_part_is_wrong() {
        let now = OffsetDateTime::now_utc();
        let (a, b) = (material("a"), material("b"));
        for (bad, text) in [
            (
                Material {
                    anchors: "x".into(),
                    ..a.clone()
                },
                "trust anchors: no PEM block",
            ),
            (
                Material {
                    anchors: a.issuer_chain.clone(),
                    ..a.clone()
                },
                "trust anchors: certificate 1",
            ),
            (
                Material {
                    issuer_chain: a.anchors.clone(),
                    ..a.clone()
                },
                "issuer chain: the issuer is self-signed",
            ),
            (
                Material {
                    anchors: b.anchors.clone(),
                    ..a.clone()
                },
                "signed by none of the trust anchors",
            ),
            (
                Material {
                    issuer_key: b.issuer_key.clone(),
                    ..a.clone()
                },
                "issuer key: it does not belong",
            ),
            (
                Material {
                    issuer_key: "x".into(),
                    ..a.clone()
                },
                "issuer key: no usable PEM block",
            ),
        ] {
            let refusal = refusal(&bad, now);
            assert!(refusal.contains(text), "{refusal}");
        }
        assert!(refusal(&a, now + time::Duration::days(366)).contains("expired at"));
        assert!(refusal(&a, now - time::Duration::days(1)).contains("valid only from"));
    }

    #[test]
    fn the_key_is_not_shown() {
        let good = material("a");
        assert!(!format!("{good:?}").contains("PRIVATE"));
        // Line breaks are easily lost on the way into a Secret.
        let joined = Material {
            issuer_key: good.issuer_key.replace('\n', ""),
            ..good
        };
        assert_eq!(
            refusal(&joined, OffsetDateTime::now_utc()),
            "issuer key: no usable PEM block"
        );
    }
}
