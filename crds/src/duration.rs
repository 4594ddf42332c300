//! Durations that are sent to sidecars in Go's canonical form, however they were written.

use std::borrow::Cow;

use outrigger_core::GoDuration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A duration: `72h` is read and `72h0m0s` written.
///
/// The schema takes any string, so a text that is no duration shows up only here, as an error in decoding the object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CanonicalDuration(pub GoDuration);

impl<'de> Deserialize<'de> for CanonicalDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'_, str>::deserialize(deserializer)?;
        GoDuration::parse(&text).map(Self).map_err(D::Error::custom)
    }
}

impl Serialize for CanonicalDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl JsonSchema for CanonicalDuration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_rendered_canonically() {
        for (written, sent) in [("72h", "72h0m0s"), ("90s", "1m30s"), ("100ms", "100ms"), ("0", "0s")] {
            let duration: CanonicalDuration = serde_json::from_value(written.into()).unwrap();
            assert_eq!(serde_json::to_value(duration).unwrap(), sent);
        }
    }

    #[test]
    fn names_what_is_wrong() {
        let error = serde_json::from_str::<CanonicalDuration>(r#""5""#)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(r#""5" has no unit"#), "{error}");
    }
}
