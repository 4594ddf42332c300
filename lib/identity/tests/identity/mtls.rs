//! Servers and clients of live identities, against a certificate authority in the test.

use std::time::Duration;

use futures::{FutureExt, StreamExt};
use outrigger_identity::{AnchorSource, ClientAuth, Expect, Identity, Limits, Listener};
use outrigger_proto::sentry::ca_server::CaServer;
use tokio::net::TcpSocket;
use tokio_util::sync::CancellationToken;

use crate::support::{Root, TestAuthority, WhoAmI, ask, id, identity, listen, run, serve, signed_by};

#[tokio::test]
async fn both_sides_know_each_other() {
    let stop = CancellationToken::new();
    let root = Root::new("one");
    let anchors = || AnchorSource::Static(root.certificate.clone());
    let server = identity("cart", &root, anchors(), &stop).await;
    let client = identity("orders", &root, anchors(), &stop).await;
    let address = serve(&server, &stop).await;

    let workload = |app: &str| Expect::Workload {
        namespace: "shop".into(),
        app_id: app.into(),
    };
    assert_eq!(
        ask(&client, &address, Expect::Id(id("cart"))).await.unwrap(),
        "spiffe://public/ns/shop/orders"
    );
    assert!(
        ask(&client, &address, workload("cart")).await.is_ok(),
        "any trust domain will do"
    );

    let error = ask(&client, &address, Expect::Id(id("other"))).await.unwrap_err();
    assert!(error.contains("Unexpected") && error.contains("shop/cart"), "{error}");
    assert!(ask(&client, &address, workload("other")).await.is_err());
    stop.cancel();
}

#[tokio::test]
async fn strangers_are_refused() {
    let stop = CancellationToken::new();
    let (root, other) = (Root::new("one"), Root::new("two"));
    let server = identity("cart", &root, AnchorSource::Static(root.certificate.clone()), &stop).await;
    let address = serve(&server, &stop).await;
    // It trusts the server, but its own certificate comes from elsewhere.
    let stranger = identity("orders", &other, AnchorSource::Static(root.certificate.clone()), &stop).await;
    assert!(ask(&stranger, &address, Expect::Id(id("cart"))).await.is_err());
    stop.cancel();
}

#[tokio::test]
async fn silent_clients_hold_up_nobody() {
    let stop = CancellationToken::new();
    let root = Root::new("one");
    let anchors = || AnchorSource::Static(root.certificate.clone());
    let server = identity("cart", &root, anchors(), &stop).await;
    let address = serve(&server, &stop).await;
    // More than there are handshakes.
    let mut silent = Vec::new();
    for _ in 0..8 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        silent.push(socket.connect(address.parse().unwrap()).await.unwrap());
    }
    let client = identity("orders", &root, anchors(), &stop).await;
    assert!(ask(&client, &address, Expect::Id(id("cart"))).await.is_ok());
    stop.cancel();
}

#[tokio::test]
async fn new_anchors_reach_the_next_handshake() {
    let stop = CancellationToken::new();
    let (old, new) = (Root::new("old"), Root::new("new"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.crt");
    std::fs::write(&file, &old.certificate).unwrap();

    let server = identity("cart", &old, AnchorSource::File(file.clone()), &stop).await;
    let address = serve(&server, &stop).await;
    let both = AnchorSource::Static(format!("{}{}", old.certificate, new.certificate));
    let client = identity("orders", &new, both, &stop).await;
    assert!(
        ask(&client, &address, Expect::Id(id("cart"))).await.is_err(),
        "the server does not know the new root yet"
    );

    let mut anchors = server.anchors();
    std::fs::write(&file, format!("{}{}", old.certificate, new.certificate)).unwrap();
    anchors
        .wait_for(|anchors| anchors.certificates().count() == 2)
        .await
        .unwrap();
    assert!(ask(&client, &address, Expect::Id(id("cart"))).await.is_ok());
    stop.cancel();
}

#[tokio::test]
async fn a_static_set_and_a_file_count_together() {
    let stop = CancellationToken::new();
    let (old, new) = (Root::new("old"), Root::new("new"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.crt");
    let source = AnchorSource::StaticAndFile {
        pem: old.certificate.clone(),
        file: file.clone(),
    };
    // The file does not exist yet, and nobody waits for it.
    let identity = identity("cart", &old, source, &stop).await;
    let mut anchors = identity.anchors();
    assert_eq!(anchors.borrow_and_update().certificates().count(), 1);
    std::fs::write(&file, &new.certificate).unwrap();
    anchors
        .wait_for(|anchors| anchors.certificates().count() == 2)
        .await
        .unwrap();
    stop.cancel();
}

#[tokio::test]
async fn a_replaced_authority_signs_anew_at_once() {
    let stop = CancellationToken::new();
    let (old, new) = (Root::new("old"), Root::new("new"));
    let authority = TestAuthority::new("cart", &old);
    let server = signed_by(authority.clone(), AnchorSource::Static(new.certificate.clone()), &stop).await;
    let address = serve(&server, &stop).await;
    let client = identity("orders", &new, AnchorSource::Static(new.certificate.clone()), &stop).await;
    assert!(ask(&client, &address, Expect::Id(id("cart"))).await.is_err());

    *authority.root.lock() = new;
    authority.replaced.notify_one();
    let wait = async { while ask(&client, &address, Expect::Id(id("cart"))).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
    stop.cancel();
}

/// For so many connections at once. Whoever says nothing keeps its place for longer than anybody waits.
async fn with_places(server: &Identity, connections: usize) -> Listener {
    let limits = Limits {
        connections: Some(connections),
        timeout: Duration::from_secs(3600),
        ..Limits::default()
    };
    listen(server, ClientAuth::Required, limits).await
}

#[tokio::test]
async fn above_the_limit_connections_wait_for_their_turn() {
    let stop = CancellationToken::new();
    let root = Root::new("one");
    let anchors = AnchorSource::Static(root.certificate.clone());
    let server = identity("cart", &root, anchors.clone(), &stop).await;
    let mut listener = with_places(&server, 1).await;
    let address = listener.local_addr().to_string();
    let client = identity("orders", &root, anchors, &stop).await;
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let (client, address) = (client.clone(), address.clone());
            tokio::spawn(async move { ask(&client, &address, Expect::Id(id("cart"))).await })
        })
        .collect();
    for _ in &calls {
        let open = listener.next().await.unwrap().unwrap();
        assert!(listener.next().now_or_never().is_none(), "one at a time");
        drop(open);
    }
    for call in calls {
        assert!(call.await.unwrap().is_err(), "nobody answered");
    }
    stop.cancel();
}

#[tokio::test]
async fn one_address_cannot_keep_others_out() {
    let stop = CancellationToken::new();
    let root = Root::new("one");
    let anchors = AnchorSource::Static(root.certificate.clone());
    let server = identity("cart", &root, anchors.clone(), &stop).await;
    let address = run(CaServer::new(WhoAmI), with_places(&server, 8).await, &stop);
    // It says nothing.
    let mut kept = Vec::new();
    for _ in 0..100 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        kept.push(socket.connect(address.parse().unwrap()).await.unwrap());
    }
    let client = identity("orders", &root, anchors, &stop).await;
    let asked = ask(&client, &address, Expect::Id(id("cart")));
    let answer = tokio::time::timeout(Duration::from_secs(60), asked).await.unwrap();
    assert_eq!(answer.unwrap(), "spiffe://public/ns/shop/orders");
    stop.cancel();
}
