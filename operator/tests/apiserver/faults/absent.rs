//! A kind whose definition is installed late.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use outrigger_crds::MCPServer;
use outrigger_proto::operator::{ListMcpServersRequest, McpServerUpdateRequest, ResourceEventType};
use outrigger_testkit::FaultyApiServer;
use serde_json::{Value, json};

use super::{
    fixture::{Faults, ONE_SERVER, Operator, apply_crds},
    support::{eventually, soon},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_starts_to_work_when_its_definition_appears() {
    let _one = ONE_SERVER.acquire().await;
    let api_server = FaultyApiServer::start().await.unwrap();
    apply_crds(&api_server).await;
    let definitions: Api<CustomResourceDefinition> = Api::all(api_server.client());
    let name = "mcpservers.dapr.io";
    definitions.delete(name, &DeleteParams::default()).await.unwrap();
    eventually("the definition is gone", || async {
        definitions.get_opt(name).await.unwrap().is_none().then_some(())
    })
    .await;

    let operator = Operator::start(&api_server, &Faults::default()).await;
    let mut sidecar = operator.server.client("spiffe://public/ns/default/cart").await;
    let namespace = "default".to_owned();
    let request = ListMcpServersRequest {
        namespace: namespace.clone(),
    };
    let empty = sidecar.list_mcp_servers(request).await.unwrap().into_inner();
    assert!(empty.mcp_servers.is_empty(), "an absent kind has no objects");
    let request = McpServerUpdateRequest { namespace };
    let mut stream = sidecar.mcp_server_update(request).await.unwrap().into_inner();

    apply_crds(&api_server).await;
    let server = json!({
        "apiVersion": "dapr.io/v1alpha1", "kind": "MCPServer", "metadata": {"name": "tools"},
        "spec": {"endpoint": {"streamableHTTP": {"url": "http://tools"}}},
    });
    let servers: Api<MCPServer> = Api::namespaced(api_server.client(), "default");
    let params = PatchParams::apply("test");
    servers.patch("tools", &params, &Patch::Apply(&server)).await.unwrap();
    let event = soon("the object", stream.message()).await.unwrap().unwrap();
    assert_eq!(event.r#type(), ResourceEventType::Created);
    let object: Value = serde_json::from_slice(&event.mcp_server).unwrap();
    assert_eq!(object["metadata"]["name"], "tools");
}
