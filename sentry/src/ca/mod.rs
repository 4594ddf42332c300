//! The authority itself, without I/O: its material, and the certificates it signs.

mod authority;
mod certify;
mod generate;
mod leaf;
mod paths;
mod request;
mod signature;
mod succession;
#[cfg(test)]
pub(crate) mod supplied;

pub use authority::{Authority, MaterialError};
pub use generate::{Profile, generate};
pub use leaf::{ContainerImage, Leaf, SignError, Signed};
pub use request::{PublicKey, RequestError};
pub use succession::{Pending, Standing, SuccessionError, abandon, announce, retire, switch};

/// PEM texts of an authority, as they are stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Material {
    /// Trust anchors.
    pub anchors: String,
    /// The certificate that signs first, then its intermediates.
    pub issuer_chain: String,
    /// Private key of the certificate that signs.
    pub issuer_key: String,
    /// Further certificates of the authorities in the chains, with which peers reach anchors that the chains do not lead to.
    /// Empty unless roots overlap.
    pub cross: String,
    /// The issuer that takes over once everybody knows its root.
    pub next: Option<NextIssuer>,
}

/// PEM texts of an announced issuer.
#[derive(Clone, PartialEq, Eq)]
pub struct NextIssuer {
    pub chain: String,
    pub key: String,
}

impl std::fmt::Debug for Material {
    /// Never shows a key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material")
            .field("anchors", &self.anchors)
            .field("issuer_chain", &self.issuer_chain)
            .field("cross", &self.cross)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for NextIssuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NextIssuer")
            .field("chain", &self.chain)
            .finish_non_exhaustive()
    }
}

/// One PEM block.
pub(crate) fn encode_pem(label: &str, der: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let body = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in body.as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// 16 random bytes with the top bit clear, so that the number is positive and below 2^127.
fn serial() -> Result<rcgen::SerialNumber, rcgen::Error> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| rcgen::Error::RingUnspecified)?;
    bytes[0] &= 0x7f;
    Ok(rcgen::SerialNumber::from_slice(&bytes))
}
