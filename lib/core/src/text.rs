//! Text helpers for messages that people read.

use std::{borrow::Cow, error::Error};

/// An error and its causes, outermost first. What a text says already is not said again.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |&error| error.source()) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// The name in `known` that is nearest to `word`, when it is near enough to be a typing mistake.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    let near = 1 + length / 5;
    // Lengths alone tell most names apart, and keep a word of any length cheap.
    let similar = known
        .into_iter()
        .filter(|name| name.chars().count().abs_diff(length) <= near);
    let (distance, name) = similar.map(|name| (edit_distance(word, name), name)).min()?;
    (distance <= near).then_some(name)
}

/// At most `max` bytes of a text, with an ellipsis if that is not all of it.
pub fn shortened(mut text: String, max: usize) -> String {
    const ELLIPSIS: &str = "…";
    if text.len() > max {
        let mut end = max.saturating_sub(ELLIPSIS.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(ELLIPSIS);
    }
    text
}

/// A URL, or what was meant as one, without what may be secret in it: user, password, query and fragment.
pub fn without_credentials(url: &str) -> Cow<'_, str> {
    let start = url.find("://").map_or(0, |at| at + "://".len());
    let (scheme, rest) = url.split_at(start);
    // The last one, wherever it is: a password may contain anything when the URL is no correct one.
    let host = rest.rsplit_once('@').map(|(_, host)| host);
    let (shown, is_cut) = match host.unwrap_or(rest).split_once(['?', '#']) {
        Some((shown, _)) => (shown, true),
        None => (host.unwrap_or(rest), false),
    };
    if host.is_none() && !is_cut {
        return url.into();
    }
    let (user, query) = (host.map_or("", |_| "…@"), if is_cut { "?…" } else { "" });
    format!("{scheme}{user}{shown}{query}").into()
}

/// Levenshtein distance in characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        use std::{fmt, io};

        #[derive(Debug)]
        struct Outer(io::Error);
        impl fmt::Display for Outer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("cannot read")
            }
        }
        impl Error for Outer {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&self.0)
            }
        }
        assert_eq!(chain(&Outer(io::Error::other("no disk"))), "cannot read: no disk");
        let shows_its_cause = io::Error::other(Outer(io::Error::other("no disk")));
        assert_eq!(chain(&shows_its_cause), "cannot read: no disk");
    }

    #[test]
    fn texts_fit() {
        assert_eq!(shortened("short".into(), 1024), "short");
        let long = shortened("ä".repeat(1000), 1024);
        assert!(long.len() <= 1024 && long.ends_with('…'));
    }

    #[test]
    fn urls_are_shown_without_secrets() {
        for (url, shown) in [
            ("http://zipkin:9411/api/v2/spans", "http://zipkin:9411/api/v2/spans"),
            ("htp://user:secret@host/path", "htp://…@host/path"),
            ("user:secret@host", "…@host"),
            ("http://u:se/cr?t@ho@st/p?token=secret#secret", "http://…@st/p?…"),
            ("host?key=secret", "host?…"),
            ("//host/#secret", "//host/?…"),
            ("secret://@", "secret://…@"),
            ("", ""),
        ] {
            assert_eq!(without_credentials(url), shown, "{url}");
        }
    }

    #[test]
    fn finds_typing_mistakes_only() {
        let known = ["dapr.io/app-id", "dapr.io/app-port", "dapr.io/enabled"];
        assert_eq!(nearest("dapr.io/appid", known), Some("dapr.io/app-id"));
        assert_eq!(nearest("dapr.io/enable", known), Some("dapr.io/enabled"));
        assert_eq!(nearest("dapr.io/something-else", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest(&"dapr.io/enabled".repeat(1_000_000), known), None);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
    }
}
