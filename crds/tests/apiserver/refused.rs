//! What is refused, and in which words.

use outrigger_crds::definition;
use outrigger_testkit::ApiServer;
use serde_json::{Value, json};

use crate::{
    corpus::{Outcome, assert_as_expected, cases},
    server::{install, messages},
};

#[tokio::test]
async fn bad_manifests_are_refused_or_let_through_as_they_say() {
    let server = ApiServer::shared().await;
    let client = server.client();
    install(&client, definition::definitions().unwrap()).await;
    let namespace = server.namespace("refused").await.unwrap();
    let cases = cases();
    let mut differences = Vec::new();
    for case in &cases {
        let found = messages(&client, &namespace, &case.manifest).await;
        let expected = match case.outcome {
            Outcome::Rejected => case.messages.clone(),
            Outcome::Warned => Vec::new(),
        };
        if found != expected || case.outcome == Outcome::Rejected && found.is_empty() {
            differences.push((case, found));
        }
    }
    assert_as_expected(&differences);
}

/// What Go, CEL and upstream take in unusual spellings.
#[tokio::test]
async fn unusual_spellings_are_let_through() {
    let server = ApiServer::shared().await;
    let client = server.client();
    install(&client, definition::definitions().unwrap()).await;
    let namespace = server.namespace("unusual").await.unwrap();
    let head = |version: &str, kind: &str, spec: Value| json!({ "apiVersion": format!("dapr.io/{version}"), "kind": kind, "metadata": { "name": "x" }, "spec": spec });

    for text in EXPRESSIONS {
        let breaker = json!({ "policies": { "circuitBreakers": { "b": { "trip": text } } }, "targets": {} });
        let rules = json!([{ "match": text, "path": "/p" }]);
        let subscription = json!({ "pubsubname": "p", "topic": "t", "routes": { "rules": rules } });
        for manifest in [
            head("v1alpha1", "Resiliency", breaker),
            head("v2alpha1", "Subscription", subscription),
        ] {
            assert_eq!(
                messages(&client, &namespace, &manifest).await,
                Vec::<String>::new(),
                "{text}"
            );
        }
    }
    for text in [
        "0", "+0", "-1.5h", "1h30m", "100us", "100µs", "100μs", ".5s", "1.s", "1h1h", "300ms",
    ] {
        let configuration = json!({ "workflow": { "stateRetentionPolicy": { "failed": text } } });
        let policies = json!({ "policies": { "timeouts": { "t": text } }, "targets": {} });
        for manifest in [
            head("v1alpha1", "Configuration", configuration),
            head("v1alpha1", "Resiliency", policies),
        ] {
            assert_eq!(
                messages(&client, &namespace, &manifest).await,
                Vec::<String>::new(),
                "{text}"
            );
        }
    }
    for (http, grpc) in [
        ("429,500-599", "1-4,8-11,13,14"),
        ("", ""),
        (",503,", "0,+16"),
        ("0429", "00-016"),
    ] {
        let matching = json!({ "httpStatusCodes": http, "gRPCStatusCodes": grpc });
        let retry = json!({ "policy": "Exponential", "maxInterval": "15000", "matching": matching });
        let manifest = head(
            "v1alpha1",
            "Resiliency",
            json!({ "policies": { "retries": { "r": retry } }, "targets": {} }),
        );
        assert_eq!(
            messages(&client, &namespace, &manifest).await,
            Vec::<String>::new(),
            "{http} {grpc}"
        );
    }
}

const EXPRESSIONS: &[&str] = &[
    "consecutiveFailures >= 5",
    "consecutiveFailures > 5 // see (ops",
    "requests>10&&totalFailures*100/requests>50",
    "(totalFailures > 3) || !(requests < 100)",
    "-1 < consecutiveFailures ? true : false",
    "event.type == \"order.created\"",
    "event.data.important == true && event.source.startsWith('https://')",
    "event.data[\"a b\"][0] in ['it\\'s', \"b\", ]",
    "has(event.data.id) && size(event.data.items) != 0x1F",
    "event.data.items.exists(item, item.price >= 1.5e-3)",
    "[].size() == 0 || {}.size() == 0 || {'a': 1}.a == 1",
    "type(event.data) == int",
    "google.protobuf.Struct{} == google.protobuf.Struct{fields: {}}",
    "event.id.matches(r'^\\d+$') // digits",
    "\"\"\"a\"b\"\"\" == event.id",
    "a\n  && b\n",
    "  true  ",
];
