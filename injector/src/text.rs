//! Text of a review. Most of it is looked at once and dropped, so it stays where it is in the body.

use std::{
    borrow::{Borrow, Cow},
    fmt,
    ops::Deref,
};

use serde::{Deserialize, Deserializer, Serialize, de::Visitor};

/// A JSON string: borrowed from the body unless escapes in it had to be replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Text<'a>(Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// So that maps are looked up by `str`; equality and order are those of `str`.
impl Borrow<str> for Text<'_> {
    fn borrow(&self) -> &str {
        self
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

/// serde itself makes a new string for a `Cow` in an option, a list or a map.
impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Borrowing;

        impl<'de> Visitor<'de> for Borrowing {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(text.into())
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(text.to_owned().into())
            }

            fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
                Ok(text.into())
            }
        }

        from.deserialize_str(Borrowing)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn text_without_escapes_is_not_copied() {
        let json = r#"{"a/b":"plain","c":"tab\t\u00e4"}"#;
        let map: BTreeMap<Text<'_>, Option<Text<'_>>> = serde_json::from_str(json).unwrap();
        let of = |key: &str| map[key].clone().unwrap().0;
        assert!(matches!(of("a/b"), Cow::Borrowed("plain")));
        assert_eq!(of("c"), "tab\tä");
        let mistake = serde_json::from_str::<Text<'_>>("5").unwrap_err();
        assert!(mistake.to_string().contains("expected a string"), "{mistake}");
    }
}
