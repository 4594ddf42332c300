//! Component.

use super::{
    Findings, Problem,
    shared::{is_positive, is_truth},
};
use crate::{
    Component, DaprResource, NameValuePair,
    rules::{rejections, warnings},
};

/// Categories that a stock sidecar loads as components.
const CATEGORIES: [&str; 9] = [
    "bindings",
    "configuration",
    "conversation",
    "crypto",
    "lock",
    "middleware",
    "pubsub",
    "secretstores",
    "state",
];

pub(crate) fn component(component: &Component) -> Vec<Problem> {
    let mut findings = Findings::default();
    let (spec, type_) = (&component.spec, component.spec.type_.as_str());
    let category = match type_.split_once('.') {
        Some((category, name)) if !category.is_empty() && !name.is_empty() => {
            findings.category(category, name, type_);
            category
        }
        _ => {
            findings.value(&rejections::COMPONENT_TYPE, "spec.type", type_);
            ""
        }
    };
    if !is_version(&spec.version) {
        findings.value(&warnings::COMPONENT_VERSION, "spec.version", &spec.version);
    }
    let timeout = spec.init_timeout.as_deref().unwrap_or_default();
    if !timeout.is_empty() && !is_positive(timeout) {
        findings.value(&warnings::COMPONENT_INIT_TIMEOUT, "spec.initTimeout", timeout);
    }
    findings.pairs("spec.metadata", component.properties(), component.secret_store());
    for (index, pair) in component.properties().iter().enumerate() {
        findings.setting(category, &format!("spec.metadata[{index}].value"), pair);
    }
    findings.scopes(&component.scopes);
    findings.0
}

impl Findings {
    fn category(&mut self, category: &str, name: &str, type_: &str) {
        if category == "middleware" && name.strip_prefix("http.").is_none_or(str::is_empty) {
            self.value(&warnings::COMPONENT_MIDDLEWARE, "spec.type", type_);
        }
        if CATEGORIES.contains(&category) {
            return;
        }
        let hint = || match category {
            "nameresolution" => " (name resolution is chosen in a Configuration, spec.nameResolution)".to_owned(),
            _ => String::new(),
        };
        self.value_with(&warnings::COMPONENT_CATEGORY, "spec.type", type_, hint);
    }

    /// A setting that daprd itself reads.
    fn setting(&mut self, category: &str, field: &str, pair: &NameValuePair) {
        let Some(value) = &pair.value else { return };
        let text = value.text();
        let has = |name: &str| pair.name.eq_ignore_ascii_case(name);
        match category {
            "state" if has("keyPrefix") && text.contains("||") => {
                self.value(&warnings::COMPONENT_KEY_PREFIX, field, &text);
            }
            "state" if has("actorStateStore") && !is_truth(&text) => {
                self.value(&warnings::COMPONENT_TRUTH, field, &text);
            }
            // The key itself stays out of the message.
            "state" if pair.secret().is_none() && (has("primaryEncryptionKey") || has("secondaryEncryptionKey")) => {
                self.field(&warnings::COMPONENT_ENCRYPTION_KEY, field);
            }
            "bindings" if has("direction") && !is_direction(&text) => {
                self.value(&warnings::COMPONENT_DIRECTION, field, &text);
            }
            "pubsub" if (has("publishingScopes") || has("subscriptionScopes")) && !are_topic_scopes(&text) => {
                self.value(&warnings::COMPONENT_TOPIC_SCOPES, field, &text);
            }
            _ => {}
        }
    }
}

/// `v` and digits, or unset.
fn is_version(text: &str) -> bool {
    text.is_empty()
        || text.strip_prefix(['v', 'V']).is_some_and(|rest| {
            rest.starts_with(|c: char| c.is_ascii_digit()) && rest.chars().all(|c| c.is_ascii_alphanumeric())
        })
}

fn is_direction(text: &str) -> bool {
    let known = |word: &str| matches!(word.trim().to_lowercase().as_str(), "input" | "output");
    text.split(',').all(known)
}

/// `app1=topic1,topic2;app2=`.
fn are_topic_scopes(text: &str) -> bool {
    let apps = text.split(';').map(str::trim).filter(|app| !app.is_empty());
    apps.map(|app| app.split_once('='))
        .all(|app| app.is_some_and(|(id, _)| !id.trim().is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(spec: serde_json::Value) -> Vec<String> {
        let object = serde_json::json!({ "spec": spec }).to_string();
        let decoded: Component = crate::decode(&object).unwrap();
        component(&decoded).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_usual_component_has_no_problems() {
        for type_ in [
            "state.redis",
            "middleware.http.ratelimit",
            "bindings.aws.s3",
            "state.my-own",
        ] {
            let spec = serde_json::json!({
                "type": type_, "version": "v1", "initTimeout": "1m30s",
                "metadata": [
                    { "name": "direction", "value": "input, output" },
                    { "name": "actorStateStore", "value": true },
                    { "name": "keyPrefix", "value": "name" },
                ],
            });
            assert_eq!(problems(spec), Vec::<String>::new(), "{type_}");
        }
        assert_eq!(
            problems(
                serde_json::json!({ "type": "pubsub.kafka", "initTimeout": "", "metadata": [
            { "name": "publishingScopes", "value": "app1=topic1;app2=topic2, topic3;app3=" },
        ] })
            ),
            Vec::<String>::new()
        );
    }

    #[test]
    fn problems_name_the_field_what_was_found_and_what_was_expected() {
        assert_eq!(
            problems(serde_json::json!({ "type": "redis", "initTimeout": "10" })),
            [
                r#"spec.type: "redis" is no component type: expected <category>.<name>, such as state.redis"#,
                r#"spec.initTimeout: "10" is not a duration above zero: expected a number with a unit, such as 10s"#,
            ]
        );
        let [name_resolution] = &problems(serde_json::json!({ "type": "nameresolution.mdns" }))[..] else {
            panic!("one problem expected")
        };
        assert!(
            name_resolution.ends_with("in a Configuration, spec.nameResolution)"),
            "{name_resolution}"
        );
    }

    #[test]
    fn keys_stay_out_of_messages() {
        let spec = serde_json::json!({ "type": "state.redis", "metadata": [
            { "name": "primaryEncryptionKey", "value": "0123456789abcdef" },
        ] });
        assert!(
            problems(spec)
                .iter()
                .all(|problem| !problem.contains("0123456789abcdef"))
        );
    }
}
