//! The sidecar in Kubernetes mode, against a certificate authority and an operator in the test.

use crate::support::{
    Daprd,
    authority::{Authority, CONTROL_PLANE, listen},
    message,
    operator::Operator,
    store,
};
use http::{Method, StatusCode};
use outrigger_identity::ClientAuth;

const STORE: &str = "state.in-memory";

/// Starts a sidecar that injection could have started.
pub async fn sidecar(authority: &Authority, operator: &str, more: &[&str]) -> Daprd {
    let sentry = authority.serve().await;
    let mut words = vec![
        "--mode",
        "kubernetes",
        "--app-id",
        "cart",
        "--control-plane-address",
        operator,
        "--sentry-address",
        &sentry,
    ];
    words.extend([
        "--enable-mtls",
        "--dapr-internal-grpc-port",
        "0",
        "--dapr-graceful-shutdown-seconds",
        "-1",
    ]);
    words.extend(more);
    let env = [
        ("NAMESPACE", "shop"),
        ("POD_NAME", "cart-0"),
        ("DAPR_TRUST_ANCHORS", authority.anchors()),
        ("DAPR_CONTROLPLANE_TRUST_DOMAIN", CONTROL_PLANE.0),
        ("DAPR_CONTROLPLANE_NAMESPACE", CONTROL_PLANE.1),
        ("DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK", "true"),
    ];
    Daprd::start(&words, &env)
}

pub async fn running(daprd: &mut Daprd) {
    daprd
        .line(|line| message(line).starts_with("dapr initialized. Status: Running."))
        .await;
}

#[tokio::test]
async fn resources_come_from_the_operator_and_follow_it() {
    let (authority, operator) = (Authority::new(), Operator::new(false));
    let secret = r#"{"name": "keyPrefix", "value": "c2hhcmVk", "secretKeyRef": {"name": "s", "key": "k"}}"#;
    operator.put("one", &store("one", STORE, secret));
    operator.put(
        "scoped",
        &store("scoped", STORE, "").replace(r#""spec""#, r#""scopes": ["till"], "spec""#),
    );
    let mut daprd = sidecar(&authority, &operator.serve(&authority).await, &[]).await;
    running(&mut daprd).await;
    assert_eq!(daprd.public("/v1.0/healthz").await.status, StatusCode::NO_CONTENT);
    assert_eq!(operator.opened(1).await, ["spiffe://public/ns/shop/cart"]);
    daprd.until_components(&["one"]).await;
    let saved = daprd
        .http(Method::POST, "/v1.0/state/one", r#"[{"key":"k","value":"v"}]"#)
        .await;
    assert_eq!(saved.status, StatusCode::NO_CONTENT);

    operator.put("two", &store("two", STORE, ""));
    daprd.until_components(&["one", "two"]).await;

    // A broken edit leaves what serves; its repair applies, and the data is still there.
    operator.put("one", &store("one", "state.redis", secret));
    let line = daprd
        .line(|line| message(line).starts_with("Failed to init component one (state.redis/v1)"))
        .await;
    assert!(
        message(&line).ends_with("the instance built before goes on serving: one (state.in-memory/v1)"),
        "{line}"
    );
    assert!(
        line["reason"]
            .as_str()
            .unwrap()
            .contains("couldn't find state store state.redis/v1"),
        "{line}"
    );
    assert_eq!(daprd.components().await["one"], "state.in-memory/v1");
    let before = daprd.lines();
    operator.put(
        "one",
        &store("one", STORE, &format!(r#"{secret}, {{"name": "x", "value": "y"}}"#)),
    );
    daprd
        .line_after(before, |line| {
            message(line) == "Component loaded: one (state.in-memory/v1)"
        })
        .await;
    assert_eq!(daprd.http(Method::GET, "/v1.0/state/one/k", "").await.body, "\"v\"");

    operator.delete("two");
    daprd.until_components(&["one"]).await;

    daprd.signal("TERM");
    assert_eq!(daprd.exit().await.code(), Some(0), "{}", daprd.text());
}

#[tokio::test]
async fn what_changed_during_a_break_is_found_afterwards() {
    let (authority, operator) = (Authority::new(), Operator::new(false));
    operator.put("one", &store("one", STORE, ""));
    let mut daprd = sidecar(&authority, &operator.serve(&authority).await, &[]).await;
    running(&mut daprd).await;
    operator.opened(1).await;
    operator.put_silently("missed", &store("missed", STORE, ""));
    operator.break_streams();
    daprd.until_components(&["missed", "one"]).await;
    operator.opened(2).await;
    operator.put("later", &store("later", STORE, ""));
    daprd.until_components(&["later", "missed", "one"]).await;
}

#[tokio::test]
async fn an_operator_that_answers_streams_late_serves_as_well() {
    let (authority, operator) = (Authority::new(), Operator::new(true));
    operator.put("one", &store("one", STORE, ""));
    let mut daprd = sidecar(&authority, &operator.serve(&authority).await, &[]).await;
    running(&mut daprd).await;
    daprd.until_components(&["one"]).await;
    operator.put("two", &store("two", STORE, ""));
    daprd.until_components(&["one", "two"]).await;
}

#[tokio::test]
async fn an_operator_that_is_not_there_yet_is_waited_for_and_named() {
    let authority = Authority::new();
    let identity = authority.control_plane("dapr-operator").await;
    let address = {
        let (listener, address) = listen(&identity, ClientAuth::Required).await;
        drop(listener);
        address
    };
    let mut daprd = sidecar(&authority, &address, &[]).await;
    daprd
        .line(|line| message(line).starts_with("waiting for the operator to list components"))
        .await;
    let health = daprd.public("/v1.0/healthz").await;
    assert_eq!(health.error(), (500, "ERR_HEALTH_NOT_READY".to_owned()));
    let text = health.json()["message"].as_str().unwrap().to_owned();
    assert!(
        text.contains(&format!(
            "runtime: waiting for the operator at {address} to list components"
        )),
        "{text}"
    );
    assert_eq!(
        daprd.public("/v1.0/healthz/outbound").await.error().1,
        "ERR_OUTBOUND_HEALTH_NOT_READY"
    );

    let operator = Operator::new(false);
    operator.put("one", &store("one", STORE, ""));
    let tcp = tokio::net::TcpListener::bind(&address).await.unwrap();
    let tls = identity.server_tls(ClientAuth::Required, &[b"h2"]);
    operator.serve_on(outrigger_identity::Listener::tls(tcp, tls, outrigger_identity::Limits::default()).unwrap());
    running(&mut daprd).await;
    daprd.until_components(&["one"]).await;
}

#[tokio::test]
async fn an_impostor_is_not_the_operator() {
    let (authority, operator) = (Authority::new(), Operator::new(false));
    let identity = authority.control_plane("dapr-placement").await;
    let (listener, address) = listen(&identity, ClientAuth::Required).await;
    operator.serve_on(listener);
    let mut daprd = sidecar(&authority, &address, &[]).await;
    let line = daprd
        .line(|line| message(line).starts_with("waiting for the operator"))
        .await;
    assert!(line["error"].as_str().unwrap().contains("dapr-placement"), "{line}");
}

#[tokio::test]
async fn the_configuration_is_read_and_its_deny_list_followed() {
    let (authority, operator) = (Authority::new(), Operator::new(false));
    operator.put("one", &store("one", STORE, ""));
    operator.configure(r#"{"kind": "Configuration", "spec": {"features": [{"name": "Mine", "enabled": true}]}}"#);
    let mut daprd = sidecar(&authority, &operator.serve(&authority).await, &["--config", "settings"]).await;
    running(&mut daprd).await;
    let metadata = daprd.http(Method::GET, "/v1.0/metadata", "").await.json();
    assert_eq!(metadata["enabledFeatures"], serde_json::json!(["Mine", "HotReload"]));
    operator.configure(r#"{"kind": "Configuration", "spec": {"components": {"deny": ["state.in-memory/v1"]}}}"#);
    daprd.until_components(&[]).await;
    daprd.line(|line| line["reason"] == "RestartRequired").await;
}

#[tokio::test]
async fn mistakes_end_the_start_with_a_sentence() {
    let (authority, operator) = (Authority::new(), Operator::new(false));
    let address = operator.serve(&authority).await;
    let failure = sidecar(&authority, &address, &["--config", "missing"])
        .await
        .failure()
        .await;
    assert!(
        failure.contains("error loading configuration") && failure.contains("\"missing\" not found"),
        "{failure}"
    );
    let failure = sidecar(&authority, &address, &["--config", "empty"])
        .await
        .failure()
        .await;
    assert!(
        failure.contains("configuration empty not found in namespace shop"),
        "{failure}"
    );
    operator.configure(r#"{"spec": {"accessControl": {"defaultAction": "deny"}}}"#);
    let failure = sidecar(&authority, &address, &["--config", "closed"])
        .await
        .failure()
        .await;
    assert!(
        failure.contains("the Configuration sets spec.accessControl, which this release does not enforce"),
        "{failure}"
    );
    operator.put("bad", &store("bad", "state.redis", ""));
    let failure = sidecar(&authority, &address, &[]).await.failure().await;
    assert!(
        failure.contains("process component bad error") && failure.contains("this release has state.in-memory/v1"),
        "{failure}"
    );
}
