//! Tokens of another issuer, validated with its JWKS.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use outrigger_proto::sentry::SignCertificateRequest;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;

use crate::{
    pki,
    process::{Sentry, fails, request},
};

/// An issuer of tokens with one Ed25519 key.
struct Issuer(Ed25519KeyPair);

impl Issuer {
    fn new() -> Self {
        Self(Ed25519KeyPair::generate().unwrap())
    }

    fn jwks(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.0.public_key());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "one", "use": "sig", "x": x}]}).to_string()
    }

    fn token(&self, claims: &Value) -> String {
        let encode = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let message = format!(
            "{}.{}",
            encode(json!({"alg": "EdDSA", "kid": "one"})),
            encode(claims.clone())
        );
        let signature = URL_SAFE_NO_PAD.encode(self.0.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }
}

fn good_claims() -> Value {
    json!({"aud": "spiffe://localhost/ns/default/dapr-sentry", "sub": "spiffe://public/ns/shop/cart"})
}

fn asked(token: String) -> SignCertificateRequest {
    SignCertificateRequest {
        token_validator: 3,
        token,
        ..request("cart", "shop")
    }
}

fn configuration(options: &str) -> String {
    format!("spec: {{mtls: {{tokenValidators: [{{name: jwks, options: {options}}}]}}}}")
}

fn with_source(source: &str) -> Sentry {
    let configuration = configuration(&format!("{{source: '{source}'}}"));
    Sentry::in_folder(tempfile::tempdir().unwrap(), &configuration, &[])
}

#[tokio::test]
async fn only_tokens_of_the_issuer_are_good_and_the_validator_has_to_be_named() {
    let issuer = Issuer::new();
    let sentry = with_source(&issuer.jwks());
    sentry.until_ready().await;
    assert!(
        sentry.sign(asked(issuer.token(&good_claims()))).await.is_ok(),
        "in spite of names in the request"
    );
    for (validator, text) in [
        (1, "the requested validator is not enabled"),
        (0, "a validator name must be specified in this environment"),
    ] {
        let request = SignCertificateRequest {
            token_validator: validator,
            ..asked(issuer.token(&good_claims()))
        };
        let refusal = sentry.sign(request).await.unwrap_err();
        assert_eq!((refusal.code(), refusal.message()), (Code::InvalidArgument, text));
    }
    let with = |name: &str, value: Value| {
        let mut claims = good_claims();
        claims[name] = value;
        issuer.token(&claims)
    };
    for (token, text) in [
        (String::new(), "the request does not contain a token"),
        (Issuer::new().token(&good_claims()), "could not verify message"),
        (with("aud", json!("other")), "\"aud\""),
        (with("sub", json!("spiffe://public/ns/shop/other")), "\"sub\""),
        (with("exp", json!(1_000)), "\"exp\""),
        (with("nbf", json!(99_999_999_999_u64)), "\"nbf\""),
    ] {
        let refusal = sentry.sign(asked(token)).await.unwrap_err();
        assert_eq!(refusal.code(), Code::PermissionDenied);
        assert!(refusal.message().contains(text), "{refusal}");
    }
}

#[tokio::test]
async fn a_file_is_followed_and_the_last_good_keys_stay() {
    let (first, second) = (Issuer::new(), Issuer::new());
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("keys.json");
    std::fs::write(&file, first.jwks()).unwrap();
    let sentry = with_source(file.to_str().unwrap());
    sentry.until_ready().await;
    assert!(sentry.sign(asked(first.token(&good_claims()))).await.is_ok());

    std::fs::write(&file, "{").unwrap();
    sentry
        .until_logged("the JWKS cannot be reloaded; keeping the last good one")
        .await;
    assert!(sentry.sign(asked(first.token(&good_claims()))).await.is_ok());

    std::fs::write(&file, second.jwks()).unwrap();
    sentry
        .until("the new key", || async {
            sentry.sign(asked(second.token(&good_claims()))).await.is_ok()
        })
        .await;
    assert!(sentry.sign(asked(first.token(&good_claims()))).await.is_err());
}

/// Serves a text over TLS, or closes connections while it is down.
async fn serve_tls(text: String, certificate: &str, key: &str, up: Arc<AtomicBool>) -> u16 {
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if !up.load(Ordering::Relaxed) {
                continue;
            }
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let length = text.len();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}");
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    port
}

#[tokio::test]
async fn an_issuer_that_is_down_at_the_start_is_waited_for() {
    let issuer = Issuer::new();
    let (ca, certificate, key) = pki::server();
    let up = Arc::new(AtomicBool::new(false));
    let port = serve_tls(issuer.jwks(), &certificate, &key, up.clone()).await;
    let files = tempfile::tempdir().unwrap();
    let ca_file = files.path().join("ca.crt");
    std::fs::write(&ca_file, &ca).unwrap();
    let options = format!(
        "{{source: 'https://localhost:{port}/keys', caCertificate: '{}', requestTimeout: 5s, minRefreshInterval: 60}}",
        ca_file.display()
    );
    let sentry = Sentry::in_folder(tempfile::tempdir().unwrap(), &configuration(&options), &[]);
    sentry
        .until_logged("the JWKS cannot be loaded; no token is accepted until it can")
        .await;
    let detail = sentry.health("/healthz/detail").await.unwrap();
    assert!(detail.contains("sentry-jwks-validator: https://localhost"), "{detail}");
    up.store(true, Ordering::Relaxed);
    sentry.until_ready().await;
    assert!(sentry.sign(asked(issuer.token(&good_claims()))).await.is_ok());
}

#[tokio::test]
async fn mistakes_in_the_options_end_the_start_and_name_the_field() {
    for (options, text) in [
        ("{}", "spec.mtls.tokenValidators[0].options.source: missing"),
        ("{source: /no/such/file}", "options.source: expected a URL"),
        (
            "{source: 'https://x', requestTimeout: soon}",
            "options.requestTimeout: \"soon\"",
        ),
    ] {
        let (code, output) = fails(tempfile::tempdir().unwrap(), &configuration(options), &[]).await;
        assert_eq!(code, Some(1), "{output}");
        assert!(output.contains(text), "{output}");
    }
}
