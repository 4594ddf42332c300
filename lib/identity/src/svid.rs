//! An X.509 SVID: certificate chain, key, and what is read from the leaf once.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use outrigger_core::SpiffeId;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::{pem, tls, verify};

/// The identity that a process presents.
pub struct Svid {
    pub(crate) certified: Arc<CertifiedKey>,
    id: SpiffeId,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Svid {
    /// Checks what sentry issued: a chain whose leaf has one SPIFFE id and belongs to the key.
    pub(crate) fn new(chain_pem: &[u8], key: PrivateKeyDer<'static>) -> Result<Self, String> {
        let chain = pem::certificates(chain_pem).map_err(|error| error.to_string())?;
        let leaf = chain.first().ok_or("the chain is empty")?;
        let id = verify::spiffe_id_of(leaf).map_err(|error| error.to_string())?;
        let (not_before, not_after) = validity(leaf)?;
        // Also fails when the leaf does not belong to the key.
        let certified = CertifiedKey::from_der(chain, key, &tls::provider()).map_err(|error| error.to_string())?;
        Ok(Self {
            certified: Arc::new(certified),
            id,
            not_before,
            not_after,
        })
    }

    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    pub fn not_after(&self) -> SystemTime {
        self.not_after
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
            .finish_non_exhaustive()
    }
}

fn validity(leaf: &CertificateDer<'_>) -> Result<(SystemTime, SystemTime), String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|error| error.to_string())?;
    let at = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    Ok((
        at(parsed.validity().not_before.timestamp()),
        at(parsed.validity().not_after.timestamp()),
    ))
}
