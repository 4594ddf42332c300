//! State over both APIs, and what surrounds every call.

use http::{Method, StatusCode};
use outrigger_proto::{
    common::{Etag, StateItem, StateOptions, state_options::StateConcurrency},
    runtime::{
        DeleteStateRequest, ExecuteStateTransactionRequest, GetBulkStateRequest, GetMetadataRequest, GetStateRequest,
        SaveStateRequest, TransactionalStateOperation,
    },
};
use tonic::{Code, Request};

use crate::support::{Daprd, store};

async fn sidecar(words: &[&str], env: &[(&str, &str)]) -> (Daprd, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("store.yaml"), store("store", "state.in-memory", "")).unwrap();
    let path = folder.path().display().to_string();
    let words: Vec<_> = ["--app-id", "cart", "--resources-path", &path]
        .iter()
        .chain(words)
        .copied()
        .collect();
    (Daprd::running(&words, env).await, folder)
}

#[tokio::test]
async fn items_over_http() {
    let (mut daprd, _folder) = sidecar(&[], &[]).await;
    let saved = daprd
        .http(
            Method::POST,
            "/v1.0/state/store",
            r#"[{"key":"a/b","value":{"n": 1.50}},{"key":"c","value":"text"}]"#,
        )
        .await;
    assert_eq!(saved.status, StatusCode::NO_CONTENT);

    let read = daprd.http(Method::GET, "//v1.0/state/store/a%2Fb/", "").await;
    assert_eq!((read.status, &read.body[..]), (StatusCode::OK, &br#"{"n":1.50}"#[..]));
    assert_eq!(read.headers["content-type"], "application/json");
    let etag = read.headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(
        daprd.http(Method::GET, "/v1.0/state/store/none", "").await.status,
        StatusCode::NO_CONTENT
    );

    let guarded = |etag: &str, value: &str| format!(r#"[{{"key":"a/b","value":{value},"etag":"{etag}"}}]"#);
    assert_eq!(
        daprd
            .http(Method::PUT, "/v1.0/state/store", guarded(&etag, "2"))
            .await
            .status,
        StatusCode::NO_CONTENT
    );
    let conflict = daprd.http(Method::PUT, "/v1.0/state/store", guarded(&etag, "3")).await;
    assert_eq!(conflict.error(), (409, "ERR_STATE_SAVE".to_owned()));
    let conflict = daprd
        .http_with(Method::DELETE, "/v1.0/state/store/a%2Fb", &[("if-match", &etag)], "")
        .await;
    assert_eq!(conflict.error(), (409, "ERR_STATE_DELETE".to_owned()));
    let first = r#"[{"key":"c","value":1,"options":{"concurrency":"first-write"}}]"#;
    assert_eq!(
        daprd.http(Method::POST, "/v1.0/state/store", first).await.status,
        StatusCode::CONFLICT
    );

    let bulk = daprd
        .http(Method::POST, "/v1.0/state/store/bulk", r#"{"keys":["c","none"]}"#)
        .await
        .json();
    assert_eq!(
        (&bulk[0]["data"], &bulk[1]),
        (&serde_json::json!("text"), &serde_json::json!({"key": "none"}))
    );
    assert_eq!(
        daprd.http(Method::DELETE, "/v1.0/state/store/c", "").await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        daprd.http(Method::GET, "/v1.0/state/store/c", "").await.status,
        StatusCode::NO_CONTENT
    );

    let limited = daprd
        .http(
            Method::POST,
            "/v1.0/state/store?metadata.ttlInSeconds=3600",
            r#"[{"key":"t","value":1}]"#,
        )
        .await;
    assert_eq!(limited.status, StatusCode::NO_CONTENT);
    assert!(
        daprd
            .http(Method::GET, "/v1.0/state/store/t", "")
            .await
            .headers
            .contains_key("metadata.ttlexpiretime")
    );
}

#[tokio::test]
async fn transactions_over_http_are_all_or_nothing() {
    let (mut daprd, _folder) = sidecar(&[], &[]).await;
    let path = "/v1.0/state/store/transaction";
    let both = r#"{"operations":[{"operation":"upsert","request":{"key":"a","value":1}},{"operation":"upsert","request":{"key":"b","value":2}}]}"#;
    assert_eq!(
        daprd.http(Method::POST, path, both).await.status,
        StatusCode::NO_CONTENT
    );
    let broken = r#"{"operations":[{"operation":"delete","request":{"key":"a"}},{"operation":"delete","request":{"key":"b","etag":"x"}}]}"#;
    assert_eq!(
        daprd.http(Method::PUT, path, broken).await.error(),
        (500, "ERR_STATE_TRANSACTION".to_owned())
    );
    assert_eq!(daprd.http(Method::GET, "/v1.0/state/store/a", "").await.body, "1");
    let odd = r#"{"operations":[{"operation":"frobnicate","request":{"key":"a"}}]}"#;
    assert_eq!(
        daprd.http(Method::POST, path, odd).await.error(),
        (400, "ERR_NOT_SUPPORTED_STATE_OPERATION".to_owned())
    );
}

#[tokio::test]
async fn mistakes_over_http_have_their_codes() {
    let (mut daprd, _folder) = sidecar(&["--max-body-size", "1Ki"], &[]).await;
    let code = |status: u16, code: &str| (status, code.to_owned());
    let post = |body: String| (Method::POST, "/v1.0/state/store", body);
    let large = format!(r#"[{{"key":"a","value":"{}"}}]"#, "x".repeat(1024));
    for ((method, path, body), expected) in [
        (
            (Method::GET, "/v1.0/state/other/a", String::new()),
            code(400, "ERR_STATE_STORE_NOT_FOUND"),
        ),
        (
            (Method::GET, "/v1.0/state/store/a%7C%7Cb", String::new()),
            code(400, "ERR_MALFORMED_REQUEST"),
        ),
        (post("{".into()), code(400, "ERR_MALFORMED_REQUEST")),
        (post(r#"[{"value":1}]"#.into()), code(400, "ERR_MALFORMED_REQUEST")),
        (post(large), code(400, "ERR_BODY_READ")),
        (
            (Method::POST, "/v1.0-alpha1/state/store/query", "{}".into()),
            code(500, "ERR_STATE_STORE_NOT_SUPPORTED"),
        ),
        (
            (Method::POST, "/v1.0/publish/p/t", "{}".into()),
            code(501, "ERR_API_UNIMPLEMENTED"),
        ),
        (
            (Method::GET, "/v1.0/secrets/s/k", String::new()),
            code(501, "ERR_API_UNIMPLEMENTED"),
        ),
        (
            (Method::PATCH, "/v1.0/state/store", String::new()),
            code(404, "ERR_DIRECT_INVOKE"),
        ),
        (
            (Method::POST, "/v1.0/metadata", String::new()),
            code(404, "ERR_DIRECT_INVOKE"),
        ),
        (
            (Method::GET, "/anything", String::new()),
            code(404, "ERR_DIRECT_INVOKE"),
        ),
        (
            (Method::GET, "/v1.0/healthz?appid=till", String::new()),
            code(500, "ERR_HEALTH_APPID_NOT_MATCH"),
        ),
    ] {
        let answer = daprd.http(method.clone(), path, body).await;
        assert_eq!(answer.error(), expected, "{method} {path}: {answer:?}");
    }
    let missing = daprd.http(Method::GET, "/v1.0/state/other/a", "").await.json();
    assert_eq!(missing["message"], "state store other is not found");
    assert_eq!(missing["details"][0]["reason"], "DAPR_STATE_NOT_FOUND");
    assert_eq!(missing["details"][0]["metadata"]["appID"], "cart");

    let mut bare = Daprd::running(&["--app-id", "bare"], &[]).await;
    assert_eq!(
        bare.http(Method::GET, "/v1.0/state/store/a", "").await.error(),
        code(500, "ERR_STATE_STORE_NOT_CONFIGURED")
    );
}

fn item(key: &str, value: &'static str) -> StateItem {
    StateItem {
        key: key.into(),
        value: value.into(),
        ..StateItem::default()
    }
}

#[tokio::test]
async fn items_over_grpc() {
    let (mut daprd, _folder) = sidecar(&[], &[]).await;
    let mut dapr = daprd.grpc().await;
    let save = |states: Vec<StateItem>| SaveStateRequest {
        store_name: "store".into(),
        states,
    };
    let get = |key: &str| GetStateRequest {
        store_name: "store".into(),
        key: key.into(),
        ..GetStateRequest::default()
    };
    dapr.save_state(save(vec![item("a", "1"), item("b", "not json")]))
        .await
        .unwrap();
    let read = dapr.get_state(get("a")).await.unwrap().into_inner();
    assert_eq!(read.data, "1");
    assert_eq!(
        dapr.get_state(get("none")).await.unwrap().into_inner(),
        Default::default()
    );

    let stale = StateItem {
        etag: Some(Etag { value: "0".into() }),
        ..item("a", "2")
    };
    assert_eq!(
        dapr.save_state(save(vec![stale])).await.unwrap_err().code(),
        Code::Aborted
    );
    let options = Some(StateOptions {
        concurrency: StateConcurrency::ConcurrencyFirstWrite.into(),
        consistency: 0,
    });
    let first = StateItem {
        options,
        ..item("a", "2")
    };
    assert_eq!(
        dapr.save_state(save(vec![first])).await.unwrap_err().code(),
        Code::Aborted
    );
    assert_eq!(
        dapr.save_state(save(vec![item("", "2")])).await.unwrap_err().code(),
        Code::InvalidArgument
    );

    let bulk = GetBulkStateRequest {
        store_name: "store".into(),
        keys: vec!["b".into(), "none".into()],
        ..Default::default()
    };
    let items = dapr.get_bulk_state(bulk).await.unwrap().into_inner().items;
    assert_eq!((items[0].data.as_ref(), items[1].etag.as_str()), (&b"not json"[..], ""));
    let over_http = daprd
        .http(Method::POST, "/v1.0/state/store/bulk", r#"{"keys":["b"]}"#)
        .await
        .json();
    assert!(over_http[0]["error"].as_str().unwrap().contains("not JSON"));

    let step = |kind: &str, request| TransactionalStateOperation {
        operation_type: kind.into(),
        request: Some(request),
    };
    let transaction = |operations| ExecuteStateTransactionRequest {
        store_name: "store".into(),
        operations,
        ..Default::default()
    };
    dapr.execute_state_transaction(transaction(vec![
        step("upsert", item("c", "3")),
        step("delete", item("b", "")),
    ]))
    .await
    .unwrap();
    assert_eq!(dapr.get_state(get("c")).await.unwrap().into_inner().data, "3");
    let odd = dapr
        .execute_state_transaction(transaction(vec![step("odd", item("c", "3"))]))
        .await
        .unwrap_err();
    assert_eq!(odd.code(), Code::Unimplemented);

    let delete = DeleteStateRequest {
        store_name: "store".into(),
        key: "c".into(),
        etag: Some(Etag { value: "0".into() }),
        ..Default::default()
    };
    assert_eq!(dapr.delete_state(delete).await.unwrap_err().code(), Code::Aborted);
    let missing = GetStateRequest {
        store_name: "other".into(),
        ..get("a")
    };
    let status = dapr.get_state(missing).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "state store other is not found")
    );
    assert!(String::from_utf8_lossy(status.details()).contains("DAPR_STATE_NOT_FOUND"));

    let metadata = dapr.get_metadata(GetMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!(
        metadata.registered_components[0].capabilities,
        ["ETAG", "TRANSACTIONAL", "TTL", "ACTOR"]
    );
}

#[tokio::test]
async fn a_token_guards_both_apis_but_not_health() {
    let (mut daprd, _folder) = sidecar(&[], &[("DAPR_API_TOKEN", "secret")]).await;
    let refused = daprd.http(Method::GET, "/v1.0/metadata", "").await;
    assert_eq!(
        (refused.status, &refused.body[..]),
        (StatusCode::UNAUTHORIZED, &b"invalid api token"[..])
    );
    let allowed = daprd
        .http_with(Method::GET, "/v1.0/metadata", &[("dapr-api-token", "secret")], "")
        .await;
    assert_eq!(allowed.status, StatusCode::OK);
    assert_eq!(
        daprd.http(Method::GET, "/v1.0/healthz", "").await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        daprd.http(Method::GET, "/v1.0/healthz/outbound", "").await.status,
        StatusCode::NO_CONTENT
    );

    let mut dapr = daprd.grpc().await;
    let status = dapr.get_metadata(GetMetadataRequest {}).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unauthenticated, "missing api token in request metadata")
    );
    let mut request = Request::new(GetMetadataRequest {});
    request
        .metadata_mut()
        .insert("dapr-api-token", "wrong".parse().unwrap());
    assert!(
        dapr.get_metadata(request)
            .await
            .unwrap_err()
            .message()
            .contains("api token mismatch")
    );
    let mut request = Request::new(GetMetadataRequest {});
    request
        .metadata_mut()
        .insert("dapr-api-token", "secret".parse().unwrap());
    assert_eq!(dapr.get_metadata(request).await.unwrap().into_inner().id, "cart");
}

#[tokio::test]
async fn grpc_methods_that_are_missing_are_named() {
    let mut daprd = Daprd::running(&["--app-id", "cart"], &[]).await;
    let address = daprd.address("grpc API server").await;
    let channel = tonic::transport::Channel::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap();
    for (path, expected) in [
        (
            "/dapr.proto.runtime.v1.Dapr/PublishEvent",
            "this API is currently not implemented: PublishEvent",
        ),
        (
            "/shop.Cart/Add",
            "/shop.Cart/Add: this release serves no other gRPC services",
        ),
    ] {
        let mut client = tonic::client::Grpc::new(channel.clone());
        client.ready().await.unwrap();
        // Any message will do: nobody reads it.
        let codec = tonic_prost::ProstCodec::<GetMetadataRequest, GetMetadataRequest>::default();
        let status = client
            .unary(Request::new(GetMetadataRequest {}), path.parse().unwrap(), codec)
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(status.message().starts_with(expected), "{status}");
    }
}
