//! The issuer's name as it stands in its certificate, byte by byte: peers compare bytes, and a name that is read and written again may
//! come out in other string types, or without its repeated parts.

use rcgen::{
    CertificateParams, Issuer, KeyIdMethod, PublicKeyData, SignatureAlgorithm, SigningKey, SubjectPublicKeyInfo,
};
use x509_parser::{asn1_rs::Any, prelude::FromDer};

use super::Authority;

/// Tag of a SEQUENCE.
const SEQUENCE: u8 = 0x30;
/// Tag of a BIT STRING.
const BIT_STRING: u8 = 0x03;

/// Has the key's algorithm and signs nothing: the signature is made when the name is in its place.
struct Unsigned<'a, K>(&'a K);

impl<K: PublicKeyData> PublicKeyData for Unsigned<'_, K> {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl<K: PublicKeyData> SigningKey for Unsigned<'_, K> {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(Vec::new())
    }
}

impl Authority {
    /// The certificate for `key`, DER. It names the issuer's key where the issuer's certificate does.
    pub(super) fn certify(
        &self,
        mut params: CertificateParams,
        key: &SubjectPublicKeyInfo,
    ) -> Result<Vec<u8>, rcgen::Error> {
        let mut issuer = CertificateParams::default();
        params.use_authority_key_identifier_extension = self.key_identifier().is_some();
        if let Some(identifier) = self.key_identifier() {
            issuer.key_identifier_method = KeyIdMethod::PreSpecified(identifier.to_vec());
        }
        let unsigned = params.signed_by(key, &Issuer::from_params(&issuer, Unsigned(self.issuer().key())))?;
        let (contents, algorithm) =
            with_issuer(unsigned.der(), self.subject()).ok_or(rcgen::Error::CouldNotParseCertificate)?;
        let signature = self.issuer().key().sign(&contents)?;
        // No bits of the last byte are unused.
        let signature = tlv(BIT_STRING, &[&[0], signature.as_slice()].concat());
        Ok(tlv(SEQUENCE, &[contents, algorithm, signature].concat()))
    }
}

/// What is to be signed of a certificate, with another name for the issuer, and the algorithm that is to follow it.
fn with_issuer(certificate: &[u8], name: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let body = content(certificate)?;
    let after_contents = skip(body)?;
    let algorithm = &after_contents[..after_contents.len() - skip(after_contents)?.len()];
    // Version, serial number and algorithm come before the issuer.
    let contents = content(body)?;
    let issuer = skip(skip(skip(contents)?)?)?;
    let before = &contents[..contents.len() - issuer.len()];
    let contents = tlv(SEQUENCE, &[before, name, skip(issuer)?].concat());
    Some((contents, algorithm.to_vec()))
}

/// The inside of the first element.
fn content(der: &[u8]) -> Option<&[u8]> {
    Any::from_der(der).ok().map(|(_, any)| any.data)
}

/// What comes behind the first element.
fn skip(der: &[u8]) -> Option<&[u8]> {
    Any::from_der(der).ok().map(|(rest, _)| rest)
}

/// DER: tag, length, content.
pub(super) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut der = vec![tag];
    if content.len() < 0x80 {
        der.extend(u8::try_from(content.len()));
    } else {
        let length = content.len().to_be_bytes();
        let significant = &length[length.iter().take_while(|byte| **byte == 0).count()..];
        der.extend(u8::try_from(0x80 | significant.len()));
        der.extend_from_slice(significant);
    }
    der.extend_from_slice(content);
    der
}
