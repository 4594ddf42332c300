//! JWT-SVIDs: what sentry issued beside the certificate, checked once and handed out by audience.
//!
//! Signatures are not verified here: the tokens came over a connection whose server is known.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use outrigger_core::{SpiffeId, TrustDomain};
use serde::Deserialize;

/// How far clocks may differ where a token says when it begins to be valid.
const SKEW: Duration = Duration::from_secs(5 * 60);
/// The same for its end.
const EXPIRY_LEEWAY: Duration = Duration::from_secs(60);
/// What verifiers of JWT-SVIDs accept. `EdDSA` is not among them.
const ALGORITHMS: [&str; 9] = [
    "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512",
];

/// Why a token that sentry issued cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    #[error("JWT-SVID: {0}")]
    Malformed(String),
    #[error("JWT-SVID: expected the audience {expected:?}, found {found:?}")]
    Audience { expected: String, found: Vec<String> },
}

/// Why there is no token for an audience.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtUnavailable {
    #[error("a JWT-SVID needs an audience, which is empty")]
    NoAudience,
    #[error("sentry issues no JWT-SVIDs (its flag jwt-enabled is off)")]
    NotIssued,
    #[error("no JWT-SVID for the audience {wanted:?}: there are {issued:?}")]
    Audience { wanted: String, issued: Vec<String> },
    #[error("the JWT-SVID expired and could not be renewed")]
    Expired,
}

/// A token that proves an identity to its audience. A secret until it expires.
#[derive(Clone, PartialEq, Eq)]
pub struct JwtSvid {
    token: Arc<str>,
    id: SpiffeId,
    audience: Vec<String>,
    expires: SystemTime,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: Option<String>,
}

#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    aud: Option<Audience>,
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

impl JwtSvid {
    /// Reads a compact JWS and checks all but its signature and audience.
    ///
    /// # Errors
    /// Names what is missing or wrong.
    pub(crate) fn parse(token: &str, now: SystemTime) -> Result<Self, JwtError> {
        let malformed = |reason: String| JwtError::Malformed(reason);
        let mut parts = token.split('.');
        let (Some(header), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed("expected three parts separated by dots".to_owned()));
        };
        let header: Header = part(header).map_err(|reason| malformed(format!("header: {reason}")))?;
        let claims: Claims = part(claims).map_err(|reason| malformed(format!("claims: {reason}")))?;
        if !ALGORITHMS.contains(&header.alg.as_str()) {
            return Err(malformed(format!(
                "algorithm {:?} is none that is accepted",
                header.alg
            )));
        }
        if let Some(typ) = header.typ.filter(|typ| !matches!(typ.as_str(), "JWT" | "JOSE")) {
            return Err(malformed(format!("type {typ:?}: expected JWT or JOSE")));
        }
        let subject = claims.sub.ok_or_else(|| malformed("claim sub is missing".to_owned()))?;
        let id = SpiffeId::from_str(&subject).map_err(|error| malformed(format!("claim sub: {error}")))?;
        let audience = match claims.aud {
            Some(Audience::One(one)) => vec![one],
            Some(Audience::Many(many)) => many,
            None => Vec::new(),
        };
        if audience.is_empty() {
            return Err(malformed("claim aud is missing or empty".to_owned()));
        }
        let expires = claims
            .exp
            .and_then(at)
            .ok_or_else(|| malformed("claim exp is missing or no time".to_owned()))?;
        if expires + EXPIRY_LEEWAY < now {
            return Err(malformed("it has expired".to_owned()));
        }
        for (name, claim) in [("nbf", claims.nbf), ("iat", claims.iat)] {
            let Some(claim) = claim else { continue };
            let begins = at(claim).ok_or_else(|| malformed(format!("claim {name} is no time")))?;
            if begins > now + SKEW {
                return Err(malformed(format!("claim {name} is in the future")));
            }
        }
        Ok(Self {
            token: token.into(),
            id,
            audience,
            expires,
        })
    }

    /// The token as it goes into a request.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Whose token it is.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    pub fn audience(&self) -> &[String] {
        &self.audience
    }

    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    fn is_for(&self, audience: &str) -> bool {
        self.audience.iter().any(|found| found == audience)
    }
}

impl fmt::Debug for JwtSvid {
    /// Never shows the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtSvid")
            .field("id", &self.id)
            .field("audience", &self.audience)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// The tokens that came with one certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct JwtSvids {
    base: Option<JwtSvid>,
    by_audience: BTreeMap<String, JwtSvid>,
}

impl JwtSvids {
    /// The base token has to name the identity's own trust domain, and each other one just its own audience.
    pub(crate) fn new(
        base: Option<&str>,
        by_audience: &HashMap<String, String>,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Self, JwtError> {
        let wrong = |expected: &str, found: &JwtSvid| JwtError::Audience {
            expected: expected.to_owned(),
            found: found.audience.clone(),
        };
        let base = base.map(|token| JwtSvid::parse(token, now)).transpose()?;
        if let Some(base) = base.as_ref().filter(|base| !base.is_for(trust_domain.as_str())) {
            return Err(wrong(trust_domain.as_str(), base));
        }
        let mut checked = BTreeMap::new();
        for (audience, token) in by_audience {
            let svid = JwtSvid::parse(token, now)?;
            if svid.audience != [audience.as_str()] {
                return Err(wrong(audience, &svid));
            }
            checked.insert(audience.clone(), svid);
        }
        Ok(Self {
            base,
            by_audience: checked,
        })
    }

    pub(crate) fn base(&self) -> Option<&JwtSvid> {
        self.base.as_ref()
    }

    /// The token made for this audience alone, else the base token if it names the audience.
    pub(crate) fn get(&self, audience: &str, now: SystemTime) -> Result<JwtSvid, JwtUnavailable> {
        if audience.is_empty() {
            return Err(JwtUnavailable::NoAudience);
        }
        let svid = self.by_audience.get(audience).or(self.base.as_ref());
        let svid = svid.ok_or(JwtUnavailable::NotIssued)?;
        if !svid.is_for(audience) {
            return Err(JwtUnavailable::Audience {
                wanted: audience.to_owned(),
                issued: svid.audience.clone(),
            });
        }
        if svid.expires <= now {
            return Err(JwtUnavailable::Expired);
        }
        Ok(svid.clone())
    }

    /// When the first of them expires. Upstream looks at the base token only.
    pub(crate) fn first_expiry(&self) -> Option<SystemTime> {
        self.base
            .iter()
            .chain(self.by_audience.values())
            .map(JwtSvid::expires)
            .min()
    }
}

fn part<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    let json = URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| "it is not base64url".to_owned())?;
    // The cause is left out: it may quote a claim.
    serde_json::from_slice(&json).map_err(|_| "it is not the JSON object of a JWT".to_owned())
}

/// A time of a claim: seconds since the epoch, possibly with a fraction.
fn at(seconds: f64) -> Option<SystemTime> {
    let since = Duration::try_from_secs_f64(seconds).ok()?;
    // A century of slack, so that adding leeway cannot overflow.
    (seconds < 1e11).then(|| SystemTime::UNIX_EPOCH + since)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: u64 = 1_700_000_000;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
    }

    /// A token with a signature that nobody looks at.
    fn token(header: Value, claims: Value) -> String {
        let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
        format!("{}.{}.c2ln", part(header), part(claims))
    }

    fn header() -> Value {
        json!({"alg": "RS256", "kid": "k", "typ": "JWT"})
    }

    fn claims(audience: &[&str]) -> Value {
        json!({"sub": "spiffe://public/ns/shop/cart", "aud": audience, "exp": NOW + 60, "iat": NOW, "nbf": NOW - 900})
    }

    fn parse_with(change: impl FnOnce(&mut Value, &mut Value)) -> Result<JwtSvid, JwtError> {
        let (mut header, mut claims) = (header(), claims(&["public"]));
        change(&mut header, &mut claims);
        JwtSvid::parse(&token(header, claims), now())
    }

    #[test]
    fn reads_what_sentry_issues() {
        let svid = parse_with(|_, _| {}).unwrap();
        assert_eq!(svid.id().to_string(), "spiffe://public/ns/shop/cart");
        assert_eq!(svid.audience(), ["public"]);
        assert_eq!(svid.expires(), now() + Duration::from_secs(60));
        assert!(parse_with(|header, _| header["typ"] = json!(null)).is_ok());
        assert!(parse_with(|header, _| header["typ"] = json!("JOSE")).is_ok());
        assert!(parse_with(|_, claims| claims["aud"] = json!("public")).is_ok());
        for algorithm in ALGORITHMS {
            assert!(parse_with(|header, _| header["alg"] = json!(algorithm)).is_ok());
        }
    }

    #[test]
    fn clocks_may_differ_a_little() {
        assert!(parse_with(|_, claims| claims["exp"] = json!(NOW - 59)).is_ok());
        assert!(parse_with(|_, claims| claims["nbf"] = json!(NOW + 299)).is_ok());
        assert!(parse_with(|_, claims| claims["iat"] = json!(NOW as f64 + 0.5)).is_ok());
    }

    #[test]
    fn refuses_with_the_reason() {
        type Change = fn(&mut Value, &mut Value);
        let refusals: [(Change, &str); 12] = [
            (|h, _| h["alg"] = json!("EdDSA"), "EdDSA"),
            (|h, _| h["alg"] = json!("none"), "none"),
            (|h, _| h["alg"] = json!("HS256"), "HS256"),
            (|h, _| h["typ"] = json!("at+jwt"), "at+jwt"),
            (|_, c| c["sub"] = json!("cart"), "claim sub"),
            (|_, c| c["sub"] = json!(null), "claim sub is missing"),
            (|_, c| c["aud"] = json!([]), "claim aud"),
            (|_, c| c["aud"] = json!(null), "claim aud"),
            (|_, c| c["exp"] = json!(null), "claim exp"),
            (|_, c| c["exp"] = json!(-1), "claim exp"),
            (|_, c| c["exp"] = json!(NOW - 61), "expired"),
            (|_, c| c["nbf"] = json!(NOW + 301), "claim nbf is in the future"),
        ];
        for (change, text) in refusals {
            let error = parse_with(change).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
        assert!(parse_with(|_, c| c["exp"] = json!(1e300)).is_err());
        for text in ["", "a.b", "a.b.c.d", "!.e30.x", "e30.e30.x"] {
            assert!(JwtSvid::parse(text, now()).is_err(), "{text}");
        }
    }

    fn issued(base: Option<&[&str]>, others: &[(&str, &str)]) -> Result<JwtSvids, JwtError> {
        let base = base.map(|audience| token(header(), claims(audience)));
        let others = others
            .iter()
            .map(|(key, audience)| ((*key).to_owned(), token(header(), claims(&[audience]))))
            .collect();
        JwtSvids::new(base.as_deref(), &others, &TrustDomain::new("public").unwrap(), now())
    }

    #[test]
    fn tokens_are_found_by_audience() {
        let svids = issued(Some(&["public", "vault"]), &[("vault", "vault"), ("public", "public")]).unwrap();
        assert_eq!(svids.get("vault", now()).unwrap().audience(), ["vault"]);
        // Nobody asked for further audiences: the base token is for the trust domain.
        let svids = issued(Some(&["public"]), &[]).unwrap();
        assert_eq!(svids.get("public", now()).unwrap().audience(), ["public"]);
        assert_eq!(svids.get("", now()), Err(JwtUnavailable::NoAudience));
        assert!(matches!(
            svids.get("vault", now()),
            Err(JwtUnavailable::Audience { .. })
        ));
        assert_eq!(
            svids.get("public", now() + Duration::from_secs(60)),
            Err(JwtUnavailable::Expired)
        );
        assert_eq!(JwtSvids::default().get("public", now()), Err(JwtUnavailable::NotIssued));
    }

    #[test]
    fn audiences_have_to_fit() {
        assert!(matches!(issued(Some(&["vault"]), &[]), Err(JwtError::Audience { .. })));
        assert!(matches!(
            issued(None, &[("vault", "other")]),
            Err(JwtError::Audience { .. })
        ));
        let both = HashMap::from([("a".to_owned(), token(header(), claims(&["a", "b"])))]);
        assert!(JwtSvids::new(None, &both, &TrustDomain::new("public").unwrap(), now()).is_err());
    }

    #[test]
    fn the_first_expiry_counts() {
        let mut early = claims(&["vault"]);
        early["exp"] = json!(NOW + 10);
        let others = HashMap::from([("vault".to_owned(), token(header(), early))]);
        let base = token(header(), claims(&["public"]));
        let svids = JwtSvids::new(Some(&base), &others, &TrustDomain::new("public").unwrap(), now()).unwrap();
        assert_eq!(svids.first_expiry(), Some(now() + Duration::from_secs(10)));
        assert_eq!(JwtSvids::default().first_expiry(), None);
    }

    #[test]
    fn the_token_is_not_shown() {
        let svid = parse_with(|_, _| {}).unwrap();
        let shown = format!("{svid:?}");
        assert!(shown.contains("shop/cart") && !shown.contains("c2ln"), "{shown}");
    }
}
