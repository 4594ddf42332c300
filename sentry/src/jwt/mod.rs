//! JWT-SVIDs: the key that signs them, the set of keys that verifies them, and where both are kept.
//!
//! Signatures are made and verified with aws-lc-rs directly. The usual crates lack ES512, require claims that tokens of other
//! issuers need not have, and do not choose keys as strictly as the validator has to.

pub(crate) mod algorithm;
mod follow;
pub(crate) mod issue;
pub(crate) mod jwk;
pub(crate) mod jws;
pub(crate) mod key;
mod store;

use std::path::PathBuf;

use time::Duration;

pub(crate) use algorithm::Algorithm;
pub(crate) use follow::{CurrentMinter, JwtKeys};
use jwk::KeySet;
use key::SigningKey;
pub(crate) use store::JwtStore;

/// What the flags say about tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JwtOptions {
    pub(crate) enabled: bool,
    /// Paths as files. In Kubernetes their last parts are the keys in Secret and ConfigMap.
    pub(crate) key: PathBuf,
    pub(crate) jwks: PathBuf,
    /// Claim `iss`: verbatim, and left out when unset.
    pub(crate) issuer: Option<String>,
    pub(crate) algorithm: Algorithm,
    /// Overrides the id that the key's thumbprint gives.
    pub(crate) key_id: Option<String>,
    pub(crate) ttl: Duration,
}

/// Texts as they are stored.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Material {
    /// Private key, PEM.
    pub(crate) key: String,
    /// Public keys, JSON.
    pub(crate) jwks: String,
}

/// Why stored material cannot be used. Every text says which part is wrong and how; none shows a key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MaterialError {
    #[error("JWT signing key: {0}")]
    Key(String),
    #[error("JWKS: {0}")]
    Jwks(String),
    #[error("JWT signing key: {found} key, but --jwt-signing-algorithm {algorithm} needs {expected}")]
    Algorithm {
        found: String,
        algorithm: &'static str,
        expected: String,
    },
    #[error("cannot generate a JWT signing key")]
    Generate,
}

/// Everything that tokens are signed and verified with. Immutable: a change makes a new one.
pub(crate) struct Minter {
    key: SigningKey,
    algorithm: Algorithm,
    kid: String,
    issuer: Option<String>,
    ttl: Duration,
    /// Public parts of the set, as JSON.
    jwks: String,
}

impl Minter {
    /// # Errors
    /// A key that cannot be read or does not fit the algorithm, or a set that does not have it.
    pub(crate) fn load(material: &Material, options: &JwtOptions) -> Result<Self, MaterialError> {
        let (key, set) = check(material, options.key_id.as_deref())?;
        if key.public().kind() != options.algorithm.key_kind() {
            return Err(MaterialError::Algorithm {
                found: key.public().kind().to_string(),
                algorithm: options.algorithm.name(),
                expected: options.algorithm.key_kind().to_string(),
            });
        }
        let kid = options.key_id.clone().unwrap_or_else(|| key.public().thumbprint());
        if !set.named(&kid).any(|jwk| jwk.key == *key.public()) {
            tracing::warn!(
                kid,
                "the JWKS has the signing key under another kid: whoever verifies a token by its kid will not find it"
            );
        }
        Ok(Self {
            key,
            algorithm: options.algorithm,
            kid,
            issuer: options.issuer.clone(),
            ttl: options.ttl,
            jwks: set.public_json(),
        })
    }

    /// Public parts of the set, as JSON.
    pub(crate) fn jwks(&self) -> &str {
        &self.jwks
    }
}

/// Reads both parts and finds the key in the set.
///
/// # Errors
/// Which part is wrong and how.
pub(crate) fn check(material: &Material, key_id: Option<&str>) -> Result<(SigningKey, KeySet), MaterialError> {
    let key = SigningKey::from_pem(&material.key).map_err(MaterialError::Key)?;
    let set = KeySet::parse(&material.jwks).map_err(MaterialError::Jwks)?;
    let same = |jwk: &&jwk::Jwk| jwk.key == *key.public();
    match key_id {
        Some(kid) => {
            let named = || set.keys.iter().filter(|jwk| jwk.kid.as_deref() == Some(kid));
            if named().next().is_none() {
                return Err(MaterialError::Jwks(format!(
                    "no key has the kid {kid:?} that --jwt-key-id names"
                )));
            }
            if !named().any(|jwk| same(&jwk)) {
                return Err(MaterialError::Jwks(format!(
                    "the key with kid {kid:?} is not the JWT signing key"
                )));
            }
        }
        None => {
            if !set
                .keys
                .iter()
                .filter(|jwk| jwk.is_for_signatures())
                .any(|jwk| same(&jwk))
            {
                return Err(MaterialError::Jwks("no key of it is the JWT signing key".to_owned()));
            }
        }
    }
    Ok((key, set))
}

/// Fills in what is missing, and nothing else: a set is made from a key that exists, and a new key joins a set that exists, so that
/// tokens that are out there stay verifiable.
///
/// # Errors
/// What exists cannot be read.
fn complete(key: Option<String>, jwks: Option<String>, options: &JwtOptions) -> Result<Material, MaterialError> {
    let pem = match key {
        Some(pem) => pem,
        None => SigningKey::generate(options.algorithm).map_err(|_| MaterialError::Generate)?,
    };
    let key = SigningKey::from_pem(&pem).map_err(MaterialError::Key)?;
    let kid = options.key_id.clone().unwrap_or_else(|| key.public().thumbprint());
    let mut keys = vec![key.public().jwk(&kid, options.algorithm)];
    if let Some(jwks) = jwks {
        keys.extend(KeySet::parse(&jwks).map_err(MaterialError::Jwks)?.keys);
    }
    Ok(Material {
        key: pem,
        jwks: KeySet { keys }.public_json(),
    })
}

#[cfg(fuzzing)]
pub(crate) mod fuzzing {
    use std::sync::LazyLock;

    use serde_json::Value;

    use super::{algorithm::Algorithm, jwk::KeySet, jws, key::SigningKey};

    static KEY: LazyLock<(SigningKey, KeySet)> = LazyLock::new(|| {
        let pem = SigningKey::generate(Algorithm::EdDsa).expect("a key");
        let key = SigningKey::from_pem(&pem).expect("a key that was just made");
        let set = KeySet {
            keys: vec![key.public().jwk("one", Algorithm::EdDsa)],
        };
        (key, set)
    });

    /// What is signed can be verified.
    pub(crate) fn claims(text: &str) {
        let Ok(claims) = serde_json::from_str::<Value>(text) else {
            return;
        };
        let (key, set) = &*KEY;
        let token = jws::sign(key, Algorithm::EdDsa, "one", &claims).expect("the key fits");
        assert!(jws::verify::<Value>(&token, set).is_ok());
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(super) fn options(algorithm: Algorithm) -> JwtOptions {
        JwtOptions {
            enabled: true,
            key: "jwt.key".into(),
            jwks: "jwks.json".into(),
            issuer: None,
            algorithm,
            key_id: None,
            ttl: Duration::hours(24),
        }
    }

    pub(crate) fn minter(issuer: Option<&str>) -> Minter {
        let options = JwtOptions {
            issuer: issuer.map(str::to_owned),
            ..options(Algorithm::Es256)
        };
        Minter::load(&complete(None, None, &options).unwrap(), &options).unwrap()
    }

    #[test]
    fn generates_what_fits_every_algorithm() {
        for algorithm in Algorithm::SIGNING {
            let options = options(algorithm);
            let material = complete(None, None, &options).unwrap();
            let minter = Minter::load(&material, &options).unwrap();
            assert!(minter.jwks().contains(algorithm.name()));
            assert!(!minter.jwks().contains("\"d\""));
        }
    }

    #[test]
    fn what_exists_is_kept() {
        let options = options(Algorithm::Es256);
        let first = complete(None, None, &options).unwrap();
        let from_key = complete(Some(first.key.clone()), None, &options).unwrap();
        assert!(from_key == first);
        let joined = complete(None, Some(first.jwks.clone()), &options).unwrap();
        assert_ne!(joined.key, first.key);
        let set = KeySet::parse(&joined.jwks).unwrap();
        assert_eq!(set.keys.len(), 2, "tokens of the lost key stay verifiable");
    }

    #[test]
    fn says_which_part_is_wrong() {
        let es = options(Algorithm::Es256);
        let (good, other) = (complete(None, None, &es).unwrap(), complete(None, None, &es).unwrap());
        let named = |id: &str| JwtOptions {
            key_id: Some(id.to_owned()),
            ..es.clone()
        };
        let mixed = Material {
            jwks: other.jwks.clone(),
            ..good.clone()
        };
        let encrypted = Material {
            jwks: good.jwks.replace("\"sig\"", "\"enc\""),
            ..good.clone()
        };
        let kid = KeySet::parse(&other.jwks).unwrap().keys[0].kid.clone().unwrap();
        for (material, options, text) in [
            (
                &Material {
                    key: "x".into(),
                    ..good.clone()
                },
                &es,
                "JWT signing key: no usable PEM block",
            ),
            (
                &Material {
                    jwks: String::new(),
                    ..good.clone()
                },
                &es,
                "JWKS: not JSON",
            ),
            (
                &Material {
                    jwks: r#"{"keys":[]}"#.into(),
                    ..good.clone()
                },
                &es,
                "JWKS: it has no key",
            ),
            (&mixed, &es, "JWKS: no key of it is the JWT signing key"),
            (&encrypted, &es, "JWKS: no key of it is the JWT signing key"),
            (&good, &named("a"), "no key has the kid \"a\""),
            (&mixed, &named(&kid), "is not the JWT signing key"),
            (
                &good,
                &super::tests::options(Algorithm::Rs256),
                "P-256 key, but --jwt-signing-algorithm RS256 needs RSA",
            ),
        ] {
            let reason = Minter::load(material, options).err().expect("refused").to_string();
            assert!(reason.contains(text), "{reason}");
        }
        assert!(check(&good, None).is_ok());
    }
}
