//! Pluggable components.

use serde_json::json;

use super::*;

fn component(name: &str, json: &str, scopes: &[&str]) -> ComponentContainer {
    ComponentContainer {
        component: name.to_owned(),
        scopes: scopes.iter().map(ToString::to_string).collect(),
        json: json.to_owned(),
    }
}

fn inject_components(pod: &Value, components: &[ComponentContainer]) -> Patched {
    inject_with(pod, &settings(), components)
}

#[test]
fn containers_of_the_pod_get_the_sockets_and_nothing_else() {
    let mut input = pod(&[("pluggable-components", "store,absent")]);
    input["spec"]["containers"] = json!([{"name": "main"}, {"name": "store"}]);
    let patched = inject(&input);
    let folder = "/tmp/dapr-components-sockets";
    let mount = json!({"name": "dapr-components-unix-domain-socket", "mountPath": folder});
    assert_eq!(
        patched.container("store"),
        &json!({
            "name": "store",
            "env": [{"name": "DAPR_COMPONENT_SOCKETS_FOLDER", "value": folder}],
            "volumeMounts": [mount],
        })
    );
    assert!(patched.env("main", "DAPR_COMPONENT_SOCKETS_FOLDER").is_null());
    assert_eq!(patched.env("daprd", "DAPR_COMPONENT_SOCKETS_FOLDER")["value"], folder);
    assert_eq!(patched.daprd()["volumeMounts"][1], mount);
    assert_eq!(
        patched.volume_names(),
        ["dapr-identity-token", "dapr-components-unix-domain-socket"]
    );
}

#[test]
fn no_component_means_no_sockets() {
    let patched = inject(&pod(&[("pluggable-components", "absent")]));
    assert_eq!(patched.volume_names(), ["dapr-identity-token"]);
    assert!(patched.env("daprd", "DAPR_COMPONENT_SOCKETS_FOLDER").is_null());
}

#[test]
fn containers_of_components_are_added() {
    let input = pod(&[("app-id", "cart"), ("pluggable-components-sockets-folder", "/sockets")]);
    let patched = inject_components(
        &input,
        &[
            component(
                "one",
                r#"{"Image":"one:1","env":[{"name":"A"}],"volumeMounts":[{"name":"x","mountPath":"/x"}]}"#,
                &[],
            ),
            component("same-image", r#"{"image":"one:1"}"#, &[]),
            component("other-app", r#"{"image":"two:1"}"#, &["shop"]),
            component("scoped", r#"{"name":"three","image":"three:1"}"#, &["shop", "cart"]),
            component("null", "null", &[]),
        ],
    );
    let variable = json!({"name": "DAPR_COMPONENT_SOCKETS_FOLDER", "value": "/sockets"});
    let mount = json!({"name": "dapr-components-unix-domain-socket", "mountPath": "/sockets"});
    assert_eq!(
        patched.container("one"),
        &json!({
            "name": "one", "image": "one:1", "resources": {},
            "env": [{"name": "A"}, variable],
            "volumeMounts": [{"name": "x", "mountPath": "/x"}, mount],
        })
    );
    assert_eq!(patched.container("three")["volumeMounts"], json!([mount]));
    assert_eq!(patched.pod["spec"]["containers"].as_array().unwrap().len(), 4);
    assert_eq!(
        patched.volume_names(),
        ["dapr-identity-token", "dapr-components-unix-domain-socket", "x"]
    );
    assert!(patched.warnings.is_empty());
}

#[test]
fn volumes_are_appended_and_never_doubled() {
    let mut settings = settings();
    settings.token_volume = false;
    let mounting =
        |image: &str| format!(r#"{{"image":"{image}","volumeMounts":[{{"name":"shared","mountPath":"/x"}}]}}"#);
    let components = [component("a", &mounting("a"), &[]), component("b", &mounting("b"), &[])];
    let patched = inject_with(&pod(&[]), &settings, &components);
    assert_eq!(patched.volume_names(), ["dapr-components-unix-domain-socket", "shared"]);

    let mut input = pod(&[("unix-domain-socket-path", "/s")]);
    input["spec"]["volumes"] = json!([{"name": "dapr-components-unix-domain-socket", "hostPath": {"path": "/h"}}]);
    let patched = inject_with(&input, &settings, &components);
    assert_eq!(
        patched.volume_names(),
        [
            "dapr-components-unix-domain-socket",
            "dapr-unix-domain-socket",
            "shared"
        ]
    );
}

#[test]
fn broken_containers_are_skipped_with_a_warning() {
    let broken = [
        component("a", "{", &[]),
        component("b", r#"{"image":5}"#, &[]),
        component("c", r#"{"image":"c","env":{}}"#, &[]),
    ];
    let patched = inject_components(&pod(&[]), &broken);
    assert_eq!(patched.pod["spec"]["containers"].as_array().unwrap().len(), 2);
    assert_eq!(patched.warnings.len(), 3);
    assert_eq!(
        patched.warnings[1],
        "Component \"b\": annotation dapr.io/component-container is not a container: image is not a string"
    );
}

#[test]
fn beside_a_native_sidecar_all_components_become_native_in_front_of_it() {
    let mut input = pod(&[
        ("enable-native-sidecar", "true"),
        ("pluggable-components", "store,cache,early"),
    ]);
    input["spec"]["containers"] = json!([{"name": "store"}, {"name": "main"}, {"name": "cache", "stdin": true}]);
    input["spec"]["initContainers"] = json!([{"name": "early", "restartPolicy": "Always"}, {"name": "migrate"}]);
    let brought = [
        component("one", r#"{"image":"one:1"}"#, &[]),
        component("two", r#"{"image":"two:1"}"#, &[]),
    ];
    let patched = inject_components(&input, &brought);
    assert_eq!(
        patched.init_names(),
        ["early", "one", "two", "store", "cache", "daprd", "migrate"]
    );
    assert_eq!(patched.pod["spec"]["containers"].as_array().unwrap().len(), 1);
    for native in ["early", "one", "two", "store", "cache", "daprd"] {
        assert_eq!(patched.container(native)["restartPolicy"], "Always", "{native}");
        assert_eq!(
            patched.env(native, "DAPR_COMPONENT_SOCKETS_FOLDER")["value"],
            "/tmp/dapr-components-sockets"
        );
    }
    assert_eq!(
        patched.container("cache")["stdin"],
        true,
        "what is moved keeps everything"
    );
    assert_eq!(
        patched.env("migrate", "DAPR_HTTP_PORT")["value"],
        "3500",
        "the sidecar runs before it"
    );
    assert!(patched.env("early", "DAPR_HTTP_PORT").is_null());
    assert!(patched.container("migrate").get("restartPolicy").is_none());
}

#[test]
fn a_pod_of_nothing_but_components_keeps_its_containers() {
    let mut input = pod(&[("enable-native-sidecar", "true"), ("pluggable-components", "main")]);
    input["spec"]["initContainers"] = json!([{"name": "main-helper"}]);
    let patched = inject(&input);
    assert_eq!(patched.init_names(), ["daprd", "main-helper"]);
    assert_eq!(patched.pod["spec"]["containers"][0]["name"], "main");
}
