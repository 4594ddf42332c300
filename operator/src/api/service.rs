//! The methods of the service `dapr.proto.operator.v1.Operator`.

use bytes::Bytes;
use outrigger_crds::{
    Component, Configuration, DaprResource, HTTPEndpoint, MCPServer, Resiliency, Subscription, WorkflowAccessPolicy,
};
use outrigger_proto::operator::{self as proto, operator_server::Operator};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{
    Api, Authorised,
    body::{Nothing, sent_by},
    updates::Updates,
};
use crate::{kinds::Kind, secrets::Unavailable};

type Result<T> = std::result::Result<Response<T>, Status>;

/// Sidecars refuse larger messages.
const SIDECAR_LIMIT: usize = 4 << 20;

impl Api {
    /// The encoded list of everything of a kind that the caller may see. Upstream leaves scopes to the sidecars for all kinds
    /// but components; filtering here as well changes nothing for them, and keeps other apps' secrets out.
    async fn list<K: Kind>(&self, Authorised { caller, .. }: Authorised) -> std::result::Result<Bytes, Status> {
        let index = K::index(&self.indexes);
        self.check_ready(index, &caller.namespace)?;
        let list = index.list(&caller.namespace, &caller.app);
        let with_secrets: Vec<_> = list.with_secrets().collect();
        let filled = self.secrets.payloads(&caller.namespace, &with_secrets).await;
        let encoded = list.encoded(filled.map_err(unavailable)?);
        let size = encoded.len();
        if size > SIDECAR_LIMIT {
            let (namespace, app) = (&caller.namespace, &caller.app);
            tracing::warn!(
                kind = K::KIND,
                namespace,
                app,
                size,
                "the list exceeds the 4 MiB that sidecars accept"
            );
        }
        Ok(encoded)
    }

    /// One object by name, whatever its scopes.
    async fn get<K: Kind>(&self, authorised: Authorised, name: &str) -> std::result::Result<Bytes, Status> {
        let namespace = authorised.caller.namespace;
        let index = K::index(&self.indexes);
        self.check_ready(index, &namespace)?;
        let what = match K::KIND {
            Configuration::KIND => format!("error getting configuration {namespace}/{name}"),
            _ => format!("error getting {}", K::SINGULAR),
        };
        let Some(version) = index.get(&namespace, name) else {
            return Err(Status::not_found(format!(
                "{what}: {}.dapr.io {name:?} not found",
                K::KIND
            )));
        };
        self.secrets.payload(&namespace, &version).await.map_err(unavailable)
    }

    /// Registers the subscriber before anything is sent; there is no initial list.
    fn updates<K: Kind>(&self, authorised: Authorised) -> std::result::Result<Updates<K>, Status> {
        let Authorised { caller, end, client } = authorised;
        let index = K::index(&self.indexes);
        self.check_ready(index, &caller.namespace)?;
        if let Some(client) = &client {
            client.attend(&self.reports);
        }
        let subscription = index.subscribe(&caller.namespace, &caller.app, Instant::now());
        let unsent = client.map(|client| client.unsent);
        Ok(Updates::new(subscription, self.secrets.clone(), end, unsent))
    }

    fn stream<K: Kind>(&self, authorised: Authorised) -> Result<Nothing<K::Event>> {
        Ok(sent_by(self.updates::<K>(authorised)?))
    }
}

fn unavailable(error: Unavailable) -> Status {
    Status::unavailable(error.to_string())
}

#[tonic::async_trait]
impl Operator for Api {
    type ComponentUpdateStream = Nothing<proto::ComponentUpdateEvent>;
    type ConfigurationUpdateStream = Nothing<proto::ConfigurationUpdateEvent>;
    type HTTPEndpointUpdateStream = Nothing<proto::HttpEndpointUpdateEvent>;
    type MCPServerUpdateStream = Nothing<proto::McpServerUpdateEvent>;
    type ResiliencyUpdateStream = Nothing<proto::ResiliencyUpdateEvent>;
    type SubscriptionUpdateStream = Nothing<proto::SubscriptionUpdateEvent>;
    type WorkflowAccessPolicyUpdateStream = Nothing<proto::WorkflowAccessPolicyUpdateEvent>;

    async fn list_components(
        &self,
        request: Request<proto::ListComponentsRequest>,
    ) -> Result<proto::ListComponentResponse> {
        let authorised = self.authorise(&request, &request.get_ref().namespace)?;
        let list = self.list::<Component>(authorised).await?;
        Ok(Response::new(proto::ListComponentResponse::encoded(list)))
    }

    async fn component_update(
        &self,
        request: Request<proto::ComponentUpdateRequest>,
    ) -> Result<Self::ComponentUpdateStream> {
        let authorised = self.authorise(&request, &request.get_ref().namespace)?;
        self.stream::<Component>(authorised)
    }

    async fn get_configuration(
        &self,
        request: Request<proto::GetConfigurationRequest>,
    ) -> Result<proto::GetConfigurationResponse> {
        let authorised = self.authorise(&request, &request.get_ref().namespace)?;
        let configuration = self.get::<Configuration>(authorised, &request.get_ref().name).await?;
        Ok(Response::new(proto::GetConfigurationResponse { configuration }))
    }

    /// Only the Configuration that the app's pods are annotated with.
    async fn configuration_update(
        &self,
        request: Request<proto::ConfigurationUpdateRequest>,
    ) -> Result<Self::ConfigurationUpdateStream> {
        let authorised = self.authorise(&request, &request.get_ref().namespace).map_err(|denied| {
            // Upstream wraps this one.
            Status::permission_denied(format!(
                "failed to authorize configuration update request: rpc error: code = PermissionDenied desc = {denied}"
            ))
        })?;
        let assigned = self.pods.assigned(&authorised.caller.namespace, &authorised.caller.app);
        Ok(sent_by(self.updates::<Configuration>(authorised)?.only(assigned)))
    }

    /// The request names no namespace, so the answer is always that it is not the caller's, as upstream's.
    async fn list_subscriptions(&self, request: Request<()>) -> Result<proto::ListSubscriptionsResponse> {
        let authorised = self.authorise(&request, "")?;
        let list = self.list::<Subscription>(authorised).await?;
        Ok(Response::new(proto::ListSubscriptionsResponse::encoded(list)))
    }

    async fn list_subscriptions_v2(
        &self,
        request: Request<proto::ListSubscriptionsRequest>,
    ) -> Result<proto::ListSubscriptionsResponse> {
        let authorised = self.authorise(&request, &request.get_ref().namespace)?;
        let list = self.list::<Subscription>(authorised).await?;
        Ok(Response::new(proto::ListSubscriptionsResponse::encoded(list)))
    }

    async fn subscription_update(
        &self,
        request: Request<proto::SubscriptionUpdateRequest>,
    ) -> Result<Self::SubscriptionUpdateStream> {
        let authorised = self.authorise(&request, &request.get_ref().namespace)?;
        self.stream::<Subscription>(authorised)
    }

    async fn get_resiliency(
        &self,
        request: Request<proto::GetResiliencyRequest>,
    ) -> Result<proto::GetResiliencyResponse> {
        let authorised = self.authorise(&request, &request.get_ref().namespace)?;
        let resiliency = self.get::<Resiliency>(authorised, &request.get_ref().name).await?;
        Ok(Response::new(proto::GetResiliencyResponse { resiliency }))
    }

    async fn list_resiliency(
        &self,
        request: Request<proto::ListResiliencyRequest>,
    ) -> Result<proto::ListResiliencyResponse> {
        let authorised = self.authorise(&request, &request.get_ref().namespace)?;
        let list = self.list::<Resiliency>(authorised).await?;
        Ok(Response::new(proto::ListResiliencyResponse::encoded(list)))
    }

    async fn resiliency_update(
        &self,
        request: Request<proto::ResiliencyUpdateRequest>,
    ) -> Result<Self::ResiliencyUpdateStream> {
        let authorised = self.authorise(&request, &request.get_ref().namespace)?;
        self.stream::<Resiliency>(authorised)
    }

    async fn list_http_endpoints(
        &self,
        request: Request<proto::ListHttpEndpointsRequest>,
    ) -> Result<proto::ListHttpEndpointsResponse> {
        let authorised = self.authorise(&request, &request.get_ref().namespace)?;
        let list = self.list::<HTTPEndpoint>(authorised).await?;
        Ok(Response::new(proto::ListHttpEndpointsResponse::encoded(list)))
    }

    async fn http_endpoint_update(
        &self,
        request: Request<proto::HttpEndpointUpdateRequest>,
    ) -> Result<Self::HTTPEndpointUpdateStream> {
        let authorised = self.authorise(&request, &request.get_ref().namespace)?;
        self.stream::<HTTPEndpoint>(authorised)
    }

    async fn list_mcp_servers(
        &self,
        request: Request<proto::ListMcpServersRequest>,
    ) -> Result<proto::ListMcpServersResponse> {
        let authorised = self.authorise(&request, &request.get_ref().namespace)?;
        let list = self.list::<MCPServer>(authorised).await?;
        Ok(Response::new(proto::ListMcpServersResponse::encoded(list)))
    }

    async fn mcp_server_update(
        &self,
        request: Request<proto::McpServerUpdateRequest>,
    ) -> Result<Self::MCPServerUpdateStream> {
        let authorised = self.authorise(&request, &request.get_ref().namespace)?;
        self.stream::<MCPServer>(authorised)
    }

    async fn list_workflow_access_policy(
        &self,
        request: Request<proto::ListWorkflowAccessPolicyRequest>,
    ) -> Result<proto::ListWorkflowAccessPolicyResponse> {
        let authorised = self.authorise(&request, &request.get_ref().namespace)?;
        let list = self.list::<WorkflowAccessPolicy>(authorised).await?;
        Ok(Response::new(proto::ListWorkflowAccessPolicyResponse::encoded(list)))
    }

    async fn workflow_access_policy_update(
        &self,
        request: Request<proto::WorkflowAccessPolicyUpdateRequest>,
    ) -> Result<Self::WorkflowAccessPolicyUpdateStream> {
        let authorised = self.authorise(&request, &request.get_ref().namespace)?;
        self.stream::<WorkflowAccessPolicy>(authorised)
    }
}
