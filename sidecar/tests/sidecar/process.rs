//! The process: how it starts, why it does not, how it ends.

use std::{fs, sync::atomic::Ordering};

use http::{Method, StatusCode};
use tokio::net::TcpListener;

use crate::support::{Daprd, app::App, message, store};

#[tokio::test]
async fn the_shutdown_api_ends_it_with_0_and_a_forced_one_with_1() {
    let mut daprd = Daprd::running(&["--app-id", "cart"], &[]).await;
    assert_eq!(
        daprd.http(Method::POST, "/v1.0/shutdown", "").await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(daprd.exit().await.code(), Some(0), "{}", daprd.text());
    daprd.line(|line| message(line) == "Daprd shutdown gracefully").await;

    let mut daprd = Daprd::running(&["--app-id", "cart"], &[]).await;
    daprd
        .http_with(Method::POST, "/v1.0/shutdown", &[("dapr-force-shutdown", "true")], "")
        .await;
    assert_eq!(daprd.exit().await.code(), Some(1));
}

#[tokio::test]
async fn signals_end_it_or_start_it_again() {
    let mut daprd = Daprd::running(&["--app-id", "cart"], &[]).await;
    let before = daprd.lines();
    daprd.signal("HUP");
    daprd
        .line_after(before, |line| message(line).starts_with("dapr initialized."))
        .await;
    daprd.signal("TERM");
    assert_eq!(daprd.exit().await.code(), Some(0), "{}", daprd.text());
}

#[tokio::test]
async fn the_end_can_be_put_off_until_the_application_is_unhealthy() {
    let app = App::start().await;
    let port = app.port.to_string();
    let words = [
        "--app-id",
        "cart",
        "--app-port",
        &port,
        "--enable-app-health-check",
        "--app-health-probe-interval",
        "1",
    ];
    let more = ["--app-health-threshold", "1", "--dapr-block-shutdown-duration", "1h"];
    let mut daprd = Daprd::running(&[&words[..], &more[..]].concat(), &[]).await;
    daprd.line(|line| message(line) == "App entered healthy status").await;
    daprd.signal("TERM");
    daprd
        .line(|line| message(line).starts_with("Blocking graceful shutdown"))
        .await;
    daprd.signal("HUP");
    daprd
        .line(|line| message(line).ends_with("during shutdown; not restarting"))
        .await;
    assert_eq!(
        daprd.http(Method::GET, "/v1.0/invoke/cart/method/x", "").await.status,
        StatusCode::OK
    );
    app.healthy.store(false, Ordering::Relaxed);
    daprd
        .line(|line| message(line) == "App reported unhealthy, entering shutdown...")
        .await;
    assert_eq!(daprd.exit().await.code(), Some(0), "{}", daprd.text());
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (flag, purpose) in [
        ("--dapr-http-port", "the HTTP API (--dapr-http-port)"),
        ("--dapr-grpc-port", "the gRPC API (--dapr-grpc-port)"),
        ("--dapr-public-port", "the public HTTP server (--dapr-public-port)"),
        (
            "--dapr-internal-grpc-port",
            "other sidecars (--dapr-internal-grpc-port)",
        ),
    ] {
        let failure = Daprd::start(&["--app-id", "cart", flag, &port], &[]).failure().await;
        let expected = format!("cannot listen on 127.0.0.1:{port} for {purpose}: Address already in use");
        assert!(failure.contains(&expected), "{failure}");
    }
}

#[tokio::test]
async fn mistakes_end_the_start_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::create_dir(path("bad")).unwrap();
    fs::write(path("bad/store.yaml"), store("store", "state.redis", "")).unwrap();
    fs::write(
        path("closed.yaml"),
        "spec: {api: {denied: [{name: state, version: v1}]}}",
    )
    .unwrap();
    for (words, expected) in [
        (vec![], "parameter app-id cannot be empty".to_owned()),
        (
            vec!["--app-id", "cart", "--mode", "k8s"],
            "invalid value for '--mode': \"k8s\"".to_owned(),
        ),
        (
            vec!["--app-id", "cart", "--resources-path", &path("none")],
            "failed to load components: cannot read".to_owned(),
        ),
        (
            vec!["--app-id", "cart", "--resources-path", &path("bad")],
            "couldn't find state store state.redis/v1".to_owned(),
        ),
        (
            vec!["--app-id", "cart", "--config", &path("none.yaml")],
            "error loading configuration: cannot read".to_owned(),
        ),
        (
            vec!["--app-id", "cart", "--config", &path("closed.yaml")],
            "the Configuration sets spec.api.denied".to_owned(),
        ),
    ] {
        let failure = Daprd::start(&words, &[]).failure().await;
        assert!(failure.contains(&expected), "{words:?}: {failure}");
    }
    let mut unknown = Daprd::start(&["--app-id", "cart", "--no-such-flag"], &[]);
    assert_eq!(unknown.exit().await.code(), Some(2));
}

#[tokio::test]
async fn it_waits_for_the_application_and_for_others() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = taken.local_addr().unwrap().port();
    drop(taken);
    let mut daprd = Daprd::start(&["--app-id", "cart", "--app-port", &port.to_string()], &[]);
    daprd
        .line(|line| message(line).contains(&format!("waiting on port {port}.")))
        .await;
    let health = daprd.http(Method::GET, "/v1.0/healthz", "").await;
    assert!(
        health.json()["message"]
            .as_str()
            .unwrap()
            .contains("; runtime: waiting for the application")
    );
    assert_eq!(
        daprd.http(Method::GET, "/v1.0/healthz/outbound", "").await.status,
        StatusCode::NO_CONTENT
    );

    let http = daprd.address("http API server").await;
    let (_, http_port) = http.rsplit_once(':').unwrap();
    let mut wait = Daprd::start(&["--wait", "--dapr-http-port", http_port], &[]);
    assert_eq!(wait.exit().await.code(), Some(0));
    wait.line(|line| message(line).starts_with("the sidecar is ready"))
        .await;

    let _app = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    daprd
        .line(|line| message(line).starts_with("dapr initialized. Status: Running."))
        .await;
}

#[tokio::test]
async fn it_tells_its_version() {
    let mut version = Daprd::start(&["--version"], &[]);
    assert_eq!(version.exit().await.code(), Some(0));
    version
        .line(|line| line.to_string().contains(env!("CARGO_PKG_VERSION")))
        .await;
}

#[tokio::test]
async fn unix_sockets_replace_ports() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display().to_string();
    let mut daprd = Daprd::running(&["--app-id", "cart", "--unix-domain-socket", &path], &[]).await;
    for api in ["http", "grpc"] {
        assert!(
            tokio::net::UnixStream::connect(folder.path().join(format!("dapr-cart-{api}.socket")))
                .await
                .is_ok()
        );
    }
    daprd.signal("TERM");
    assert_eq!(daprd.exit().await.code(), Some(0));
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        0,
        "the sockets are removed"
    );
}
