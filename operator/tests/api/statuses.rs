//! What users are told.

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use outrigger_crds::{Component, Configuration, MCPServer, status::ConditionType};
use serde_json::json;

use crate::{fixture::Operator, support::eventually};

#[tokio::test(flavor = "multi_thread")]
async fn conditions_say_what_is_wrong_and_when_it_is_mended() {
    let operator = Operator::plain("status").await;
    let secret = json!({"spec": {"type": "state.redis", "version": "v1", "metadata": [
        {"name": "redisPassword", "secretKeyRef": {"name": "auth", "key": "password"}},
    ]}});
    operator.apply::<Component>("db", secret).await;
    let accepted = ConditionType::Accepted;
    assert_eq!(
        operator.condition::<Component>("db", accepted, "SecretNotFound").await,
        r#"False: spec.metadata[0] (redisPassword): Secret "auth" does not exist"#
    );
    operator
        .condition::<Component>("db", ConditionType::Ready, "NotAccepted")
        .await;
    let note = eventually("an Event", || async { operator.notes("db").await.pop() }).await;
    assert!(note.contains(r#"Secret "auth" does not exist"#), "{note}");

    operator
        .apply::<Secret>("auth", json!({"stringData": {"password": "hunter1"}}))
        .await;
    operator.condition::<Component>("db", accepted, "Accepted").await;
    operator
        .condition::<Component>("db", ConditionType::Ready, "NoSidecars")
        .await;

    let mcp = json!({"spec": {"endpoint": {"sse": {"url": "http://tools", "auth": {"oauth2": {
        "issuer": "http://issuer", "secretKeyRef": {"name": "auth", "key": "client"},
    }}}}}});
    operator.apply::<MCPServer>("tools", mcp).await;
    assert_eq!(
        operator
            .condition::<MCPServer>("tools", accepted, "SecretKeyNotFound")
            .await,
        r#"False: spec.endpoint.sse.auth.oauth2 (client secret): Secret "auth" has no key "client""#
    );

    let unknown = json!({"spec": {"type": "stat.redis", "version": "v1", "metadata": []}});
    operator.apply::<Component>("typo", unknown).await;
    let warned = operator.condition::<Component>("typo", accepted, "Accepted").await;
    assert!(
        warned
            .starts_with(r#"True: warnings: spec.type: "stat.redis" is of a category that stock sidecars do not know"#),
        "{warned}"
    );

    // The rules take it, and nobody can decode it.
    let retention = |time: &str| json!({"spec": {"workflow": {"stateRetentionPolicy": {"completed": time}}}});
    operator.apply::<Configuration>("workflows", retention("72h")).await;
    operator
        .condition::<Configuration>("workflows", accepted, "Accepted")
        .await;
    let raw = ApiResource::erase::<Configuration>(&());
    let raw: Api<DynamicObject> = Api::namespaced_with(operator.client.clone(), &operator.namespace, &raw);
    let patch = Patch::Merge(retention("3000000h"));
    raw.patch("workflows", &PatchParams::default(), &patch).await.unwrap();
    let reason = eventually("the configuration is refused", || async {
        let object = raw.get("workflows").await.unwrap();
        let conditions = object.data["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let refused = conditions
            .into_iter()
            .find(|condition| condition["reason"] == "InvalidSpec")?;
        Some(refused["message"].as_str().unwrap_or_default().to_owned())
    })
    .await;
    assert_eq!(
        reason,
        r#"spec.workflow.stateRetentionPolicy.completed: "3000000h" is out of range: the longest duration is about 292 years"#
    );
    let note = eventually("an Event", || async { operator.notes("workflows").await.pop() }).await;
    assert_eq!(note, reason);
    operator.stop().await;
}
