//! Command line, environment, exit codes.

use std::process::Command;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::process::{Sentry, fails, folder_with};

#[tokio::test]
async fn one_dash_is_enough_and_ipv4_loopback_answers_health() {
    // The harness starts it with both spellings.
    let sentry = Sentry::start(&["-jwt-enabled=false", "--log-as-json"]);
    sentry.until_ready().await;
    assert!(sentry.health("/other").await.unwrap().starts_with("HTTP/1.1 404"));
    assert!(
        sentry.output().lines().all(|line| line.starts_with('{')),
        "{}",
        sentry.output()
    );
    assert!(
        sentry
            .metrics()
            .await
            .contains("dapr_sentry_issuercert_changed_total 1")
    );
}

#[tokio::test]
async fn credentials_for_everything_may_be_there_while_jwt_is_off() {
    let mut first = Sentry::start(&["-jwt-enabled"]);
    first.until_ready().await;
    let folder = std::mem::replace(&mut first.folder, tempfile::tempdir().unwrap());
    drop(first);
    let names: Vec<_> = ["ca.crt", "issuer.crt", "issuer.key", "jwt.key", "jwks.json"]
        .map(|name| folder.path().join(name))
        .into();
    let before: Vec<_> = names.iter().map(|path| std::fs::read(path).unwrap()).collect();
    let second = Sentry::in_folder(folder, "", &[]);
    second.until_ready().await;
    let after: Vec<_> = names.iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(before == after);
}

#[test]
fn usage_and_its_exit_codes() {
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_sentry")).args(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for args in [&["-h"][..], &["--help"]] {
        let (code, text) = run(args);
        assert_eq!(code, Some(0));
        assert!(text.contains("--issuer-credentials"), "{text}");
    }
    for args in [
        &["--no-such-flag"][..],
        &["-port=x"],
        &["-jwt-ttl", "1"],
        &["-jwt-enabled=maybe"],
        &["--version"],
    ] {
        assert_eq!(run(args).0, Some(2), "{args:?}");
    }
}

#[tokio::test]
async fn mistakes_end_with_1_and_name_what_is_wrong() {
    for (configuration, args, text) in [
        ("", &["-mode", "k8s"][..], "--mode: found \"k8s\""),
        ("", &["-trust-domain=Upper"], "--trust-domain"),
        ("", &["-log-level", "loud"], "invalid value for --log-level: loud"),
        ("", &["-jwt-issuer=x"], "--jwt-issuer needs --jwt-enabled"),
        (
            "",
            &["-config", "daprsystem"],
            "cannot read the configuration file daprsystem",
        ),
        ("spec: [", &[], "configuration file"),
        (
            "spec: {mtls: {workloadCertTTL: soon}}",
            &[],
            "spec.mtls.workloadCertTTL",
        ),
        (
            "spec: {mtls: {tokenValidators: [{name: kubernetes}]}}",
            &[],
            "cannot be configured manually",
        ),
    ] {
        let (code, output) = fails(folder_with(&[]), configuration, args).await;
        assert_eq!(code, Some(1), "{output}");
        assert!(output.contains(text), "{text}: {output}");
    }
}

#[tokio::test]
async fn the_configuration_may_use_the_environment() {
    let folder = folder_with(&[(
        "configuration.yaml",
        "spec: {mtls: {workloadCertTTL: \"${TTL}\", allowedClockSkew: $SKEW}}",
    )]);
    let file = folder.path().join("configuration.yaml");
    let args = ["-config", file.to_str().unwrap()];
    let sentry = Sentry::spawn(folder, "prod", &args, &[("TTL", "90m"), ("SKEW", "5m")]);
    sentry.until_ready().await;
    let answer = sentry.sign(crate::process::request("cart", "shop")).await.unwrap();
    let chain = outrigger_identity::pem::certificates(&answer.workload_certificate).unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    let validity = leaf.validity();
    assert_eq!(
        validity.not_after.timestamp() - validity.not_before.timestamp(),
        95 * 60
    );
}

#[tokio::test]
async fn a_trust_domain_in_the_configuration_yields_to_the_flag_and_that_is_said() {
    let configuration = "spec: {mtls: {controlPlaneTrustDomain: other.example}}";
    let sentry = Sentry::in_folder(folder_with(&[]), configuration, &["-trust-domain", "mine.example"]);
    sentry.until_ready().await;
    sentry
        .until_logged("spec.mtls.controlPlaneTrustDomain differs from --trust-domain, which wins")
        .await;
    let output = sentry.output();
    assert!(
        output.contains("other.example") && output.contains("mine.example"),
        "{output}"
    );
}

#[tokio::test]
async fn a_signal_ends_it_with_0() {
    let mut sentry = Sentry::start(&[]);
    sentry.until_ready().await;
    sentry.terminate();
    assert_eq!(sentry.ended().await.code(), Some(0));
}

/// Speaks HTTP/2 as far as that it is connected, and then no more.
async fn client_that_stays(sentry: &Sentry) -> impl Sized + use<> {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let mut client = sentry.connect().await;
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    client.write_all(&SETTINGS).await.unwrap();
    let mut frame = [0; 9];
    client.read_exact(&mut frame).await.unwrap();
    assert_eq!(frame[3], SETTINGS[3]);
    client
}

#[tokio::test]
async fn clients_that_stay_hold_up_the_end_for_moments_and_a_second_signal_not_at_all() {
    let mut sentry = Sentry::start(&[]);
    sentry.until_ready().await;
    let _client = client_that_stays(&sentry).await;
    sentry.terminate();
    assert_eq!(sentry.ended().await.code(), Some(0));
    assert!(
        sentry.output().contains("tasks still running after the drain deadline"),
        "{}",
        sentry.output()
    );

    let mut sentry = Sentry::start(&[]);
    sentry.until_ready().await;
    let _client = client_that_stays(&sentry).await;
    sentry.terminate();
    sentry.until_logged("Received signal; beginning shutdown").await;
    sentry.terminate();
    assert_eq!(sentry.ended().await.code(), Some(1));
    assert!(
        sentry.output().contains("Received signal during shutdown"),
        "{}",
        sentry.output()
    );
}

#[tokio::test]
async fn kubernetes_needs_its_namespace_and_no_root() {
    let args = ["-mode", "kubernetes"];
    let mut sentry = Sentry::spawn(folder_with(&[]), "", &args, &[]);
    assert_eq!(sentry.ended().await.code(), Some(1));
    assert!(
        sentry.output().contains("'NAMESPACE' environment variable not set"),
        "{}",
        sentry.output()
    );
    // The tests may run as root; who does not cannot see this refusal.
    if rustix::process::geteuid().is_root() {
        let mut sentry = Sentry::spawn(folder_with(&[]), "dapr-system", &args, &[]);
        assert_eq!(sentry.ended().await.code(), Some(1));
        assert!(
            sentry.output().contains("running as root (UID 0) is refused"),
            "{}",
            sentry.output()
        );
    }
}
