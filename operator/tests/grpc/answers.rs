//! What lists and streams carry, and to whom.

use outrigger_crds::{Component, Configuration, DaprResource};
use outrigger_proto::operator::{
    ConfigurationUpdateRequest, GetConfigurationRequest, GetResiliencyRequest, ListComponentsRequest,
    ListHttpEndpointsRequest, ResourceEventType,
};
use serde_json::{Value, json};
use tonic::Code;

use crate::{
    fixture::{CART, Down, Fixture, json_of, password, shop, shop_updates, type_of},
    support::soon,
};

#[tokio::test]
async fn lists_carry_kinds_and_secrets_and_streams_carry_changes() {
    let fixture = Fixture::new();
    fixture.component("db", "state.redis");
    fixture.sync();
    let mut cart = fixture.server.client(CART).await;

    let list = cart.list_components(shop()).await.unwrap().into_inner().components;
    let component = json_of(&list[0]);
    assert_eq!(
        (&component["kind"], &component["apiVersion"]),
        (&json!("Component"), &json!("dapr.io/v1alpha1"))
    );
    assert_eq!(password(&list[0]), "aHVudGVyMQ==");
    assert_eq!(
        component["spec"]["metadata"][0]["secretKeyRef"]["name"], "auth",
        "the reference stays"
    );

    let mut stream = cart.component_update(shop_updates()).await.unwrap().into_inner();
    fixture.component("db", "state.etcd");
    let event = soon("an update", stream.message()).await.unwrap().unwrap();
    assert_eq!(type_of(&event), (ResourceEventType::Updated, json!("state.etcd")));
    assert_eq!(password(&event.component), "aHVudGVyMQ==");

    fixture.delete::<Component>("shop", "db");
    let event = soon("a deletion", stream.message()).await.unwrap().unwrap();
    assert_eq!(type_of(&event), (ResourceEventType::Deleted, json!("state.etcd")));
    assert_eq!(
        password(&event.component),
        Value::Null,
        "no Secret is read for what is gone"
    );
}

#[tokio::test]
async fn a_missing_secret_fails_nobody_else() {
    let fixture = Fixture::with(false, "");
    fixture.sync();
    fixture.component("db", "state.redis");
    let mut cart = fixture.server.client(CART).await;
    let list = cart.list_components(shop()).await.unwrap().into_inner().components;
    assert_eq!(password(&list[0]), Value::Null);
}

#[tokio::test]
async fn callers_are_kept_to_their_namespace() {
    let fixture = Fixture::synced();
    let mut nobody = fixture.server.client("").await;
    let denied = nobody.list_components(shop()).await.unwrap_err();
    assert_eq!(
        (denied.code(), denied.message()),
        (Code::PermissionDenied, "failed to determine identity")
    );

    let mut cart = fixture.server.client(CART).await;
    let bank = ListComponentsRequest {
        namespace: "bank".into(),
    };
    let denied = cart.list_components(bank).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    assert_eq!(
        denied.message(),
        "identity does not match requested namespace exp=bank got=shop"
    );

    let denied = cart.list_subscriptions(()).await.unwrap_err();
    assert_eq!(
        denied.message(),
        "identity does not match requested namespace exp= got=shop"
    );

    let bank = ConfigurationUpdateRequest {
        namespace: "bank".into(),
    };
    let denied = cart.configuration_update(bank).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    assert_eq!(
        denied.message(),
        "failed to authorize configuration update request: rpc error: code = PermissionDenied desc = identity does not \
         match requested namespace exp=bank got=shop"
    );
}

#[tokio::test]
async fn nothing_final_is_said_before_everything_is_known() {
    let fixture = Fixture::new();
    let mut cart = fixture.server.client(CART).await;
    let configuration = GetConfigurationRequest {
        name: "tracing".into(),
        namespace: "shop".into(),
    };
    let early = cart.get_configuration(configuration.clone()).await.unwrap_err();
    assert_eq!(
        (early.code(), early.message()),
        (Code::Unavailable, "the operator has not read all configurations yet")
    );
    assert_eq!(
        cart.component_update(shop_updates()).await.unwrap_err().code(),
        Code::Unavailable
    );

    fixture.sync();
    let missing = cart.get_configuration(configuration).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    assert_eq!(
        missing.message(),
        r#"error getting configuration shop/tracing: Configuration.dapr.io "tracing" not found"#
    );
    let resiliency = GetResiliencyRequest {
        name: "retries".into(),
        namespace: "shop".into(),
    };
    let missing = cart.get_resiliency(resiliency).await.unwrap_err();
    assert_eq!(
        missing.message(),
        r#"error getting resiliency: Resiliency.dapr.io "retries" not found"#
    );
    let request = ListHttpEndpointsRequest {
        namespace: "shop".into(),
    };
    assert!(
        cart.list_http_endpoints(request)
            .await
            .unwrap()
            .into_inner()
            .http_endpoints
            .is_empty()
    );
}

#[tokio::test]
async fn other_namespaces_than_the_watched_one_are_refused() {
    let fixture = Fixture::with(true, "bank");
    fixture.sync();
    let mut cart = fixture.server.client(CART).await;
    assert_eq!(
        cart.list_components(shop()).await.unwrap_err().code(),
        Code::FailedPrecondition
    );
}

#[tokio::test]
async fn only_the_assigned_configuration_is_sent_even_if_its_pod_is_seen_late() {
    let fixture = Fixture::synced();
    let mut cart = fixture.server.client(CART).await;
    let request = ConfigurationUpdateRequest {
        namespace: "shop".into(),
    };
    let mut stream = cart.configuration_update(request).await.unwrap().into_inner();
    for name in ["other", "tracing"] {
        fixture.apply::<Configuration>(&json!({"metadata": {"name": name, "namespace": "shop"}}));
    }
    let pod = json!({"metadata": {"name": "cart-1", "namespace": "shop", "annotations": {
        "dapr.io/enabled": "true", "dapr.io/app-id": "cart", "dapr.io/config": "tracing",
    }}});
    fixture.pods.apply(&serde_json::from_value(pod).unwrap());
    let event = soon("the configuration", stream.message()).await.unwrap().unwrap();
    assert_eq!(event.r#type(), ResourceEventType::Created);
    let configuration = json_of(&event.configuration);
    assert_eq!(configuration["metadata"]["name"], "tracing");
    assert_eq!(configuration["kind"], Configuration::KIND);
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_cannot_be_read_now_holds_up_nothing_else() {
    let fixture = Fixture::with_source(Down, "");
    fixture.sync();
    let mut cart = fixture.server.client(CART).await;
    let mut stream = cart.component_update(shop_updates()).await.unwrap().into_inner();
    fixture.component("db", "state.redis");
    for name in ["one", "two"] {
        fixture.apply::<Component>(&json!({
            "metadata": {"name": name, "namespace": "shop"}, "spec": {"type": "state.redis", "version": "v1"},
        }));
        let event = soon("an event", stream.message()).await.unwrap().unwrap();
        assert_eq!(json_of(&event.component)["metadata"]["name"], name);
    }
    // What is gone needs no Secret.
    fixture.delete::<Component>("shop", "one");
    let event = soon("a deletion", stream.message()).await.unwrap().unwrap();
    assert_eq!(event.r#type(), ResourceEventType::Deleted);
    assert_eq!(
        cart.list_components(shop()).await.unwrap_err().code(),
        Code::Unavailable
    );
}
