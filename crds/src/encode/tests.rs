use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

use super::*;
use crate::{
    Component, Configuration, HTTPEndpoint, MCPServer, Resiliency, Status, Subscription, WorkflowAccessPolicy, decode,
};

fn sent<K: DaprResource>(json: &str) -> String {
    let object: K = decode(json).unwrap();
    String::from_utf8(encode(&object, false).unwrap()).unwrap()
}

/// The spec as sent, for an object of which only the spec is given.
fn spec<K: DaprResource>(spec: &str) -> String {
    let json = sent::<K>(&format!(r#"{{"spec":{spec}}}"#));
    let (_, spec) = json.split_once(r#""spec":"#).unwrap();
    spec.strip_suffix('}').unwrap().to_owned()
}

#[test]
fn unset_fields_take_the_form_that_sidecars_compare_with() {
    assert_eq!(
        sent::<Component>(r#"{"metadata":{"name":"c","namespace":"n"},"spec":{"type":"t","version":"v1"}}"#),
        concat!(
            r#"{"metadata":{"name":"c","namespace":"n","creationTimestamp":null},"spec":{"type":"t","version":"v1","#,
            r#""ignoreErrors":false,"metadata":null,"initTimeout":""},"auth":{"secretStore":""}}"#
        )
    );
    assert_eq!(spec::<Configuration>("{}"), "{}");
    assert_eq!(spec::<Resiliency>("{}"), r#"{"policies":{},"targets":{}}"#);
    assert_eq!(spec::<MCPServer>("{}"), r#"{"endpoint":{}}"#);
    assert_eq!(spec::<WorkflowAccessPolicy>("{}"), "{}");
    assert_eq!(
        spec::<Subscription>(r#"{"pubsubname":"p","topic":"t"}"#),
        r#"{"pubsubname":"p","topic":"t","routes":{},"bulkSubscribe":{"enabled":false}}"#
    );
    let endpoint = sent::<HTTPEndpoint>(r#"{"spec":{"baseUrl":"u"}}"#);
    assert!(
        endpoint.contains(r#""spec":{"baseUrl":"u","headers":null},"auth":{"secretStore":""}"#),
        "{endpoint}"
    );
}

#[test]
fn pairs_always_show_their_reference() {
    let pairs = r#"[{"name":"k","value":"v"},{"name":"e","envRef":"E"},{"name":"s","secretKeyRef":{"name":"n"}}]"#;
    assert_eq!(
        spec::<HTTPEndpoint>(&format!(r#"{{"baseUrl":"","headers":{pairs}}}"#))
            .split_once(r#","auth""#)
            .unwrap()
            .0,
        concat!(
            r#"{"baseUrl":"","headers":["#,
            r#"{"name":"k","value":"v","secretKeyRef":{"name":"","key":""}},"#,
            r#"{"name":"e","value":null,"secretKeyRef":{"name":"","key":""},"envRef":"E"},"#,
            r#"{"name":"s","value":null,"secretKeyRef":{"name":"n","key":""}}]}"#
        )
    );
}

#[test]
fn an_explicit_empty_value_differs_from_an_unset_one_only_where_go_has_a_pointer() {
    // `omitempty` without a pointer drops it.
    assert_eq!(
        spec::<Configuration>(r#"{"wasm":{"strictSandbox":false},"features":[]}"#),
        r#"{"wasm":{}}"#
    );
    assert_eq!(spec::<MCPServer>(r#"{"ignoreErrors":false}"#), r#"{"endpoint":{}}"#);
    assert_eq!(
        spec::<Configuration>(
            r#"{"workflow":{"maxConcurrentActivityInvocations":0,"globalMaxConcurrentActivityInvocations":0}}"#
        ),
        r#"{"workflow":{"globalMaxConcurrentActivityInvocations":0}}"#
    );
    // A pointer keeps it.
    assert_eq!(
        spec::<Configuration>(
            r#"{"logging":{"apiLogging":{"enabled":false}},"metric":{"latencyDistributionBuckets":[]}}"#
        ),
        r#"{"metric":{"enabled":null,"latencyDistributionBuckets":[]},"logging":{"apiLogging":{"enabled":false}}}"#
    );
    assert_eq!(
        spec::<MCPServer>(r#"{"catalog":{"displayName":""},"middleware":{"beforeCallTool":[{"mutate":false}]}}"#),
        concat!(
            r#"{"catalog":{"displayName":""},"endpoint":{},"#,
            r#""middleware":{"beforeCallTool":[{"workflow":{"workflowName":""},"mutate":false}]}}"#
        )
    );
    // Null is not the empty list.
    assert_eq!(
        spec::<Configuration>(r#"{"httpPipeline":{}}"#),
        r#"{"httpPipeline":{"handlers":null}}"#
    );
    assert_eq!(
        spec::<Configuration>(r#"{"httpPipeline":{"handlers":[]}}"#),
        r#"{"httpPipeline":{"handlers":[]}}"#
    );
}

#[test]
fn both_directions_of_a_component_target_are_always_there() {
    assert_eq!(
        spec::<Resiliency>(
            r#"{"policies":{"retries":{"b":{"maxRetries":-1},"a":{"maxRetries":0,"policy":""}},
                "circuitBreakers":{"c":{"maxRequests":0}}},"targets":{"components":{"x":{"outbound":{"retry":"a"}}}}}"#
        ),
        concat!(
            r#"{"policies":{"retries":{"a":{"maxRetries":0},"b":{"maxRetries":-1}},"circuitBreakers":{"c":{}}},"#,
            r#""targets":{"components":{"x":{"inbound":{},"outbound":{"retry":"a"}}}}}"#
        )
    );
}

#[test]
fn durations_are_rendered_anew_where_upstream_parses_them_only() {
    assert_eq!(
        spec::<Configuration>(
            r#"{"workflow":{"stateRetentionPolicy":{"completed":"72h","failed":"0"}},"mtls":{"workloadCertTTL":"72h"},
                "metrics":{"enabled":true,"workflow":{"latencyDistributionUnits":"1m"}}}"#
        ),
        concat!(
            r#"{"metrics":{"enabled":true,"workflow":{"latencyDistributionUnits":"1m0s"}},"#,
            r#""mtls":{"enabled":null,"workloadCertTTL":"72h","sentryAddress":"","controlPlaneTrustDomain":""},"#,
            r#""workflow":{"stateRetentionPolicy":{"completed":"72h0m0s","failed":"0s"}}}"#
        )
    );
}

#[test]
fn html_is_escaped_in_typed_strings_keys_and_raw_values() {
    let json = sent::<Component>(
        "{\"metadata\":{\"annotations\":{\"<k>\":\"a&b\"}},\
          \"spec\":{\"type\":\"<t>\",\"metadata\":[{\"name\":\"é\u{2028}\",\"value\":{\"<\": \"&\u{2029}😀/\"}}]}}",
    );
    assert!(json.contains(r#""annotations":{"\u003ck\u003e":"a\u0026b"}"#), "{json}");
    assert!(json.contains(r#""type":"\u003ct\u003e""#), "{json}");
    assert!(
        json.contains("\"name\":\"é\\u2028\",\"value\":{\"\\u003c\":\"\\u0026\\u2029😀/\"}"),
        "{json}"
    );
}

#[test]
fn maps_are_sorted_and_metadata_is_complete_but_for_what_sidecars_ignore() {
    let mut component: Component = decode(
        r#"{"metadata":{"uid":"u","name":"c","labels":{"b":"2","a":"1"},"annotations":{},"generation":4,
            "creationTimestamp":"2026-03-01T10:20:30Z","resourceVersion":"12","finalizers":["f"],
            "ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"o","uid":"x"}],"generateName":""},
            "scopes":["b","a"]}"#,
    )
    .unwrap();
    let before = encode(&component, true).unwrap();
    component.metadata.managed_fields = Some(vec![ManagedFieldsEntry::default()]);
    component.status = Some(Status {
        observed_generation: Some(4),
        ..Default::default()
    });
    assert_eq!(encode(&component, true).unwrap(), before);
    assert_eq!(
        String::from_utf8(before).unwrap(),
        concat!(
            r#"{"kind":"Component","apiVersion":"dapr.io/v1alpha1","metadata":{"name":"c","uid":"u","resourceVersion":"12","#,
            r#""generation":4,"creationTimestamp":"2026-03-01T10:20:30Z","labels":{"a":"1","b":"2"},"#,
            r#""ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"o","uid":"x"}],"finalizers":["f"]},"#,
            r#""spec":{"type":"","version":"","ignoreErrors":false,"metadata":null,"initTimeout":""},"#,
            r#""auth":{"secretStore":""},"scopes":["b","a"]}"#
        )
    );
    // The API server gets both.
    let whole = serde_json::to_value(&component).unwrap();
    assert_eq!(whole["status"]["observedGeneration"], 4);
    assert!(whole["metadata"]["managedFields"].is_array());
}

#[test]
fn what_is_sent_reads_back_as_the_same_object() {
    let json = r#"{"metadata":{"name":"e"},"spec":{"baseUrl":"https://x?a=1&b=<2>","headers":[{"name":"h","value":[1.50, "x"]}],
        "clientTLS":{"rootCA":{"value":"pem"},"renegotiation":"Never"}},"scopes":["a"]}"#;
    let mut endpoint: HTTPEndpoint = decode(json).unwrap();
    // Unset and zero are told apart on reading, not by what they mean.
    endpoint.spec.headers.as_mut().unwrap()[0].secret_key_ref = Some(Default::default());
    endpoint.spec.headers.as_mut().unwrap()[0]
        .secret_key_ref
        .as_mut()
        .unwrap()
        .key = Some(String::new());
    let sent = String::from_utf8(encode(&endpoint, true).unwrap()).unwrap();
    assert_eq!(decode::<HTTPEndpoint>(&sent).unwrap(), endpoint);
}
