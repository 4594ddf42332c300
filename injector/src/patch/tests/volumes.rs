//! Volumes of the pod, mounts of the sidecar, and where a native sidecar goes.

use serde_json::json;

use super::*;
use crate::{
    patch::{components::Components, volumes::mounts},
    warnings,
};

#[test]
fn sockets_come_before_the_token() {
    let patched = inject(&pod(&[("unix-domain-socket-path", "/tmp/s")]));
    assert_eq!(
        patched.volume_names(),
        ["dapr-unix-domain-socket", "dapr-identity-token"]
    );
    assert_eq!(
        patched.pod["spec"]["volumes"][0]["emptyDir"],
        json!({"medium": "Memory"})
    );
    assert_eq!(patched.paths()[0], "/spec/volumes");
    assert_eq!(
        patched.daprd()["volumeMounts"][0],
        json!({"name": "dapr-unix-domain-socket", "mountPath": "/var/run/dapr-sockets"})
    );
}

#[test]
fn existing_volumes_are_kept_and_not_doubled() {
    let mut input = pod(&[("unix-domain-socket-path", "/tmp/s")]);
    input["spec"]["volumes"] = json!([{"name": "dapr-identity-token", "emptyDir": {}}, {"name": "data"}]);
    let patched = inject(&input);
    assert_eq!(
        patched.volume_names(),
        ["dapr-identity-token", "data", "dapr-unix-domain-socket"]
    );
    assert_eq!(patched.paths()[0], "/spec/volumes/-");
    assert_eq!(patched.warnings.len(), 1);
    assert!(
        patched.warnings[0].contains("dapr-identity-token"),
        "{:?}",
        patched.warnings
    );
}

#[test]
fn mounts_of_the_user_need_a_volume() {
    let mut input = pod(&[
        ("volume-mounts", "data:/data, missing:/x,bad,also:bad:one"),
        ("volume-mounts-rw", " scratch:/scratch"),
    ]);
    input["spec"]["volumes"] = json!([{"name": "data"}, {"name": "scratch"}]);
    assert_eq!(
        inject(&input).daprd()["volumeMounts"],
        json!([
            {"name": "data", "mountPath": "/data", "readOnly": true},
            {"name": "scratch", "mountPath": "/scratch"},
            {"name": "dapr-identity-token", "mountPath": "/var/run/secrets/dapr.io/sentrytoken", "readOnly": true},
        ])
    );
}

/// Looking through the lists for each entry would take minutes.
#[test]
fn long_lists_take_no_longer_than_their_length() {
    const COUNT: usize = 30_000;
    let names: Vec<String> = (0..COUNT).map(|number| format!("n{number}")).collect();
    let last = names.last().unwrap();
    let mut input = pod(&[
        ("volume-mounts", &format!("{last}:/m,").repeat(COUNT)),
        ("pluggable-components", &names.join(",")),
        ("enable-native-sidecar", "true"),
    ]);
    let named = names
        .iter()
        .map(|name| json!({"name": name, "restartPolicy": "Always"}));
    let named: Vec<_> = named.collect();
    input["spec"]["volumes"] = json!(named);
    input["spec"]["initContainers"] = json!(named);
    let json = input.to_string();
    let pod = Pod::decode(&json).unwrap();
    let settings = settings();
    let sidecar = Sidecar::resolve(&pod, &settings);
    assert_eq!(mounts(&sidecar, &settings, &pod, false).len(), COUNT + 1);
    assert_eq!(warnings::of_pod(&pod, &sidecar).len(), 32);
    let components = Components::select(&pod, &sidecar, &[], &mut Vec::new());
    assert_eq!(components.native_position(), COUNT);
}

#[test]
fn without_a_token_there_are_no_volumes() {
    let mut settings = settings();
    settings.token_volume = false;
    let patched = inject_with(&pod(&[]), &settings, &[]);
    assert_eq!(patched.pod["spec"].get("volumes"), None);
    assert_eq!(patched.daprd().get("volumeMounts"), None);
}

#[test]
fn native_sidecars_come_before_all_init_containers() {
    let mut input = pod(&[("enable-native-sidecar", "true")]);
    let patched = inject(&input);
    assert_eq!(patched.pod["spec"]["initContainers"].as_array().unwrap().len(), 1);
    assert_eq!(patched.pod["spec"]["containers"].as_array().unwrap().len(), 1);
    assert_eq!(patched.daprd()["restartPolicy"], "Always");
    assert_eq!(
        patched.daprd()["startupProbe"],
        json!({
            "httpGet": {"path": "/v1.0/healthz/outbound", "port": 3501},
            "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 180,
        })
    );
    input["spec"]["initContainers"] = json!([{"name": "migrate", "env": [{"name": "X"}]}]);
    let patched = inject(&input);
    assert_eq!(patched.init_names(), ["daprd", "migrate"]);
    assert_eq!(
        patched.env("migrate", "DAPR_GRPC_PORT")["value"],
        "50001",
        "it can call the sidecar"
    );
}

#[test]
fn native_is_a_setting_that_pods_override() {
    let native = settings_with(&[("NATIVE_SIDECAR_ENABLED", "true")]);
    assert!(inject_with(&pod(&[]), &native, &[]).pod["spec"]["initContainers"].is_array());
    let patched = inject_with(&pod(&[("enable-native-sidecar", "false")]), &native, &[]);
    assert!(patched.pod["spec"].get("initContainers").is_none());
    assert!(patched.daprd().get("startupProbe").is_none() && patched.daprd().get("restartPolicy").is_none());
}

#[test]
fn absent_lists_are_made() {
    let input = json!({"metadata": {"name": "p"}, "spec": {}});
    let patched = inject(&input);
    assert_eq!(
        patched.paths()[..4],
        [
            "/spec/containers",
            "/metadata/labels",
            "/spec/volumes",
            "/spec/containers/-"
        ]
    );
    assert_eq!(
        patched.pod["metadata"]["labels"],
        json!({"dapr.io/sidecar-injected": "true", "dapr.io/app-id": "p", "dapr.io/metrics-enabled": "true"})
    );
}

#[test]
fn labels_are_overwritten() {
    let mut input = pod(&[("enable-metrics", "")]);
    input["metadata"]["labels"] = json!({"dapr.io/app-id": "old", "dapr.io/sidecar-injected": "false"});
    assert_eq!(
        inject(&input).pod["metadata"]["labels"],
        json!({"dapr.io/sidecar-injected": "true", "dapr.io/app-id": "myapp-0", "dapr.io/metrics-enabled": "false"})
    );
}
