//! Renewal of the authority, with lives of seconds: replicas that race, processes that are killed, peers that go on talking.

use std::{
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api,
    api::{Patch, PatchParams},
    runtime::watcher,
};
use outrigger_core::control_plane::TRUST_BUNDLE;
use outrigger_identity::{
    AnchorSource, Anchors, ClientAuth, Expect, FetchError, Identity, Issued, Issuer, KeyAlgorithm, Limits, Listener,
    SigningRequest,
};
use outrigger_proto::sentry::{SignCertificateRequest, ca_client::CaClient};
use outrigger_testkit::ApiServer;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Status};

use crate::sentry::{DEADLINE, Sentry, prepared_namespace, sign};

/// An authority lives for 24 s and is renewed after 17; the next one takes over 4 s later.
const FAST: [&str; 6] = [
    "--ca-ttl",
    "24s",
    "--ca-renewal-threshold",
    "0.7",
    "--trust-anchor-propagation-grace",
    "4s",
];

/// Numbers of anchors and of certificates in the chain, and whether an issuer is announced.
type Shape = (usize, usize, bool);
const STEADY: Shape = (1, 1, false);
const ANNOUNCED: Shape = (2, 1, true);
const SWITCHED: Shape = (2, 3, false);

fn shape(secret: &Secret) -> Option<Shape> {
    let data = secret.data.as_ref()?;
    let count = |key: &str| {
        let text = data.get(key)?;
        Some(String::from_utf8_lossy(&text.0).matches("BEGIN CERTIFICATE").count())
    };
    assert_eq!(
        data.contains_key("issuer.next.crt"),
        data.contains_key("issuer.next.key")
    );
    Some((
        count("ca.crt")?,
        count("issuer.crt")?,
        data.contains_key("issuer.next.crt"),
    ))
}

/// What the Secret went through, as a watch saw it. A watch may miss versions only when it begins anew.
struct History {
    shapes: tokio::sync::mpsc::UnboundedReceiver<Shape>,
    _stop: DropGuard,
}

impl History {
    fn of(sentry: &Sentry) -> Self {
        let only = watcher::Config::default().fields(&format!("metadata.name={TRUST_BUNDLE}"));
        let secrets = sentry.secrets();
        let (sender, shapes) = tokio::sync::mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            let mut events = std::pin::pin!(watcher(secrets, only));
            let mut last = None;
            while let Some(Some(event)) = stopped.run_until_cancelled(events.next()).await {
                if let Ok(watcher::Event::Apply(secret) | watcher::Event::InitApply(secret)) = event
                    && let Some(shape) = shape(&secret)
                    && last.replace(shape) != Some(shape)
                    && sender.send(shape).is_err()
                {
                    return;
                }
            }
        });
        Self {
            shapes,
            _stop: stop.drop_guard(),
        }
    }

    async fn next(&mut self) -> Shape {
        tokio::time::timeout(DEADLINE, self.shapes.recv())
            .await
            .unwrap()
            .unwrap()
    }
}

/// Gets certificates for a pod from any of the replicas, as clients behind a Service do.
struct Workload {
    addresses: Vec<String>,
    control_plane: String,
    namespace: String,
    token: String,
    next: AtomicUsize,
}

impl Issuer for Workload {
    fn issue(&self, request: SigningRequest) -> Pin<Box<dyn Future<Output = Result<Issued, FetchError>> + Send + '_>> {
        Box::pin(async move {
            let address = &self.addresses[self.next.fetch_add(1, Ordering::Relaxed) % self.addresses.len()];
            let whom = ("cart", self.namespace.as_str(), self.token.as_str());
            let answer = sign(address, &self.control_plane, &request.anchors, whom, request.csr).await;
            let answer = answer.map_err(|status| FetchError::Response(status.to_string()))?;
            Ok(Issued {
                chain: answer.workload_certificate.to_vec(),
                ..Issued::default()
            })
        })
    }
}

/// A pod's identity, and an address at which it answers.
struct Peer {
    identity: Identity,
    address: String,
}

impl Peer {
    async fn new(
        sentries: &[Sentry],
        anchors: AnchorSource,
        (namespace, token): (&str, &str),
        stop: &CancellationToken,
    ) -> Self {
        let issuer = Workload {
            addresses: sentries
                .iter()
                .map(|sentry| format!("127.0.0.1:{}", sentry.port))
                .collect(),
            control_plane: sentries[0].namespace.clone(),
            namespace: namespace.to_owned(),
            token: token.to_owned(),
            next: AtomicUsize::new(0),
        };
        let (identity, renewal) = Identity::with_issuer(anchors, KeyAlgorithm::Ed25519, Arc::new(issuer)).unwrap();
        tokio::spawn(renewal.run(|_| {}, stop.clone()));
        identity.ready().await;
        let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap().to_string();
        let tls = identity.server_tls(ClientAuth::Required, &[b"h2"]);
        let listener = Listener::tls(tcp, tls, Limits::default()).unwrap();
        let routes = tonic::service::Routes::default().prepare();
        let serving = tonic::transport::Server::builder().add_routes(routes);
        tokio::spawn(serving.serve_with_incoming_shutdown(listener, stop.clone().cancelled_owned()));
        Self { identity, address }
    }

    /// A call over a new connection.
    async fn call(&self, other: &Self, namespace: &str) -> Result<(), Status> {
        let expect = Expect::Workload {
            namespace: namespace.to_owned(),
            app_id: "cart".to_owned(),
        };
        let channel = self.identity.channel(&other.address, expect).unwrap();
        match CaClient::new(channel)
            .sign_certificate(SignCertificateRequest::default())
            .await
        {
            // Nothing is served there, which only those who were let in hear.
            Err(status) if status.code() == Code::Unimplemented => Ok(()),
            Err(status) => Err(status),
            Ok(_) => Err(Status::internal("somebody else answered")),
        }
    }
}

/// Copies the anchors to where a pod sees them, as the kubelet does.
fn mount(sentry: &Sentry, file: PathBuf, stop: &CancellationToken) {
    let maps: Api<ConfigMap> = Api::namespaced(sentry.client.clone(), &sentry.namespace);
    let stop = stop.clone();
    tokio::spawn(async move {
        while !stop.is_cancelled() {
            if let Ok(map) = maps.get(TRUST_BUNDLE).await
                && let Some(text) = map.data.and_then(|mut data| data.remove("ca.crt"))
            {
                let new = file.with_extension("new");
                std::fs::write(&new, text).unwrap();
                std::fs::rename(&new, &file).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_rotate_together_while_peers_go_on_talking() {
    let namespace = prepared_namespace("1s").await;
    let mut sentries = Vec::new();
    for _ in 0..3 {
        sentries.push(Sentry::in_namespace(namespace.clone(), &FAST).await);
    }
    Sentry::create_bundle_objects(&namespace).await;
    let mut history = History::of(&sentries[0]);
    for sentry in &sentries {
        sentry.wait_for_health("/healthz", "200 OK").await;
    }
    let stop = CancellationToken::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    mount(&sentries[0], file.clone(), &stop);
    let first = sentries[0].anchors().await;
    let first_expires = expiry(&first);
    let shop = ApiServer::shared().await.namespace("shop").await.unwrap();
    let annotations = serde_json::json!({"dapr.io/app-id": "cart"});
    let (_, token) = sentries[0].pod(&shop, annotations, &sentries[0].audience()).await;
    let pod = (shop.as_str(), token.as_str());
    let following = AnchorSource::StaticAndFile {
        pem: first.pem().to_owned(),
        file,
    };
    let a = Peer::new(&sentries, following.clone(), pod, &stop).await;
    let b = Peer::new(&sentries, following, pod, &stop).await;
    let frozen = Peer::new(&sentries, AnchorSource::Static(first.pem().to_owned()), pod, &stop).await;

    let mut shapes = Vec::new();
    let mut calls = [0, 0];
    // The first root is dropped in the fourth version, so that whole rotations have been seen.
    while shapes.len() < 4 {
        while let Ok(shape) = history.shapes.try_recv() {
            shapes.push(shape);
        }
        a.call(&b, &shop).await.unwrap();
        b.call(&a, &shop).await.unwrap();
        calls[0] += 2;
        // A handshake that begins in the last second may end too late.
        if SystemTime::now() + Duration::from_secs(1) < first_expires {
            frozen.call(&a, &shop).await.unwrap();
            a.call(&frozen, &shop).await.unwrap();
            calls[1] += 2;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!(
        "{} calls, {} of them with the first anchor only; {shapes:?}",
        calls[0] + calls[1],
        calls[1]
    );
    assert!(calls[1] > 0);
    assert_eq!(
        shapes,
        [STEADY, ANNOUNCED, SWITCHED, STEADY],
        "one of three made each step"
    );
    let last = sentries[0].anchors().await;
    assert_ne!(last.pem(), first.pem());
    for sentry in &mut sentries {
        assert!(sentry.process.try_wait().unwrap().is_none(), "it runs on");
    }
    stop.cancel();
}

fn expiry(anchors: &Anchors) -> SystemTime {
    let der = anchors.certificates().next().unwrap();
    let (_, certificate) = x509_parser::parse_x509_certificate(der).unwrap();
    SystemTime::from(certificate.validity().not_after.to_datetime())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_sentry_goes_on_where_it_was() {
    let namespace = prepared_namespace("1s").await;
    let mut sentry = Sentry::in_namespace(namespace.clone(), &FAST).await;
    Sentry::create_bundle_objects(&namespace).await;
    let mut history = History::of(&sentry);
    assert_eq!(history.next().await, STEADY);
    sentry.wait_for_health("/healthz", "200 OK").await;
    let first = sentry.anchors().await;
    let maps: Api<ConfigMap> = Api::namespaced(sentry.client.clone(), &namespace);
    for expected in [ANNOUNCED, SWITCHED, STEADY] {
        let seen = history.next().await;
        // SIGKILL, as soon as the write is seen.
        drop(sentry);
        assert_eq!(seen, expected);
        if seen == ANNOUNCED {
            // As if it had died before it wrote the ConfigMap.
            let before = Patch::Merge(serde_json::json!({"data": {"ca.crt": first.pem()}}));
            maps.patch(TRUST_BUNDLE, &PatchParams::default(), &before)
                .await
                .unwrap();
        }
        sentry = Sentry::in_namespace(namespace.clone(), &FAST).await;
        sentry.wait_for_health("/healthz", "200 OK").await;
        let stored = sentry.secrets().get(TRUST_BUNDLE).await.unwrap().data.unwrap()["ca.crt"].clone();
        let healed = async {
            while sentry.anchors().await.pem().as_bytes() != stored.0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(DEADLINE, healed).await.unwrap();
        // It signs: it had to show a certificate to be asked.
        let refusal = sentry.sign("cart", "shop", "not-a-token").await.unwrap_err();
        assert_eq!(refusal.code(), Code::PermissionDenied, "{refusal}");
    }
}
