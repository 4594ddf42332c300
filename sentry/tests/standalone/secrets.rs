//! Keys and tokens are nowhere but where they belong.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::STANDARD};
use outrigger_proto::sentry::SignCertificateRequest;
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use time::Duration;

use crate::{
    pki::Authority,
    process::{Sentry, request},
};

/// Every way in which a private key might be written: its base64 lines, and hexadecimal of its bytes.
fn spellings(pem: &str) -> Vec<String> {
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let der = der.secret_der();
    // The last bytes are the key itself; what comes before also says which kind it is.
    let secret = &der[der.len().saturating_sub(32)..];
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let decimal = secret.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    let mut all = vec![hex.to_uppercase(), hex, decimal, STANDARD.encode(secret)];
    all.extend(
        pem.lines()
            .filter(|line| !line.starts_with("-----"))
            .map(|line| line[line.len().saturating_sub(24)..].to_owned()),
    );
    all
}

#[tokio::test]
async fn no_key_and_no_token_is_ever_logged() {
    let args = [
        "-log-level",
        "debug",
        "-jwt-enabled",
        "-oidc-enabled",
        "-oidc-server-tls-enabled=false",
    ];
    let mut secrets = BTreeSet::new();
    let sentry = Sentry::start(&args);
    sentry.until_ready().await;
    for name in ["issuer.key", "jwt.key"] {
        secrets.extend(spellings(&sentry.read(name)));
    }

    // Signing, for good and for bad requests.
    let asked = |id: &str| SignCertificateRequest {
        token: "a-token-that-nobody-may-see".into(),
        jwt_audiences: vec!["a".into()],
        ..request(id, "shop")
    };
    secrets.insert("a-token-that-nobody-may-see".to_owned());
    let answer = sentry.sign(asked("cart")).await.unwrap();
    secrets.extend(answer.jwt);
    secrets.extend(answer.per_audience_jwts.into_values());
    assert!(sentry.sign(asked("a.b")).await.is_err());
    assert!(sentry.sign(asked("a/b")).await.is_err());

    // Keys that lost their line breaks, which parsers like to show.
    let good = (sentry.read("issuer.key"), sentry.read("jwt.key"));
    for (name, text) in [("issuer.key", &good.0), ("jwt.key", &good.1)] {
        for broken in [
            text.replace('\n', ""),
            text.replace("-----BEGIN", "----BEGIN"),
            text[..text.len() / 2].to_owned(),
        ] {
            let seen = sentry.output().len();
            std::fs::write(sentry.path(name), broken).unwrap();
            sentry
                .until("the refusal", || async {
                    sentry.output()[seen..].contains("cannot be reloaded")
                })
                .await;
            std::fs::write(sentry.path(name), text).unwrap();
        }
    }

    // A whole new authority.
    let authority = Authority::new(&rcgen::PKCS_ED25519, Duration::days(2));
    secrets.extend(spellings(&authority.key));
    authority.write(sentry.folder.path());
    sentry.until_logged("Issuer credentials changed; reloading").await;

    let output = sentry.output();
    assert!(
        output.contains("certificate signed") && output.contains("level=debug"),
        "{output}"
    );
    let shown: Vec<_> = secrets
        .iter()
        .filter(|secret| output.contains(secret.as_str()))
        .collect();
    assert!(shown.is_empty(), "{shown:?} in\n{output}");
    assert!(!output.contains("PRIVATE KEY"), "{output}");
}

#[test]
fn the_spellings_would_be_found() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)
        .unwrap()
        .serialize_pem();
    assert!(spellings(&key).iter().any(|spelling| key.contains(spelling)));
}
