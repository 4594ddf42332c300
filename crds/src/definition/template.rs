//! The definitions as templates of the chart `dapr-crds`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use super::{GenerateError, HEADER, definitions};

/// The templates of the chart: name and content. They keep the objects when the release goes, and take the namespace of the
/// conversion webhook from the values.
///
/// # Errors
/// As [`files`](super::files).
pub fn templates() -> Result<Vec<(&'static str, String)>, GenerateError> {
    let mut templates = Vec::new();
    for (file, definition) in definitions()? {
        templates.push((file, format!("{HEADER}{}", template(definition)?)));
    }
    Ok(templates)
}

fn template(mut definition: CustomResourceDefinition) -> Result<String, GenerateError> {
    const NAMESPACE: &str = "NAMESPACE-OF-THE-VALUES";
    let annotations = definition.metadata.annotations.get_or_insert_default();
    annotations.insert("helm.sh/resource-policy".into(), "keep".into());
    let conversion = definition.spec.conversion.as_mut();
    let client = conversion.and_then(|conversion| conversion.webhook.as_mut()?.client_config.as_mut());
    if let Some(service) = client.and_then(|client| client.service.as_mut()) {
        service.namespace = NAMESPACE.into();
    }
    let yaml = serde_saphyr::to_string(&definition)?;
    // What looks like an action in a description or a rule is none.
    let yaml = yaml.replace("{{", r#"{{ "{{" }}"#);
    Ok(yaml.replace(
        NAMESPACE,
        "{{ .Values.namespace | default .Release.Namespace | quote }}",
    ))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn the_chart_has_the_generated_templates() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/dapr-crds/templates"));
        for (file, yaml) in templates().unwrap() {
            let path = folder.join(file);
            let found = fs::read_to_string(&path).unwrap_or_default();
            assert!(found == yaml, "{} is stale: run `make generate`", path.display());
        }
    }

    #[test]
    fn braces_of_a_text_are_no_action() {
        let (_, mut definition) = definitions().unwrap().remove(0);
        definition.metadata.name = Some("{{ .Values.x }}".into());
        let template = template(definition).unwrap();
        assert!(template.contains(r#"{{ "{{" }} .Values.x }}"#), "{template}");
    }
}
