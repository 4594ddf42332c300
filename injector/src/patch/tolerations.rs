//! Tolerations, of pods and of the list that decides where the sidecar gets a `command`.

use serde::Deserialize;

use crate::pod::or_default;

/// A toleration; two are equal when all fields are, and an omitted field is not equal to its default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Toleration {
    #[serde(deserialize_with = "or_default")]
    pub key: String,
    #[serde(deserialize_with = "or_default")]
    pub operator: String,
    #[serde(deserialize_with = "or_default")]
    pub value: String,
    #[serde(deserialize_with = "or_default")]
    pub effect: String,
    pub toleration_seconds: Option<i64>,
}

/// Reads a JSON array of tolerations; the case of field names does not matter.
///
/// # Errors
/// When it is none.
pub fn parse(json: &str) -> Result<Vec<Toleration>, serde_json::Error> {
    let mut list: Vec<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(json)?;
    for toleration in &mut list {
        *toleration = std::mem::take(toleration)
            .into_iter()
            .map(|(name, value)| (canonical(&name).map_or(name.clone(), str::to_owned), value))
            .collect();
    }
    list.into_iter()
        .map(|toleration| serde_json::from_value(toleration.into()))
        .collect()
}

fn canonical(name: &str) -> Option<&'static str> {
    ["key", "operator", "value", "effect", "tolerationSeconds"]
        .into_iter()
        .find(|field| field.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_any_case() {
        let parsed = parse(r#"[{"Key":"a","OPERATOR":"Exists","tolerationseconds":5,"other":{}}]"#).unwrap();
        let expected = Toleration {
            key: "a".into(),
            operator: "Exists".into(),
            toleration_seconds: Some(5),
            ..Toleration::default()
        };
        assert_eq!(parsed, [expected]);
    }
}
