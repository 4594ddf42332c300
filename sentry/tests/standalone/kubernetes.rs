//! Kubernetes mode against an API server that serves as little as upstream's tests do.

use outrigger_identity::{Anchors, pem, spiffe_id_of};
use outrigger_proto::sentry::{SignCertificateRequest, SignCertificateResponse};
use serde_json::{Value, json};
use time::Duration;
use tonic::{Code, Status};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    fake_api::{Fake, FakeApi},
    pki::Authority,
    process::{Sentry, request},
};

/// Claims without any signature: the API server has vouched for the token.
fn claims(pod: &str) -> String {
    json!({"kubernetes.io": {"pod": {"name": pod}}}).to_string()
}

fn pod(namespace: &str, name: &str, account: &str, annotations: Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations},
        "spec": {"serviceAccountName": account, "containers": [
            {"name": "daprd", "image": "daprd:1"}, {"name": "main", "image": "shop:1"}
        ]},
        "status": {"containerStatuses": [
            {"name": "main", "image": "shop:1", "imageID": "docker.io/shop@sha256:abc", "ready": true, "restartCount": 0}
        ]}
    })
}

/// Those of a token that is bound to one pod of several that have had this name.
fn bound_claims(pod: &str, uid: &str) -> String {
    json!({"kubernetes.io": {"pod": {"name": pod, "uid": uid}}}).to_string()
}

fn with_uid(mut pod: Value, uid: &str) -> Value {
    pod["metadata"]["uid"] = uid.into();
    pod
}

struct Cluster {
    api: FakeApi,
    sentry: Sentry,
    anchors: String,
}

impl Cluster {
    async fn start(fake: Fake, args: &[&str]) -> Self {
        let authority = Authority::new(&rcgen::PKCS_ECDSA_P256_SHA256, Duration::days(2));
        let anchors = authority.anchors.clone();
        let api = FakeApi::start(Fake {
            authority: Some(authority),
            ..fake
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, api.kubeconfig()).unwrap();
        let base = [
            "-mode",
            "kubernetes",
            "-trust-domain=cluster.local",
            "-kubeconfig",
            kubeconfig.to_str().unwrap(),
        ];
        let environment = [("DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK", "true")];
        let sentry = Sentry::spawn(folder, "dapr-system", &[&base[..], args].concat(), &environment);
        sentry.until_ready().await;
        Self { api, sentry, anchors }
    }

    async fn sign(&self, id: &str, namespace: &str, token: &str) -> Result<SignCertificateResponse, Status> {
        let asked = SignCertificateRequest {
            token: token.to_owned(),
            ..request(id, namespace)
        };
        let anchors = Anchors::from_pem(&self.anchors).unwrap();
        self.sentry.sign_under(anchors, "cluster.local", asked).await
    }
}

impl Cluster {
    /// What it asked for beyond what it needs. That it may not watch the two objects, as upstream grants no right to, only means
    /// that it looks at them from time to time.
    fn unexpected(&self) -> Vec<String> {
        let mut asked = self.api.unexpected();
        asked.retain(|request| {
            !request.ends_with("/dapr-system/secrets") && !request.ends_with("/dapr-system/configmaps")
        });
        asked
    }
}

fn id_of(answer: &SignCertificateResponse) -> String {
    let chain = pem::certificates(&answer.workload_certificate).unwrap();
    spiffe_id_of(&chain[0]).unwrap().to_string()
}

#[tokio::test]
async fn lists_named_reads_and_token_reviews_are_all_it_needs() {
    let user = |account: &str, namespace: &str| format!("system:serviceaccount:{namespace}:{account}");
    let long = "n".repeat(253);
    let id = "i".repeat(64);
    let fake = Fake {
        pods: vec![
            pod("shop", "cart-1", "default", json!({"dapr.io/app-id": "cart"})),
            pod(
                "shop",
                "bank-1",
                "default",
                json!({"dapr.io/app-id": "bank", "dapr.io/config": "strict"}),
            ),
            pod(&long, "long-1", &long, json!({"dapr.io/app-id": id})),
            pod(
                "dapr-system",
                "operator-1",
                "dapr-operator",
                json!({"dapr.io/control-plane": "operator"}),
            ),
            pod(
                "dapr-system",
                "injector-1",
                "someone",
                json!({"dapr.io/control-plane": "injector"}),
            ),
        ],
        new_pods: vec![pod("shop", "new-1", "default", json!({"dapr.io/app-id": "new"}))],
        configurations: vec![json!({
            "apiVersion": "dapr.io/v1alpha1", "kind": "Configuration",
            "metadata": {"name": "strict", "namespace": "shop"}, "spec": {"accessControl": {"trustDomain": "bank"}}
        })],
        users: vec![
            (claims("cart-1"), user("default", "shop")),
            (claims("bank-1"), user("default", "shop")),
            (claims("new-1"), user("default", "shop")),
            (claims("long-1"), user(&long, &long)),
            (claims("operator-1"), user("dapr-operator", "dapr-system")),
            (claims("injector-1"), user("someone", "dapr-system")),
            (claims("gone-1"), user("default", "shop")),
            ("opaque".to_owned(), user("default", "shop")),
            (r#"{"sub": "x"}"#.to_owned(), user("default", "shop")),
            ("a node".to_owned(), "system:node:x".to_owned()),
        ],
        ..Fake::default()
    };
    let cluster = Cluster::start(fake, &["--control-plane-service-accounts=dapr-operator"]).await;

    let answer = cluster.sign("cart", "shop", &claims("cart-1")).await.unwrap();
    assert_eq!(id_of(&answer), "spiffe://public/ns/shop/cart");
    let chain = pem::certificates(&answer.workload_certificate).unwrap();
    let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
    let images = leaf
        .extensions()
        .iter()
        .find(|e| e.oid.to_id_string() == "1.3.6.1.4.1.57683.100.1")
        .unwrap();
    assert!(!images.critical);
    let expected = r#"[{"role":"daprd","containerName":"daprd","image":"daprd:1"},{"role":"app","containerName":"main","image":"shop:1","digest":"sha256:abc"}]"#;
    let (_, octets) = x509_parser::asn1_rs::Any::from_der(images.value).unwrap();
    assert_eq!(std::str::from_utf8(octets.data).unwrap(), expected);

    let reviews = cluster.api.reviews();
    let (kind, review) = &reviews[0];
    assert_eq!(kind, "application/json");
    assert_eq!(
        review["spec"]["audiences"],
        json!(["dapr.io/sentry", "spiffe://cluster.local/ns/dapr-system/dapr-sentry"])
    );
    assert_eq!(review["spec"]["token"], claims("cart-1"));

    let answer = cluster.sign("bank", "shop", &claims("bank-1")).await.unwrap();
    assert_eq!(id_of(&answer), "spiffe://bank/ns/shop/bank");
    assert!(
        cluster.sign(&id, &long, &claims("long-1")).await.is_ok(),
        "names of 253 and an id of 64 characters"
    );
    let answer = cluster
        .sign("dapr-operator", "dapr-system", &claims("operator-1"))
        .await
        .unwrap();
    assert_eq!(id_of(&answer), "spiffe://cluster.local/ns/dapr-system/dapr-operator");

    assert!(
        cluster.sign("new", "shop", &claims("new-1")).await.is_ok(),
        "a pod that the watch does not know yet"
    );

    for (id, namespace, token, text) in [
        (
            "i".repeat(65).as_str(),
            "shop",
            claims("cart-1").as_str(),
            "app ID must be 64 characters or less",
        ),
        (
            "other",
            "shop",
            &claims("cart-1"),
            "app-id mismatch. expected: cart, received: other",
        ),
        (
            "cart",
            "elsewhere",
            &claims("cart-1"),
            "namespace mismatch; received namespace: elsewhere",
        ),
        ("cart", "shop", "opaque", "failed to parse Kubernetes token"),
        (
            "cart",
            "shop",
            r#"{"sub": "x"}"#,
            "kubernetes.io/pod/name claim is missing from Kubernetes token",
        ),
        (
            "cart",
            "shop",
            "a node",
            "provided token is not a properly structured service account token",
        ),
        ("cart", "shop", "unknown", "authentication failed"),
        (
            "dapr-injector",
            "dapr-system",
            &claims("injector-1"),
            "is not one of --control-plane-service-accounts",
        ),
    ] {
        let refusal = cluster.sign(id, namespace, token).await.unwrap_err();
        assert_eq!(refusal.code(), Code::PermissionDenied, "{refusal}");
        assert!(refusal.message().contains(text), "{text}: {refusal}");
    }
    assert_eq!(cluster.unexpected(), Vec::<String>::new());

    // One that nobody knows is denied.
    let refusal = cluster.sign("cart", "shop", &claims("gone-1")).await.unwrap_err();
    assert_eq!(refusal.message(), "failed to get pod of identity");
    let read = cluster.unexpected();
    assert_eq!(read.len(), 1, "{read:?}");
    assert!(read[0].starts_with("GET /api/v1/namespaces/shop/pods/"), "{read:?}");
}

#[tokio::test]
async fn what_the_api_server_cannot_answer_now_is_unavailable() {
    let fake = Fake {
        pods: vec![pod("shop", "cart-1", "default", json!({"dapr.io/app-id": "cart"}))],
        users: vec![(claims("cart-1"), "system:serviceaccount:shop:default".to_owned())],
        ..Fake::default()
    };
    let cluster = Cluster::start(fake, &[]).await;
    let failure = |code: u16| json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "not now", "code": code});
    for code in [403, 409, 429, 500, 503] {
        cluster.api.answer_reviews_with(Some((code, failure(code))));
        let refusal = cluster.sign("cart", "shop", &claims("cart-1")).await.unwrap_err();
        assert_eq!(refusal.code(), Code::Unavailable, "{code} {refusal}");
    }
    // What cannot be decoded holds the token as well.
    let odd = json!({"spec": {"token": claims("cart-1")}, "status": "odd"});
    cluster.api.answer_reviews_with(Some((201, odd)));
    let refusal = cluster.sign("cart", "shop", &claims("cart-1")).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unavailable, "{refusal}");
    cluster.sentry.until_logged("odd").await;
    let logged = cluster.sentry.output();
    assert!(!logged.contains("kubernetes.io"), "{logged}");
    for (answer, text) in [
        ((422, failure(422)), "token review failed: not now"),
        ((201, json!({"status": {"error": "expired"}})), "invalid token: expired"),
        (
            (
                201,
                json!({"status": {"authenticated": true, "audiences": ["other"], "user": {}}}),
            ),
            "audience",
        ),
    ] {
        cluster.api.answer_reviews_with(Some(answer));
        let refusal = cluster.sign("cart", "shop", &claims("cart-1")).await.unwrap_err();
        assert_eq!(refusal.code(), Code::PermissionDenied, "{refusal}");
        assert!(refusal.message().contains(text), "{refusal}");
    }
    cluster.api.answer_reviews_with(None);
    assert!(cluster.sign("cart", "shop", &claims("cart-1")).await.is_ok());
    assert_eq!(
        cluster
            .sentry
            .metric("dapr_sentry_sign_duration_seconds_count{reason=\"unavailable\",validator=\"kubernetes\"}")
            .await,
        Some(6.0)
    );
}

/// A pod of a StatefulSet comes back under its name, perhaps with other annotations.
#[tokio::test]
async fn a_token_is_good_for_one_pod_and_not_for_the_next_of_its_name() {
    let pod = |app: &str, uid: &str| with_uid(pod("shop", "cart-0", "default", json!({"dapr.io/app-id": app})), uid);
    let user = || "system:serviceaccount:shop:default".to_owned();
    let fake = Fake {
        pods: vec![pod("old", "first")],
        // What the watch has yet to hear of.
        new_pods: vec![pod("cart", "second")],
        users: ["first", "second", "third"]
            .map(|uid| (bound_claims("cart-0", uid), user()))
            .into(),
        ..Fake::default()
    };
    let cluster = Cluster::start(fake, &[]).await;
    for (id, uid, refused) in [
        ("old", "first", ""),
        ("cart", "second", ""),
        ("old", "second", "app-id mismatch. expected: cart, received: old"),
        ("cart", "third", "failed to get pod of identity"),
    ] {
        let answer = cluster.sign(id, "shop", &bound_claims("cart-0", uid)).await;
        match answer {
            Ok(_) => assert_eq!(refused, "", "{uid}"),
            Err(refusal) => {
                assert_eq!(refusal.code(), Code::PermissionDenied, "{refusal}");
                assert_eq!(refusal.message(), refused, "{uid}");
            }
        }
    }
}
