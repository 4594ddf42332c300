//! The container `daprd` under each annotation and setting.

use serde_json::json;

use super::*;

#[test]
fn annotations_become_arguments() {
    for (annotations, expected) in [
        (&[("config", "tracing")][..], "--config tracing"),
        (&[("log-level", "debug")], "--log-level debug"),
        (&[("app-protocol", "GRPC")], "--app-protocol GRPC"),
        (&[("app-channel-address", "10.0.0.1")], "--app-channel-address 10.0.0.1"),
        (&[("app-max-concurrency", "7")], "--app-max-concurrency 7"),
        (
            &[("app-binding-options-timeout", "5s")],
            "--app-binding-options-timeout 5s",
        ),
        (&[("log-as-json", "true")], "--log-as-json"),
        (&[("enable-api-logging", "true")], "--enable-api-logging=true"),
        (&[("enable-api-logging", "")], "--enable-api-logging=false"),
        (&[("enable-profiling", "on")], "--enable-profiling"),
        (&[("metrics-port", "9191")], "--enable-metrics --metrics-port 9191"),
        (&[("grpc-port", "60001")], "--dapr-grpc-port 60001"),
        (&[("internal-grpc-port", "60002")], "--dapr-internal-grpc-port 60002"),
        (
            &[("sidecar-listen-addresses", "0.0.0.0")],
            "--dapr-listen-addresses 0.0.0.0",
        ),
        (&[("http-max-request-size", "16")], "--dapr-http-max-request-size 16"),
        (&[("max-body-size", "16Mi")], "--max-body-size 16Mi"),
        (&[("http-read-buffer-size", "-1")], "--dapr-http-read-buffer-size -1"),
        (&[("read-buffer-size", "8Ki")], "--read-buffer-size 8Ki"),
        (
            &[("graceful-shutdown-seconds", "9")],
            "--dapr-graceful-shutdown-seconds 9",
        ),
        (&[("block-shutdown-duration", "")], "--dapr-block-shutdown-duration "),
        (
            &[("unix-domain-socket-path", "/s")],
            "--unix-domain-socket /var/run/dapr-sockets",
        ),
        (
            &[("disable-builtin-k8s-secret-store", "yes")],
            "--disable-builtin-k8s-secret-store",
        ),
        (
            &[
                ("enable-app-health-check", "true"),
                ("app-health-check-path", "/up"),
                ("app-health-threshold", "x"),
            ],
            "--enable-app-health-check --app-health-check-path /up --app-health-probe-interval 5 \
             --app-health-probe-timeout 500 --app-health-threshold 3",
        ),
        (&[("placement-host-address", "'p:1'")], "--placement-host-address p:1"),
        (
            &[("actors-disseminate-timeout", "9s")],
            "--actors-disseminate-timeout 9s",
        ),
        (&[("scheduler-host-address", "s:1")], "--scheduler-host-address s:1"),
        (&[("scheduler-host-address", "''")], "--scheduler-host-address "),
        (
            &[("sentry-request-jwt-audiences", "a,b")],
            "--sentry-request-jwt-audiences a,b",
        ),
        (
            &[("disable-init-endpoints", "config")],
            "--disable-init-endpoints config",
        ),
        (&[("app-ssl", "true")], "--app-ssl"),
        (&[], "--app-id myapp-0"),
        (&[("app-id", "")], "--app-id myapp-0"),
    ] {
        let patched = inject(&pod(annotations));
        let expected: Vec<&str> = expected.split(' ').collect();
        let args = patched.args();
        assert!(
            args.windows(expected.len()).any(|window| window == expected),
            "{annotations:?}: {expected:?} is not in {args:?}"
        );
    }
}

#[test]
fn annotations_remove_arguments() {
    for (annotations, absent) in [
        (&[("enable-metrics", "false")][..], "--metrics-port"),
        (&[("enable-metrics", "")], "--enable-metrics"),
        (&[("placement-host-address", "\" \"")], "--placement-host-address"),
        (&[("app-port", "-1")], "--app-port"),
        (&[("app-port", "x")], "--app-port"),
        (&[("app-max-concurrency", "many")], "--app-max-concurrency"),
        (&[("config", "")], "--config"),
        (&[], "--app-ssl"),
        (&[], "--unix-domain-socket"),
        (&[], "--enable-api-logging=false"),
        (&[], "--dapr-block-shutdown-duration"),
    ] {
        let patched = inject(&pod(annotations));
        assert!(!patched.args().contains(&absent), "{annotations:?}: {absent}");
    }
    assert_eq!(
        inject(&pod(&[("enable-metrics", "no")])).daprd()["ports"][3]["name"],
        "dapr-metrics"
    );
}

#[test]
fn other_actor_and_reminder_services() {
    let settings = settings_with(&[
        ("ACTORS_SERVICE_NAME", "mine"),
        ("ACTORS_SERVICE_ADDRESS", "actors:1"),
        ("REMINDERS_SERVICE_NAME", "theirs"),
        ("REMINDERS_SERVICE_ADDRESS", "reminders:2"),
    ]);
    let patched = inject_with(&pod(&[]), &settings, &[]);
    assert_eq!(
        patched.arg("--actors-service"),
        Some("mine:actors.dapr-system.svc.cluster.local:1")
    );
    assert_eq!(
        patched.arg("--reminders-service"),
        Some("theirs:reminders.dapr-system.svc.cluster.local:2")
    );
    let patched = inject_with(&pod(&[("placement-host-address", "p:1")]), &settings, &[]);
    assert_eq!(patched.arg("--placement-host-address"), Some("p:1"));
    assert_eq!(patched.arg("--actors-service"), None);

    let disabled = settings_with(&[("ACTORS_ENABLED", "false")]);
    assert_eq!(
        inject_with(&pod(&[]), &disabled, &[]).arg("--placement-host-address"),
        None
    );
    let patched = inject_with(&pod(&[("placement-host-address", "p:1")]), &disabled, &[]);
    assert_eq!(patched.arg("--placement-host-address"), Some("p:1"));
}

#[test]
fn debugger_wraps_the_program() {
    let patched = inject(&pod(&[("enable-debug", "true"), ("debug-port", "4001")]));
    assert_eq!(
        patched.args()[..11],
        [
            "/dlv",
            "--listen",
            ":4001",
            "--accept-multiclient",
            "--headless=true",
            "--log",
            "--api-version=2",
            "exec",
            "/daprd",
            "--",
            "--dapr-http-port"
        ]
    );
    assert_eq!(
        patched.daprd()["ports"][4],
        json!({"containerPort": 4001, "name": "dapr-debug"})
    );
}

#[test]
fn virtual_nodes_get_a_command() {
    let settings = settings_with(&[(
        "IGNORE_ENTRYPOINT_TOLERATIONS",
        r#"[{"key":"virtual","operator":"Exists","effect":"NoSchedule","tolerationSeconds":5}]"#,
    )]);
    let mut input = pod(&[]);
    input["spec"]["tolerations"] = json!([{"key": "virtual", "operator": "Exists", "effect": "NoSchedule"}]);
    let patched = inject_with(&input, &settings, &[]);
    assert_eq!(patched.args()[0], "/daprd", "not the same toleration");
    input["spec"]["tolerations"][0]["tolerationSeconds"] = 5.into();
    let patched = inject_with(&input, &settings, &[]);
    assert_eq!(patched.daprd()["command"], json!(["/daprd"]));
    assert_eq!(patched.args()[0], "--dapr-http-port");
}

#[test]
fn resources_are_canonical_or_absent() {
    let good = [
        ("sidecar-cpu-request", "1000m"),
        ("sidecar-cpu-limit", "1.5"),
        ("sidecar-memory-limit", "1024Mi"),
    ];
    assert_eq!(
        inject(&pod(&good)).daprd()["resources"],
        json!({"requests": {"cpu": "1"}, "limits": {"cpu": "1500m", "memory": "1Gi"}})
    );
    let spoilt = [("sidecar-cpu-request", "100m"), ("sidecar-memory-limit", "lots")];
    assert_eq!(inject(&pod(&spoilt)).daprd()["resources"], json!({}));
}

#[test]
fn probes_follow_their_annotations() {
    let patched = inject(&pod(&[
        ("sidecar-liveness-probe-delay-seconds", "0"),
        ("sidecar-liveness-probe-timeout-seconds", "9"),
        ("sidecar-readiness-probe-threshold", "99999999999"),
        ("sidecar-readiness-probe-period-seconds", "4"),
    ]));
    assert_eq!(
        patched.daprd()["livenessProbe"],
        json!({"tcpSocket": {"port": 3501}, "timeoutSeconds": 9, "periodSeconds": 10, "failureThreshold": 5}),
        "a zero is left to the API server"
    );
    let readiness = &patched.daprd()["readinessProbe"];
    assert_eq!(
        (&readiness["failureThreshold"], &readiness["periodSeconds"]),
        (&json!(5), &json!(4))
    );
}

#[test]
fn security_context_follows_the_settings() {
    let settings = settings_with(&[
        ("SIDECAR_RUN_AS_NON_ROOT", "false"),
        ("SIDECAR_RUN_AS_USER", "1000"),
        ("SIDECAR_RUN_AS_GROUP", "0"),
        ("SIDECAR_READ_ONLY_ROOT_FILESYSTEM", "false"),
        ("SIDECAR_DROP_ALL_CAPABILITIES", "true"),
    ]);
    let patched = inject_with(
        &pod(&[("sidecar-seccomp-profile-type", "RuntimeDefault")]),
        &settings,
        &[],
    );
    assert_eq!(
        patched.daprd()["securityContext"],
        json!({
            "allowPrivilegeEscalation": false, "runAsNonRoot": false, "readOnlyRootFilesystem": false,
            "runAsUser": 1000, "runAsGroup": 0, "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        })
    );
}

#[test]
fn certificate_folder_means_windows() {
    let settings = settings_with(&[("SIDECAR_RUN_AS_USER", "1000")]);
    let expected = json!({
        "allowPrivilegeEscalation": false, "runAsNonRoot": false, "readOnlyRootFilesystem": false,
        "windowsOptions": {"runAsUserName": "ContainerAdministrator"},
    });
    for annotation in [
        ("env", "SSL_CERT_DIR=/certs"),
        ("env-from-secret", "SSL_CERT_DIR=certs"),
    ] {
        let patched = inject_with(&pod(&[annotation]), &settings, &[]);
        assert_eq!(patched.daprd()["securityContext"], expected, "{annotation:?}");
    }
}

#[test]
fn environment_of_the_user() {
    let settings = settings_with(&[("ENABLE_K8S_DOWNWARD_APIS", "true")]);
    let patched = inject_with(
        &pod(&[
            ("env", "A=1, B=x=y,EMPTY="),
            ("env-from-secret", "S=one,T=two:key,U=a:b:c"),
            ("api-token-secret", "api"),
            ("app-token-secret", "app"),
        ]),
        &settings,
        &[],
    );
    let secret = |name: &str, secret: &str, key: &str| json!({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}});
    assert_eq!(
        patched.daprd()["env"].as_array().unwrap()[5..],
        [
            json!({"name": "DAPR_HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}),
            json!({"name": "A", "value": "1"}),
            json!({"name": "B", "value": "x=y"}),
            json!({"name": "EMPTY"}),
            secret("S", "one", "one"),
            secret("T", "two", "key"),
            json!({"name": "DAPR_ENV_KEYS", "value": "A B EMPTY S T U"}),
            secret("DAPR_API_TOKEN", "api", "token"),
            secret("APP_API_TOKEN", "app", "token"),
        ]
    );
}

#[test]
fn image_is_overridden_even_with_nothing() {
    assert_eq!(inject(&pod(&[("sidecar-image", "mine:2")])).daprd()["image"], "mine:2");
    assert_eq!(inject(&pod(&[("sidecar-image", "")])).daprd().get("image"), None);
}

#[test]
fn switched_off_parts_leave_no_arguments() {
    let mut settings = settings();
    settings.scheduler_address = None;
    let json = pod(&[]).to_string();
    let decoded = Pod::decode(&json).unwrap();
    let sidecar = Sidecar::resolve(&decoded, &settings);
    let args = crate::patch::args::args(&sidecar, &settings, false);
    assert!(
        !args
            .iter()
            .any(|arg| arg == "--scheduler-host-address" || arg == "--enable-mtls")
    );
}
