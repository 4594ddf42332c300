use std::ffi::OsString;

use outrigger_process::flags::{self, Style};

use super::*;

fn settings(words: &[&str], env: &[(&str, &str)]) -> Result<Settings, Error> {
    let words = std::iter::once("daprd")
        .chain(words.iter().copied())
        .map(OsString::from);
    let args: Args = flags::parse(Style::Pflag, words).unwrap();
    Settings::new(&args, |name| {
        env.iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| (*value).to_owned())
    })
}

/// The arguments that injection passes, with every optional one.
const INJECTED: &[&str] = &[
    "--dapr-http-port",
    "3500",
    "--dapr-grpc-port",
    "50001",
    "--dapr-internal-grpc-port",
    "50002",
    "--dapr-listen-addresses",
    "[::1],127.0.0.1",
    "--dapr-public-port",
    "3501",
    "--app-id",
    "cart",
    "--app-protocol",
    "",
    "--log-level",
    "info",
    "--dapr-graceful-shutdown-seconds",
    "-1",
    "--mode",
    "kubernetes",
    "--control-plane-address",
    "dapr-api.dapr-system.svc.cluster.local:443",
    "--sentry-address",
    "dapr-sentry.dapr-system.svc.cluster.local:443",
    "--app-port",
    "8080",
    "--enable-metrics",
    "--metrics-port",
    "9090",
    "--config",
    "tracing",
    "--app-channel-address",
    "127.0.0.1",
    "--placement-host-address",
    "dapr-placement-server:50005",
    "--sentry-request-jwt-audiences",
    "a,b",
    "--enable-api-logging=false",
    "--disable-builtin-k8s-secret-store",
    "--enable-app-health-check",
    "--app-health-check-path",
    "/ok",
    "--app-health-probe-interval",
    "3",
    "--app-health-probe-timeout",
    "100",
    "--app-health-threshold",
    "1",
    "--app-binding-options-timeout",
    "3s",
    "--log-as-json",
    "--enable-profiling",
    "--enable-mtls",
    "--app-ssl",
    "--app-max-concurrency",
    "7",
    "--dapr-http-max-request-size",
    "8",
    "--max-body-size",
    "2Mi",
    "--dapr-http-read-buffer-size",
    "16",
    "--read-buffer-size",
    "8Ki",
    "--unix-domain-socket",
    "/var/run/dapr-sockets",
    "--dapr-block-shutdown-duration",
    "10s",
    "--actors-disseminate-timeout",
    "1m",
    "--scheduler-host-address",
    "",
    "--disable-init-endpoints",
    "Config, subscribe",
];

#[test]
fn accepts_what_injection_passes() {
    let settings = settings(
        INJECTED,
        &[
            ("DAPR_TRUST_ANCHORS", "pem"),
            ("NAMESPACE", "shop"),
            ("DAPR_API_TOKEN", ""),
        ],
    )
    .unwrap();
    assert_eq!(settings.mode, Mode::Kubernetes);
    assert_eq!(settings.listen, ["::1", "127.0.0.1"]);
    assert_eq!(settings.public, Some((String::new(), 3501)));
    assert_eq!((settings.max_body, settings.max_header), (2 << 20, 8 << 10));
    assert_eq!(settings.grace, Some(Duration::from_secs(5)));
    assert_eq!(settings.block_shutdown, Some(Duration::from_secs(10)));
    assert_eq!(settings.api_token, None, "an empty token is none");
    assert_eq!(settings.config, ["tracing"]);
    let identity = settings.identity.unwrap();
    assert_eq!(identity.jwt_audiences, ["a", "b"]);
    let app = settings.app.unwrap();
    assert_eq!((app.protocol, app.max_concurrency), (Protocol::Https, Some(7)));
    assert_eq!(app.probe.unwrap().interval, Duration::from_secs(3));
}

#[test]
fn standalone_needs_little() {
    let settings = settings(&["-app-id=cart", "-dapr-http-max-request-size", "-1"], &[]).unwrap();
    assert_eq!(settings.listen, [""]);
    assert_eq!((settings.max_body, settings.max_header), (DEFAULT_BODY, DEFAULT_HEADER));
    assert!(settings.identity.is_none() && settings.app.is_none());
    assert_eq!(settings.reconcile, DEFAULT_RECONCILE);
    assert!(settings.h2c);
    assert_eq!(
        (settings.namespace.as_str(), settings.identity_namespace()),
        ("", "default")
    );
}

#[test]
fn lists_may_repeat_and_be_separated_by_commas() {
    let settings = settings(&["-app-id", "a", "-resources-path", "x,y", "-resources-path", "z"], &[]).unwrap();
    assert_eq!(settings.resources, ["x", "y", "z"].map(PathBuf::from));
}

#[test]
fn each_mistake_names_its_flag() {
    let message = |words: &[&str]| settings(words, &[]).unwrap_err().to_string();
    assert_eq!(message(&[]), "parameter app-id cannot be empty");
    assert_eq!(
        message(&["-app-id", "a.b"]),
        "parameter app-id cannot contain a dot: \"a.b\""
    );
    assert_eq!(
        message(&["-app-id", "a", "-app-port", "3500"]),
        "the 'dapr-http-port' argument value 3500 conflicts with 'app-port'"
    );
    assert_eq!(
        message(&["-app-id", "a", "-app-protocol", "ftp"]),
        "invalid value for '--app-protocol': \"ftp\" (expected http, https, h2c, grpc or grpcs)"
    );
    assert!(message(&["-app-id", "a", "-dapr-grpc-port", "x"]).contains("'--dapr-grpc-port': \"x\""));
    assert!(message(&["-app-id", "a", "-mode", "k8s"]).contains("standalone or kubernetes"));
    assert!(message(&["-app-id", "a", "-max-body-size", "4MB"]).contains("'--max-body-size'"));
    assert!(message(&["-app-id", "a", "-disable-init-endpoints", "jobs"]).contains("config, subscribe"));
    assert!(message(&["-app-id", "a", "-mode", "kubernetes"]).contains("DAPR_TRUST_ANCHORS"));
    assert!(
        message(&[
            "-app-id",
            "a",
            "-enable-app-health-check",
            "-app-health-probe-timeout",
            "5000"
        ])
        .contains("health-probe-timeout")
    );
    let anchors = [("DAPR_TRUST_ANCHORS", "x")];
    let enrolled = |words: &[&str]| settings(&[&["-enable-mtls", "-sentry-address", "s"], words].concat(), &anchors);
    for (words, flag) in [
        (["-app-id", "a/b"], "'--app-id': \"a/b\""),
        (
            ["-control-plane-namespace", "a b"],
            "'--control-plane-namespace': \"a b\"",
        ),
        (
            ["-control-plane-trust-domain", "A"],
            "'--control-plane-trust-domain': \"A\"",
        ),
    ] {
        let app = if words[0] == "-app-id" {
            &[][..]
        } else {
            &["-app-id", "a"]
        };
        let error = enrolled(&[app, &words].concat()).unwrap_err().to_string();
        assert!(error.contains(flag), "{error}");
    }
    let no_operator = settings(
        &["-app-id", "a", "-mode", "kubernetes", "-sentry-address", "s"],
        &[("DAPR_TRUST_ANCHORS", "x")],
    );
    assert_eq!(no_operator.unwrap_err(), Error::Required("control-plane-address"));
}
