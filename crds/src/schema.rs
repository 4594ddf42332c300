//! OpenAPI schemas as Kubernetes wants them, without what a Rust type says beyond upstream's schemas.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use schemars::{Schema, generate::SchemaSettings, transform::RecursiveTransform};
use serde_json::{Value, json};

use crate::{
    resource::DaprResource,
    rules::{self, rejections, upstream},
};

/// Which rules a schema has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strictness {
    /// Upstream's alone.
    Upstream,
    /// Upstream's and ours.
    Ours,
}

/// The schema of a whole object. Nothing at the top level is required: upstream's API accepts an object without `spec`.
pub(crate) fn root<K: DaprResource>(strictness: Strictness) -> Result<JSONSchemaProps, serde_json::Error> {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
        settings.transforms = vec![Box::new(RecursiveTransform(plain))];
    });
    let mut schema = settings.into_generator().into_root_schema_for::<K>();
    schema.remove("required");
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for (name, type_) in [("apiVersion", "string"), ("kind", "string"), ("metadata", "object")] {
            properties.insert(name.into(), json!({ "type": type_ }));
        }
    }
    let mut schema = schema.to_value();
    rules::apply(upstream::ALL, K::KIND, &mut schema);
    if strictness == Strictness::Ours {
        rules::bound(K::KIND, &mut schema);
        rules::apply(rejections::ALL, K::KIND, &mut schema);
    }
    serde_json::from_value(schema)
}

/// Drops `null` as a type (Kubernetes treats a null as an absent field already), titles, the format of plain integers,
/// and line breaks that only the source code has.
fn plain(schema: &mut Schema) {
    schema.remove("title");
    if let Some(Value::String(description)) = schema.get_mut("description") {
        let paragraphs: Vec<String> = description.split("\n\n").map(|text| text.replace('\n', " ")).collect();
        *description = paragraphs.join("\n\n");
    }
    if let Some(Value::Array(alternatives)) = schema.remove("anyOf") {
        let mut real = alternatives
            .into_iter()
            .filter(|alternative| alternative.get("type").and_then(Value::as_str) != Some("null"));
        if let (Some(Value::Object(only)), None) = (real.next(), real.next()) {
            for (key, value) in only {
                // The description of the field wins over that of its type.
                if schema.get(&key).is_none() {
                    schema.insert(key, value);
                }
            }
        }
    }
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|type_| type_ != "null");
        if let [only] = &mut types[..] {
            let only = only.take();
            schema.insert("type".into(), only);
        }
    }
    if schema.get("format").and_then(Value::as_str) == Some("int64") {
        schema.remove("format");
    }
}
