//! Without validation: what is granted, and what a certificate looks like.

use outrigger_identity::pem;
use outrigger_proto::sentry::SignCertificateRequest;
use time::{Duration, OffsetDateTime};
use tonic::Code;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::{
    pki::{self, Authority},
    process::{Sentry, is_private, request},
};

#[tokio::test]
async fn insecure_is_the_default_and_nothing_else_is_enabled() {
    let sentry = Sentry::start(&[]);
    sentry.until_ready().await;
    assert!(
        sentry
            .output()
            .contains("Root and issuer certs not found: generating self signed CA")
    );
    assert!(sentry.sign(request("cart", "shop")).await.is_ok());
    for validator in [2, 3, -1, 99] {
        let asked = SignCertificateRequest {
            token_validator: validator,
            ..request("cart", "shop")
        };
        let refusal = sentry.sign(asked).await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument);
        assert!(refusal.message().contains("not enabled"), "{refusal}");
    }
}

#[tokio::test]
async fn bad_requests_get_the_code_that_fits() {
    let sentry = Sentry::start(&[]);
    sentry.until_ready().await;
    let csr = |pem: Vec<u8>| SignCertificateRequest {
        certificate_signing_request: pem.into(),
        ..request("cart", "shop")
    };
    let good = pki::request(&rcgen::PKCS_ED25519);
    let another_type = String::from_utf8(good.clone())
        .unwrap()
        .replace("CERTIFICATE REQUEST", "PRIVATE KEY");
    let legacy = String::from_utf8(good.clone())
        .unwrap()
        .replace("CERTIFICATE REQUEST", "CERTIFICATE");
    assert!(sentry.sign(csr(legacy.into_bytes())).await.is_ok());
    let (_, mut broken) = x509_parser::pem::parse_x509_pem(&good).unwrap();
    *broken.contents.last_mut().unwrap() ^= 1;
    let block = |der: &[u8]| {
        use base64::{Engine, engine::general_purpose::STANDARD};
        format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            STANDARD.encode(der)
        )
        .into_bytes()
    };
    let denied = Code::PermissionDenied;
    let invalid = Code::InvalidArgument;
    for (asked, code, text) in [
        (csr(Vec::new()), denied, "invalid request: CSR is required"),
        (request("cart", ""), denied, "invalid request: namespace is required"),
        (request("", "shop"), denied, "parameter app-id cannot be empty"),
        (request("a.b", "shop"), denied, "parameter app-id cannot contain dots"),
        (
            request(&"a".repeat(65), "shop"),
            denied,
            "app ID must be 64 characters or less",
        ),
        (csr(b"hello".to_vec()), invalid, "invalid certificate signing request"),
        (
            csr(another_type.into_bytes()),
            invalid,
            "invalid certificate signing request",
        ),
        (
            csr(block(&broken.contents[..30])),
            invalid,
            "failed to parse certificate signing request",
        ),
        (csr(block(&broken.contents)), invalid, "invalid signature"),
        (request("a/b", "shop"), Code::Internal, "failed to sign certificate"),
        (
            SignCertificateRequest {
                trust_domain: "Upper".into(),
                ..request("cart", "shop")
            },
            denied,
            "invalid request: ",
        ),
    ] {
        let refusal = sentry.sign(asked).await.unwrap_err();
        assert_eq!(refusal.code(), code, "{text}: {refusal}");
        assert!(refusal.message().contains(text), "{refusal}");
    }
    let long = SignCertificateRequest {
        token: "x".repeat(200 * 1024),
        ..request("cart", "shop")
    };
    assert_eq!(
        sentry.sign(long).await.unwrap_err().code(),
        Code::OutOfRange,
        "there is a bound on messages"
    );
    assert_eq!(
        sentry
            .metric("dapr_sentry_cert_sign_failure_total{reason=\"sign\"}")
            .await,
        Some(11.0)
    );
    let series = "dapr_sentry_sign_duration_seconds_count{reason=\"csr\",validator=\"insecure\"}";
    assert_eq!(sentry.metric(series).await, Some(4.0));
}

#[tokio::test]
async fn the_answer_holds_leaf_and_issuer_as_stored_and_a_strict_profile() {
    let folder = tempfile::tempdir().unwrap();
    // Names that have nothing to do with the trust domain.
    let authority = Authority::new(&rcgen::PKCS_ECDSA_P256_SHA256, Duration::days(2));
    authority.write(folder.path());
    let sentry = Sentry::in_folder(
        folder,
        "spec: {mtls: {workloadCertTTL: 1h, allowedClockSkew: 10m}}",
        &[],
    );
    sentry.until_ready().await;
    for algorithm in [
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let asked = SignCertificateRequest {
            certificate_signing_request: pki::request(algorithm).into(),
            trust_domain: "bank".into(),
            jwt_audiences: vec!["ignored".into()],
            ..request("cart", "shop")
        };
        let answer = sentry.sign(asked).await.unwrap();
        let chain = pem::certificates(&answer.workload_certificate).unwrap();
        assert_eq!(chain.len(), 2);
        assert_eq!(chain[1], pem::certificates(authority.chain.as_bytes()).unwrap()[0]);
        assert_eq!(answer.trust_chain_certificates, [authority.anchors.as_bytes().to_vec()]);
        assert!(
            answer.jwt.is_none() && answer.per_audience_jwts.is_empty(),
            "JWT-SVIDs are off"
        );

        let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        assert!(names.critical);
        assert_eq!(
            names.value.general_names,
            [GeneralName::URI("spiffe://bank/ns/shop/cart")],
            "no DNS names"
        );
        let purposes = leaf.extended_key_usage().unwrap().unwrap();
        assert!(purposes.value.server_auth && purposes.value.client_auth);
        assert!(leaf.basic_constraints().unwrap().is_none());
        assert!(
            leaf.extensions()
                .iter()
                .all(|e| e.oid.to_id_string() != "1.3.6.1.4.1.57683.100.1"),
            "no images"
        );
        assert!(
            leaf.extensions().iter().all(|e| e.oid.to_id_string() != "2.5.29.14"),
            "no subject key identifier"
        );
        let validity = leaf.validity();
        let life = validity.not_after.timestamp() - validity.not_before.timestamp();
        assert_eq!(life, 70 * 60);
        assert_eq!(answer.valid_until.unwrap().seconds, validity.not_after.timestamp());
    }
}

#[tokio::test]
async fn the_control_plane_gets_its_host_names_and_apps_none() {
    let sentry = Sentry::start(&["--scheduler-replicas=4", "--cluster-domain", "corp.example."]);
    sentry.until_ready().await;
    for (id, namespace, expected) in [
        (
            "dapr-injector",
            "default",
            &["dapr-sidecar-injector.default.svc".to_owned()][..],
        ),
        ("dapr-operator", "default", &["dapr-webhook.default.svc".to_owned()]),
        (
            "dapr-scheduler",
            "default",
            &[0, 1, 2, 3].map(|n| format!("dapr-scheduler-server-{n}.dapr-scheduler-server.default.svc.corp.example")),
        ),
        ("dapr-operator", "shop", &[]),
        ("cart", "default", &[]),
    ] {
        let answer = sentry.sign(request(id, namespace)).await.unwrap();
        let chain = pem::certificates(&answer.workload_certificate).unwrap();
        let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        let found: Vec<_> = names.value.general_names[1..].iter().map(ToString::to_string).collect();
        let expected: Vec<_> = expected.iter().map(|name| format!("DNSName({name})")).collect();
        assert_eq!(found, expected, "{id}");
    }
}

#[tokio::test]
async fn the_expiry_gauge_tells_the_issuers_end_and_certificates_do_not_outlive_it() {
    let folder = tempfile::tempdir().unwrap();
    let life = Duration::minutes(30);
    Authority::new(&rcgen::PKCS_ED25519, life).write(folder.path());
    let sentry = Sentry::in_folder(folder, "", &[]);
    sentry.until_ready().await;
    let close_to = |found: f64, life: Duration| {
        let expected = OffsetDateTime::now_utc() + life;
        (found - expected.unix_timestamp() as f64).abs() < 120.0
    };
    let gauge = sentry.metric("dapr_sentry_issuercert_expiry_timestamp").await.unwrap();
    assert!(close_to(gauge, life), "{gauge}");
    let answer = sentry.sign(request("cart", "shop")).await.unwrap();
    assert_eq!(
        answer.valid_until.unwrap().seconds as f64,
        gauge,
        "clamped from 24 hours"
    );

    let generated = Sentry::start(&[]);
    generated.until_ready().await;
    let gauge = generated
        .metric("dapr_sentry_issuercert_expiry_timestamp")
        .await
        .unwrap();
    assert!(close_to(gauge, Duration::days(365)), "{gauge}");
    assert!(is_private(&generated.path("issuer.key")));
}

#[tokio::test]
async fn denied_identities_get_no_certificate() {
    let sentry = Sentry::start(&[
        "--denied-ids",
        "spiffe://public/ns/shop/stolen,spiffe://public/ns/shop/lost",
    ]);
    sentry.until_ready().await;
    assert!(sentry.sign(request("cart", "shop")).await.is_ok());
    let refusal = sentry.sign(request("lost", "shop")).await.unwrap_err();
    assert_eq!(refusal.code(), Code::PermissionDenied);
    assert!(refusal.message().contains("--denied-ids"), "{refusal}");
}

#[tokio::test]
async fn the_serving_certificate_is_ed25519() {
    let sentry = Sentry::start(&[]);
    sentry.until_ready().await;
    let stream = sentry.connect().await;
    let (_, session) = stream.get_ref();
    assert_eq!(session.alpn_protocol(), Some(b"h2".as_slice()));
    let (_, leaf) = X509Certificate::from_der(&session.peer_certificates().unwrap()[0]).unwrap();
    assert_eq!(leaf.public_key().algorithm.algorithm.to_id_string(), "1.3.101.112");
}
