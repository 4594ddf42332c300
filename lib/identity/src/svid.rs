//! An X.509 SVID: certificate chain, key, and what is read from the leaf once. The tokens that came with it stay with it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use outrigger_core::SpiffeId;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::{
    error::FetchError,
    jwt::{JwtSvid, JwtSvids},
    pem,
    sentry::Issued,
    tls, verify,
};

/// The identity that a process presents.
pub struct Svid {
    pub(crate) certified: Arc<CertifiedKey>,
    id: SpiffeId,
    not_before: SystemTime,
    not_after: SystemTime,
    jwts: JwtSvids,
}

impl Svid {
    /// Checks what sentry issued: a chain whose leaf has one SPIFFE id and belongs to the key, and tokens for the right
    /// audiences.
    pub(crate) fn new(issued: &Issued, key: &PrivateKeyDer<'_>, now: SystemTime) -> Result<Self, FetchError> {
        let unusable = |error: &dyn std::fmt::Display| FetchError::Response(error.to_string());
        let chain = pem::certificates(&issued.chain).map_err(|error| unusable(&error))?;
        let leaf = chain.first().ok_or_else(|| unusable(&"the chain is empty"))?;
        let id = verify::spiffe_id_of(leaf).map_err(|error| unusable(&error))?;
        let (not_before, not_after) = validity(leaf).map_err(|error| unusable(&error))?;
        let jwts = JwtSvids::new(issued.jwt.as_deref(), &issued.per_audience_jwts, id.trust_domain(), now)?;
        let certified = certified(chain, key).map_err(|error| unusable(&error))?;
        Ok(Self {
            certified: Arc::new(certified),
            id,
            not_before,
            not_after,
            jwts,
        })
    }

    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The token that is for all audiences asked for, and the trust domain's own.
    pub fn base_jwt(&self) -> Option<&JwtSvid> {
        self.jwts.base()
    }

    pub(crate) fn jwts(&self) -> &JwtSvids {
        &self.jwts
    }

    /// Half of the validity, as upstream renews.
    pub(crate) fn renew_at(&self) -> SystemTime {
        self.not_before + self.not_after.duration_since(self.not_before).unwrap_or_default() / 2
    }
}

impl std::fmt::Debug for Svid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Svid")
            .field("id", &self.id)
            .field("not_after", &self.not_after)
            .field("jwts", &self.jwts)
            .finish_non_exhaustive()
    }
}

/// Fails when the leaf does not belong to the key. Borrows the key, so that its owner can wipe it.
fn certified(chain: Vec<CertificateDer<'static>>, key: &PrivateKeyDer<'_>) -> Result<CertifiedKey, rustls::Error> {
    let certified = CertifiedKey::new(chain, tls::signing_key(key)?);
    certified.keys_match()?;
    Ok(certified)
}

fn validity(leaf: &CertificateDer<'_>) -> Result<(SystemTime, SystemTime), String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|error| error.to_string())?;
    let at = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    Ok((
        at(parsed.validity().not_before.timestamp()),
        at(parsed.validity().not_after.timestamp()),
    ))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::key::KeyAlgorithm;
    use rustls_pki_types::PrivatePkcs8KeyDer;

    /// Valid between these seconds after the epoch.
    pub(crate) fn svid(not_before: i64, not_after: i64) -> Svid {
        let (issued, key) = issued(not_before, not_after);
        svid_with(&issued, &key)
    }

    pub(crate) fn svid_with(issued: &Issued, key: &PrivateKeyDer<'_>) -> Svid {
        Svid::new(issued, key, SystemTime::UNIX_EPOCH).unwrap()
    }

    pub(crate) fn issued(not_before: i64, not_after: i64) -> (Issued, PrivateKeyDer<'static>) {
        let key = KeyAlgorithm::Ed25519.generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.not_before = time::OffsetDateTime::from_unix_timestamp(not_before).unwrap();
        params.not_after = time::OffsetDateTime::from_unix_timestamp(not_after).unwrap();
        let id = "spiffe://public/ns/shop/cart".try_into().unwrap();
        params.subject_alt_names = vec![rcgen::SanType::URI(id)];
        let chain = params.self_signed(&key).unwrap().pem().into_bytes();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        (
            Issued {
                chain,
                ..Issued::default()
            },
            key,
        )
    }

    #[test]
    fn the_leaf_has_to_belong_to_the_key() {
        let (issued, key) = issued(1000, 3000);
        let svid = Svid::new(&issued, &key, SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(svid.id().to_string(), "spiffe://public/ns/shop/cart");
        assert_eq!(svid.renew_at(), SystemTime::UNIX_EPOCH + Duration::from_secs(2000));
        let other = KeyAlgorithm::Ed25519.generate().unwrap();
        let other = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(other.serialize_der()));
        assert!(Svid::new(&issued, &other, SystemTime::UNIX_EPOCH).is_err());
    }

    #[test]
    fn unusable_answers_say_why() {
        let (good, key) = issued(1000, 3000);
        let refusal = |issued: Issued| {
            let error = Svid::new(&issued, &key, SystemTime::UNIX_EPOCH).unwrap_err();
            outrigger_core::text::chain(&error)
        };
        assert!(refusal(Issued::default()).contains("no PEM block"));
        let jwt = Issued {
            jwt: Some("nonsense".to_owned()),
            ..good
        };
        assert!(refusal(jwt).contains("three parts"));
    }
}
