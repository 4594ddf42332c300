//! JWT-SVIDs: a process's identity as a token, for one audience or several.

use std::{collections::BTreeMap, sync::Arc};

use outrigger_core::SpiffeId;
use serde::Serialize;
use time::{Duration, OffsetDateTime};
use tokio::sync::Semaphore;

use super::{Minter, jws};

/// Audiences of one request. Each costs a signature.
pub(crate) const MAX_AUDIENCES: usize = 64;

/// Why there are no tokens. The texts are upstream's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IssueError {
    #[error("failed to generate JWT: {0}")]
    Base(String),
    #[error("failed to generate JWT for audience {0}: {1}")]
    Audience(String, String),
}

/// The tokens of one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tokens {
    /// With all audiences.
    pub(crate) base: String,
    /// One for each audience, with that audience alone.
    pub(crate) per_audience: BTreeMap<String, String>,
}

/// In the order of their names, as upstream writes them.
#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a [String],
    exp: i64,
    iat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    jti: String,
    nbf: i64,
    sub: &'a str,
    r#use: &'static str,
}

impl Minter {
    /// The tokens for `id`: the trust domain is always an audience, and comes first.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub(crate) fn mint(
        &self,
        id: &SpiffeId,
        audiences: &[String],
        skew: Duration,
        now: OffsetDateTime,
    ) -> Result<Tokens, IssueError> {
        let subject = id.to_string();
        let all: Vec<String> = std::iter::once(id.trust_domain().to_string())
            .chain(audiences.iter().cloned())
            .collect();
        let one = |aud: &[String]| {
            let claims = Claims {
                aud,
                exp: (now + self.ttl).unix_timestamp(),
                iat: now.unix_timestamp(),
                iss: self.issuer.as_deref(),
                jti: token_id()?,
                nbf: (now - skew).unix_timestamp(),
                sub: &subject,
                r#use: "sig",
            };
            jws::sign(&self.key, self.algorithm, &self.kid, &claims)
        };
        let base = one(&all).map_err(IssueError::Base)?;
        let mut per_audience = BTreeMap::new();
        for audience in &all {
            if per_audience.contains_key(audience) {
                continue;
            }
            // With one audience both tokens say the same: the signature, which is what costs, is made once.
            let token = match all.len() {
                1 => base.clone(),
                _ => one(std::slice::from_ref(audience))
                    .map_err(|reason| IssueError::Audience(audience.clone(), reason))?,
            };
            per_audience.insert(audience.clone(), token);
        }
        Ok(Tokens { base, per_audience })
    }

    /// As [`Minter::mint`], off the threads that serve connections, and no more at once than there are processors.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub(crate) async fn mint_aside(
        self: Arc<Self>,
        slots: &Semaphore,
        id: SpiffeId,
        audiences: Vec<String>,
        skew: Duration,
    ) -> Result<Tokens, IssueError> {
        let interrupted = || IssueError::Base("sentry is stopping".to_owned());
        let _slot = slots.acquire().await.map_err(|_| interrupted())?;
        let minted = tokio::task::spawn_blocking(move || self.mint(&id, &audiences, skew, OffsetDateTime::now_utc()));
        minted.await.map_err(|_| interrupted())?
    }
}

/// 16 random bytes in hexadecimal.
fn token_id() -> Result<String, String> {
    use std::fmt::Write;
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "no randomness".to_owned())?;
    Ok(bytes.iter().fold(String::with_capacity(32), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jwt::tests::minter;
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use serde_json::{Value, json};

    fn text(token: &str) -> String {
        let payload = token.split('.').nth(1).unwrap();
        String::from_utf8(URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
    }

    fn claims(token: &str) -> Value {
        serde_json::from_str(&text(token)).unwrap()
    }

    fn mint(audiences: &[&str], issuer: Option<&str>) -> Tokens {
        let id = "spiffe://public/ns/shop/cart".parse().unwrap();
        let audiences: Vec<_> = audiences.iter().map(ToString::to_string).collect();
        let now = OffsetDateTime::from_unix_timestamp(1_000_000).unwrap();
        minter(issuer)
            .mint(&id, &audiences, Duration::minutes(15), now)
            .unwrap()
    }

    #[test]
    fn claims_are_exact() {
        let tokens = mint(&["a", "b", "a"], None);
        let mut found = claims(&tokens.base);
        let id = found["jti"].take();
        let id = id.as_str().unwrap();
        assert!(
            id.len() == 32
                && id
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)),
            "{id}"
        );
        assert_eq!(
            found,
            json!({
                "aud": ["public", "a", "b", "a"], "exp": 1_000_000 + 86_400, "iat": 1_000_000, "jti": null,
                "nbf": 1_000_000 - 900, "sub": "spiffe://public/ns/shop/cart", "use": "sig"
            })
        );
        assert!(text(&tokens.base).starts_with(r#"{"aud":["public","a","b","a"],"exp":"#));
    }

    #[test]
    fn there_is_a_token_for_each_audience_and_the_trust_domain() {
        let tokens = mint(&["a", "b", "a"], None);
        assert_eq!(tokens.per_audience.keys().collect::<Vec<_>>(), ["a", "b", "public"]);
        for (audience, token) in &tokens.per_audience {
            assert_eq!(claims(token)["aud"], json!([audience]));
        }
        let tokens = mint(&[], None);
        assert_eq!(tokens.per_audience["public"], tokens.base);
    }

    #[test]
    fn an_issuer_is_verbatim_and_absent_when_unset() {
        assert_eq!(claims(&mint(&[], Some("https://x/y")).base)["iss"], "https://x/y");
        assert_eq!(claims(&mint(&[], Some("")).base)["iss"], "");
        assert!(claims(&mint(&[], None).base).get("iss").is_none());
    }
}
