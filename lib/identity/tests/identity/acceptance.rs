//! Who is accepted by whom, cell by cell.

use std::sync::Arc;

use outrigger_core::SpiffeId;
use outrigger_identity::{AnchorSource, Anchors, ClientAuth, Expect, Identity, anonymous_channel, plain_channel};
use outrigger_proto::sentry::{SignCertificateRequest, ca_client::CaClient};
use outrigger_testkit::Anyone;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls::{ClientConfig, ServerConfig, crypto::aws_lc_rs::default_provider};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

use crate::support::{Root, TestAuthority, ask, id, identity, serve, serve_as, serve_plain, signed_by};

const CART: &str = "spiffe://public/ns/shop/cart";

/// A leaf with one property, and the reason why it is refused; empty where it is accepted.
struct Case {
    name: &'static str,
    change: fn(&mut CertificateParams),
    refused: &'static str,
}

fn uris(params: &mut CertificateParams, uris: &[&str]) {
    params.subject_alt_names = uris
        .iter()
        .map(|uri| SanType::URI((*uri).try_into().unwrap()))
        .collect();
}

const CASES: [Case; 16] = [
    Case {
        name: "no usage at all",
        change: |_| {},
        refused: "",
    },
    Case {
        name: "as sentry issues it",
        change: |leaf| {
            leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        },
        refused: "",
    },
    Case {
        name: "a purpose of neither side",
        change: |leaf| leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning],
        refused: "",
    },
    Case {
        name: "DNS names beside the id",
        change: |leaf| leaf.subject_alt_names.push(SanType::DnsName("x.y".try_into().unwrap())),
        refused: "",
    },
    Case {
        name: "an authority",
        change: |leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
        refused: "Authority",
    },
    Case {
        name: "may sign certificates",
        change: |leaf| leaf.key_usages = vec![KeyUsagePurpose::KeyCertSign],
        refused: "Authority",
    },
    Case {
        name: "may sign revocation lists",
        change: |leaf| leaf.key_usages = vec![KeyUsagePurpose::CrlSign],
        refused: "Authority",
    },
    Case {
        name: "no id",
        change: |leaf| uris(leaf, &[]),
        refused: "UriNames(0)",
    },
    Case {
        name: "a host name alone",
        change: |leaf| leaf.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())],
        refused: "UriNames(0)",
    },
    Case {
        name: "two ids",
        change: |leaf| uris(leaf, &[CART, "spiffe://public/ns/shop/orders"]),
        refused: "UriNames(2)",
    },
    Case {
        name: "no SPIFFE id",
        change: |leaf| uris(leaf, &["https://public/ns/shop/cart"]),
        refused: "SpiffeId",
    },
    Case {
        name: "upper case in the trust domain",
        change: |leaf| uris(leaf, &["spiffe://Public/ns/shop/cart"]),
        refused: "SpiffeId",
    },
    Case {
        name: "an upper-case scheme",
        change: |leaf| uris(leaf, &["SPIFFE://public/ns/shop/cart"]),
        refused: "SpiffeId",
    },
    Case {
        name: "expired",
        change: |leaf| leaf.not_after = OffsetDateTime::now_utc() - Duration::minutes(1),
        refused: "Expired",
    },
    Case {
        name: "not valid yet",
        change: |leaf| leaf.not_before = OffsetDateTime::now_utc() + Duration::hours(1),
        refused: "NotValidYet",
    },
    Case {
        name: "a purpose of the other side",
        change: |leaf| leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection],
        refused: "",
    },
];

/// A certificate and its key, as a program that is not ours would use them.
fn leaf(root: &Root, change: fn(&mut CertificateParams)) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let mut params = root.leaf(CART);
    change(&mut params);
    let certificate = root.sign(&params, &key);
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    (vec![certificate.der().clone()], key)
}

fn client(
    certificate: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> TlsConnector {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone));
    let mut config = match certificate {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// Whether the server goes on to HTTP/2, which begins with its settings, before the client says a word of it.
async fn is_served(mut io: impl AsyncRead + AsyncWrite + Unpin) -> bool {
    let mut frame = [0; 9];
    io.read_exact(&mut frame).await.is_ok() && frame[3] == 4 && frame[5..] == [0; 4]
}

async fn is_served_over_tls(client: TlsConnector, address: &str) -> bool {
    let tcp = TcpStream::connect(address).await.unwrap();
    match client.connect("localhost".try_into().unwrap(), tcp).await {
        Ok(io) => is_served(io).await,
        Err(_) => false,
    }
}

async fn ready(root: &Root, app: &str, stop: &CancellationToken) -> Identity {
    identity(app, root, AnchorSource::Static(root.certificate.clone()), stop).await
}

#[tokio::test]
async fn servers_accept_every_good_leaf_and_no_bad_one() {
    let (stop, root) = (CancellationToken::new(), Root::new("root"));
    let address = serve(&ready(&root, "server", &stop).await, &stop).await;
    for Case { name, change, refused } in CASES {
        let client = client(Some(leaf(&root, change)), rustls::ALL_VERSIONS);
        assert_eq!(is_served_over_tls(client, &address).await, refused.is_empty(), "{name}");
    }
    let from = |root: &Root| Some(leaf(root, |_| {}));
    let (tls12, tls13) = ([&rustls::version::TLS12], [&rustls::version::TLS13]);
    assert!(is_served_over_tls(client(from(&root), &tls12), &address).await);
    assert!(is_served_over_tls(client(from(&root), &tls13), &address).await);
    assert!(
        !is_served_over_tls(client(None, &tls13), &address).await,
        "no certificate"
    );
    assert!(
        !is_served_over_tls(client(None, &tls12), &address).await,
        "no certificate"
    );
    let other = Root::new("root");
    assert!(
        !is_served_over_tls(client(from(&other), &tls13), &address).await,
        "another root"
    );
    stop.cancel();
}

#[tokio::test]
async fn servers_without_client_certificates_take_everyone() {
    let (stop, root) = (CancellationToken::new(), Root::new("root"));
    let address = serve_as(&ready(&root, "server", &stop).await, ClientAuth::None, &stop).await;
    for certificate in [None, Some(leaf(&Root::new("other"), |_| {}))] {
        assert!(is_served_over_tls(client(certificate, rustls::ALL_VERSIONS), &address).await);
    }
    stop.cancel();
}

#[tokio::test]
async fn clients_accept_every_good_leaf_and_no_bad_one() {
    let root = Root::new("root");
    let anchors = Arc::new(Anchors::from_pem(&root.certificate).unwrap());
    for Case { name, change, refused } in CASES {
        let address = serve_raw(leaf(&root, change)).await;
        let found = anonymous_channel(&address, &anchors, &Expect::Id(id("cart"))).await;
        match found {
            Ok(_) => assert_eq!(refused, "", "{name}"),
            Err(error) => {
                let error = format!("{error:?}");
                assert!(!refused.is_empty() && error.contains(refused), "{name}: {error}");
            }
        }
    }
    let address = serve_raw(leaf(&Root::new("root"), |_| {})).await;
    let error = anonymous_channel(&address, &anchors, &Expect::Id(id("cart"))).await;
    assert!(error.is_err(), "another root of the same name");
}

/// A TLS server that is not ours, and says no more than its settings.
async fn serve_raw((chain, key): (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)) -> String {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        if let Ok(mut io) = TlsAcceptor::from(Arc::new(config)).accept(tcp).await {
            io.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            let _ = io.read_to_end(&mut Vec::new()).await;
        }
    });
    address
}

#[tokio::test]
async fn clients_know_whom_they_call() {
    let (stop, root) = (CancellationToken::new(), Root::new("root"));
    let anchors = || AnchorSource::Static(root.certificate.clone());
    let client = ready(&root, "client", &stop).await;
    let exact = |uri: &str| Expect::Id(uri.parse().unwrap());
    let workload = |namespace: &str, app: &str| Expect::Workload {
        namespace: namespace.to_owned(),
        app_id: app.to_owned(),
    };
    let operator = "spiffe://cluster.local/ns/dapr-system/dapr-operator";
    for (server, expect, accepted) in [
        (operator, exact(operator), true),
        (operator, exact("spiffe://public/ns/dapr-system/dapr-operator"), false),
        (
            operator,
            exact("spiffe://cluster.local/ns/default/dapr-operator"),
            false,
        ),
        (
            operator,
            exact("spiffe://cluster.local/ns/dapr-system/dapr-sentry"),
            false,
        ),
        (
            "spiffe://cluster.local/ns/dapr-system/dapr-operator/x",
            exact(operator),
            false,
        ),
        (CART, workload("shop", "cart"), true),
        ("spiffe://bank/ns/shop/cart", workload("shop", "cart"), true),
        (CART, workload("other", "cart"), false),
        (CART, workload("shop", "orders"), false),
        ("spiffe://public/ns/shop/cart/x", workload("shop", "cart"), false),
        ("spiffe://public/sa/shop/cart", workload("shop", "cart"), false),
    ] {
        let id: SpiffeId = server.parse().unwrap();
        let identity = signed_by(TestAuthority::for_id(id, &root), anchors(), &stop).await;
        let with_certificate = serve(&identity, &stop).await;
        let asked = ask(&client, &with_certificate, expect.clone()).await;
        assert_eq!(asked.is_ok(), accepted, "{server} for {expect:?}: {asked:?}");
        let without = serve_as(&identity, ClientAuth::None, &stop).await;
        let known = Arc::new(Anchors::from_pem(&root.certificate).unwrap());
        let connected = anonymous_channel(&without, &known, &expect).await;
        assert_eq!(connected.is_ok(), accepted, "{server} for {expect:?}");
    }
    stop.cancel();
}

#[tokio::test]
async fn anchors_count_only_within_their_dates() {
    let root = Root::changed("old", |root| {
        root.not_after = OffsetDateTime::now_utc() - Duration::days(1);
    });
    let anchors = Arc::new(Anchors::from_pem(&root.certificate).unwrap());
    let address = serve_raw(leaf(&root, |_| {})).await;
    assert!(
        anonymous_channel(&address, &anchors, &Expect::Id(id("cart")))
            .await
            .is_err()
    );
}

/// With mTLS, plaintext clients fail; without it they are served, and TLS clients see at once that this is no TLS.
#[tokio::test]
async fn mtls_on_and_off_do_not_mix() {
    let (stop, root) = (CancellationToken::new(), Root::new("root"));
    let server = ready(&root, "server", &stop).await;
    let encrypted = [
        serve(&server, &stop).await,
        serve_as(&server, ClientAuth::None, &stop).await,
    ];
    let keepalive = std::time::Duration::from_secs(310);
    let call = async |address: &str| {
        let channel = plain_channel(address, keepalive).unwrap();
        CaClient::new(channel)
            .sign_certificate(SignCertificateRequest::default())
            .await
    };
    for address in &encrypted {
        assert!(call(address).await.is_err(), "plaintext client, TLS server");
    }
    let plain = serve_plain(&stop).await;
    assert!(
        call(&plain).await.unwrap().into_inner().workload_certificate.is_empty(),
        "no identity"
    );
    // The settings come first, without waiting for the client: Go's clients see no TLS record.
    assert!(is_served(TcpStream::connect(&plain).await.unwrap()).await);
    let tls = client(Some(leaf(&root, |_| {})), rustls::ALL_VERSIONS);
    assert!(!is_served_over_tls(tls, &plain).await);
    let error = ask(&ready(&root, "client", &stop).await, &plain, Expect::Id(id("server"))).await;
    assert!(error.unwrap_err().contains("InvalidMessage"));
    stop.cancel();
}
