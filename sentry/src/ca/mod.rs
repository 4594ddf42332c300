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
mod supplied;
#[cfg(test)]
pub(crate) mod testing;

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

/// 16 random bytes with the top bit clear, so that the number is positive and below 2^127.
fn serial() -> Result<rcgen::SerialNumber, rcgen::Error> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| rcgen::Error::RingUnspecified)?;
    bytes[0] &= 0x7f;
    Ok(rcgen::SerialNumber::from_slice(&bytes))
}
