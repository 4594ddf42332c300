//! `$NAME` and `${NAME}` in the standalone configuration, as Go's `os.ExpandEnv` replaces them: what is not set becomes nothing.

/// Replaces every variable by what `lookup` says.
pub(crate) fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let (name, length) = name(after);
        match name {
            Some(name) => expanded.push_str(&lookup(name).unwrap_or_default()),
            // A dollar before anything that is no name stays, broken braces vanish.
            None if length == 0 => expanded.push('$'),
            None => {}
        }
        rest = &after[length..];
    }
    expanded + rest
}

/// The name behind a dollar, and how many bytes it takes with its braces.
fn name(text: &str) -> (Option<&str>, usize) {
    if let Some(inner) = text.strip_prefix('{') {
        return match inner.find('}') {
            Some(0) => (None, 2),
            Some(end) => (Some(&inner[..end]), end + 2),
            None => (None, 1),
        };
    }
    match text.as_bytes().first() {
        // The shell's special variables have one character each.
        Some(b'*' | b'#' | b'$' | b'@' | b'!' | b'?' | b'-' | b'0'..=b'9') => (Some(&text[..1]), 1),
        _ => {
            let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
            ((end > 0).then(|| &text[..end]), end)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_as_go_does() {
        let lookup = |name: &str| match name {
            "TTL" => Some("1h".to_owned()),
            "A_1" => Some("$TTL".to_owned()),
            _ => None,
        };
        for (text, expected) in [
            ("ttl: $TTL, ${TTL}x$TTL", "ttl: 1h, 1hx1h"),
            ("$A_1", "$TTL"),
            ("a${UNSET}b$UNSET", "ab"),
            ("100$ and $(x)", "100$ and $(x)"),
            ("${}x ${open", "x open"),
            ("$1a $$", "a "),
            ("ü$TTLü", "ü1hü"),
            ("", ""),
        ] {
            assert_eq!(expand(text, lookup), expected, "{text:?}");
        }
    }
}
