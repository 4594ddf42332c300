//! Chains of rotated authorities, as peers verify them: Go's `x509.Verify`, and handshakes with our own identities.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    future::Future,
    io::Write,
    path::Path,
    pin::Pin,
    process::{Command, Stdio},
    sync::Arc,
};

use outrigger_core::{SpiffeId, TrustDomain, control_plane::Service};
use outrigger_identity::{
    AnchorSource, ClientAuth, Expect, FetchError, Identity, Issued, Issuer, KeyAlgorithm, Limits, Listener,
    SigningRequest,
};
use outrigger_sentry::ca::{self, Authority, Leaf, Material, Profile, PublicKey};
use serde_json::json;
use time::{Duration, OffsetDateTime};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const YEAR: Duration = Duration::days(365);
/// Numbers of Go's `x509.ExtKeyUsage`.
const SERVER: u8 = 1;
const CLIENT: u8 = 2;

fn profile() -> Profile {
    let trust_domain = TrustDomain::new("cluster.local").unwrap();
    Profile {
        id: Service::Sentry.spiffe_id(&trust_domain, "dapr-system").unwrap(),
        trust_domain,
        ttl: YEAR,
        skew: Duration::minutes(15),
    }
}

fn leaf() -> Leaf {
    Leaf {
        id: "spiffe://public/ns/shop/cart".parse().unwrap(),
        dns_names: vec!["dapr-webhook.dapr-system.svc".to_owned()],
        ttl: Duration::hours(24),
        skew: Duration::minutes(15),
        images: Vec::new(),
    }
}

/// A workload's certificate, leaf first.
fn signed(material: &Material, csr: &str, now: OffsetDateTime) -> String {
    let authority = Authority::load(material, now).unwrap();
    let key = PublicKey::from_request(csr.as_bytes()).unwrap();
    authority.sign(&leaf(), &key, now).unwrap().chain_pem
}

fn csr() -> String {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    request.pem().unwrap()
}

/// Each PEM block of a text.
fn blocks(text: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----\n";
    text.split_inclusive(END).map(str::to_owned).collect()
}

/// The first authority and those after it, a rotation a day.
fn rotated(start: OffsetDateTime, times: i64) -> Vec<Material> {
    let mut all = vec![ca::generate(&profile(), start).unwrap()];
    for day in 1..=times {
        let now = start + Duration::days(day);
        let announced = ca::announce(&all[all.len() - 1], &profile(), now).unwrap();
        all.push(ca::switch(&announced, now).unwrap());
    }
    all
}

/// What Go's verifier says of each case.
fn go(cases: &[serde_json::Value]) -> Vec<String> {
    let mut go = Command::new("go")
        .args(["run", "."])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verify"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = go.stdin.take().unwrap();
    for case in cases {
        writeln!(input, "{case}").unwrap();
    }
    drop(input);
    let output = go.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<String> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), cases.len());
    answers
}

fn case(chain: &str, anchors: &str, at: OffsetDateTime, usages: &[u8]) -> serde_json::Value {
    json!({"Chain": chain, "Anchors": anchors, "At": at.unix_timestamp(), "Usages": usages})
}

#[test]
fn go_verifies_three_stacked_rotations_with_any_one_of_the_anchors() {
    let start = OffsetDateTime::now_utc();
    let all = rotated(start, 3);
    let mut cases = Vec::new();
    for (number, material) in all.iter().enumerate() {
        let now = start + Duration::days(i64::try_from(number).unwrap());
        let chain = signed(material, &csr(), now);
        for anchor in blocks(&material.anchors) {
            for usages in [&[][..], &[SERVER], &[CLIENT]] {
                cases.push(case(&chain, &anchor, now, usages));
            }
        }
    }
    assert_eq!(cases.len(), 3 * (1 + 2 + 3 + 4));
    for (number, answer) in go(&cases).into_iter().enumerate() {
        assert_eq!(answer, "ok", "case {number}");
    }
}

#[test]
fn go_follows_the_old_anchor_until_it_expires_and_not_longer() {
    let start = OffsetDateTime::now_utc();
    let all = rotated(start, 1);
    let [old, new] = &blocks(&all[1].anchors)[..] else {
        unreachable!("two anchors")
    };
    let end = start + YEAR;
    let last = signed(&all[1], &csr(), end - Duration::hours(1));
    let unknown = signed(&rotated(start, 0)[0], &csr(), start);
    let retired = ca::retire(&all[1], profile().skew, end + Duration::hours(1)).unwrap();
    let after = signed(&retired, &csr(), end + Duration::hours(1));
    let answers = go(&[
        case(&last, old, end - Duration::minutes(1), &[]),
        case(&last, old, end + Duration::minutes(1), &[]),
        case(&last, new, end + Duration::minutes(1), &[]),
        case(&unknown, old, start, &[]),
        case(&after, new, end + Duration::hours(2), &[]),
    ]);
    assert_eq!([&answers[0], &answers[2], &answers[4]], ["ok"; 3]);
    assert!(answers[1].contains("expired"), "{}", answers[1]);
    assert!(
        answers[3].contains("unknown authority"),
        "the verifier does refuse: {}",
        answers[3]
    );
}

/// Certifies our own identities.
struct Certifies(Material);

impl Issuer for Certifies {
    fn issue(&self, request: SigningRequest) -> Pin<Box<dyn Future<Output = Result<Issued, FetchError>> + Send + '_>> {
        let chain = signed(&self.0, &request.csr, OffsetDateTime::now_utc()).into_bytes();
        Box::pin(std::future::ready(Ok(Issued {
            chain,
            ..Issued::default()
        })))
    }
}

async fn identity(material: &Material, anchors: &str, stop: &CancellationToken) -> Identity {
    let issuer = Arc::new(Certifies(material.clone()));
    let anchors = AnchorSource::Static(anchors.to_owned());
    let (identity, renewal) = Identity::with_issuer(anchors, KeyAlgorithm::Ed25519, issuer).unwrap();
    tokio::spawn(renewal.run(|_| {}, stop.clone()));
    identity.ready().await;
    identity
}

/// Whether a client and a server reach each other with mTLS.
async fn shake_hands(client: &Identity, server: &Identity) -> bool {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap().to_string();
    let tls = server.server_tls(ClientAuth::Required, &[b"h2"]);
    let listener = Listener::tls(tcp, tls, Limits::default()).unwrap();
    // Any service will do: an answer of its kind says that the handshake is over.
    let router = tonic::service::Routes::default().prepare();
    let serving = tokio::spawn(
        tonic::transport::Server::builder()
            .add_routes(router)
            .serve_with_incoming(listener),
    );
    let id: SpiffeId = "spiffe://public/ns/shop/cart".parse().unwrap();
    let channel = client.channel(&address, Expect::Id(id)).unwrap();
    let answer = outrigger_proto::sentry::ca_client::CaClient::new(channel)
        .sign_certificate(outrigger_proto::sentry::SignCertificateRequest::default())
        .await;
    serving.abort();
    answer.is_err_and(|status| status.code() == tonic::Code::Unimplemented)
}

#[tokio::test]
async fn our_peers_shake_hands_over_three_stacked_rotations_with_any_one_of_the_anchors() {
    // The present is the last of the days.
    let all = rotated(OffsetDateTime::now_utc() - Duration::days(3), 3);
    let stop = CancellationToken::new();
    let newest = &all[3];
    let up_to_date = identity(newest, &newest.anchors, &stop).await;
    let anchors = blocks(&newest.anchors);
    assert_eq!(anchors.len(), 4);
    for anchor in &anchors {
        let narrow = identity(newest, anchor, &stop).await;
        assert!(shake_hands(&narrow, &up_to_date).await && shake_hands(&up_to_date, &narrow).await);
        assert!(shake_hands(&narrow, &narrow).await);
    }
    // Certificates from before a rotation go on working for those who know their root.
    let old = identity(&all[0], &anchors[0], &stop).await;
    assert!(shake_hands(&old, &up_to_date).await && shake_hands(&up_to_date, &old).await);
    let new_only = identity(newest, &anchors[3], &stop).await;
    assert!(!shake_hands(&new_only, &old).await, "the handshake does verify");
    stop.cancel();
}
