//! The discovery document.

use http::Uri;
use serde::Serialize;

/// Scheme and host under which a caller knows this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) scheme: String,
    pub(super) host: String,
}

/// The host that was asked for, or the configured issuer, makes no URL.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InvalidHost;

/// Members in the order in which upstream writes them.
#[derive(Debug, Serialize)]
pub(super) struct Discovery {
    issuer: String,
    jwks_uri: String,
    response_types_supported: [&'static str; 1],
    subject_types_supported: [&'static str; 1],
    id_token_signing_alg_values_supported: [&'static str; 1],
    scopes_supported: [&'static str; 1],
    claims_supported: [&'static str; 7],
}

impl Discovery {
    /// `jwks_path` is absolute: it replaces the path of an issuer that has one. The issuer is not changed in any way, since it is
    /// compared as text with the claim of tokens.
    ///
    /// # Errors
    /// When the host, or the configured issuer, is not part of a URL.
    pub(super) fn new(
        base: &Base,
        issuer: Option<&str>,
        jwks_uri: Option<&str>,
        jwks_path: &str,
        algorithm: &'static str,
    ) -> Result<Self, InvalidHost> {
        let issuer = issuer.map_or_else(|| format!("{}://{}", base.scheme, base.host), str::to_owned);
        let root = root(&issuer).ok_or(InvalidHost)?;
        let jwks_uri = jwks_uri.map_or_else(|| format!("{root}{jwks_path}"), str::to_owned);
        Ok(Self {
            issuer,
            jwks_uri,
            response_types_supported: ["id_token"],
            subject_types_supported: ["public"],
            id_token_signing_alg_values_supported: [algorithm],
            scopes_supported: ["openid"],
            claims_supported: ["sub", "iss", "aud", "exp", "iat", "nbf", "use"],
        })
    }

    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).expect("texts are always JSON")
    }
}

/// Scheme and host of a URL.
fn root(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let host = uri.host().filter(|host| !host.is_empty())?;
    // A user would be part of the authority, too.
    let authority = uri.authority()?.as_str();
    (authority.starts_with(host) && !authority.contains('@'))
        .then(|| format!("{}://{authority}", uri.scheme_str().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn discovery(host: &str, issuer: Option<&str>, jwks_uri: Option<&str>) -> Result<(String, String), InvalidHost> {
        let base = Base {
            scheme: "https".into(),
            host: host.into(),
        };
        Discovery::new(&base, issuer, jwks_uri, "/jwks.json", "RS256").map(|d| (d.issuer, d.jwks_uri))
    }

    #[test]
    fn addresses() {
        let pair = |a: &str, b: &str| Ok((a.to_owned(), b.to_owned()));
        assert_eq!(
            discovery("h:9080", None, None),
            pair("https://h:9080", "https://h:9080/jwks.json")
        );
        assert_eq!(
            discovery("h", Some("https://x/tenant"), None),
            pair("https://x/tenant", "https://x/jwks.json"),
            "the path of the issuer is replaced"
        );
        assert_eq!(
            discovery("h", None, Some("https://cdn/keys")),
            pair("https://h", "https://cdn/keys")
        );
        assert!(discovery("", None, None).is_err());
        assert!(discovery("a b", None, None).is_err());
    }

    #[test]
    fn members_are_in_order() {
        let base = Base {
            scheme: "http".into(),
            host: "h".into(),
        };
        assert_eq!(
            Discovery::new(&base, None, None, "/p/jwks.json", "ES256")
                .unwrap()
                .json(),
            r#"{"issuer":"http://h","jwks_uri":"http://h/p/jwks.json","response_types_supported":["id_token"],"subject_types_supported":["public"],"id_token_signing_alg_values_supported":["ES256"],"scopes_supported":["openid"],"claims_supported":["sub","iss","aud","exp","iat","nbf","use"]}"#
        );
    }
}
