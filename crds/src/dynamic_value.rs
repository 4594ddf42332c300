//! A JSON value whose spelling matters.

use std::borrow::Cow;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::raw;

/// Any JSON value, kept as the text that the API server sent, without the whitespace between tokens.
///
/// Sidecars compare two versions of a resource byte by byte here, and reload a component or restart on a difference, so
/// neither key order nor the spelling of numbers may change on the way. Fields hold an `Option`: a `null` in a document
/// is an unset field, while `""` is a value.
#[derive(Clone, Debug)]
pub struct DynamicValue(Box<RawValue>);

impl DynamicValue {
    /// What is sent for a secret whose key does not exist: present, but without a value.
    pub fn null() -> Self {
        Self(RawValue::NULL.to_owned())
    }

    /// A JSON string.
    pub fn string(text: &str) -> Self {
        Self(serde_json::value::to_raw_value(text).expect("every string can be written as JSON"))
    }

    /// A JSON string with the standard, padded base64 of `bytes`, the form in which sidecars expect resolved secrets.
    pub fn base64(bytes: &[u8]) -> Self {
        Self::string(&BASE64_STANDARD.encode(bytes))
    }

    /// The JSON text, compact.
    pub fn json(&self) -> &str {
        self.0.get()
    }

    /// Whether this stands for a value at all.
    pub fn is_null(&self) -> bool {
        self.json() == "null"
    }

    /// The value as text, the way sidecars read it: a JSON string that is a legal Go string literal too is unquoted,
    /// anything else is its JSON text (`true`, `10`, `{"a":1}`).
    ///
    /// Go knows no `\/` and no escaped surrogates: a string with one of these keeps its quotes and escapes, as it does
    /// in stock sidecars.
    pub fn text(&self) -> Cow<'_, str> {
        let json = self.json();
        if !json.starts_with('"') || !is_go_literal(json) {
            return Cow::Borrowed(json);
        }
        match serde_json::from_str(json) {
            Ok(text) => Cow::Owned(text),
            Err(_) => Cow::Borrowed(json),
        }
    }
}

/// Whether every escape in this JSON string means the same in a Go string literal.
fn is_go_literal(json: &str) -> bool {
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        rest = &rest[at + 1..];
        let surrogate = rest.starts_with('u')
            && rest
                .get(1..5)
                .and_then(|hex| u32::from_str_radix(hex, 16).ok())
                .is_none_or(|unit| char::from_u32(unit).is_none());
        if surrogate || rest.starts_with('/') {
            return false;
        }
        // The escaped character is ASCII in valid JSON; it may be a backslash itself.
        rest = rest.get(1..).unwrap_or_default();
    }
    true
}

/// The text without whitespace between tokens, if it has any.
fn compact(json: &str) -> Option<String> {
    let insignificant = |byte: u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    if !json.bytes().any(insignificant) {
        return None;
    }
    let (mut in_string, mut escaped) = (false, false);
    let kept = json.chars().filter(|&c| {
        if in_string {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            in_string = !ends;
            return true;
        }
        in_string = c == '"';
        !matches!(c, ' ' | '\t' | '\n' | '\r')
    });
    Some(kept.collect())
}

impl PartialEq for DynamicValue {
    fn eq(&self, other: &Self) -> bool {
        self.json() == other.json()
    }
}

impl Eq for DynamicValue {}

impl<'de> Deserialize<'de> for DynamicValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = raw::capture(deserializer)?;
        match compact(raw.get()) {
            None => Ok(Self(raw)),
            Some(text) => RawValue::from_string(text).map(Self).map_err(serde::de::Error::custom),
        }
    }
}

impl Serialize for DynamicValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl JsonSchema for DynamicValue {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "DynamicValue".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(json: &str) -> DynamicValue {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn keeps_order_and_spelling_and_drops_whitespace_between_tokens() {
        let spaced = "{ \"b\" : 1.0 ,\n\t\"a\": [1e3, 5, \" x \\\" y \\\\\", 12345678901234567890] }";
        assert_eq!(
            value(spaced).json(),
            r#"{"b":1.0,"a":[1e3,5," x \" y \\",12345678901234567890]}"#
        );
        assert_ne!(value("1.0"), value("1"));
        assert_eq!(value("[1, 2]"), value("[1,2]"));
    }

    #[test]
    fn reads_as_text_like_go_unquote() {
        for (json, text) in [
            (r#""plain""#, "plain"),
            (r#""""#, ""),
            ("true", "true"),
            ("10", "10"),
            ("1.50", "1.50"),
            (r#"{"a":1}"#, r#"{"a":1}"#),
            (r#"["x"]"#, r#"["x"]"#),
            (r#""\u003ctag\u003e""#, "<tag>"),
            (r#""a\n\t\b\f\r\u0001\\\"""#, "a\n\t\u{8}\u{c}\r\u{1}\\\""),
            (r#""it's 😀""#, "it's 😀"),
            // Not Go literals: the quotes stay.
            (r#""a\/b""#, r#""a\/b""#),
            (r#""\ud83d\ude00""#, r#""\ud83d\ude00""#),
            // An escaped backslash before a slash is not an escaped slash.
            (r#""a\\/b""#, r"a\/b"),
        ] {
            assert_eq!(value(json).text(), text, "{json}");
        }
    }

    #[test]
    fn null_is_unset_and_an_empty_string_is_not() {
        #[derive(Deserialize)]
        struct Holder {
            value: Option<DynamicValue>,
        }
        let read = |json| serde_json::from_str::<Holder>(json).unwrap().value;
        assert_eq!(read("{}"), None);
        assert_eq!(read(r#"{"value":null}"#), None);
        assert_eq!(read(r#"{"value":""}"#), Some(DynamicValue::string("")));
        assert!(DynamicValue::null().is_null());
    }

    #[test]
    fn survives_formats_and_buffers_that_have_no_text_to_give() {
        let from_yaml: DynamicValue = serde_saphyr::from_str("b: 2\na: [x, true, null]").unwrap();
        assert_eq!(from_yaml.json(), r#"{"a":["x",true,null],"b":2}"#);
        let from_value: DynamicValue = serde_json::from_value(serde_json::json!({"a": 1})).unwrap();
        assert_eq!(from_value.json(), r#"{"a":1}"#);

        #[derive(Deserialize)]
        struct Flat {
            #[serde(flatten)]
            inner: Inner,
        }
        #[derive(Deserialize)]
        struct Inner {
            value: DynamicValue,
        }
        let flat: Flat = serde_json::from_str(r#"{"value": {"a": [1, "x"]}}"#).unwrap();
        assert_eq!(flat.inner.value.json(), r#"{"a":[1,"x"]}"#);
    }

    #[test]
    fn secrets_are_padded_base64() {
        assert_eq!(DynamicValue::base64(b"hunter1").json(), r#""aHVudGVyMQ==""#);
    }
}
