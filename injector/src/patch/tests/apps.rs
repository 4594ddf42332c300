//! What the pod's own containers get.

use serde_json::json;

use super::*;

#[test]
fn variables_never_override() {
    let mut input = pod(&[("grpc-port", "60001")]);
    input["spec"]["containers"] = json!([
        {"name": "a", "env": [{"name": "DAPR_HTTP_PORT", "value": "1"}, {"name": "X", "value": "2"}]},
        {"name": "b", "env": []},
    ]);
    let patched = inject(&input);
    assert_eq!(
        patched.container("a")["env"],
        json!([
            {"name": "DAPR_HTTP_PORT", "value": "1"},
            {"name": "X", "value": "2"},
            {"name": "DAPR_GRPC_PORT", "value": "60001"},
            {"name": "APP_PROTOCOL", "value": "http"},
        ])
    );
    assert_eq!(patched.container("b")["env"].as_array().unwrap().len(), 3);
    assert_eq!(
        patched.paths()[5..],
        [
            "/spec/containers/0/env/-",
            "/spec/containers/0/env/-",
            "/spec/containers/1/env"
        ]
    );
}

#[test]
fn protocol_is_normalised() {
    for (protocol, tls, expected) in [
        ("", "false", Some("http")),
        ("HTTP", "false", Some("http")),
        ("http", "true", Some("https")),
        ("grpc", "1", Some("grpcs")),
        ("gRPC", "", Some("grpc")),
        ("grpcs", "false", Some("grpcs")),
        ("h2c", "true", Some("h2c")),
        ("https", "false", Some("https")),
        ("tcp", "false", None),
    ] {
        let patched = inject(&pod(&[("app-protocol", protocol), ("app-ssl", tls)]));
        assert_eq!(
            patched.env("main", "APP_PROTOCOL")["value"].as_str(),
            expected,
            "{protocol} {tls}"
        );
        assert_eq!(
            patched.arg("--app-protocol"),
            Some(protocol),
            "the sidecar gets it as written"
        );
    }
}

#[test]
fn sockets_are_mounted_once() {
    let mut input = pod(&[("unix-domain-socket-path", "/tmp/s")]);
    input["spec"]["containers"] = json!([
        {"name": "plain"},
        {"name": "mounts", "volumeMounts": [{"name": "x", "mountPath": "/x"}]},
        {"name": "same-path", "volumeMounts": [{"name": "x", "mountPath": "/tmp/s"}]},
        {"name": "same-name", "volumeMounts": [{"name": "dapr-unix-domain-socket", "mountPath": "/y"}]},
    ]);
    let patched = inject(&input);
    let mount = json!({"name": "dapr-unix-domain-socket", "mountPath": "/tmp/s"});
    assert_eq!(patched.container("plain")["volumeMounts"], json!([mount]));
    assert_eq!(
        patched.container("mounts")["volumeMounts"],
        json!([{"name": "x", "mountPath": "/x"}, mount])
    );
    for name in ["same-path", "same-name"] {
        assert_eq!(
            patched.container(name)["volumeMounts"].as_array().unwrap().len(),
            1,
            "{name}"
        );
    }
}

#[test]
fn init_containers_and_tokens_are_left_alone() {
    let mut input = pod(&[("api-token-secret", "api"), ("app-token-secret", "app")]);
    input["spec"]["initContainers"] = json!([{"name": "init"}]);
    let patched = inject(&input);
    assert_eq!(patched.container("init"), &json!({"name": "init"}));
    assert!(patched.env("main", "DAPR_API_TOKEN").is_null() && patched.env("main", "APP_API_TOKEN").is_null());
}
