//! Every rule about the resources, in one place.
//!
//! [`upstream`] and [`rejections`] are part of the definitions: the API server refuses an object that breaks one. The
//! first are upstream's own; the second are ours, and refuse only what no stock program can use. [`warnings`] are found
//! by the operator and end up in the status. The pages under `docs/reference` are written from these tables.

mod apply;
pub mod rejections;
pub mod upstream;
pub mod warnings;

pub(crate) use apply::{apply, bound};

/// What must hold for a field, and what happens otherwise.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Kinds that have the rule.
    pub kinds: &'static [&'static str],
    /// Paths of the fields; `[]` stands for each item of a list and `{}` for each value of a map.
    pub fields: &'static [&'static str],
    /// What is wrong and what was expected. In a message it follows what was found.
    pub says: &'static str,
    /// What stock programs do when it is broken.
    pub effect: &'static str,
    pub enforcement: Enforcement,
}

/// How a rule is enforced.
#[derive(Debug, PartialEq, Eq)]
pub enum Enforcement {
    /// The API server refuses the object.
    Reject(Check),
    /// The condition `Accepted` lists it.
    Warn,
}

/// How the API server finds out.
#[derive(Debug, PartialEq, Eq)]
pub enum Check {
    /// A CEL expression that must be true, over the field itself.
    Field {
        rule: &'static str,
        /// CEL expression for the text that was found, unless the message cannot hold it, or Kubernetes cannot tell beforehand
        /// how long it can be, as of numbers and of joined texts.
        found: Option<&'static str>,
    },
    /// A CEL expression and its fixed message, as upstream has them.
    Upstream(&'static str),
    /// A keyword of the schema, whose message the API server writes.
    Keyword(&'static str, Value),
}

/// Value of a keyword.
#[derive(Debug, PartialEq, Eq)]
pub enum Value {
    Number(i64),
    Text(&'static str),
    Words(&'static [&'static str]),
}

/// Declares rules as statics, and lists all of them.
macro_rules! table {
    ($($(#[$doc:meta])* $name:ident = $rule:expr;)*) => {
        $($(#[$doc])* pub static $name: $crate::rules::Rule = $rule;)*

        /// All of them, in the order of the reference.
        pub static ALL: &[&$crate::rules::Rule] = &[$(&$name),*];
    };
}
pub(crate) use table;

#[cfg(test)]
mod tests {
    use serde_json::Value as Json;

    use super::*;
    use crate::definition::definitions;

    /// Schemas of all versions of a kind.
    fn schemas(kind: &str) -> Vec<Json> {
        let all = definitions().unwrap().into_iter();
        let versions = all.filter(|(_, definition)| definition.spec.names.kind == kind);
        let versions = versions.flat_map(|(_, definition)| definition.spec.versions);
        versions
            .map(|version| serde_json::to_value(version.schema.unwrap().open_api_v3_schema).unwrap())
            .collect()
    }

    fn exists(kind: &str, field: &str) -> bool {
        schemas(kind)
            .iter_mut()
            .any(|schema| apply::walk(schema, field).is_some())
    }

    #[test]
    fn messages_say_what_was_expected() {
        for rule in rejections::ALL.iter().chain(warnings::ALL) {
            let (wrong, expected) = rule.says.split_once(": expected ").unwrap_or_default();
            assert!(!wrong.is_empty() && !expected.is_empty(), "{:?}", rule.says);
        }
    }

    #[test]
    fn rules_and_bounds_are_about_fields_that_exist() {
        for rule in upstream::ALL.iter().chain(rejections::ALL) {
            for (kind, field) in rule
                .kinds
                .iter()
                .flat_map(|kind| rule.fields.iter().map(move |field| (kind, field)))
            {
                assert!(exists(kind, field), "{kind} has no {field}");
            }
        }
        for bound in rejections::BOUNDS {
            assert!(exists(bound.kind, bound.field), "{} has no {}", bound.kind, bound.field);
        }
        // Some are about a setting among many, or a reference wherever it is.
        let plain =
            |field: &&&str| !field.starts_with('…') && !field.contains("[name=") && !field.ends_with(".rawPayload");
        for rule in warnings::ALL {
            for field in rule.fields.iter().filter(plain) {
                assert!(
                    rule.kinds.iter().any(|kind| exists(kind, field)),
                    "{:?}: no {field}",
                    rule.kinds
                );
            }
        }
    }
}
