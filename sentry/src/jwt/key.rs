//! Private keys that sign tokens.

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
        EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
        RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding,
    },
};
use outrigger_identity::pem;
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};

use super::{
    algorithm::{Algorithm, KeyKind},
    jwk::PublicKey,
};

/// A key to sign with, and its public half.
pub(crate) struct SigningKey {
    key: Key,
    public: PublicKey,
}

enum Key {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// The curves of ECDSA, each with the one hash that tokens use with it.
const CURVES: [(KeyKind, &EcdsaSigningAlgorithm); 3] = [
    (KeyKind::P256, &ECDSA_P256_SHA256_FIXED_SIGNING),
    (KeyKind::P384, &ECDSA_P384_SHA384_FIXED_SIGNING),
    (KeyKind::P521, &ECDSA_P521_SHA512_FIXED_SIGNING),
];

impl SigningKey {
    /// Reads PKCS#8, PKCS#1 (RSA) or SEC1 (EC) PEM. Texts of errors never show the input.
    ///
    /// # Errors
    /// Says whether the PEM or the kind of key is the trouble.
    pub(crate) fn from_pem(text: &str) -> Result<Self, String> {
        let der = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| "no usable PEM block".to_owned())?;
        let key = match &der {
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()).map(Key::Rsa).ok(),
            PrivateKeyDer::Sec1(der) => ec(der.secret_sec1_der()),
            PrivateKeyDer::Pkcs8(der) => {
                let der = der.secret_pkcs8_der();
                let rsa = RsaKeyPair::from_pkcs8(der).map(Key::Rsa).ok();
                rsa.or_else(|| ec(der))
                    .or_else(|| Ed25519KeyPair::from_pkcs8(der).map(Key::Ed25519).ok())
            }
            _ => None,
        };
        let key =
            key.ok_or("unsupported kind of key, expected RSA of 2048 bits or more, P-256, P-384, P-521 or Ed25519")?;
        Ok(Self {
            public: key.public(),
            key,
        })
    }

    /// A new key that fits `algorithm`, as PKCS#8 PEM. Upstream generates RSA for every algorithm, and fails at its next start.
    ///
    /// # Errors
    /// Only when the system has no randomness.
    pub(crate) fn generate(algorithm: Algorithm) -> Result<String, aws_lc_rs::error::Unspecified> {
        let der = match algorithm.key_kind() {
            KeyKind::Rsa | KeyKind::Symmetric => {
                AsDer::<Pkcs8V1Der<'_>>::as_der(&RsaKeyPair::generate(KeySize::Rsa2048)?)?
                    .as_ref()
                    .to_vec()
            }
            KeyKind::Ed25519 => Ed25519KeyPair::generate()?.to_pkcs8v1()?.as_ref().to_vec(),
            kind => {
                let (_, curve) = CURVES
                    .into_iter()
                    .find(|(curve, _)| *curve == kind)
                    .unwrap_or(CURVES[0]);
                EcdsaKeyPair::generate(curve)?.to_pkcs8v1()?.as_ref().to_vec()
            }
        };
        let mut text = String::new();
        pem::block("PRIVATE KEY", &der, &mut text);
        Ok(text)
    }

    pub(crate) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs, or says nothing more than that it could not: the algorithm may be one for another kind of key.
    ///
    /// # Errors
    /// When the algorithm does not fit the key.
    pub(crate) fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Result<Vec<u8>, aws_lc_rs::error::Unspecified> {
        if algorithm.key_kind() != self.public.kind() {
            return Err(aws_lc_rs::error::Unspecified);
        }
        let random = SystemRandom::new();
        match &self.key {
            Key::Rsa(key) => {
                let encoding: &'static dyn RsaEncoding = match algorithm {
                    Algorithm::Rs384 => &RSA_PKCS1_SHA384,
                    Algorithm::Rs512 => &RSA_PKCS1_SHA512,
                    Algorithm::Ps256 => &RSA_PSS_SHA256,
                    Algorithm::Ps384 => &RSA_PSS_SHA384,
                    Algorithm::Ps512 => &RSA_PSS_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(encoding, &random, message, &mut signature)?;
                Ok(signature)
            }
            Key::Ec(key) => Ok(key.sign(&random, message)?.as_ref().to_vec()),
            Key::Ed25519(key) => Ok(key.try_sign(message)?.as_ref().to_vec()),
        }
    }
}

impl Key {
    fn public(&self) -> PublicKey {
        match self {
            Self::Rsa(key) => PublicKey::Rsa {
                n: key.public_key().modulus().big_endian_without_leading_zero().to_vec(),
                e: key.public_key().exponent().big_endian_without_leading_zero().to_vec(),
            },
            Self::Ec(key) => {
                let point = key.public_key().as_ref().to_vec();
                let kind = match point.len() {
                    65 => KeyKind::P256,
                    97 => KeyKind::P384,
                    _ => KeyKind::P521,
                };
                PublicKey::Ec { kind, point }
            }
            Self::Ed25519(key) => PublicKey::Ed25519(key.public_key().as_ref().to_vec()),
        }
    }
}

fn ec(der: &[u8]) -> Option<Key> {
    let mut curves = CURVES.into_iter();
    curves
        .find_map(|(_, curve)| EcdsaKeyPair::from_private_key_der(curve, der).ok())
        .map(Key::Ec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jwt::jwk::KeySet;

    #[test]
    fn signs_with_every_algorithm_and_only_the_own_key_verifies() {
        for algorithm in Algorithm::SIGNING {
            let key = SigningKey::from_pem(&SigningKey::generate(algorithm).unwrap()).unwrap();
            let signature = key.sign(algorithm, b"message").unwrap();
            // Through JSON, as a verifier gets it.
            let set = KeySet {
                keys: vec![key.public().jwk("id", algorithm)],
            }
            .public_json();
            let published = KeySet::parse(&set).unwrap();
            let found = published.named("id").next().unwrap();
            assert!(found.key == *key.public());
            assert!(found.key.verifies(algorithm, b"message", &signature), "{algorithm:?}");
            assert!(!found.key.verifies(algorithm, b"another", &signature), "{algorithm:?}");
            for other in Algorithm::SIGNING.into_iter().filter(|other| *other != algorithm) {
                assert!(
                    !found.key.verifies(other, b"message", &signature),
                    "{algorithm:?} as {other:?}"
                );
            }
        }
    }

    #[test]
    fn a_key_signs_with_its_own_algorithms_only() {
        let key = SigningKey::from_pem(&SigningKey::generate(Algorithm::Es256).unwrap()).unwrap();
        assert!(key.sign(Algorithm::Rs256, b"x").is_err());
        assert!(key.sign(Algorithm::Es384, b"x").is_err());
    }

    #[test]
    fn errors_do_not_show_the_input() {
        let pem = SigningKey::generate(Algorithm::EdDsa).unwrap();
        for bad in [pem.replace('\n', ""), pem.replace("MC", "AA"), "secret".to_owned()] {
            let reason = SigningKey::from_pem(&bad).err().expect("refused");
            assert!(!reason.contains("secret") && !reason.contains("BEGIN"), "{reason}");
        }
    }
}
