//! Public keys as JSON Web Keys, and sets of them.

use aws_lc_rs::{digest, hmac, signature};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Map, Value};

use super::algorithm::{Algorithm, KeyKind};

/// Members of a key that must never be published, and of others that nobody may see.
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Key material to verify with. Equal when the material is, whatever else the JSON said.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum PublicKey {
    /// Big-endian, without leading zeros.
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// Uncompressed point: 4, x, y.
    Ec {
        kind: KeyKind,
        point: Vec<u8>,
    },
    Ed25519(Vec<u8>),
    Symmetric(Vec<u8>),
}

/// One key of a set.
#[derive(Clone)]
pub(crate) struct Jwk {
    pub(crate) kid: Option<String>,
    key_use: Option<String>,
    algorithm: Option<String>,
    pub(crate) key: PublicKey,
    members: Map<String, Value>,
}

/// A set of keys, of which those of unknown types are left out.
#[derive(Clone)]
pub(crate) struct KeySet {
    pub(crate) keys: Vec<Jwk>,
}

impl PublicKey {
    pub(crate) fn kind(&self) -> KeyKind {
        match self {
            Self::Rsa { .. } => KeyKind::Rsa,
            Self::Ec { kind, .. } => *kind,
            Self::Ed25519(_) => KeyKind::Ed25519,
            Self::Symmetric(_) => KeyKind::Symmetric,
        }
    }

    /// Whether `signature` is this key's over `message`; never with an algorithm of another kind of key.
    pub(crate) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        if algorithm.key_kind() != self.kind() {
            return false;
        }
        let unparsed = |verification: &'static dyn signature::VerificationAlgorithm, key: &[u8]| {
            signature::UnparsedPublicKey::new(verification, key)
                .verify(message, signature)
                .is_ok()
        };
        match (self, algorithm) {
            (Self::Rsa { n, e }, _) => rsa_parameters(algorithm).is_some_and(|parameters| {
                signature::RsaPublicKeyComponents { n, e }
                    .verify(parameters, message, signature)
                    .is_ok()
            }),
            (Self::Ec { point, .. }, Algorithm::Es256) => unparsed(&signature::ECDSA_P256_SHA256_FIXED, point),
            (Self::Ec { point, .. }, Algorithm::Es384) => unparsed(&signature::ECDSA_P384_SHA384_FIXED, point),
            (Self::Ec { point, .. }, Algorithm::Es512) => unparsed(&signature::ECDSA_P521_SHA512_FIXED, point),
            (Self::Ed25519(key), _) => unparsed(&signature::ED25519, key),
            (Self::Symmetric(secret), _) => {
                let hash = match algorithm {
                    Algorithm::Hs256 => hmac::HMAC_SHA256,
                    Algorithm::Hs384 => hmac::HMAC_SHA384,
                    _ => hmac::HMAC_SHA512,
                };
                hmac::verify(&hmac::Key::new(hash, secret), message, signature).is_ok()
            }
            _ => false,
        }
    }

    /// The members that make up the key, in the order of their names.
    fn members(&self) -> Map<String, Value> {
        let text = |bytes: &[u8]| Value::String(URL_SAFE_NO_PAD.encode(bytes));
        let pairs = match self {
            Self::Rsa { n, e } => vec![("e", text(e)), ("kty", "RSA".into()), ("n", text(n))],
            Self::Ec { kind, point } => {
                let (x, y) = point[1..].split_at(point.len() / 2);
                let curve = kind.to_string().into();
                vec![("crv", curve), ("kty", "EC".into()), ("x", text(x)), ("y", text(y))]
            }
            Self::Ed25519(x) => vec![("crv", "Ed25519".into()), ("kty", "OKP".into()), ("x", text(x))],
            Self::Symmetric(_) => Vec::new(),
        };
        pairs
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    /// Thumbprint of RFC 7638, in the encoding that upstream has for key ids: base64 of the standard alphabet, padded.
    pub(crate) fn thumbprint(&self) -> String {
        let json = Value::Object(self.members()).to_string();
        STANDARD.encode(digest::digest(&digest::SHA256, json.as_bytes()))
    }

    /// As a key to publish.
    pub(crate) fn jwk(&self, kid: &str, algorithm: Algorithm) -> Jwk {
        let mut members = self.members();
        for (name, value) in [("kid", kid), ("alg", algorithm.name()), ("use", "sig")] {
            members.insert(name.to_owned(), value.into());
        }
        Jwk {
            kid: Some(kid.to_owned()),
            key_use: Some("sig".to_owned()),
            algorithm: Some(algorithm.name().to_owned()),
            key: self.clone(),
            members,
        }
    }

    fn parse(members: &Map<String, Value>) -> Result<Option<Self>, String> {
        let bytes = |name: &str| {
            let text = members
                .get(name)
                .and_then(Value::as_str)
                .ok_or_else(|| format!("{name} is missing"))?;
            // Some writers pad.
            URL_SAFE_NO_PAD
                .decode(text.trim_end_matches('='))
                .map_err(|_| format!("{name} is not base64url"))
        };
        let curve = members.get("crv").and_then(Value::as_str).unwrap_or_default();
        Ok(match members.get("kty").and_then(Value::as_str) {
            Some("RSA") => Some(Self::Rsa {
                n: without_zeros(bytes("n")?),
                e: without_zeros(bytes("e")?),
            }),
            Some("EC") => {
                let (kind, length) = match curve {
                    "P-256" => (KeyKind::P256, 32),
                    "P-384" => (KeyKind::P384, 48),
                    "P-521" => (KeyKind::P521, 66),
                    _ => return Ok(None),
                };
                let (x, y) = (bytes("x")?, bytes("y")?);
                if x.len() != length || y.len() != length {
                    return Err(format!("x and y of the curve {curve} have to be {length} bytes long"));
                }
                Some(Self::Ec {
                    kind,
                    point: [vec![4], x, y].concat(),
                })
            }
            Some("OKP") if curve == "Ed25519" => Some(Self::Ed25519(bytes("x")?)),
            Some("oct") => Some(Self::Symmetric(bytes("k")?)),
            _ => None,
        })
    }
}

pub(super) fn rsa_parameters(algorithm: Algorithm) -> Option<&'static signature::RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

fn without_zeros(bytes: Vec<u8>) -> Vec<u8> {
    bytes.into_iter().skip_while(|byte| *byte == 0).collect()
}

impl Jwk {
    /// Keys that say that they are for something else verify no signature.
    pub(crate) fn is_for_signatures(&self) -> bool {
        self.key_use.as_deref().is_none_or(|key_use| key_use == "sig")
    }

    /// The algorithm that a token with this `alg` is verified with: the key's own where it names one.
    pub(crate) fn algorithm(&self, of_token: &str) -> Option<Algorithm> {
        let name = match self.algorithm.as_deref() {
            Some(own) if own != of_token => return None,
            _ => of_token,
        };
        Algorithm::of_token(name).filter(|algorithm| algorithm.key_kind() == self.key.kind())
    }
}

impl KeySet {
    /// Reads a set, or one bare key as a set of one.
    ///
    /// # Errors
    /// Says which key cannot be read, or that there is none.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let json: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
        let list = match json {
            Value::Object(mut set) => match set.remove("keys") {
                Some(Value::Array(keys)) => keys,
                Some(_) => return Err("\"keys\" is not a list".to_owned()),
                None if set.contains_key("kty") => vec![Value::Object(set)],
                None => return Err("neither a set with \"keys\" nor a key with \"kty\"".to_owned()),
            },
            _ => return Err("not a JSON object".to_owned()),
        };
        let mut keys = Vec::new();
        for (index, value) in list.into_iter().enumerate() {
            let Value::Object(members) = value else {
                return Err(format!("key {} is not a JSON object", index + 1));
            };
            let key = PublicKey::parse(&members).map_err(|reason| format!("key {}: {reason}", index + 1))?;
            let text = |name: &str| members.get(name).and_then(Value::as_str).map(str::to_owned);
            let (kid, key_use, algorithm) = (text("kid"), text("use"), text("alg"));
            keys.extend(key.map(|key| Jwk {
                kid,
                key_use,
                algorithm,
                key,
                members,
            }));
        }
        if keys.is_empty() {
            return Err("it has no key of a known type".to_owned());
        }
        Ok(Self { keys })
    }

    /// The public parts of all keys, as they are published.
    pub(crate) fn public_json(&self) -> String {
        let public = self.keys.iter().filter(|jwk| jwk.key.kind() != KeyKind::Symmetric);
        let keys: Vec<_> = public
            .map(|jwk| {
                let members = jwk.members.iter().filter(|(name, _)| !PRIVATE.contains(&name.as_str()));
                members
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect::<Map<_, _>>()
            })
            .collect();
        serde_json::json!({ "keys": keys }).to_string()
    }

    /// The keys of that id that are for signatures.
    pub(crate) fn named<'a>(&'a self, kid: &'a str) -> impl Iterator<Item = &'a Jwk> {
        let keys = self.keys.iter();
        keys.filter(move |jwk| jwk.kid.as_deref() == Some(kid) && jwk.is_for_signatures())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key and thumbprint of RFC 7638.
    const RFC: &str = r#"{"kty":"RSA","e":"AQAB","alg":"RS256","kid":"2011-04-29","d":"c2VjcmV0","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"}"#;

    #[test]
    fn a_bare_key_is_a_set_of_one_and_its_id_is_the_padded_thumbprint() {
        let set = KeySet::parse(RFC).unwrap();
        assert_eq!(
            set.keys[0].key.thumbprint(),
            "NzbLsXh8uDCcd+6MNwXF4W/7noWXFZAfHkxZsRGC9Xs="
        );
        assert_eq!(set.keys[0].algorithm("RS384"), None, "the key says RS256");
        assert_eq!(set.keys[0].algorithm("RS256"), Some(Algorithm::Rs256));
    }

    #[test]
    fn private_members_are_not_published() {
        let oct = r#"{"kty":"oct","k":"c2VjcmV0"}"#;
        let set = KeySet::parse(&format!(r#"{{"keys":[{RFC},{oct},{{"kty":"unknown"}}]}}"#)).unwrap();
        assert_eq!(set.keys.len(), 2);
        let json = set.public_json();
        assert!(!json.contains("c2VjcmV0"), "{json}");
        assert!(json.contains("2011-04-29") && json.contains("AQAB"), "{json}");
    }

    #[test]
    fn says_what_is_wrong_with_a_set() {
        for (text, expected) in [
            ("", "not JSON"),
            ("[]", "not a JSON object"),
            ("{}", "neither a set"),
            (r#"{"keys":{}}"#, "not a list"),
            (r#"{"keys":[]}"#, "no key of a known type"),
            (r#"{"keys":[{"kty":"RSA","e":"AQAB"}]}"#, "key 1: n is missing"),
            (
                r#"{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}"#,
                "32 bytes long",
            ),
        ] {
            let reason = KeySet::parse(text).err().expect("refused");
            assert!(reason.contains(expected), "{reason}");
        }
    }
}
