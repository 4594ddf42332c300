//! OIDC discovery, as its clients see it.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    pki,
    process::{Sentry, ask, get},
};

const DISCOVERY: &str = "/.well-known/openid-configuration";
const PLAIN: [&str; 3] = ["-jwt-enabled", "-oidc-enabled", "-oidc-server-tls-enabled=false"];

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[tokio::test]
async fn the_documents_are_what_tokens_are_verified_with() {
    let sentry = Sentry::start(&[&PLAIN[..], &["-jwt-issuer=https://issuer.example/x"]].concat());
    sentry.until_ready().await;
    let answer = get(sentry.oidc, DISCOVERY).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    let head = answer.to_ascii_lowercase();
    assert!(head.contains("content-type: application/json\r\n"), "{answer}");
    assert!(head.contains("cache-control: public, max-age=3600\r\n"), "{answer}");
    let document: Value = serde_json::from_str(body(&answer)).unwrap();
    assert_eq!(document["issuer"], "https://issuer.example/x");
    assert_eq!(document["jwks_uri"], "https://issuer.example/jwks.json");
    assert_eq!(document["id_token_signing_alg_values_supported"][0], "RS256");

    let served: Value = serde_json::from_str(body(&get(sentry.oidc, "/jwks.json").await.unwrap())).unwrap();
    let stored: Value = serde_json::from_str(&sentry.read("jwks.json")).unwrap();
    assert_eq!(served, stored);
}

#[tokio::test]
async fn a_supplied_set_is_served_without_its_private_parts() {
    let first = Sentry::start(&PLAIN);
    first.until_ready().await;
    let mut set: Value = serde_json::from_str(&first.read("jwks.json")).unwrap();
    let (n, e) = (set["keys"][0]["n"].clone(), set["keys"][0]["e"].clone());
    set["keys"][0]["d"] = "cHJpdmF0ZQ".into();
    set["keys"][0]["kid"] = "of-my-own".into();
    std::fs::write(first.path("jwks.json"), set.to_string()).unwrap();
    first
        .until("the new set", || async {
            get(first.oidc, "/jwks.json")
                .await
                .is_some_and(|answer| answer.contains("of-my-own"))
        })
        .await;
    let answer = get(first.oidc, "/jwks.json").await.unwrap();
    assert!(!answer.contains("cHJpdmF0ZQ"), "{answer}");
    let served: Value = serde_json::from_str(body(&answer)).unwrap();
    assert_eq!((&served["keys"][0]["n"], &served["keys"][0]["e"]), (&n, &e));
}

#[tokio::test]
async fn hosts_methods_and_paths_are_checked() {
    let args = [
        "-oidc-allowed-hosts=localhost,public.example",
        "-oidc-path-prefix",
        "/tenant/",
    ];
    let sentry = Sentry::start(&[&PLAIN[..], &args].concat());
    sentry.until_ready().await;
    sentry
        .until_logged("tokens have no issuer while --jwt-issuer is not set")
        .await;
    let request = |method: &str, path: &str, host: &str, more: &str| {
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n")
    };
    let jwks = "/tenant/jwks.json";
    for (asked, status) in [
        (request("GET", jwks, "localhost:1", ""), "200"),
        (request("GET", jwks, "evil.example", ""), "403"),
        (
            request("GET", jwks, "localhost", "X-Forwarded-Host: evil.example\r\n"),
            "403",
        ),
        (request("HEAD", jwks, "localhost", ""), "405"),
        (request("POST", jwks, "evil.example", ""), "403"),
        (request("GET", "/jwks.json", "localhost", ""), "404"),
    ] {
        let answer = ask(sentry.oidc, &asked).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{asked}{answer}");
    }
    let forwarded = "X-Forwarded-Host: public.example\r\nX-Forwarded-Proto: https\r\n";
    let asked = request("GET", &format!("/tenant{DISCOVERY}"), "localhost", forwarded);
    let answer = ask(sentry.oidc, &asked).await.unwrap();
    let document: Value = serde_json::from_str(body(&answer)).unwrap();
    assert_eq!(document["issuer"], "https://public.example");
    assert_eq!(document["jwks_uri"], "https://public.example/tenant/jwks.json");
}

/// TLS that trusts `ca` only.
fn trusting(ca: &str) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// The status and body of an answer over HTTP/2.
async fn get_h2(port: u16, path: &str, ca: &str) -> (http::StatusCode, String) {
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(trusting(ca))
        .https_only()
        .enable_http2()
        .build();
    let client = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build::<_, Empty<Bytes>>(connector);
    let uri = format!("https://localhost:{port}{path}").parse().unwrap();
    let answer = client.get(uri).await.unwrap();
    assert_eq!(answer.version(), http::Version::HTTP_2);
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// The answer to a request over TLS; an error when the handshake fails.
async fn get_tls(port: u16, path: &str, ca: &str) -> std::io::Result<String> {
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(trusting(ca)));
    let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    Ok(String::from_utf8(answer).unwrap())
}

fn write_pair(folder: &Path, certificate: &str, key: &str) {
    std::fs::write(folder.join("tls.crt"), certificate).unwrap();
    std::fs::write(folder.join("tls.key"), key).unwrap();
}

#[tokio::test]
async fn its_certificate_is_waited_for_and_replaced_while_it_serves() {
    let files = tempfile::tempdir().unwrap();
    let (certificate, key) = (files.path().join("tls.crt"), files.path().join("tls.key"));
    let sentry = Sentry::start(&[
        "-jwt-enabled",
        "-oidc-enabled",
        "-oidc-server-tls-cert-file",
        certificate.to_str().unwrap(),
        "-oidc-server-tls-key-file",
        key.to_str().unwrap(),
    ]);
    sentry.until_logged("the OIDC server waits for its certificate").await;
    let detail = sentry.health("/healthz/detail").await.unwrap();
    assert!(detail.contains("oidc-server"), "{detail}");

    let (first_ca, certificate, key) = pki::server();
    write_pair(files.path(), &certificate, &key);
    sentry.until_ready().await;
    let answer = get_tls(sentry.oidc, DISCOVERY, &first_ca).await.unwrap();
    let document: Value = serde_json::from_str(body(&answer)).unwrap();
    assert_eq!(document["issuer"], "https://localhost");
    let (status, keys) = get_h2(sentry.oidc, "/jwks.json", &first_ca).await;
    assert_eq!(status, http::StatusCode::OK);
    assert_eq!(
        serde_json::from_str::<Value>(&keys).unwrap(),
        serde_json::from_str::<Value>(&sentry.read("jwks.json")).unwrap()
    );

    std::fs::write(files.path().join("tls.key"), "garbage").unwrap();
    sentry.until_logged("keeping the last good one").await;
    assert!(get_tls(sentry.oidc, DISCOVERY, &first_ca).await.is_ok());

    let (second_ca, certificate, key) = pki::server();
    write_pair(files.path(), &certificate, &key);
    sentry
        .until("the new certificate", || async {
            get_tls(sentry.oidc, DISCOVERY, &second_ca).await.is_ok()
        })
        .await;
    assert!(get_tls(sentry.oidc, DISCOVERY, &first_ca).await.is_err());
}
