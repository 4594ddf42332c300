//! JWT-SVIDs, as their verifiers see them.

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use outrigger_proto::sentry::SignCertificateRequest;
use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384};
use serde_json::{Value, json};
use tonic::Code;

use crate::process::{Sentry, fails, folder_with, is_private, request};

/// Header and claims.
fn decode(token: &str) -> (Value, Value) {
    let mut parts = token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap());
    let mut json = || serde_json::from_slice(&parts.next().unwrap()).unwrap();
    (json(), json())
}

#[tokio::test]
async fn tokens_have_the_trust_domain_first_and_one_each_for_every_audience() {
    let sentry = Sentry::start(&["-jwt-enabled", "-jwt-issuer", "https://issuer.example/x", "-jwt-ttl=2h"]);
    sentry.until_ready().await;
    for name in ["ca.crt", "issuer.crt", "issuer.key", "jwt.key", "jwks.json"] {
        assert!(is_private(&sentry.path(name)), "{name}");
    }
    let asked = SignCertificateRequest {
        jwt_audiences: vec!["a".into(), "b".into(), "a".into()],
        ..request("cart", "shop")
    };
    let answer = sentry.sign(asked).await.unwrap();
    let token = answer.jwt.unwrap();
    let (header, claims) = decode(&token);
    assert_eq!(claims["aud"], json!(["public", "a", "b", "a"]));
    assert_eq!(claims["iss"], "https://issuer.example/x");
    assert_eq!(claims["sub"], "spiffe://public/ns/shop/cart");
    assert_eq!(claims["use"], "sig");
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 7200);
    assert_eq!(claims["iat"].as_i64().unwrap() - claims["nbf"].as_i64().unwrap(), 900);
    assert_eq!(answer.per_audience_jwts.len(), 3, "audiences and the trust domain");
    for (audience, token) in &answer.per_audience_jwts {
        assert_eq!(decode(token).1["aud"], json!([audience]));
    }

    let jwks: Value = serde_json::from_str(&sentry.read("jwks.json")).unwrap();
    let key = &jwks["keys"][0];
    assert_eq!(header, json!({"alg": "RS256", "kid": key["kid"], "typ": "JWT"}));
    assert_eq!(
        (&key["kty"], &key["alg"], &key["use"]),
        (&json!("RSA"), &json!("RS256"), &json!("sig"))
    );
    assert_eq!(
        STANDARD.decode(key["kid"].as_str().unwrap()).unwrap().len(),
        32,
        "a padded thumbprint"
    );
    let part = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
    let (message, signature) = token.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let public = RsaPublicKeyComponents {
        n: part("n"),
        e: part("e"),
    };
    assert!(
        public
            .verify(&RSA_PKCS1_2048_8192_SHA256, message.as_bytes(), &signature)
            .is_ok()
    );
}

#[tokio::test]
async fn a_restart_keeps_the_key_and_other_algorithms_get_keys_that_fit() {
    for algorithm in ["ES512", "PS384", "RS256"] {
        let args = ["-jwt-enabled", "-jwt-signing-algorithm", algorithm];
        let mut first = Sentry::start(&args);
        first.until_ready().await;
        let (_, token) = (
            first.read("jwt.key"),
            first.sign(request("cart", "shop")).await.unwrap().jwt.unwrap(),
        );
        let folder = std::mem::replace(&mut first.folder, tempfile::tempdir().unwrap());
        drop(first);
        let second = Sentry::in_folder(folder, "", &args);
        second.until_ready().await;
        let again = second.sign(request("cart", "shop")).await.unwrap();
        assert_eq!(decode(&again.jwt.unwrap()).0, decode(&token).0, "{algorithm}");
    }
}

#[tokio::test]
async fn an_existing_key_gets_its_set() {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
    let folder = folder_with(&[("mine.key", &key)]);
    let args = [
        "-jwt-enabled",
        "-jwt-signing-algorithm=ES384",
        "-jwt-key-filename=mine.key",
        "-jwt-key-id",
        "one",
    ];
    let sentry = Sentry::in_folder(folder, "", &args);
    sentry.until_ready().await;
    assert_eq!(sentry.read("mine.key"), key);
    let jwks: Value = serde_json::from_str(&sentry.read("jwks.json")).unwrap();
    assert_eq!(
        (&jwks["keys"][0]["kid"], &jwks["keys"][0]["crv"]),
        (&json!("one"), &json!("P-384"))
    );
    let answer = sentry.sign(request("cart", "shop")).await.unwrap();
    let (header, claims) = decode(&answer.jwt.unwrap());
    assert_eq!(header["kid"], "one");
    assert!(claims.get("iss").is_none(), "unset is not empty");
}

#[tokio::test]
async fn material_that_cannot_be_used_ends_the_start_with_a_sentence() {
    let pem = || KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
    let key = pem();
    let made = Sentry::in_folder(
        folder_with(&[("jwt.key", &key)]),
        "",
        &["-jwt-enabled", "-jwt-signing-algorithm=ES384"],
    );
    made.until_ready().await;
    let jwks = made.read("jwks.json");
    let on = &["-jwt-enabled", "-jwt-signing-algorithm=ES384"][..];
    for (key, jwks, args, text) in [
        (&key, "", on, "JWKS: not JSON"),
        (&key, "{\"keys\": []}", on, "JWKS: it has no key of a known type"),
        (&pem(), &jwks, on, "JWKS: no key of it is the JWT signing key"),
        (&"garbage".to_owned(), &jwks, on, "JWT signing key: no usable PEM block"),
        (
            &key,
            &jwks,
            &["-jwt-enabled"],
            "P-384 key, but --jwt-signing-algorithm RS256 needs RSA",
        ),
        // Also when JWT-SVIDs are off.
        (&pem(), &jwks, &[], "JWKS: no key of it is the JWT signing key"),
    ] {
        let (code, output) = fails(folder_with(&[("jwt.key", key), ("jwks.json", jwks)]), "", args).await;
        assert_eq!(code, Some(1), "{output}");
        assert!(output.contains(text), "{text}: {output}");
    }
}

#[tokio::test]
async fn audiences_are_bounded() {
    let sentry = Sentry::start(&["-jwt-enabled", "-jwt-signing-algorithm=ES256"]);
    sentry.until_ready().await;
    let asked = |number: usize| SignCertificateRequest {
        jwt_audiences: (0..number).map(|n| n.to_string()).collect(),
        ..request("cart", "shop")
    };
    assert_eq!(sentry.sign(asked(64)).await.unwrap().per_audience_jwts.len(), 65);
    let refusal = sentry.sign(asked(65)).await.unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument);
    assert!(refusal.message().contains("found 65, expected at most 64"), "{refusal}");
}
