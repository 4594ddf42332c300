//! What is recorded for the manifests of the corpus, and whether they leave anything out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod corpus;

use std::collections::{BTreeMap, BTreeSet};

use corpus::for_kind;
use outrigger_crds::{DaprResource, decode, definition::definitions, encode};
use serde_json::Value;

#[test]
fn there_are_many_manifests_each_with_a_record() {
    let manifests = corpus::valid();
    assert!(manifests.len() >= 150, "{} manifests", manifests.len());
    let recorded: Vec<_> = manifests.iter().map(corpus::Manifest::golden).collect();
    assert_eq!(corpus::files("json"), recorded);
    for manifest in manifests {
        assert_eq!(manifest.path.file_stem().unwrap(), manifest.name());
    }
}

/// Sent, read and sent again, and through what a client sends to the API server.
fn again<K: DaprResource>(sent: &str) -> [String; 2] {
    let encoded = |object: &K| String::from_utf8(encode(object, true).unwrap()).unwrap();
    let object: K = decode(sent).unwrap();
    let stored: K = decode(&serde_json::to_string(&object).unwrap()).unwrap();
    [encoded(&object), encoded(&stored)]
}

#[test]
fn what_was_sent_reads_back_as_what_is_sent_the_same_way() {
    for manifest in corpus::valid() {
        let sent = manifest.sent();
        for again in for_kind!(manifest.kind(), K => again::<K>(&sent)) {
            assert_eq!(again, sent, "{}", manifest.path.display());
        }
    }
}

/// Schemas by kind and `apiVersion`, without what every kind has.
fn schemas() -> BTreeMap<(String, String), Value> {
    let mut schemas = BTreeMap::new();
    for (_, definition) in definitions().unwrap() {
        let definition = serde_json::to_value(&definition).unwrap();
        let spec = &definition["spec"];
        for version in spec["versions"].as_array().unwrap() {
            let mut schema = version["schema"]["openAPIV3Schema"].clone();
            let properties = schema["properties"].as_object_mut().unwrap();
            properties.retain(|name, _| !matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let api_version = format!("{}/{}", text(&spec["group"]), text(&version["name"]));
            schemas.insert((text(&spec["names"]["kind"]), api_version), schema);
        }
    }
    schemas
}

/// Every path of a schema and every value of its enums.
fn possible(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    found.insert(path.to_owned());
    for value in schema["enum"].as_array().into_iter().flatten() {
        found.insert(format!("{path} = {value}"));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        possible(property, &format!("{path}.{name}"), found);
    }
    for (key, suffix) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[key].is_object() {
            possible(&schema[key], &format!("{path}{suffix}"), found);
        }
    }
}

/// The same for what occurs in a value that fits the schema.
fn used(schema: &Value, value: &Value, path: &str, found: &mut BTreeSet<String>) {
    found.insert(path.to_owned());
    if schema["enum"].is_array() {
        found.insert(format!("{path} = {value}"));
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        if schema["properties"][name].is_object() {
            used(&schema["properties"][name], value, &format!("{path}.{name}"), found);
        } else if schema["additionalProperties"].is_object() {
            used(&schema["additionalProperties"], value, &format!("{path}{{}}"), found);
        }
    }
    for value in value.as_array().into_iter().flatten() {
        if schema["items"].is_object() {
            used(&schema["items"], value, &format!("{path}[]"), found);
        }
    }
}

#[test]
fn every_field_and_every_value_of_an_enum_occurs() {
    let (mut all, mut occurring) = (BTreeSet::new(), BTreeSet::new());
    let schemas = schemas();
    for ((kind, version), schema) in &schemas {
        possible(schema, &format!("{kind} {version} "), &mut all);
    }
    for manifest in corpus::valid() {
        let (kind, version) = manifest.kind();
        let schema = &schemas[&(kind.to_owned(), version.to_owned())];
        used(schema, &manifest.object, &format!("{kind} {version} "), &mut occurring);
    }
    assert!(all.len() > 400, "{} paths", all.len());
    let missing: Vec<_> = all.difference(&occurring).collect();
    assert!(missing.is_empty(), "no manifest has {missing:#?}");
}

/// Adds what kinds of JSON the free-form values of a document are.
fn shapes(value: &Value, found: &mut BTreeSet<&'static str>) {
    if let Some(pair) = value.as_object().filter(|pair| pair.contains_key("name")) {
        found.insert(match pair.get("value") {
            None => "absent",
            Some(Value::Null) => "null",
            Some(Value::Bool(_)) => "boolean",
            Some(Value::Number(_)) => "number",
            Some(Value::String(text)) if text.is_empty() => "empty string",
            Some(Value::String(text)) if !text.is_ascii() => "string beyond ASCII",
            Some(Value::String(_)) => "string",
            Some(Value::Array(_)) => "list",
            Some(Value::Object(_)) => "object",
        });
    }
    let members = value.as_object().into_iter().flat_map(|object| object.values());
    for member in members.chain(value.as_array().into_iter().flatten()) {
        shapes(member, found);
    }
}

#[test]
fn free_form_values_occur_in_every_shape() {
    let mut found = BTreeSet::new();
    for manifest in corpus::valid() {
        shapes(&manifest.object["spec"]["metadata"], &mut found);
    }
    assert_eq!(found.len(), 9, "{found:?}");
}
