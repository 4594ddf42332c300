//! Grants an identity to whoever presents a token for it that a key of a JWKS has signed.

mod options;
mod source;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use outrigger_core::SpiffeId;
use outrigger_proto::sentry::SignCertificateRequest;
use serde::Deserialize;
use time::OffsetDateTime;

pub(crate) use options::JwksOptions;

use super::{Refusal, Validated, check_request};
use crate::jwt::{jwk::KeySet, jws};

/// Clocks of issuers may differ from ours by this much, in seconds.
const SKEW: f64 = 300.0;

/// Validates tokens with the keys of the moment.
pub(crate) struct JwksValidator {
    /// Sentry's own id, which every token has to name as its audience.
    audience: String,
    keys: Arc<ArcSwapOption<KeySet>>,
}

#[derive(Deserialize)]
struct Claims {
    aud: Option<Audience>,
    sub: Option<String>,
    exp: Option<f64>,
    nbf: Option<f64>,
    iat: Option<f64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl JwksValidator {
    pub(crate) fn new(audience: &SpiffeId) -> Self {
        Self {
            audience: audience.to_string(),
            keys: Arc::default(),
        }
    }

    pub(super) fn validate(&self, request: &SignCertificateRequest) -> Result<Validated, Refusal> {
        if request.token.is_empty() {
            return Err(Refusal::Denied("the request does not contain a token".to_owned()));
        }
        let keys = self.keys.load();
        let keys = keys
            .as_ref()
            .ok_or_else(|| Refusal::Unavailable("jwks validator not ready".to_owned()))?;
        let trust_domain = check_request(request)?;
        let subject = SpiffeId::new(trust_domain.clone(), &request.namespace, &request.id)
            .map_err(|error| Refusal::Denied(format!("failed to construct SPIFFE ID for requestor: {error}")))?;
        let invalid = |reason: String| Refusal::Denied(format!("token validation failed: {reason}"));
        let claims: Claims = jws::verify(request.token.trim(), keys).map_err(|error| invalid(error.to_string()))?;
        claims
            .check(&self.audience, &subject.to_string(), OffsetDateTime::now_utc())
            .map_err(invalid)?;
        Ok(Validated {
            trust_domain,
            images: Vec::new(),
        })
    }
}

impl Claims {
    #[allow(
        clippy::cast_precision_loss,
        reason = "seconds since 1970 are exact for some million years"
    )]
    fn check(&self, audience: &str, subject: &str, now: OffsetDateTime) -> Result<(), String> {
        let for_us = match &self.aud {
            Some(Audience::One(one)) => one == audience,
            Some(Audience::Many(many)) => many.iter().any(|one| one == audience),
            None => false,
        };
        if !for_us {
            return Err(format!("\"aud\" not satisfied: it does not contain {audience}"));
        }
        if self.sub.as_deref() != Some(subject) {
            return Err(format!("\"sub\" not satisfied: it is not {subject}"));
        }
        let now = now.unix_timestamp() as f64;
        if self.exp.is_some_and(|exp| exp + SKEW <= now) {
            return Err("\"exp\" not satisfied: the token has expired".to_owned());
        }
        if self.nbf.is_some_and(|nbf| nbf - SKEW > now) {
            return Err("\"nbf\" not satisfied: the token is not valid yet".to_owned());
        }
        if self.iat.is_some_and(|iat| iat - SKEW > now) {
            return Err("\"iat\" not satisfied: the token was issued in the future".to_owned());
        }
        Ok(())
    }
}

#[cfg(fuzzing)]
pub(super) mod fuzzing {
    use super::*;

    /// Members that nobody knows may be numbers of any size, whose last digit is not kept.
    fn blank_numbers(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Number(_) => *value = 0.into(),
            serde_json::Value::Array(items) => items.iter_mut().for_each(blank_numbers),
            serde_json::Value::Object(members) => members.values_mut().for_each(blank_numbers),
            _ => {}
        }
    }

    pub(crate) fn verify(token: &str, keys: &str) {
        let Ok(keys) = KeySet::parse(keys) else { return };
        let published = keys.public_json();
        let json: serde_json::Value = serde_json::from_str(&published).expect("our own JSON");
        let shown = json["keys"].as_array().expect("a set");
        assert!(
            shown.iter().all(|key| key.get("d").is_none()),
            "a private part in {published}"
        );
        // A set without any public key is no set to read.
        if let Ok(again) = KeySet::parse(&published) {
            let mut again: serde_json::Value = serde_json::from_str(&again.public_json()).expect("our own JSON");
            let mut once = json;
            blank_numbers(&mut again);
            blank_numbers(&mut once);
            assert_eq!(again, once);
        }
        if let Ok(claims) = jws::verify::<Claims>(token, &keys) {
            let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).expect("a constant");
            let audience = "spiffe://cluster.local/ns/dapr-system/dapr-sentry";
            let _ = claims.check(audience, "spiffe://public/ns/shop/cart", now);
        }
    }
}

#[cfg(test)]
mod tests;
