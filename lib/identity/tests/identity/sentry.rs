//! Identities from a sentry over gRPC.

use std::{
    collections::HashMap,
    os::unix::fs::PermissionsExt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use outrigger_identity::{AnchorSource, Identity, JwtUnavailable, KeyAlgorithm, Metrics, Options, Status as Health};
use outrigger_proto::sentry::{
    SignCertificateRequest, SignCertificateResponse, sign_certificate_request::TokenValidator,
};
use parking_lot::Mutex;
use rcgen::CertificateSigningRequestParams;
use tokio::net::TcpListener;
use tonic::{Code, Status};

use crate::{
    support::Root,
    world::{DAY, World, in_time, signed},
};

#[tokio::test]
async fn sidecars_and_the_control_plane_ask_as_upstreams_do() {
    let world = World::new(|root, _, message| Ok(signed(root, message, DAY))).await;
    let audiences = vec!["vault".to_owned()];
    world
        .identity(Options {
            jwt_audiences: audiences.clone(),
            ..world.options()
        })
        .await;
    let operator = Options {
        app_id: "dapr-operator".into(),
        namespace: "dapr-system".into(),
        key: KeyAlgorithm::Rsa2048,
        ..world.options()
    };
    world.identity(operator.clone()).await;
    let elsewhere = Options {
        namespace: "shop".into(),
        ..operator
    };
    world.identity(elsewhere).await;

    let asked = world.asked.lock().clone();
    assert_eq!(asked.len(), 3);
    let [sidecar, operator, elsewhere] = [&asked[0].message, &asked[1].message, &asked[2].message];
    assert_eq!((sidecar.id.as_str(), sidecar.namespace.as_str()), ("cart", "shop"));
    assert_eq!(
        (sidecar.token.as_str(), sidecar.token_validator()),
        ("", TokenValidator::Unknown)
    );
    assert_eq!(sidecar.jwt_audiences, audiences);
    assert!(asked[0].has_deadline && asked[0].retry.is_none());
    assert_eq!(sidecar.trust_domain, "", "sentry decides for apps");
    assert_eq!(operator.trust_domain, "cluster.local");
    assert_eq!(elsewhere.trust_domain, "", "the name alone is not enough");
    let key = |message: &SignCertificateRequest| {
        let csr = String::from_utf8(message.certificate_signing_request.to_vec()).unwrap();
        CertificateSigningRequestParams::from_pem(&csr).unwrap().public_key
    };
    use rcgen::PublicKeyData;
    assert_eq!(key(sidecar).algorithm(), &rcgen::PKCS_ED25519);
    assert_eq!(key(operator).algorithm(), &rcgen::PKCS_RSA_SHA256);
    assert_ne!(
        key(operator).der_bytes(),
        key(elsewhere).der_bytes(),
        "a new key for each request"
    );
}

#[tokio::test]
async fn sentry_is_known_by_its_exact_id() {
    let world = World::new(|root, _, message| Ok(signed(root, message, DAY))).await;
    let (identity, renewal) = Identity::new(Options {
        control_plane_namespace: "elsewhere".into(),
        ..world.options()
    })
    .unwrap();
    let mut reports = world.start(renewal);
    let reports = in_time(reports.wait_for(|reports| !reports.is_empty())).await.unwrap();
    let Some(Health::NotReady(reason)) = reports.first() else {
        unreachable!("nothing was signed");
    };
    assert!(
        reason.contains("elsewhere/dapr-sentry") && reason.contains(&world.address),
        "{reason}"
    );
    assert!(identity.svid().is_none() && world.asked.lock().is_empty());
}

/// A leaf without any key usage that is valid for 10 ms is used and renewed; one that is valid for a day is left alone.
#[tokio::test]
async fn short_lives_are_renewed_until_there_is_a_long_one() {
    let world = World::new(|root, number, message| {
        let valid = if number < 3 { Duration::from_millis(10) } else { DAY };
        Ok(signed(root, message, valid))
    })
    .await;
    let identity = world.identity(world.options()).await;
    let long = async {
        while identity.svid().unwrap().not_after() < SystemTime::now() + DAY / 2 {
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    in_time(long).await;
    assert_eq!(world.asked.lock().len(), 4, "each short one was replaced once");
}

#[tokio::test]
async fn what_may_go_better_is_asked_again_over_the_same_connection() {
    let world = World::new(|root, number, message| match number {
        0 => Err(Status::unavailable("starting")),
        1 => Err(Status::resource_exhausted("busy")),
        2 => Err(Status::deadline_exceeded("slow")),
        _ => Ok(signed(root, message, DAY)),
    })
    .await;
    world.identity(world.options()).await;
    let asked = world.asked.lock().clone();
    let retries: Vec<_> = asked.iter().map(|asked| asked.retry.as_deref().unwrap_or("")).collect();
    assert_eq!(retries, ["", "1", "2", "3"]);
    assert!(asked.iter().all(|one| one.from == asked[0].from), "one handshake");
}

#[tokio::test]
async fn each_kind_of_failure_is_reported_and_counted_and_heals() {
    let jwt = |audience: &str| token("spiffe://public/ns/shop/cart", &[audience]);
    let (other, good) = (jwt("bank"), jwt("public"));
    let world = World::new(move |root, number, message| {
        let answer = signed(root, message, DAY);
        match number {
            0 => Err(Status::permission_denied("failed to get pod of identity")),
            1 => Ok(SignCertificateResponse {
                valid_until: None,
                ..answer
            }),
            2 => Ok(SignCertificateResponse {
                workload_certificate: Vec::new().into(),
                ..answer
            }),
            3 => Ok(SignCertificateResponse {
                jwt: Some("nonsense".into()),
                ..answer
            }),
            4 => Ok(SignCertificateResponse {
                jwt: Some(other.clone()),
                ..answer
            }),
            _ => Ok(SignCertificateResponse {
                jwt: Some(good.clone()),
                ..answer
            }),
        }
    })
    .await;
    let (identity, renewal) = Identity::new(world.options()).unwrap();
    let metrics = Metrics::new("cart").unwrap();
    let mut reports = world.start(renewal.with_metrics(metrics.clone()));
    in_time(identity.ready()).await;
    let reports = in_time(reports.wait_for(|reports| reports.last() == Some(&Health::Ready)))
        .await
        .unwrap();
    let texts: Vec<_> = reports
        .iter()
        .filter_map(|report| match report {
            Health::NotReady(text) => Some(text.as_str()),
            _ => None,
        })
        .collect();
    for (text, part) in texts.iter().zip([
        "failed to get pod",
        "valid_until",
        "no PEM block",
        "three parts",
        "bank",
    ]) {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(texts.len(), 5);
    let registry = prometheus::Registry::new();
    metrics.register(&registry).unwrap();
    let mut counted: HashMap<String, f64> = HashMap::new();
    for family in registry.gather() {
        for metric in family.get_metric() {
            let labels: Vec<_> = metric
                .get_label()
                .iter()
                .map(prometheus::proto::LabelPair::value)
                .collect();
            let value = metric.get_counter().get_value() + metric.get_gauge().get_value();
            counted.insert(format!("{} {}", family.name(), labels.join(" ")), value);
        }
    }
    for reason in ["sign", "invalid_ts", "jwt_parse", "jwt_aud"] {
        let expected = if reason == "sign" { 2.0 } else { 1.0 };
        for name in ["init_fail_total", "workload_cert_rotated_fail_total"] {
            let key = format!("dapr_runtime_mtls_{name} cart {reason}");
            assert_eq!(counted.get(&key), Some(&expected), "{key} in {counted:?}");
        }
    }
    assert_eq!(counted["dapr_runtime_mtls_init_total cart"], 1.0);
    assert!(counted["dapr_runtime_mtls_workload_cert_expiry_timestamp cart"] > 1e9);
}

#[tokio::test]
async fn an_unreachable_sentry_is_waited_for_and_named() {
    let world = World::new(|root, _, message| Ok(signed(root, message, DAY))).await;
    let nobody = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
    let (_, renewal) = Identity::new(Options {
        sentry_address: nobody.to_string(),
        ..world.options()
    })
    .unwrap();
    let mut reports = world.start(renewal);
    let reports = in_time(reports.wait_for(|reports| reports.len() >= 2)).await.unwrap();
    for report in reports.iter() {
        let Health::NotReady(reason) = report else {
            unreachable!("nobody is there");
        };
        assert!(reason.contains(&nobody.to_string()), "{reason}");
    }
}

/// A token that nobody verifies the signature of.
fn token(subject: &str, audience: &[&str]) -> String {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let expires = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs()
        + 3600;
    let claims = serde_json::json!({"sub": subject, "aud": audience, "exp": expires}).to_string();
    format!(
        "{}.{}.c2VjcmV0LXNpZ25hdHVyZQ",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#),
        URL_SAFE_NO_PAD.encode(claims)
    )
}

#[tokio::test]
async fn tokens_are_there_as_soon_as_the_certificate() {
    let subject = "spiffe://public/ns/shop/cart";
    let (base, vault) = (token(subject, &["public", "vault"]), token(subject, &["vault"]));
    let world = World::new(move |root, _, message| {
        Ok(SignCertificateResponse {
            jwt: Some(base.clone()),
            per_audience_jwts: [("vault".to_owned(), vault.clone())].into(),
            ..signed(root, message, DAY)
        })
    })
    .await;
    let (identity, renewal) = Identity::new(world.options()).unwrap();
    let waiting = tokio::spawn({
        let identity = identity.clone();
        async move { identity.jwt_svid("vault").await }
    });
    world.start(renewal);
    assert_eq!(in_time(waiting).await.unwrap().unwrap().audience(), ["vault"]);
    // The trust domain's own, which nobody has to ask for.
    assert_eq!(
        identity.jwt_svid("public").await.unwrap().audience(),
        ["public", "vault"]
    );
    assert_eq!(identity.jwt_svid("").await, Err(JwtUnavailable::NoAudience));
    assert!(matches!(
        identity.jwt_svid("x").await,
        Err(JwtUnavailable::Audience { .. })
    ));
}

#[tokio::test]
async fn without_tokens_the_reason_is_said() {
    let world = World::new(|root, _, message| Ok(signed(root, message, DAY))).await;
    let identity = world.identity(world.options()).await;
    assert_eq!(identity.jwt_svid("public").await, Err(JwtUnavailable::NotIssued));
}

#[tokio::test]
async fn the_directory_follows_certificates_and_anchors_and_logs_show_no_secret() {
    let logs = Logs::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(logs.clone())
        .finish();
    // For this thread, which is all that the test's runtime has.
    let _guard = tracing::subscriber::set_default(subscriber);

    let jwt = token("spiffe://public/ns/shop/cart", &["public"]);
    let issued = jwt.clone();
    let world = World::new(move |root, _, message| {
        Ok(SignCertificateResponse {
            jwt: Some(issued.clone()),
            ..signed(root, message, DAY)
        })
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let (file, target) = (folder.path().join("ca.crt"), folder.path().join("secrets/tls"));
    std::fs::write(&file, &world.root.certificate).unwrap();
    let (identity, renewal) = Identity::new(Options {
        anchors: AnchorSource::File(file.clone()),
        ..world.options()
    })
    .unwrap();
    world.start(renewal.with_directory(&target).unwrap());
    in_time(identity.ready()).await;
    let read = |name: &str| std::fs::read_to_string(target.join(name)).unwrap();
    assert_eq!(read("ca.pem"), world.root.certificate);
    assert_eq!(read("jwt_svid.token"), jwt);
    let mode = std::fs::metadata(target.join("key.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let both = format!("{}{}", world.root.certificate, Root::new("new").certificate);
    std::fs::write(&file, &both).unwrap();
    let mut anchors = identity.anchors();
    in_time(anchors.wait_for(|anchors| anchors.pem() == both))
        .await
        .unwrap();
    assert_eq!(read("ca.pem"), both, "anchors do not wait for the next certificate");

    let (key, shown) = (read("key.pem"), String::from_utf8(logs.0.lock().clone()).unwrap());
    assert!(
        shown.contains("spiffe://public/ns/shop/cart") && shown.contains("next_renewal"),
        "{shown}"
    );
    let secret = key.lines().find(|line| !line.starts_with('-')).unwrap();
    for secret in [secret, "PRIVATE KEY", jwt.as_str(), "c2VjcmV0LXNpZ25hdHVyZQ"] {
        assert!(!shown.contains(secret));
    }
    let debugged = format!("{:?}", identity.svid());
    assert!(
        !debugged.contains(secret) && !debugged.contains("c2VjcmV0"),
        "{debugged}"
    );
}

#[derive(Clone, Default)]
struct Logs(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for Logs {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn a_refusal_keeps_its_code() {
    let world = World::new(|_, _, _| {
        Err(Status::new(
            Code::InvalidArgument,
            "the requested validator is not enabled",
        ))
    })
    .await;
    let (_, renewal) = Identity::new(world.options()).unwrap();
    let mut reports = world.start(renewal);
    let reports = in_time(reports.wait_for(|reports| !reports.is_empty())).await.unwrap();
    let Some(Health::NotReady(reason)) = reports.first() else {
        unreachable!("nothing was signed");
    };
    assert!(
        reason.contains("InvalidArgument") && reason.contains("not enabled"),
        "{reason}"
    );
    assert_eq!(world.asked.lock().len(), 1, "not asked again at once");
}
