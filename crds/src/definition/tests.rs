use std::{fs, path::Path};

use serde_json::Value;

use super::*;

fn chart() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/dapr/crds"))
}

#[test]
fn the_chart_has_the_generated_definitions() {
    for (file, yaml) in files().unwrap() {
        let path = chart().join(file);
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(found == yaml, "{} is stale: run `make generate`", path.display());
    }
}

#[test]
fn yaml_says_what_the_definition_says() {
    for ((_, definition), (file, yaml)) in definitions().unwrap().into_iter().zip(files().unwrap()) {
        let read: Value = serde_saphyr::from_str(&yaml).unwrap();
        assert_eq!(read, serde_json::to_value(&definition).unwrap(), "{file}");
    }
}

/// Calls `visit` with the path of every schema below this one.
fn walk(path: &str, schema: &Value, visit: &mut dyn FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), property, visit);
    }
    if schema["items"].is_object() {
        walk(&format!("{path}[]"), &schema["items"], visit);
    }
    if schema["additionalProperties"].is_object() {
        walk(&format!("{path}{{}}"), &schema["additionalProperties"], visit);
    }
}

/// Every schema of every version, by its path.
fn for_each_schema(visit: &mut dyn FnMut(&str, &Value)) {
    for (_, definition) in definitions().unwrap() {
        let json = serde_json::to_value(&definition).unwrap();
        for version in json["spec"]["versions"].as_array().unwrap() {
            let path = format!("{}/{}", definition.spec.names.kind, version["name"].as_str().unwrap());
            walk(&path, &version["schema"]["openAPIV3Schema"], visit);
        }
    }
}

#[test]
fn schemas_are_structural_and_every_field_is_explained() {
    for_each_schema(&mut |path, schema| {
        let free = schema["x-kubernetes-preserve-unknown-fields"] == true;
        assert!(schema["type"].is_string() || free, "{path} has no type: {schema}");
        assert!(
            schema.get("nullable").is_none() && schema.get("anyOf").is_none(),
            "{path}: {schema}"
        );
        let field = path.rsplit('.').next().unwrap();
        let own = path.contains('.') && !field.ends_with(']') && !field.ends_with('}');
        let standard = matches!(field, "apiVersion" | "kind" | "metadata") && path.matches('.').count() == 1;
        if own && !standard {
            assert!(
                schema["description"].as_str().is_some_and(|text| text.ends_with('.')),
                "{path}: {schema}"
            );
        }
    });
}

#[test]
fn only_upstreams_defaults_are_set() {
    let mut defaults = Vec::new();
    for_each_schema(&mut |path, schema| {
        if let Some(default) = schema.get("default") {
            defaults.push(format!("{path} = {default}"));
        }
    });
    assert_eq!(
        defaults,
        [
            r#"Configuration/v1alpha1.spec.metric = {"enabled":true}"#,
            r#"Configuration/v1alpha1.spec.metrics = {"enabled":true}"#,
            r#"HTTPEndpoint/v1alpha1.spec.clientTLS.renegotiation = "Never""#,
        ]
    );
}

/// Free-form values, and whether the schema insists on an object.
#[test]
fn only_dynamic_values_are_free_form() {
    let mut free = Vec::new();
    for_each_schema(&mut |path, schema| {
        if schema["x-kubernetes-preserve-unknown-fields"] == true {
            free.push(format!("{path} {}", schema["type"].as_str().unwrap_or("any")));
        }
    });
    assert_eq!(
        free,
        [
            "Component/v1alpha1.spec.metadata[].value any",
            "Configuration/v1alpha1.spec.mtls.tokenValidators[].options object",
            "Configuration/v1alpha1.spec.nameResolution.configuration object",
            "Configuration/v1alpha1.spec.tracing.otel.headers[].value any",
            "HTTPEndpoint/v1alpha1.spec.clientTLS.certificate.value any",
            "HTTPEndpoint/v1alpha1.spec.clientTLS.privateKey.value any",
            "HTTPEndpoint/v1alpha1.spec.clientTLS.rootCA.value any",
            "HTTPEndpoint/v1alpha1.spec.headers[].value any",
            "MCPServer/v1alpha1.spec.endpoint.sse.headers[].value any",
            "MCPServer/v1alpha1.spec.endpoint.stdio.env[].value any",
            "MCPServer/v1alpha1.spec.endpoint.streamableHTTP.headers[].value any",
        ]
    );
}
