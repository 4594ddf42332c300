//! Service invocation: to the own application, and between two sidecars over mutual TLS.

use std::{fs, sync::atomic::Ordering};

use axum::body::Body;
use bytes::Bytes;
use http::{Method, StatusCode};
use outrigger_proto::{
    common::{HttpExtension, InvokeRequest, http_extension::Verb},
    runtime::InvokeServiceRequest,
};
use tonic::Code;

use crate::support::{
    Daprd,
    app::App,
    authority::{Authority, CONTROL_PLANE},
    message,
};

#[tokio::test]
async fn the_own_application_is_called_directly() {
    let app = App::start().await;
    let port = app.port.to_string();
    let env = [("APP_API_TOKEN", "for-the-app"), ("DAPR_API_TOKEN", "for-dapr")];
    let mut daprd = Daprd::running(
        &["--app-id", "cart", "--app-port", &port, "--app-max-concurrency", "1"],
        &env,
    )
    .await;
    let token = ("dapr-api-token", "for-dapr");
    for _ in 0..3 {
        let headers = [token, ("x-mine", "1"), ("connection", "x-gone"), ("x-gone", "1")];
        let seen = daprd
            .http_with(Method::PUT, "/v1.0/invoke/cart/method/a%20b/../c?q=1&r", &headers, "hi")
            .await
            .json();
        assert_eq!(
            (&seen["method"], &seen["uri"], &seen["body"]),
            (&"PUT".into(), &"/c?q=1&r".into(), &"hi".into())
        );
        assert_eq!(
            (&seen["headers"]["x-mine"], &seen["headers"]["dapr-api-token"]),
            (&"1".into(), &"for-the-app".into())
        );
        assert!(seen["headers"].get("x-gone").is_none());
    }
    let by_header = daprd
        .http_with(Method::GET, "/items/7", &[token, ("dapr-app-id", "cart")], "")
        .await
        .json();
    assert_eq!(
        (&by_header["uri"], by_header["headers"].get("dapr-app-id")),
        (&"/items/7".into(), None)
    );
    let teapot = daprd
        .http_with(Method::GET, "/v1.0/invoke/cart/method/teapot", &[token], "")
        .await;
    assert_eq!(
        (teapot.status.as_u16(), &teapot.headers["x-kind"], &teapot.body[..]),
        (418, &"teapot".parse().unwrap(), &b"short and stout"[..])
    );
}

#[tokio::test]
async fn an_unhealthy_application_is_not_called() {
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
    let mut daprd = Daprd::running(&[&words[..], &["--app-health-threshold", "1"]].concat(), &[]).await;
    daprd.line(|line| message(line) == "App entered healthy status").await;
    app.healthy.store(false, Ordering::Relaxed);
    daprd
        .line(|line| message(line) == "App entered un-healthy status")
        .await;
    let refused = daprd.http(Method::GET, "/v1.0/invoke/cart/method/x", "").await;
    assert_eq!(refused.error(), (500, "ERR_DIRECT_INVOKE".to_owned()));
    assert!(
        refused.json()["message"]
            .as_str()
            .unwrap()
            .ends_with("app is not in a healthy state")
    );
    let before = daprd.lines();
    app.healthy.store(true, Ordering::Relaxed);
    daprd
        .line_after(before, |line| message(line) == "App entered healthy status")
        .await;
    assert_eq!(
        daprd.http(Method::GET, "/v1.0/invoke/cart/method/x", "").await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn protocols_that_are_missing_say_so() {
    let app = App::start().await;
    let port = app.port.to_string();
    let mut daprd = Daprd::running(
        &["--app-id", "cart", "--app-port", &port, "--app-protocol", "grpc"],
        &[],
    )
    .await;
    let refused = daprd.http(Method::GET, "/v1.0/invoke/cart/method/x", "").await.json();
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("the application protocol grpc is not supported by this release")
    );
    let warning = daprd.line(|line| line["protocol"] == "grpc").await;
    assert!(message(&warning).contains("over http and h2c only"), "{warning}");
    let refused = daprd.http(Method::GET, "/v1.0/invoke/till/method/x", "").await.json();
    assert!(refused["message"].as_str().unwrap().contains("mDNS"));
}

/// Two addresses of the loopback interface stand for two hosts, and the last number of each is the app id.
struct Mesh {
    folder: tempfile::TempDir,
    authority: Authority,
    sentry: String,
}

impl Mesh {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let sentry = authority.serve().await;
        Self {
            folder,
            authority,
            sentry,
        }
    }

    async fn sidecar(&self, app_id: &str, host: &str, format: &str, more: &[&str]) -> Daprd {
        let config = self.folder.path().join(format!("{app_id}.yaml"));
        let text = format!(
            "spec:\n  nameResolution:\n    component: nameformat\n    configuration:\n      format: \"{format}\"\n"
        );
        fs::write(&config, text).unwrap();
        let config = config.display().to_string();
        let words = [
            "--app-id",
            app_id,
            "--enable-mtls",
            "--sentry-address",
            &self.sentry,
            "--config",
            &config,
        ];
        let more: Vec<_> = ["--dapr-internal-grpc-listen-address", host]
            .iter()
            .chain(more)
            .copied()
            .collect();
        let env = [
            ("NAMESPACE", "shop"),
            ("DAPR_TRUST_ANCHORS", self.authority.anchors()),
            ("DAPR_CONTROLPLANE_TRUST_DOMAIN", CONTROL_PLANE.0),
            ("DAPR_CONTROLPLANE_NAMESPACE", CONTROL_PLANE.1),
        ];
        Daprd::running(&[&words[..], &more].concat(), &env).await
    }
}

async fn internal_port(daprd: &mut Daprd) -> String {
    let line = daprd
        .line(|line| message(line) == "internal gRPC server is running")
        .await;
    assert_eq!(line["mtls"], "true");
    let address = line["address"].as_str().unwrap().to_owned();
    address.rsplit_once(':').unwrap().1.to_owned()
}

#[tokio::test]
async fn two_sidecars_know_each_other() {
    let mesh = Mesh::new().await;
    let app = App::start().await;
    let mut callee = mesh
        .sidecar(
            "12",
            "127.0.0.12",
            "unused {appid}",
            &["--app-port", &app.port.to_string()],
        )
        .await;
    let format = format!("127.0.0.{{appid}}:{}", internal_port(&mut callee).await);
    let mut caller = mesh.sidecar("11", "127.0.0.11", &format, &[]).await;

    let headers = [
        ("x-mine", "1"),
        ("dapr-caller-app-id", "admin"),
        ("content-type", "text/plain"),
        ("traceparent", "00-a-b-01"),
    ];
    let seen = caller
        .http_with(Method::POST, "/v1.0/invoke/12/method/orders/7?q=1", &headers, "hi")
        .await
        .json();
    assert_eq!(
        (&seen["method"], &seen["uri"], &seen["body"]),
        (&"POST".into(), &"/orders/7?q=1".into(), &"hi".into())
    );
    for (name, value) in [
        ("x-mine", "1"),
        ("content-type", "text/plain"),
        ("traceparent", "00-a-b-01"),
        ("dapr-caller-app-id", "11"),
        ("dapr-caller-namespace", "shop"),
        ("dapr-callee-app-id", "12"),
        ("x-forwarded-host", "11"),
    ] {
        assert_eq!(seen["headers"][name], value, "{name}: {seen}");
    }
    let teapot = caller.http(Method::GET, "/v1.0/invoke/12.shop/method/teapot", "").await;
    assert_eq!(
        (teapot.status.as_u16(), &teapot.headers["x-kind"]),
        (418, &"teapot".parse().unwrap())
    );

    // Bodies of unknown length travel as they arrive, larger than any one message.
    let chunk = Bytes::from(vec![b'x'; 100_000]);
    let chunks = futures::stream::iter((0..20).map(move |_| Ok::<_, std::io::Error>(chunk.clone())));
    let copy = caller
        .http(Method::POST, "/v1.0/invoke/12/method/copy", Body::from_stream(chunks))
        .await;
    assert_eq!((copy.status, copy.body.len()), (StatusCode::OK, 2_000_000));
    let copy = caller
        .http(Method::POST, "/v1.0/invoke/12/method/copy", vec![b'y'; 1_000_000])
        .await;
    assert_eq!((copy.status, copy.body.len()), (StatusCode::OK, 1_000_000));

    let mut dapr = caller.grpc().await;
    let invoke = |method: &str| InvokeServiceRequest {
        id: "12".into(),
        message: Some(InvokeRequest {
            method: method.into(),
            content_type: "text/plain".into(),
            http_extension: Some(HttpExtension {
                verb: Verb::Get.into(),
                querystring: "a=b".into(),
            }),
            data: None,
        }),
    };
    let answer = dapr.invoke_service(invoke("x")).await.unwrap();
    assert_eq!(answer.metadata().get("dapr-http-status").unwrap(), "200");
    let seen: serde_json::Value = serde_json::from_slice(&answer.into_inner().data.unwrap().value).unwrap();
    assert_eq!((&seen["method"], &seen["uri"]), (&"GET".into(), &"/x?a=b".into()));
    let status = dapr.invoke_service(invoke("teapot")).await.unwrap_err();
    assert_eq!(
        (
            status.code(),
            status.metadata().get("dapr-http-status").unwrap().to_str().unwrap()
        ),
        (Code::Unknown, "418")
    );
}

#[tokio::test]
async fn whoever_answers_must_be_who_was_called() {
    let mesh = Mesh::new().await;
    let mut other = mesh.sidecar("13", "127.0.0.13", "unused {appid}", &[]).await;
    // The name 3 leads to 127.0.0.13, where 13 answers.
    let format = format!("127.0.0.1{{appid}}:{}", internal_port(&mut other).await);
    let mut caller = mesh.sidecar("14", "127.0.0.14", &format, &[]).await;
    let refused = caller.http(Method::GET, "/v1.0/invoke/3/method/x", "").await;
    assert_eq!(refused.error(), (500, "ERR_DIRECT_INVOKE".to_owned()));
    let message = refused.json()["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains("/ns/shop/13") && message.contains("/ns/shop/3"),
        "{message}"
    );
}
