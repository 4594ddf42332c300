//! PEM certificate lists, read as upstream reads them.

use rustls_pki_types::{
    CertificateDer,
    pem::{self, PemObject, SectionKind},
};

/// Why a text is not a list of certificates.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    #[error("no PEM block of type CERTIFICATE found")]
    Empty,
    #[error("certificate {index} is not a valid X.509 certificate")]
    Certificate { index: usize },
}

/// Certificates up to the first block of another kind or broken block; text before and between blocks is skipped.
///
/// # Errors
/// When there is none, or one is not X.509.
pub fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let mut found = Vec::new();
    for section in <(SectionKind, Vec<u8>) as PemObject>::pem_slice_iter(text) {
        match section {
            Ok((SectionKind::Certificate, der)) => {
                if x509_parser::parse_x509_certificate(&der).is_err() {
                    return Err(PemError::Certificate { index: found.len() + 1 });
                }
                found.push(CertificateDer::from(der));
            }
            // Upstream stops silently at the first block of another kind and at trailing garbage.
            Ok(_)
            | Err(
                pem::Error::IllegalSectionStart { .. }
                | pem::Error::MissingSectionEnd { .. }
                | pem::Error::Base64Decode(_),
            ) => {
                break;
            }
            Err(_) => break,
        }
    }
    if found.is_empty() {
        Err(PemError::Empty)
    } else {
        Ok(found)
    }
}
