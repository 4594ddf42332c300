//! Signature algorithms of JSON Web Tokens, by their registered names.

use std::str::FromStr;

/// What a token's `alg` may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
    /// Symmetric: for tokens of others only, never for ours.
    Hs256,
    Hs384,
    Hs512,
}

/// The kind of key that an algorithm needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyKind {
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
    Symmetric,
}

impl Algorithm {
    /// Those that tokens can be signed with.
    pub(crate) const SIGNING: [Self; 10] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::EdDsa,
    ];
    const SYMMETRIC: [Self; 3] = [Self::Hs256, Self::Hs384, Self::Hs512];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::EdDsa => "EdDSA",
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
        }
    }

    pub(crate) const fn key_kind(self) -> KeyKind {
        match self {
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => KeyKind::Rsa,
            Self::Es256 => KeyKind::P256,
            Self::Es384 => KeyKind::P384,
            Self::Es512 => KeyKind::P521,
            Self::EdDsa => KeyKind::Ed25519,
            Self::Hs256 | Self::Hs384 | Self::Hs512 => KeyKind::Symmetric,
        }
    }

    /// Any registered name that this process can verify; `none` is not one of them.
    pub(crate) fn of_token(name: &str) -> Option<Self> {
        let mut known = Self::SIGNING.into_iter().chain(Self::SYMMETRIC);
        known.find(|algorithm| algorithm.name() == name)
    }
}

impl FromStr for Algorithm {
    type Err = String;

    /// An algorithm to sign with.
    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::SIGNING.into_iter().find(|algorithm| algorithm.name() == name);
        found.ok_or_else(|| {
            format!(
                "found {name:?}, expected one of {}",
                Self::SIGNING.map(Self::name).join(", ")
            )
        })
    }
}

impl std::fmt::Display for KeyKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Rsa => "RSA",
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
            Self::Ed25519 => "Ed25519",
            Self::Symmetric => "symmetric",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_asymmetric_algorithms_sign() {
        assert_eq!("ES512".parse(), Ok(Algorithm::Es512));
        assert_eq!(Algorithm::of_token("HS256"), Some(Algorithm::Hs256));
        assert_eq!(Algorithm::of_token("none"), None);
        for name in ["HS256", "none", "rs256", ""] {
            assert!(
                name.parse::<Algorithm>().unwrap_err().contains("expected one of RS256"),
                "{name}"
            );
        }
    }
}
