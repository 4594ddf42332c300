//! Compact JSON Web Signatures.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{algorithm::Algorithm, jwk::KeySet, key::SigningKey};

/// Why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JwsError {
    #[error("the token is not a compact JWS: {0}")]
    Malformed(&'static str),
    #[error("could not verify message: the header has no \"kid\"")]
    NoKeyId,
    #[error("could not verify message: no key with \"kid\" {0:?} in the set")]
    UnknownKey(String),
    #[error("could not verify message: \"alg\" {0:?} does not fit the key")]
    Algorithm(String),
    #[error("could not verify message using any of the signatures or keys")]
    Signature,
}

#[derive(Serialize)]
struct OwnHeader<'a> {
    alg: &'static str,
    kid: &'a str,
    typ: &'static str,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
}

/// Signs `claims`.
///
/// # Errors
/// When the key does not fit the algorithm.
pub(crate) fn sign(
    key: &SigningKey,
    algorithm: Algorithm,
    kid: &str,
    claims: &impl Serialize,
) -> Result<String, String> {
    let header = OwnHeader {
        alg: algorithm.name(),
        kid,
        typ: "JWT",
    };
    let encode = |part: Result<Vec<u8>, serde_json::Error>| {
        part.map(|json| URL_SAFE_NO_PAD.encode(json))
            .map_err(|error| error.to_string())
    };
    let mut token = encode(serde_json::to_vec(&header))?;
    token.push('.');
    token.push_str(&encode(serde_json::to_vec(claims))?);
    let signature = key
        .sign(algorithm, token.as_bytes())
        .map_err(|_| "the key cannot sign".to_owned())?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(token)
}

/// The claims of a token that a key of `keys` has signed. A key that names an algorithm is used with no other, and no key with
/// one of another type.
///
/// # Errors
/// Which part is wrong.
pub(crate) fn verify<T: DeserializeOwned>(token: &str, keys: &KeySet) -> Result<T, JwsError> {
    let (message, signature) = token.rsplit_once('.').ok_or(JwsError::Malformed("it has no dots"))?;
    let (header, payload) = message
        .split_once('.')
        .ok_or(JwsError::Malformed("it has one dot only"))?;
    let decode = |text: &str, what| URL_SAFE_NO_PAD.decode(text).map_err(|_| JwsError::Malformed(what));
    let header: Header = serde_json::from_slice(&decode(header, "the header is not base64url")?)
        .map_err(|_| JwsError::Malformed("the header is not a JSON object with \"alg\""))?;
    let kid = header.kid.filter(|kid| !kid.is_empty()).ok_or(JwsError::NoKeyId)?;
    if keys.named(&kid).next().is_none() {
        return Err(JwsError::UnknownKey(kid));
    }
    // Keys of different types may share an id.
    let fitting = keys
        .named(&kid)
        .find_map(|jwk| jwk.algorithm(&header.alg).map(|algorithm| (jwk, algorithm)));
    let (jwk, algorithm) = fitting.ok_or(JwsError::Algorithm(header.alg))?;
    let signature = decode(signature, "the signature is not base64url")?;
    if !jwk.key.verifies(algorithm, message.as_bytes(), &signature) {
        return Err(JwsError::Signature);
    }
    serde_json::from_slice(&decode(payload, "the claims are not base64url")?)
        .map_err(|_| JwsError::Malformed("the claims are not what was expected of their types"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn key_and_set(algorithm: Algorithm) -> (SigningKey, KeySet) {
        let key = SigningKey::from_pem(&SigningKey::generate(algorithm).unwrap()).unwrap();
        let set = KeySet {
            keys: vec![key.public().jwk("one", algorithm)],
        };
        (key, set)
    }

    #[test]
    fn verifies_what_it_signs() {
        let (key, set) = key_and_set(Algorithm::Es256);
        let token = sign(&key, Algorithm::Es256, "one", &json!({"sub": "x"})).unwrap();
        let header = token.split('.').next().unwrap();
        assert_eq!(
            String::from_utf8(URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap(),
            r#"{"alg":"ES256","kid":"one","typ":"JWT"}"#
        );
        assert_eq!(verify::<Value>(&token, &set).unwrap()["sub"], "x");
    }

    #[test]
    fn refuses_forgeries() {
        let (key, set) = key_and_set(Algorithm::EdDsa);
        let (stranger, _) = key_and_set(Algorithm::EdDsa);
        let claims = json!({"sub": "x"});
        let error = |token: &str| verify::<Value>(token, &set).unwrap_err();
        assert_eq!(
            error(&sign(&stranger, Algorithm::EdDsa, "one", &claims).unwrap()),
            JwsError::Signature
        );
        assert_eq!(
            error(&sign(&key, Algorithm::EdDsa, "two", &claims).unwrap()),
            JwsError::UnknownKey("two".into())
        );
        assert_eq!(
            error(&sign(&key, Algorithm::EdDsa, "", &claims).unwrap()),
            JwsError::NoKeyId
        );
        let good = sign(&key, Algorithm::EdDsa, "one", &claims).unwrap();
        let (_, rest) = good.split_once('.').unwrap();
        for header in [r#"{"alg":"none","kid":"one"}"#, r#"{"alg":"HS256","kid":"one"}"#] {
            let forged = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header));
            assert!(matches!(error(&forged), JwsError::Algorithm(_)));
        }
        for malformed in ["", "a", "a.b", "!.b.c", "e30.b.c"] {
            assert!(matches!(error(malformed), JwsError::Malformed(_)), "{malformed}");
        }
    }
}
