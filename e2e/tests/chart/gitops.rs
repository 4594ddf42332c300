//! Nothing that is rendered changes later, and nothing that is written at run time is rendered.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::helm::{chart, render};

#[test]
fn two_renders_are_the_same_bytes() {
    let values =
        "dapr_operator: {extraEnvVars: {B: b, A: a, C: c}}\nglobal: {ha: {enabled: true}, labels: {z: z, a: a}}";
    assert_eq!(render(values).text, render(values).text);
}

#[test]
fn what_programs_write_is_left_out() {
    let release = render("");
    let objects = serde_json::to_string(&release.objects).expect("JSON");
    assert!(!objects.contains("caBundle"));
    assert!(release.of_kind("CustomResourceDefinition").next().is_none());
    for kind in ["Secret", "ConfigMap"] {
        let object = release.object(kind, "dapr-trust-bundle");
        assert_eq!(object["metadata"]["labels"]["app"], "dapr-sentry");
        assert!(object.get("data").is_none() && object.get("stringData").is_none());
    }
}

#[test]
fn a_supplied_ca_is_the_same_in_both_places() {
    let release = render(
        "dapr_sentry:
  tls:
    root: {certPEM: \"ROOT\\nline\\n\\n\"}
    issuer: {certPEM: ISSUER, keyPEM: KEY}",
    );
    assert_eq!(
        release.object("Secret", "dapr-trust-bundle")["data"],
        json!({ "ca.crt": "Uk9PVApsaW5lCg==", "issuer.crt": "SVNTVUVSCg==", "issuer.key": "S0VZCg==" })
    );
    let annotation = &release.object("Secret", "dapr-trust-bundle")["metadata"]["annotations"]["dapr.io/ca-source"];
    assert_eq!(annotation, "values", "sentry never replaces it");
    assert!(
        render("").object("Secret", "dapr-trust-bundle")["metadata"]
            .get("annotations")
            .is_none()
    );
    assert_eq!(
        release.object("ConfigMap", "dapr-trust-bundle")["data"],
        json!({ "ca.crt": "ROOT\nline\n" })
    );
}

#[test]
fn templates_ask_neither_the_cluster_nor_chance() {
    let mut seen = 0;
    each_template(&chart(), &mut |path, text| {
        seen += 1;
        let actions = text.split("{{").skip(1).filter_map(|action| action.split("}}").next());
        for action in actions {
            for word in action.split(|character: char| !character.is_ascii_alphanumeric()) {
                let banned = [
                    "lookup",
                    "now",
                    "genCA",
                    "genSignedCert",
                    "genPrivateKey",
                    "uuidv4",
                    "Capabilities",
                ];
                assert!(
                    !banned.contains(&word) && !word.starts_with("rand"),
                    "{word} in {}",
                    path.display()
                );
            }
        }
    });
    assert!(seen > 20, "found {seen} templates only");
}

fn each_template(folder: &Path, visit: &mut impl FnMut(&Path, &str)) {
    for entry in fs::read_dir(folder).expect("a folder of the chart") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            each_template(&path, visit);
        } else if path.parent().is_some_and(|parent| parent.ends_with("templates")) {
            visit(&path, &fs::read_to_string(&path).expect("a template"));
        }
    }
}
