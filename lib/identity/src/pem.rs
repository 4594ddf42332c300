//! PEM certificate lists, read as upstream reads them.

use std::fmt::Write;

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls_pki_types::{
    CertificateDer,
    pem::{PemObject, SectionKind},
};
use zeroize::Zeroize;

/// Why a text is not a list of certificates.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    #[error("no PEM block of type CERTIFICATE found")]
    Empty,
    #[error("certificate {index} is not a valid X.509 certificate")]
    Certificate { index: usize },
}

/// PEM of certificates, without comments.
pub fn encode<'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>) -> String {
    let mut text = String::new();
    for der in certificates {
        block("CERTIFICATE", der, &mut text);
    }
    text
}

/// Appends one block, its text in lines of 64 characters.
pub fn block(label: &str, der: &[u8], text: &mut String) {
    let mut body = STANDARD.encode(der);
    let _ = writeln!(text, "-----BEGIN {label}-----");
    for line in body.as_bytes().chunks(64) {
        // Base64 is ASCII, so every chunk is a string.
        text.push_str(std::str::from_utf8(line).unwrap_or_default());
        text.push('\n');
    }
    let _ = writeln!(text, "-----END {label}-----");
    // It may be a key.
    body.zeroize();
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
            Ok(_) | Err(_) => break,
        }
    }
    if found.is_empty() {
        Err(PemError::Empty)
    } else {
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anchors::tests::root;

    #[test]
    fn encodes_what_it_reads() {
        let text = format!("{}{}", root("a"), root("b"));
        let read = certificates(format!("# comment\n{text}").as_bytes()).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(certificates(encode(&read).as_bytes()).unwrap(), read);
    }

    #[test]
    fn says_which_certificate_is_broken() {
        let mut text = root("a");
        block("CERTIFICATE", b"not DER", &mut text);
        assert_eq!(certificates(text.as_bytes()), Err(PemError::Certificate { index: 2 }));
        assert_eq!(certificates(b""), Err(PemError::Empty));
    }
}
