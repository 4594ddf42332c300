//! The chart of the CustomResourceDefinitions: the same as in the folder `crds/` of the other chart, but Helm's to upgrade.

use std::collections::BTreeMap;
use std::fs;

use base64::prelude::{BASE64_STANDARD, Engine};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams};
use outrigger_testkit::ApiServer;
use outrigger_testkit::certs::Authority;
use serde_json::{Value, json};

use crate::helm::{NAMESPACE, chart, crds_chart, name_of, path, plain, render_chart, run, stderr};

const SUBSCRIPTIONS: &str = "subscriptions.dapr.io";

/// The definitions of the chart `dapr`, by name.
fn definitions() -> BTreeMap<String, Value> {
    let files = fs::read_dir(chart().join("crds")).expect("the folder crds/");
    let read = |entry: fs::DirEntry| {
        let text = fs::read_to_string(entry.path()).expect("a file");
        let definition: Value = serde_saphyr::from_str(&text).expect("YAML");
        (name_of(&definition).to_owned(), definition)
    };
    files.map(|entry| read(entry.expect("an entry"))).collect()
}

#[test]
fn the_templates_are_the_definitions() {
    for (values, namespace) in [("", NAMESPACE), ("namespace: dapr-west", "dapr-west")] {
        let release = render_chart(&crds_chart(), values);
        assert_eq!(release.objects.len(), 7);
        let mut expected = definitions();
        let service = "/spec/conversion/webhook/clientConfig/service/namespace";
        let subscriptions = expected.get_mut(SUBSCRIPTIONS).expect("Subscriptions");
        *subscriptions.pointer_mut(service).expect("the Service") = namespace.into();
        for object in &release.objects {
            let definition = expected.get_mut(name_of(object)).expect("one of the definitions");
            definition["metadata"]["annotations"] = json!({ "helm.sh/resource-policy": "keep" });
            assert_eq!(object, definition);
        }
    }
}

#[test]
fn a_wrong_value_is_refused() {
    let crds = crds_chart();
    for values in ["namespace: Dapr", "namespaces: dapr-system"] {
        let output = run(&["template", "dapr-crds", path(&crds)], values);
        assert!(!output.status.success(), "rendered in spite of {values}");
        assert!(stderr(&output).contains("namespace"), "{}", stderr(&output));
    }
}

#[tokio::test]
async fn takes_over_upgrades_and_leaves_the_definitions() {
    let server = ApiServer::shared().await;
    server.apply_crds(&chart().join("crds")).await.expect("the definitions");
    let namespace = server.namespace("definitions").await.expect("a namespace");
    let definitions = Api::<CustomResourceDefinition>::all(server.client());

    let refused = helm(server, &namespace, &["install"]);
    assert!(refused.is_err(), "objects of others are not touched unasked");
    let version = plain(&["version", "--short"]);
    let version = String::from_utf8_lossy(&version.stdout);
    // Helm 4 applies server-side, where the owners of fields count, too.
    let force: &[&str] = if version.starts_with("v3") {
        &[]
    } else {
        &["--force-conflicts"]
    };
    helm(server, &namespace, &[&["install", "--take-ownership"], force].concat()).expect("installed");
    let service = async || {
        let definition = definitions.get(SUBSCRIPTIONS).await.expect("the definition");
        let definition = serde_json::to_value(definition).expect("JSON");
        definition["spec"]["conversion"]["webhook"]["clientConfig"].clone()
    };
    assert_eq!(service().await["service"]["namespace"], NAMESPACE);

    // What the operator writes stays.
    let authority = Authority::new("operator").expect("a certificate");
    let bundle = BASE64_STANDARD.encode(authority.pem());
    let client = json!({ "caBundle": bundle, "service": { "namespace": NAMESPACE } });
    let written = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": SUBSCRIPTIONS },
        "spec": { "conversion": { "webhook": { "clientConfig": client } } },
    });
    let how = PatchParams::apply("outrigger-operator").force();
    definitions
        .patch(SUBSCRIPTIONS, &how, &Patch::Apply(written))
        .await
        .expect("the patch");
    helm(server, &namespace, &["upgrade"]).expect("upgraded");
    assert_eq!(service().await["caBundle"], bundle);
    assert_eq!(service().await["service"]["namespace"], NAMESPACE);

    let uid = async || {
        definitions
            .get(SUBSCRIPTIONS)
            .await
            .expect("the definition")
            .metadata
            .uid
    };
    let before = uid().await;
    helm(server, &namespace, &["uninstall"]).expect("uninstalled");
    assert_eq!(uid().await, before, "resources outlive the release");
}

/// Runs a verb, with its flags, on the release `dapr-crds`.
fn helm(server: &ApiServer, namespace: &str, verb: &[&str]) -> Result<(), String> {
    let (kubeconfig, crds) = (server.kubeconfig(), crds_chart());
    let release = ["dapr-crds", "--namespace", namespace, "--kubeconfig", path(&kubeconfig)];
    // The namespace that others expect there, who use the same server.
    let values = format!("namespace: {NAMESPACE}");
    let output = match verb {
        ["uninstall"] => plain(&[verb, &release].concat()),
        _ => run(&[verb, &release, &[path(&crds)]].concat(), &values),
    };
    output.status.success().then_some(()).ok_or_else(|| stderr(&output))
}
