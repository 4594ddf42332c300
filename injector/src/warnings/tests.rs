use super::*;
use crate::{patch::tests::settings, pod::Map};

fn pod(annotations: &[(&str, &str)]) -> Pod<'static> {
    let annotations: Map<'_> = annotations
        .iter()
        .map(|(key, value)| (format!("dapr.io/{key}").into(), (*value).to_owned().into()))
        .collect();
    let mut pod = Pod::decode(r#"{"spec":{"containers":[{"name":"main"}],"volumes":[{"name":"data"}]}}"#).unwrap();
    pod.metadata.annotations = annotations;
    pod
}

fn warnings(annotations: &[(&str, &str)]) -> Vec<String> {
    let pod = pod(annotations);
    of_pod(&pod, &Sidecar::resolve(&pod, &settings()))
}

#[test]
fn each_kind_of_mistake_has_its_sentence() {
    for (annotation, value, expected) in [
        ("app-port", "3o00", "\"3o00\" is not a port; it is ignored"),
        (
            "app-port",
            "70000",
            "\"70000\" is not a port between 1 and 65535; the sidecar may refuse it",
        ),
        (
            "grpc-port",
            "0",
            "\"0\" is not a port between 1 and 65535; the sidecar may refuse it",
        ),
        (
            "sidecar-readiness-probe-threshold",
            "2147483648",
            "\"2147483648\" is not a 32-bit integer; it is ignored",
        ),
        ("app-max-concurrency", "", "\"\" is not an integer; it is ignored"),
        (
            "log-as-json",
            "truee",
            "\"truee\" counts as false; expected true or false",
        ),
        (
            "block-shutdown-duration",
            "10",
            "\"10\" is not a duration such as 30s or 1m30s; the sidecar may refuse it",
        ),
        (
            "sidecar-cpu-limit",
            "1 core",
            "\"1 core\" is not a quantity such as 500m or 128Mi; no requests or limits are set on the sidecar",
        ),
        (
            "max-body-size",
            "4MB",
            "\"4MB\" is not a quantity such as 4Mi; the sidecar may refuse it",
        ),
        (
            "log-level",
            "verbose",
            "\"verbose\" is not one of debug, info, warn, error, fatal; the sidecar may refuse it",
        ),
        (
            "app-protocol",
            "tcp",
            "\"tcp\" is not one of http, https, grpc, grpcs, h2c; the sidecar may refuse it",
        ),
        ("env", "A=1,B", ""),
        ("env", "nothing", "an entry without '=' is ignored"),
        (
            "env-from-secret",
            "A=a:b:c",
            "A is not set, because \"a:b:c\" is not secret or secret:key",
        ),
        ("volume-mounts", "data", "\"data\" is not volume:path; it is ignored"),
        (
            "volume-mounts-rw",
            "data:/a,other:/b",
            "the pod has no volume \"other\"; it is not mounted into the sidecar",
        ),
        ("pluggable-components", "main, x", "the pod has no container \" x\""),
    ] {
        let expected: Vec<_> = Some(format!("annotation dapr.io/{annotation}: {expected}"))
            .filter(|text| !text.ends_with(": "))
            .into_iter()
            .collect();
        assert_eq!(warnings(&[(annotation, value)]), expected, "{annotation}={value}");
    }
    assert_eq!(
        warnings(&[("component-container", "{}")]),
        ["annotation dapr.io/component-container has an effect on Component resources only, not on pods"]
    );
}

#[test]
fn good_values_have_none() {
    let good = [
        ("enabled", "true"),
        ("app-port", "0"),
        ("log-level", "DEBUG"),
        ("app-protocol", "gRPC"),
        ("log-as-json", "off"),
        ("sidecar-memory-limit", "128Mi"),
        ("control-plane", "injector"),
        ("volume-mounts", "data:/data"),
        ("pluggable-components", "main"),
    ];
    assert_eq!(warnings(&good), Vec::<String>::new());
}

#[test]
fn unknown_annotations_name_what_was_meant() {
    assert_eq!(
        warnings(&[("appid", "a"), ("something-else", "b")]),
        [
            "annotation dapr.io/appid is unknown; did you mean dapr.io/app-id?",
            "annotation dapr.io/something-else is unknown and has no effect"
        ]
    );
}

#[test]
fn a_sidecar_that_was_meant_is_noticed() {
    assert_eq!(
        not_enabled(&pod(&[("enabled", "yes")])).unwrap(),
        "no Dapr sidecar: annotation dapr.io/enabled is \"yes\", and only \"true\" asks for one"
    );
    assert_eq!(
        not_enabled(&pod(&[("enable", "true")])).unwrap(),
        "no Dapr sidecar: annotation dapr.io/enable is unknown; did you mean dapr.io/enabled?"
    );
    for silent in [&[][..], &[("enabled", "false")], &[("appid", "x")], &[("config", "x")]] {
        assert_eq!(not_enabled(&pod(silent)), None);
    }
}

#[test]
fn warnings_fit_into_the_answer() {
    let long = format!("a\nb{}", "ä".repeat(200));
    let fitted = fit(vec![long; 20]);
    assert_eq!(fitted.len(), 13);
    assert!(fitted[0].len() <= 256 && fitted[0].starts_with("a bä") && fitted[0].ends_with('…'));
    assert_eq!(fitted[12], "8 more warnings about this pod are in the injector's log");
}

#[test]
fn mistakes_without_number_do_not_make_warnings_without_number() {
    let many = ",".repeat(10_000);
    let unknown: Vec<String> = (0..10_000).map(|n| format!("unknown-{n}")).collect();
    let mut annotations: Vec<_> = unknown.iter().map(|name| (name.as_str(), "")).collect();
    annotations.extend([("pluggable-components", many.as_str()), ("enabled", "true")]);
    assert_eq!(warnings(&annotations).len(), 2 * MAX_OF_A_KIND);
}
