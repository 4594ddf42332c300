//! What is wrong with an object, in words for those who write manifests.

use outrigger_core::text::without_credentials;

/// Longest text of a value that is quoted, in characters.
const LONGEST_VALUE: usize = 100;
/// Longest message, in characters: conditions and events have limits of their own, and one bad value may be megabytes.
const LONGEST_MESSAGE: usize = 1000;

/// An error at the field with this path (`.` for the whole object): what was found and what was expected.
pub(super) fn describe(path: &str, error: &serde_json::Error) -> String {
    let text = error.to_string();
    // Lines and columns of the API server's answer tell users nothing.
    let text = match text.rfind(" at line ") {
        Some(at) => &text[..at],
        None => &text,
    };
    let mismatch = text
        .strip_prefix("invalid type: ")
        .or_else(|| text.strip_prefix("invalid value: "))
        .and_then(|text| text.rsplit_once(", expected "));
    let what = match mismatch {
        Some((found, expected)) => format!("found {}, expected {}", value(found), type_(expected)),
        None => text.to_owned(),
    };
    let message = match path {
        "." | "" => what,
        path => format!("{path}: {what}"),
    };
    without_middle(&message, LONGEST_MESSAGE)
}

/// serde's name for a value that does not fit, such as ``integer `5` ``.
fn value(found: &str) -> String {
    match found {
        "map" => "an object".to_owned(),
        "sequence" => "a list".to_owned(),
        "null" => found.to_owned(),
        found => {
            let (_, plain) = found.split_once(' ').unwrap_or(("", found));
            let plain = plain.strip_prefix("point ").unwrap_or(plain).trim_matches('`');
            let quoted = plain.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            match quoted.filter(|text| text.contains("://")) {
                Some(url) => without_middle(&format!("\"{}\"", without_credentials(url)), LONGEST_VALUE),
                None => without_middle(plain, LONGEST_VALUE),
            }
        }
    }
}

/// serde's name for a type.
fn type_(expected: &str) -> &str {
    match expected {
        "a map" => "an object",
        "a sequence" => "a list",
        "a boolean" => "true or false",
        "i32" => "a whole number of 32 bits",
        "i64" => "a whole number",
        expected if expected.starts_with("struct ") => "an object",
        // Kubernetes' own types go by their bare names.
        expected if expected.starts_with(|c: char| c.is_ascii_uppercase()) => "an object",
        expected => expected,
    }
}

/// Without the middle, if the text is too long: the field stands at the beginning, what was expected at the end.
fn without_middle(text: &str, longest: usize) -> String {
    let length = text.chars().count();
    if length <= longest {
        return text.to_owned();
    }
    let half = longest / 2;
    let beginning = text.chars().take(half);
    let end = text.chars().skip(length - half);
    beginning.chain(['…']).chain(end).collect()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use crate::{Component, Configuration, Resiliency, Subscription, decode};

    fn error<K: crate::DaprResource>(json: &str) -> String {
        decode::<K>(json).unwrap_err().error
    }

    #[test]
    fn messages_name_the_field_and_what_was_found_and_expected() {
        for (json, expected) in [
            (r#"{"spec":"x"}"#, r#"spec: found "x", expected an object"#),
            (r#"{"spec":{"type":5}}"#, "spec.type: found 5, expected a string"),
            (r#"{"spec":{"type":1.5}}"#, "spec.type: found 1.5, expected a string"),
            (
                r#"{"spec":{"type":{}}}"#,
                "spec.type: found an object, expected a string",
            ),
            (
                r#"{"spec":{"ignoreErrors":"yes"}}"#,
                r#"spec.ignoreErrors: found "yes", expected true or false"#,
            ),
            (
                r#"{"spec":{"metadata":{}}}"#,
                "spec.metadata: found an object, expected a list",
            ),
            (
                r#"{"spec":{"metadata":[{"name":[]}]}}"#,
                "spec.metadata[0].name: found a list, expected a string",
            ),
            (r#"{"scopes":[true]}"#, "scopes[0]: found true, expected a string"),
            (r#"{"metadata":7}"#, "metadata: found 7, expected an object"),
            (r#""x""#, r#"found "x", expected an object"#),
        ] {
            assert_eq!(error::<Component>(json), expected);
        }
        assert_eq!(
            error::<Subscription>(r#"{"spec":{"bulkSubscribe":{"maxMessagesCount":3000000000}}}"#),
            "spec.bulkSubscribe.maxMessagesCount: found 3000000000, expected a whole number of 32 bits"
        );
        assert_eq!(
            error::<Resiliency>(r#"{"spec":{"policies":{"retries":{"r":{"maxRetries":0.5}}}}}"#),
            "spec.policies.retries.r.maxRetries: found 0.5, expected a whole number"
        );
        assert_eq!(
            error::<Configuration>(r#"{"spec":{"workflow":{"stateRetentionPolicy":{"failed":"5"}}}}"#),
            r#"spec.workflow.stateRetentionPolicy.failed: "5" has no unit: expected one of ns, us, ms, s, m, h"#
        );
    }

    #[test]
    fn long_values_are_shortened_and_the_expectation_stays() {
        let message = error::<Component>(&format!(r#"{{"scopes":"{}"}}"#, "é".repeat(1 << 20)));
        assert!(message.starts_with(r#"scopes: found "ééé"#), "{message}");
        assert!(message.ends_with(r#"éé", expected a list"#), "{message}");
        assert!(message.chars().count() < 150);
        let key = "k".repeat(1 << 20);
        let message = error::<Resiliency>(&format!(r#"{{"spec":{{"policies":{{"timeouts":{{"{key}":5}}}}}}}}"#));
        assert!(message.starts_with("spec.policies.timeouts.kkk"), "{message}");
        assert!(message.ends_with("kk: found 5, expected a string"), "{message}");
        assert_eq!(message.chars().count(), super::LONGEST_MESSAGE + 1);
    }

    /// The words that are replaced here are serde's; should it change them, this tells.
    #[test]
    fn a_value_with_serdes_words_in_it_is_quoted_whole() {
        #[derive(Debug, Deserialize)]
        struct Flag {
            #[allow(dead_code, reason = "only its absence matters")]
            on: bool,
        }
        let text = r#"{"on":"a, expected b"}"#;
        let error = serde_json::from_str::<Flag>(text).unwrap_err();
        assert_eq!(
            super::describe("on", &error),
            r#"on: found "a, expected b", expected true or false"#
        );
    }
}
