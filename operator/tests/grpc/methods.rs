//! Every method of the service: who may call it, what it lists and in which order, and what its stream carries.

use kube::Resource;
use outrigger_crds::{
    Component, Configuration, DaprResource, HTTPEndpoint, MCPServer, Resiliency, Subscription, WorkflowAccessPolicy,
};
use outrigger_operator::kinds::Kind;
use outrigger_proto::operator::{
    ComponentUpdateRequest, ConfigurationUpdateRequest, GetConfigurationRequest, GetResiliencyRequest,
    HttpEndpointUpdateRequest, ListComponentsRequest, ListHttpEndpointsRequest, ListMcpServersRequest,
    ListResiliencyRequest, ListSubscriptionsRequest, ListWorkflowAccessPolicyRequest, McpServerUpdateRequest,
    ResiliencyUpdateRequest, ResourceEventType, SubscriptionUpdateRequest, WorkflowAccessPolicyUpdateRequest,
};
use serde_json::{Value, json};
use tonic::Code;

use crate::{
    fixture::{CART, Fixture, json_of, shop},
    support::soon,
};

/// An object of any kind that a sidecar can be sent.
fn object<K: Kind>(namespace: &str, name: &str, scopes: &[&str], mark: &str) -> Value {
    let spec = match K::KIND {
        "Component" => json!({"type": "state.redis", "version": "v1", "metadata": []}),
        "HTTPEndpoint" => json!({"baseUrl": "http://bank"}),
        "MCPServer" => json!({"endpoint": {"streamableHTTP": {"url": "http://tools"}}}),
        "Subscription" => json!({"pubsubname": "bus", "topic": "orders", "routes": {"default": "/orders"}}),
        "WorkflowAccessPolicy" => json!({"rules": []}),
        _ => json!({}),
    };
    let metadata = json!({"name": name, "namespace": namespace, "labels": {"mark": mark}});
    json!({"metadata": metadata, "spec": spec, "scopes": scopes})
}

fn names(payloads: &[bytes::Bytes]) -> Vec<String> {
    let name = |payload: &bytes::Bytes| json_of(payload)["metadata"]["name"].as_str().unwrap().to_owned();
    payloads.iter().map(name).collect()
}

/// A kind with a list and a stream.
macro_rules! kind {
    ($test:ident, $kind:ident, $list:ident($list_request:ident) -> $items:ident, $update:ident($update_request:ident) -> $payload:ident) => {
        #[tokio::test]
        async fn $test() {
            let fixture = Fixture::new();
            let mut cart = fixture.server.client(CART).await;
            let list = |namespace: &str| $list_request {
                namespace: namespace.to_owned(),
            };
            let update = |namespace: &str| $update_request {
                namespace: namespace.to_owned(),
            };

            let early = [
                cart.$list(list("shop")).await.unwrap_err(),
                cart.$update(update("shop")).await.unwrap_err(),
            ];
            assert_eq!(early.map(|status| status.code()), [Code::Unavailable; 2]);
            fixture.sync();
            for namespace in ["", "bank"] {
                let denied = [
                    cart.$list(list(namespace)).await.unwrap_err(),
                    cart.$update(update(namespace)).await.unwrap_err(),
                ];
                let text = format!("identity does not match requested namespace exp={namespace} got=shop");
                for status in denied {
                    assert_eq!(
                        (status.code(), status.message()),
                        (Code::PermissionDenied, &*text)
                    );
                }
            }

            for (namespace, name, scopes) in [
                ("shop", "z", &[][..]),
                ("shop", "m", &["cart", "pay"]),
                ("shop", "a", &[]),
                ("shop", "other", &["pay"]),
                ("bank", "b", &[]),
            ] {
                fixture.apply::<$kind>(&object::<$kind>(namespace, name, scopes, "one"));
            }
            for _ in 0..3 {
                let listed = cart.$list(list("shop")).await.unwrap().into_inner().$items;
                assert_eq!(
                    names(&listed),
                    ["a", "m", "z"],
                    "by name, in scope, each time the same"
                );
                let version = $kind::api_version(&());
                for payload in &listed {
                    let object = json_of(payload);
                    assert_eq!(
                        (&object["kind"], &object["apiVersion"]),
                        (&json!($kind::KIND), &json!(version))
                    );
                }
            }

            // Nothing of what is known already, but for what was new a moment ago.
            let mut stream = cart.$update(update("shop")).await.unwrap().into_inner();
            let mut next = async || {
                let event = soon("an event", stream.message()).await.unwrap().unwrap();
                let object = json_of(&event.$payload);
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                (
                    event.r#type(),
                    text(&object["metadata"]["name"]),
                    text(&object["metadata"]["labels"]["mark"]),
                )
            };
            for name in ["z", "m", "a"] {
                assert_eq!(
                    next().await,
                    (ResourceEventType::Created, name.to_owned(), "one".to_owned())
                );
            }
            let edits = [
                // name, scopes, mark, what is told
                (
                    "m",
                    &["pay"][..],
                    "two",
                    Some((ResourceEventType::Deleted, "one")),
                ),
                ("m", &["pay"], "three", None),
                ("m", &["cart"], "four", Some((ResourceEventType::Created, "four"))),
                ("m", &[], "five", Some((ResourceEventType::Updated, "five"))),
                ("new", &["pay"], "one", None),
                ("new2", &[], "one", Some((ResourceEventType::Created, "one"))),
            ];
            for (name, scopes, mark, told) in edits {
                fixture.apply::<$kind>(&object::<$kind>("shop", name, scopes, mark));
                if let Some((type_, mark)) = told {
                    assert_eq!(next().await, (type_, name.to_owned(), mark.to_owned()));
                }
            }
            fixture.delete::<$kind>("shop", "other");
            fixture.delete::<$kind>("bank", "b");
            fixture.delete::<$kind>("shop", "z");
            assert_eq!(
                next().await,
                (ResourceEventType::Deleted, "z".to_owned(), "one".to_owned())
            );
            fixture.stop.cancel();
            assert!(
                soon("the end", stream.message()).await.unwrap().is_none(),
                "status OK"
            );
        }
    };
}

kind!(components, Component, list_components(ListComponentsRequest) -> components, component_update(ComponentUpdateRequest) -> component);
kind!(http_endpoints, HTTPEndpoint, list_http_endpoints(ListHttpEndpointsRequest) -> http_endpoints, http_endpoint_update(HttpEndpointUpdateRequest) -> http_endpoints);
kind!(mcp_servers, MCPServer, list_mcp_servers(ListMcpServersRequest) -> mcp_servers, mcp_server_update(McpServerUpdateRequest) -> mcp_server);
kind!(subscriptions, Subscription, list_subscriptions_v2(ListSubscriptionsRequest) -> subscriptions, subscription_update(SubscriptionUpdateRequest) -> subscription);
kind!(resiliencies, Resiliency, list_resiliency(ListResiliencyRequest) -> resiliencies, resiliency_update(ResiliencyUpdateRequest) -> resiliency);
kind!(policies, WorkflowAccessPolicy, list_workflow_access_policy(ListWorkflowAccessPolicyRequest) -> policies, workflow_access_policy_update(WorkflowAccessPolicyUpdateRequest) -> policy);

#[tokio::test]
async fn single_objects_are_got_by_name_whatever_their_scopes() {
    let fixture = Fixture::synced();
    let mut cart = fixture.server.client(CART).await;
    fixture.apply::<Resiliency>(&object::<Resiliency>("shop", "retries", &["pay"], "one"));
    fixture.apply::<Configuration>(&object::<Configuration>("shop", "tracing", &[], "one"));
    let resiliency = |namespace: &str, name: &str| GetResiliencyRequest {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
    };
    let got = cart.get_resiliency(resiliency("shop", "retries")).await.unwrap();
    assert_eq!(json_of(&got.into_inner().resiliency)["metadata"]["name"], "retries");
    let configuration = |namespace: &str| GetConfigurationRequest {
        name: "tracing".to_owned(),
        namespace: namespace.to_owned(),
    };
    let got = cart.get_configuration(configuration("shop")).await.unwrap();
    assert_eq!(json_of(&got.into_inner().configuration)["metadata"]["name"], "tracing");
    let denied = [
        cart.get_resiliency(resiliency("bank", "retries")).await.unwrap_err(),
        cart.get_configuration(configuration("bank")).await.unwrap_err(),
        cart.list_subscriptions(()).await.unwrap_err(),
        cart.configuration_update(ConfigurationUpdateRequest {
            namespace: String::new(),
        })
        .await
        .unwrap_err(),
    ];
    assert_eq!(denied.map(|status| status.code()), [Code::PermissionDenied; 4]);
    let missing = cart.get_resiliency(resiliency("shop", "none")).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
}

#[tokio::test]
async fn a_request_over_limits_fails_alone() {
    let fixture = Fixture::synced();
    fixture.component("db", "state.redis");
    let mut cart = fixture.server.client(CART).await;
    let request = ListComponentsRequest {
        namespace: "x".repeat(5 << 20),
    };
    assert_eq!(
        cart.list_components(request).await.unwrap_err().code(),
        Code::OutOfRange
    );
    assert_eq!(
        cart.list_components(shop())
            .await
            .unwrap()
            .into_inner()
            .components
            .len(),
        1
    );
}

#[tokio::test]
async fn an_object_too_large_for_a_sidecar_harms_no_other_stream() {
    let fixture = Fixture::synced();
    let (mut cart, mut pay) = (
        fixture.server.client(CART).await,
        fixture
            .server
            .client("spiffe://public/ns/shop/pay")
            .await
            .max_decoding_message_size(8 << 20),
    );
    let request = ComponentUpdateRequest {
        namespace: "shop".into(),
    };
    let mut of_cart = cart.component_update(request.clone()).await.unwrap().into_inner();
    let mut of_pay = pay.component_update(request).await.unwrap().into_inner();
    let request = ResiliencyUpdateRequest {
        namespace: "shop".into(),
    };
    let mut others = cart.resiliency_update(request).await.unwrap().into_inner();
    let large = json!({"name": "pad", "value": "x".repeat(5 << 20)});
    fixture.apply::<Component>(&json!({
        "metadata": {"name": "large", "namespace": "shop"}, "spec": {"type": "state.redis", "version": "v1", "metadata": [large]},
    }));
    // A stock sidecar's client refuses it, and opens another stream.
    let refused = soon("the refusal", of_cart.message()).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
    assert!(soon("all of it", of_pay.message()).await.unwrap().is_some());
    fixture.apply::<Resiliency>(&object::<Resiliency>("shop", "retries", &[], "one"));
    assert!(soon("another kind", others.message()).await.unwrap().is_some());
}
