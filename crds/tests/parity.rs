//! The generated schemas beside upstream's: the same fields with the same types, nothing more required, filled in or
//! chosen from, and upstream's own limits. What we reject beyond that are limits and rules of our own; the corpus shows
//! that they leave valid manifests alone.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};

use outrigger_crds::definition::definitions;
use serde_json::Value;

/// What is said about each path, by kind and version.
type Table = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// Words that only upstream's table has to have: limits that we add to its own.
const LIMITS: [&str; 5] = [
    "minLength=",
    "maxLength=",
    "minItems=",
    "maxItems=",
    "x-kubernetes-list-type=",
];

fn upstream() -> Table {
    let mut table = Table::new();
    let mut kind = "";
    let lines = include_str!("schema.txt").lines();
    for line in lines.filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let Some(entry) = line.strip_prefix("  ") else {
            kind = line;
            continue;
        };
        let fields = table.entry(kind.to_owned()).or_default();
        if let Some((path, words)) = entry.split_once(": ") {
            let words = words.split(' ').map(str::to_owned).collect();
            assert!(
                fields.insert(path.to_owned(), words).is_none(),
                "{kind} {path} stands there twice"
            );
        } else {
            let (path, message) = entry.split_once("! ").unwrap();
            fields.get_mut(path).unwrap().insert(format!("! {message}"));
        }
    }
    table
}

fn ours() -> Table {
    let mut table = Table::new();
    for (_, definition) in definitions().unwrap() {
        let definition = serde_json::to_value(&definition).unwrap();
        for version in definition["spec"]["versions"].as_array().unwrap() {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let kind = format!(
                "{} {}",
                text(&definition["spec"]["names"]["kind"]),
                text(&version["name"])
            );
            let mut root = version["schema"]["openAPIV3Schema"].clone();
            let properties = root["properties"].as_object_mut().unwrap();
            properties.retain(|name, _| !matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
            describe_members(&root, "", table.entry(kind).or_default());
        }
    }
    table
}

fn describe_members(schema: &Value, path: &str, fields: &mut BTreeMap<String, BTreeSet<String>>) {
    let required: Vec<_> = schema["required"].as_array().into_iter().flatten().collect();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        describe(
            property,
            path,
            required.iter().any(|required| *required == name),
            fields,
        );
    }
    for (key, suffix) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[key].is_object() {
            describe(&schema[key], format!("{path}{suffix}"), false, fields);
        }
    }
}

fn describe(schema: &Value, path: String, required: bool, fields: &mut BTreeMap<String, BTreeSet<String>>) {
    let mut words = BTreeSet::new();
    let type_ = schema["format"].as_str().or(schema["type"].as_str()).unwrap_or("any");
    words.insert(type_.to_owned());
    if required {
        words.insert("required".to_owned());
    }
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        words.insert("free".to_owned());
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<_> = values.iter().map(|value| value.as_str().unwrap()).collect();
        words.insert(format!("enum={}", values.join("|")));
    }
    if let Some(default) = schema.get("default") {
        words.insert(format!("default={default}"));
    }
    for limit in LIMITS {
        if let Some(value) = schema.get(limit.trim_end_matches('=')) {
            words.insert(format!(
                "{limit}{}",
                value.as_str().map_or(value.to_string(), str::to_owned)
            ));
        }
    }
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        words.insert(format!("! {}", rule["message"].as_str().unwrap_or_default()));
    }
    describe_members(schema, &path, fields);
    fields.insert(path, words);
}

#[test]
fn schemas_are_upstreams_but_for_limits_and_rules() {
    let (upstream, ours) = (upstream(), ours());
    assert_eq!(ours.keys().collect::<Vec<_>>(), upstream.keys().collect::<Vec<_>>());
    let mut differences = Vec::new();
    for (kind, expected) in &upstream {
        let found = &ours[kind];
        for path in found.keys().filter(|path| !expected.contains_key(*path)) {
            differences.push(format!("{kind} {path} is a field that upstream does not know"));
        }
        for (path, expected) in expected {
            let Some(found) = found.get(path) else {
                differences.push(format!("{kind} {path} is missing"));
                continue;
            };
            let limit = |word: &&String| word.starts_with("! ") || LIMITS.iter().any(|limit| word.starts_with(limit));
            differences.extend(
                expected
                    .difference(found)
                    .map(|word| format!("{kind} {path} lacks: {word}")),
            );
            let more = found.difference(expected).filter(|word| !limit(word));
            differences.extend(more.map(|word| format!("{kind} {path} has beyond upstream: {word}")));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    let fields: usize = upstream.values().map(BTreeMap::len).sum();
    assert!(fields > 400, "{fields} fields");
}
