//! The validator's options, as the Configuration spells them.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use http::Uri;
use outrigger_core::GoDuration;

use crate::jwt::jwk::KeySet;

/// Where keys come from, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JwksOptions {
    pub(super) source: Source,
    /// PEM text or a file of it: who may vouch for the server of a URL, in place of the system's roots.
    pub(super) ca: Option<String>,
    /// Never asks a URL more often than this.
    pub(super) min_refresh: Duration,
    /// For one answer of a URL.
    pub(super) timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    Url(Uri),
    File(PathBuf),
    /// JSON that has been read once and can be read again.
    Literal(String),
}

const NAMES: [&str; 4] = ["source", "caCertificate", "minRefreshInterval", "requestTimeout"];

impl JwksOptions {
    /// Keys of options are the same in any case, as upstream has it.
    ///
    /// # Errors
    /// Names the option, what was found and what was expected.
    pub(crate) fn parse(options: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut given = BTreeMap::new();
        for (key, value) in options {
            match NAMES.into_iter().find(|name| name.eq_ignore_ascii_case(key)) {
                Some(name) => drop(given.insert(name, value.as_str())),
                None => return Err(format!("{key}: unknown option, expected one of {}", NAMES.join(", "))),
            }
        }
        let get = |name| given.get(name).copied().filter(|value: &&str| !value.is_empty());
        let source = Source::parse(get("source").ok_or("source: missing, expected a URL, a file or a JWKS")?)
            .map_err(|reason| format!("source: {reason}"))?;
        let duration = |name, default, at_least| match get(name) {
            None => Ok(default),
            // Upstream keeps its default for anything shorter.
            Some(text) => seconds_or_duration(text)
                .map(|found| if found > at_least { found } else { default })
                .map_err(|reason| format!("{name}: {reason}")),
        };
        Ok(Self {
            source,
            ca: get("caCertificate").map(str::to_owned),
            min_refresh: duration("minRefreshInterval", Duration::from_secs(600), Duration::from_secs(1))?,
            timeout: duration("requestTimeout", Duration::from_secs(30), Duration::from_millis(1))?,
        })
    }
}

impl Source {
    fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with("https://") || text.starts_with("http://") {
            let uri: Uri = text
                .parse()
                .map_err(|error| format!("{text:?} is not a URL: {error}"))?;
            if uri.scheme_str() == Some("http") {
                tracing::warn!(
                    url = text,
                    "the JWKS is loaded without TLS: whoever is in between can replace its keys"
                );
            }
            return Ok(Self::Url(uri));
        }
        let path = PathBuf::from(text);
        if path.is_file() {
            return Ok(Self::File(path));
        }
        let text = text.trim();
        let json = if text.starts_with('{') {
            text.to_owned()
        } else {
            let decoded = STANDARD_NO_PAD.decode(text.trim_end_matches('=')).ok();
            decoded.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| {
                "expected a URL (https:// or http://), a file that exists, a JWKS in JSON, or base64 of one".to_owned()
            })?
        };
        KeySet::parse(&json).map_err(|reason| format!("the JWKS cannot be used: {reason}"))?;
        Ok(Self::Literal(json))
    }
}

fn seconds_or_duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    GoDuration::parse(text)
        .map(GoDuration::as_std)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD;

    const SET: &str = r#"{"keys":[{"kty":"oct","k":"AA","kid":"a"}]}"#;

    fn parse(pairs: &[(&str, &str)]) -> Result<JwksOptions, String> {
        JwksOptions::parse(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn finds_out_what_a_source_is() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let source = |text: &str| parse(&[("Source", text)]).unwrap().source;
        assert!(matches!(source("https://idp.example/keys"), Source::Url(_)));
        assert!(matches!(source(file.path().to_str().unwrap()), Source::File(_)));
        assert_eq!(source(SET), Source::Literal(SET.into()));
        assert_eq!(source(&STANDARD.encode(SET)), Source::Literal(SET.into()));
        assert_eq!(
            source(STANDARD.encode(SET).trim_end_matches('=')),
            Source::Literal(SET.into())
        );
    }

    #[test]
    fn intervals_are_durations_or_seconds_and_have_a_floor() {
        let intervals = |refresh, timeout| {
            let options = parse(&[
                ("source", SET),
                ("MINREFRESHINTERVAL", refresh),
                ("requestTimeout", timeout),
            ])
            .unwrap();
            (options.min_refresh.as_millis(), options.timeout.as_millis())
        };
        assert_eq!(intervals("90", "2"), (90_000, 2_000));
        assert_eq!(intervals("5m", "1500ms"), (300_000, 1_500));
        assert_eq!(intervals("1s", "1ms"), (600_000, 30_000));
        assert_eq!(intervals("", ""), (600_000, 30_000));
    }

    #[test]
    fn mistakes_name_the_option() {
        for (pairs, text) in [
            (&[][..], "source: missing"),
            (&[("source", "/no/such/file")], "source: expected a URL"),
            (&[("source", "{}")], "source: the JWKS cannot be used: neither a set"),
            (&[("source", "https://")], "is not a URL"),
            (
                &[("source", SET), ("minRefreshInterval", "soon")],
                "minRefreshInterval: \"soon\"",
            ),
            (&[("source", SET), ("requestTimeout", "-")], "requestTimeout: "),
            (&[("source", SET), ("sauce", "x")], "sauce: unknown option"),
        ] {
            let reason = parse(pairs).unwrap_err();
            assert!(reason.contains(text), "{reason}");
        }
    }
}
