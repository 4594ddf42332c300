//! Rules that several kinds share.

use outrigger_core::{GoDuration, app_id, text::nearest};

use super::{Findings, repeated};
use crate::{
    rules::warnings,
    shared::{NameValuePair, SecretKeyRef, SecretStore},
};

impl Findings {
    pub(super) fn scopes(&mut self, scopes: &[String]) {
        for (index, scope) in scopes.iter().enumerate() {
            if app_id::validate(scope).is_err() {
                self.value(&warnings::SCOPE_INVALID, format!("scopes[{index}]"), scope);
            }
        }
        for scope in repeated(scopes.iter().map(String::as_str)) {
            self.value(&warnings::SCOPE_TWICE, "scopes", scope);
        }
    }

    /// Pairs whose secret references point into `store`.
    pub(super) fn pairs(&mut self, field: &str, pairs: &[NameValuePair], store: SecretStore<'_>) {
        for (index, pair) in pairs.iter().enumerate() {
            self.pair(&format!("{field}[{index}]"), pair, store);
        }
        for name in repeated(
            pairs
                .iter()
                .map(|pair| pair.name.as_str())
                .filter(|name| !name.is_empty()),
        ) {
            self.value(&warnings::PAIR_NAME_TWICE, field, name);
        }
    }

    fn pair(&mut self, field: &str, pair: &NameValuePair, store: SecretStore<'_>) {
        if pair.name.is_empty() {
            self.field(&warnings::PAIR_NAME_EMPTY, field);
        }
        if let Some(secret) = &pair.secret_key_ref {
            self.secret(field, secret, store);
        }
        let (value, secret) = (pair.value.is_some(), pair.secret_key_ref.is_some());
        let variable = pair.env_ref.as_deref().filter(|name| !name.is_empty());
        match (value, secret, variable) {
            (false, false, None) => self.field(&warnings::PAIR_NOTHING, field),
            (true, true, _) => self.field(&warnings::PAIR_VALUE_AND_SECRET, field),
            (_, _, Some(_)) if value || secret => self.field(&warnings::PAIR_ENV_AND_MORE, field),
            _ => {}
        }
        if let Some(name) = variable {
            let upper = name.to_uppercase();
            if upper == "APP_API_TOKEN" || upper.starts_with("DAPR_") || upper.contains(' ') {
                self.value(&warnings::PAIR_ENV_FORBIDDEN, format!("{field}.envRef"), name);
            }
        }
    }

    /// A reference; names and keys of Kubernetes Secrets have a form, those of other stores have not.
    pub(super) fn secret(&mut self, field: &str, secret: &SecretKeyRef, store: SecretStore<'_>) {
        if secret.name.is_empty() {
            return self.field(&warnings::SECRET_NAME_EMPTY, field);
        }
        if store != SecretStore::Kubernetes {
            return;
        }
        if !is_subdomain(&secret.name) {
            self.value(
                &warnings::SECRET_NAME_INVALID,
                format!("{field}.secretKeyRef.name"),
                &secret.name,
            );
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !secret.key().chars().all(allowed) {
            self.value(
                &warnings::SECRET_KEY_INVALID,
                format!("{field}.secretKeyRef.key"),
                secret.key(),
            );
        }
    }
}

/// A name that Kubernetes gives to most objects.
fn is_subdomain(name: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let label = |label: &str| {
        label.starts_with(alphanumeric)
            && label.ends_with(alphanumeric)
            && label.chars().all(|c| alphanumeric(c) || c == '-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// Whether a URL has a scheme (one of these, if any are given) and a host.
pub(super) fn has_host(url: &str, schemes: &[&str]) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else {
        return false;
    };
    let legal = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '.' | '-'));
    let known = schemes.is_empty() || schemes.iter().any(|known| scheme.eq_ignore_ascii_case(known));
    let no_host = |c: char| matches!(c, '/' | '?' | '#') || c.is_whitespace();
    legal && known && rest.starts_with(|c| !no_host(c))
}

/// A duration above zero.
pub(super) fn is_positive(text: &str) -> bool {
    GoDuration::parse(text).is_ok_and(|duration| duration.nanos() > 0)
}

/// Bytes of a word that is worth comparing: the time grows with the square.
const LONGEST_WORD: usize = 64;
/// Names that a word is compared with at most.
const MOST_NAMES: usize = 100;

/// What was probably meant, to end a message with.
pub(super) fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known = known.into_iter().take(MOST_NAMES);
    let nearest = (word.len() <= LONGEST_WORD).then(|| nearest(word, known)).flatten();
    nearest.map_or_else(String::new, |name| format!(" (did you mean {name:?}?)"))
}

/// Words that upstream reads as true or false.
pub(super) fn is_truth(text: &str) -> bool {
    const WORDS: [&str; 12] = ["y", "yes", "true", "t", "on", "1", "n", "no", "false", "f", "off", "0"];
    WORDS.contains(&text.trim().to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_need_a_scheme_and_a_host() {
        for url in ["http://h", "HTTPS://h:1/p?q", "http://[::1]/", "http://:80"] {
            assert!(has_host(url, &["http", "https"]), "{url}");
        }
        for url in [
            "",
            "h",
            "h:80",
            "http://",
            "http:///p",
            "ftp://h",
            "http:/h",
            "://h",
            "http:// h",
        ] {
            assert!(!has_host(url, &["http", "https"]), "{url}");
        }
        assert!(has_host("ftp://h", &[]) && !has_host("1tp://h", &[]));
    }

    #[test]
    fn names_of_secrets_are_those_of_kubernetes() {
        assert!(is_subdomain("redis-auth.v1") && is_subdomain("a"));
        for name in ["Redis", "redis_auth", "-a", "a-", "a..b", "a/b", &"a".repeat(254)] {
            assert!(!is_subdomain(name), "{name}");
        }
    }
}
