//! Puts rules into a schema.

use serde_json::{Value as Json, json};

use super::{Check, Enforcement, Rule, Value, rejections::BOUNDS};

const VALIDATIONS: &str = "x-kubernetes-validations";

/// Adds the bounds of a kind's fields, as far as the version has them.
pub(crate) fn bound(kind: &str, schema: &mut Json) {
    for bound in BOUNDS.iter().filter(|bound| bound.kind == kind) {
        if let Some(field) = walk(schema, bound.field) {
            field[bound.keyword] = bound.value.into();
        }
    }
}

/// Adds the rules of a kind's fields, as far as the version has them.
pub(crate) fn apply(rules: &[&Rule], kind: &str, schema: &mut Json) {
    for rule in rules.iter().filter(|rule| rule.kinds.contains(&kind)) {
        for field in rule.fields {
            add(rule, field, schema);
        }
    }
}

fn add(rule: &Rule, field: &str, schema: &mut Json) {
    let Enforcement::Reject(check) = &rule.enforcement else {
        return;
    };
    let Some(found) = walk(schema, field) else { return };
    match check {
        Check::Keyword(keyword, value) => found[*keyword] = value.json(),
        Check::Upstream(cel) => validate(found, json!({ "rule": cel, "message": rule.says })),
        Check::Field { rule: cel, found: text } => validate(found, ours(rule, cel, *text)),
    }
}

/// A validation whose message begins with what was found. The fixed message serves where Kubernetes takes no computed
/// one: it refuses line breaks.
fn ours(rule: &Rule, cel: &str, found: Option<&str>) -> Json {
    match found {
        None => json!({ "rule": cel, "message": rule.says }),
        Some(found) => json!({
            "rule": cel,
            "message": format!("the value {}", rule.says),
            "messageExpression": format!("'\"' + {found} + {}", json!(format!("\" {}", rule.says))),
        }),
    }
}

fn validate(schema: &mut Json, validation: Json) {
    match &mut schema[VALIDATIONS] {
        Json::Array(all) => all.push(validation),
        none => *none = json!([validation]),
    }
}

/// The schema of a field.
pub(super) fn walk<'a>(schema: &'a mut Json, path: &str) -> Option<&'a mut Json> {
    let mut at = schema;
    for segment in path.split('.') {
        let name = segment.trim_end_matches(['[', ']', '{', '}']);
        at = at.get_mut("properties")?.get_mut(name)?;
        for brackets in segment.as_bytes()[name.len()..].chunks(2) {
            at = at.get_mut(if brackets == b"[]" {
                "items"
            } else {
                "additionalProperties"
            })?;
        }
    }
    Some(at)
}

impl Value {
    fn json(&self) -> Json {
        match self {
            Self::Number(number) => json!(number),
            Self::Text(text) => json!(text),
            Self::Words(words) => json!(words),
        }
    }
}
