//! Manifests as people write them, and the bytes that sidecars get for them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::{fs, path::Path};

use kube::core::TypeMeta;
use outrigger_crds::{
    Component, Configuration, DaprResource, HTTPEndpoint, MCPServer, Resiliency, WorkflowAccessPolicy, decode, encode,
    subscription::{v1alpha1, v2alpha1},
};
use serde::Deserialize;

/// Kind and version of a manifest.
#[derive(Deserialize)]
struct Head {
    #[serde(flatten)]
    types: TypeMeta,
}

/// From YAML to what is sent, through JSON as the API server would give it.
fn sent<K: DaprResource>(manifest: &serde_json::Value) -> String {
    let object: K = decode(&manifest.to_string()).unwrap();
    let bytes = encode(&object, true).unwrap();
    // What was sent reads back as an object that is sent the same way.
    let again: K = decode(str::from_utf8(&bytes).unwrap()).unwrap();
    assert_eq!(encode(&again, true).unwrap(), bytes);
    // So does what a client sends to the API server.
    let stored: K = decode(&serde_json::to_string(&object).unwrap()).unwrap();
    assert_eq!(encode(&stored, true).unwrap(), bytes);
    String::from_utf8(bytes).unwrap()
}

fn sent_by_kind(manifest: &serde_json::Value) -> String {
    let Head { types } = serde_json::from_value(manifest.clone()).unwrap();
    match (types.kind.as_str(), types.api_version.as_str()) {
        ("Component", "dapr.io/v1alpha1") => sent::<Component>(manifest),
        ("Configuration", "dapr.io/v1alpha1") => sent::<Configuration>(manifest),
        ("HTTPEndpoint", "dapr.io/v1alpha1") => sent::<HTTPEndpoint>(manifest),
        ("MCPServer", "dapr.io/v1alpha1") => sent::<MCPServer>(manifest),
        ("Resiliency", "dapr.io/v1alpha1") => sent::<Resiliency>(manifest),
        ("Subscription", "dapr.io/v1alpha1") => sent::<v1alpha1::Subscription>(manifest),
        ("Subscription", "dapr.io/v2alpha1") => sent::<v2alpha1::Subscription>(manifest),
        ("WorkflowAccessPolicy", "dapr.io/v1alpha1") => sent::<WorkflowAccessPolicy>(manifest),
        (kind, version) => panic!("unexpected {version} {kind}"),
    }
}

#[test]
fn manifests_are_sent_as_recorded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut manifests: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    manifests.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    assert_eq!(manifests.len(), 16, "two for each kind and version");
    for path in manifests {
        let manifest = serde_saphyr::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let expected = fs::read_to_string(path.with_extension("json")).unwrap();
        assert_eq!(sent_by_kind(&manifest), expected.trim_end(), "{}", path.display());
    }
}
