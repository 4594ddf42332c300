use outrigger_proto::sentry::SignCertificateRequest;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::*;
use crate::jwt::{Algorithm, key::SigningKey};

const SENTRY: &str = "spiffe://cluster.local/ns/dapr-system/dapr-sentry";

struct Fixture {
    key: SigningKey,
    validator: JwksValidator,
}

impl Fixture {
    fn new() -> Self {
        let key = SigningKey::from_pem(&SigningKey::generate(Algorithm::EdDsa).unwrap()).unwrap();
        let validator = JwksValidator::new(&SENTRY.parse().unwrap());
        let keys = vec![key.public().jwk("one", Algorithm::EdDsa)];
        validator.keys.store(Some(Arc::new(KeySet { keys })));
        Self { key, validator }
    }

    fn ask(&self, claims: &Value) -> Result<Validated, Refusal> {
        let token = jws::sign(&self.key, Algorithm::EdDsa, "one", claims).unwrap();
        self.validator.validate(&request(&token))
    }
}

fn request(token: &str) -> SignCertificateRequest {
    SignCertificateRequest {
        id: "cart".into(),
        namespace: "shop".into(),
        token: token.into(),
        certificate_signing_request: b"csr".as_slice().into(),
        ..Default::default()
    }
}

#[test]
fn grants_the_subject_of_a_token_for_us() {
    let fixture = Fixture::new();
    for audience in [json!(SENTRY), json!(["other", SENTRY])] {
        let validated = fixture
            .ask(&json!({"aud": audience, "sub": "spiffe://public/ns/shop/cart"}))
            .unwrap();
        assert_eq!(validated.trust_domain.as_str(), "public");
    }
}

#[test]
fn every_refusal_names_its_claim() {
    let fixture = Fixture::new();
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let good = || json!({"aud": SENTRY, "sub": "spiffe://public/ns/shop/cart"});
    for (name, value) in [
        ("aud", json!("other")),
        ("aud", json!([])),
        ("sub", json!("spiffe://public/ns/shop/other")),
        ("exp", json!(now - 301)),
        ("nbf", json!(now + 310)),
        ("iat", json!(now + 310)),
    ] {
        let mut claims = good();
        claims[name] = value;
        let refusal = fixture.ask(&claims).unwrap_err();
        assert!(
            matches!(&refusal, Refusal::Denied(text) if text.starts_with(&format!("token validation failed: \"{name}\""))),
            "{refusal}"
        );
    }
    let mut claims = good();
    // Within five minutes clocks may differ.
    claims["exp"] = json!(now - 200);
    claims["nbf"] = json!(now + 200);
    claims["iat"] = json!(f64::from(1_000_000) + 0.5);
    assert!(fixture.ask(&claims).is_ok());
}

#[test]
fn a_bad_signature_could_not_be_verified() {
    let fixture = Fixture::new();
    let stranger = Fixture::new();
    let claims = json!({"aud": SENTRY, "sub": "spiffe://public/ns/shop/cart"});
    let token = jws::sign(&stranger.key, Algorithm::EdDsa, "one", &claims).unwrap();
    let refusal = fixture.validator.validate(&request(&token)).unwrap_err();
    assert!(refusal.to_string().contains("could not verify message"), "{refusal}");
}

#[test]
fn without_token_or_keys() {
    let fixture = Fixture::new();
    let refusal = fixture.validator.validate(&request("")).unwrap_err();
    assert_eq!(refusal, Refusal::Denied("the request does not contain a token".into()));
    fixture.validator.keys.store(None);
    let refusal = fixture.validator.validate(&request("x")).unwrap_err();
    assert_eq!(refusal, Refusal::Unavailable("jwks validator not ready".into()));
}
