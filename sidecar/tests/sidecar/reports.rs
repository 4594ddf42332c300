//! What the sidecar tells the operator of its resources.

use outrigger_proto::outrigger::operator::v1::{Verdict, VerdictState};

use crate::{
    kubernetes::{running, sidecar},
    support::{authority::Authority, message, operator::Operator, reports::Reports, store},
};

const STORE: &str = "state.in-memory";

/// A component in a generation.
fn component(name: &str, kind: &str, metadata: &str, generation: i64) -> String {
    let meta = format!(
        r#""namespace": "shop", "generation": {generation}, "resourceVersion": "{}""#,
        generation * 10
    );
    store(name, kind, metadata).replace(r#""namespace": "shop""#, &meta)
}

fn said(verdict: &Verdict) -> (VerdictState, &str, &str) {
    (verdict.state(), &verdict.reason, &verdict.message)
}

#[tokio::test]
async fn every_verdict_is_told_and_told_again_on_every_stream() {
    let (authority, reports) = (Authority::new(), Reports::default());
    let operator = Operator::new(false).with_reports(&reports);
    operator.put("one", &component("one", STORE, "", 1));
    let ignored =
        component("bad", "state.nowhere", "", 3).replace(r#""spec": {"#, r#""spec": {"ignoreErrors": true, "#);
    operator.put("bad", &ignored);
    operator.put(
        "scoped",
        &component("scoped", STORE, "", 1).replace(r#""spec""#, r#""scopes": ["till"], "spec""#),
    );
    let mut daprd = sidecar(&authority, &operator.serve(&authority).await, &[]).await;
    running(&mut daprd).await;

    let hello = reports.hello(0).await;
    assert_eq!((hello.protocol, &*hello.app, &*hello.pod), (1, "cart", "cart-0"));
    assert_eq!(hello.follows, ["Component"]);
    let snapshot = reports.snapshot(0).await;
    let told: Vec<_> = snapshot
        .iter()
        .map(|verdict| (&*verdict.name, verdict.generation))
        .collect();
    assert_eq!(told, [("bad", 3), ("one", 1)], "nothing of what is not for this app");
    assert_eq!(said(&snapshot[1]), (VerdictState::Loaded, "", ""));
    assert_eq!(
        said(&snapshot[0]),
        (
            VerdictState::Rejected,
            "UnknownType",
            "couldn't find state store state.nowhere/v1: this release has state.in-memory/v1; it is not available"
        )
    );
    assert_eq!(snapshot[0].resource_version, "30");

    // A bad edit leaves the last good one, and says so.
    operator.put("one", &component("one", "state.redis", "", 2));
    let rejected = reports.verdict("one", 2).await;
    assert_eq!(
        said(&rejected),
        (
            VerdictState::Rejected,
            "UnknownType",
            "couldn't find state store state.redis/v1: this release has state.in-memory/v1; \
             the instance built before goes on serving: one (state.in-memory/v1)"
        )
    );
    assert_eq!(daprd.components().await["one"], "state.in-memory/v1");

    // What comes from a Secret is not told: "a||b".
    let secret = r#"{"name": "keyPrefix", "value": "YXx8Yg==", "secretKeyRef": {"name": "s", "key": "k"}}"#;
    operator.put("one", &component("one", STORE, secret, 3));
    let rejected = reports.verdict("one", 3).await;
    assert_eq!(rejected.reason, "InvalidMetadata");
    assert!(
        rejected.message.contains("keyPrefix") && !rejected.message.contains("a||b"),
        "{}",
        rejected.message
    );
    assert!(!daprd.text().contains("a||b"));

    // What cannot be read at all has a name and a generation.
    operator.put("one", &component("one", STORE, "7", 4));
    assert_eq!(reports.verdict("one", 4).await.reason, "Unreadable");

    operator.put("one", &component("one", STORE, "", 5));
    assert_eq!(said(&reports.verdict("one", 5).await).0, VerdictState::Loaded);
    // The next generation of the same thing has been judged too.
    operator.put("one", &component("one", STORE, "", 6));
    assert_eq!(said(&reports.verdict("one", 6).await).0, VerdictState::Loaded);
    operator.delete("bad");
    assert_eq!(said(&reports.verdict("bad", 0).await).0, VerdictState::Removed);

    let before = reports.count();
    reports.end_streams();
    assert_eq!(reports.hello(before).await, hello);
    let snapshot = reports.snapshot(before).await;
    let told: Vec<_> = snapshot
        .iter()
        .map(|verdict| (&*verdict.name, verdict.generation))
        .collect();
    assert_eq!(told, [("one", 6)]);
    let lines = daprd.text();
    assert!(
        !lines.contains("cannot report to the operator"),
        "that was no failure: {lines}"
    );
}

#[tokio::test]
async fn a_sidecar_that_cannot_start_tells_why() {
    let (authority, reports) = (Authority::new(), Reports::default());
    let operator = Operator::new(false).with_reports(&reports);
    operator.put("bad", &component("bad", "state.redis", "", 2));
    let address = operator.serve(&authority).await;
    let failure = sidecar(&authority, &address, &[]).await.failure().await;
    assert!(failure.contains("process component bad error"), "{failure}");
    assert_eq!(said(&reports.verdict("bad", 2).await).1, "UnknownType");

    operator.delete("bad");
    operator.configure(
        r#"{"metadata": {"name": "closed", "generation": 4}, "spec": {"accessControl": {"defaultAction": "deny"}}}"#,
    );
    let failure = sidecar(&authority, &address, &["--config", "closed"])
        .await
        .failure()
        .await;
    assert!(failure.contains("spec.accessControl"), "{failure}");
    let verdict = reports.verdict("closed", 4).await;
    assert_eq!((&*verdict.kind, &*verdict.reason), ("Configuration", "NotEnforced"));
}

#[tokio::test]
async fn the_configuration_is_judged_by_what_the_sidecar_was_started_with() {
    let (authority, reports) = (Authority::new(), Reports::default());
    let operator = Operator::new(false).with_reports(&reports);
    let configuration = |generation: i64, spec: &str| {
        format!(
            r#"{{"kind": "Configuration", "metadata": {{"name": "settings", "generation": {generation}}}, "spec": {spec}}}"#
        )
    };
    operator.configure(&configuration(1, r#"{"metric": {"enabled": true}}"#));
    let mut daprd = sidecar(&authority, &operator.serve(&authority).await, &["--config", "settings"]).await;
    running(&mut daprd).await;
    assert_eq!(reports.hello(0).await.follows, ["Component", "Configuration"]);
    assert_eq!(said(&reports.verdict("settings", 1).await).0, VerdictState::Loaded);
    operator.configure(&configuration(2, r#"{"metric": {"enabled": false}}"#));
    assert_eq!(said(&reports.verdict("settings", 2).await).1, "RestartRequired");
    let live = r#"{"metric": {"enabled": true}, "components": {"deny": ["state.redis"]}}"#;
    operator.configure(&configuration(3, live));
    assert_eq!(said(&reports.verdict("settings", 3).await).0, VerdictState::Loaded);
    operator.configure(&configuration(4, r#"{"metric": 7}"#));
    assert_eq!(said(&reports.verdict("settings", 4).await).1, "Unreadable");
}

#[tokio::test]
async fn an_operator_that_takes_no_reports_is_asked_again_when_it_may_be_another_one() {
    let (authority, operator) = (Authority::new(), Operator::new(false));
    operator.put("one", &component("one", STORE, "", 1));
    let mut daprd = sidecar(&authority, &operator.serve(&authority).await, &[]).await;
    running(&mut daprd).await;
    let quiet = "the operator takes no reports";
    daprd.line(|line| message(line) == quiet).await;
    let before = daprd.lines();
    operator.opened(1).await;
    operator.break_streams();
    daprd.line_after(before, |line| message(line) == quiet).await;
    assert_eq!(daprd.text().matches(quiet).count(), 2, "not again and again");
    assert!(!daprd.text().contains("cannot report to the operator"));
}
