//! A scripted operator.

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use outrigger_identity::{ClientAuth, Peer};
use outrigger_proto::operator::{
    ComponentUpdateEvent, ComponentUpdateRequest, ConfigurationUpdateEvent, ConfigurationUpdateRequest,
    GetConfigurationRequest, GetConfigurationResponse, GetResiliencyRequest, GetResiliencyResponse,
    HttpEndpointUpdateEvent, HttpEndpointUpdateRequest, ListComponentResponse, ListComponentsRequest,
    ListHttpEndpointsRequest, ListHttpEndpointsResponse, ListMcpServersRequest, ListMcpServersResponse,
    ListResiliencyRequest, ListResiliencyResponse, ListSubscriptionsRequest, ListSubscriptionsResponse,
    ListWorkflowAccessPolicyRequest, ListWorkflowAccessPolicyResponse, McpServerUpdateEvent, McpServerUpdateRequest,
    ResiliencyUpdateEvent, ResiliencyUpdateRequest, ResourceEventType, SubscriptionUpdateEvent,
    SubscriptionUpdateRequest, WorkflowAccessPolicyUpdateEvent, WorkflowAccessPolicyUpdateRequest,
    operator_server::{Operator as Api, OperatorServer},
};
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::BroadcastStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{
    authority::{Authority, listen},
    reports::Reports,
};

type Updates<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the operator has, and who listens. Clones share it.
#[derive(Clone)]
pub struct Operator {
    state: Arc<State>,
    /// Upstream's has no such service.
    reports: Option<Reports>,
}

struct State {
    components: Mutex<BTreeMap<String, String>>,
    configuration: Mutex<String>,
    component_updates: broadcast::Sender<ComponentUpdateEvent>,
    configuration_updates: broadcast::Sender<ConfigurationUpdateEvent>,
    /// Cancelled to break all streams, then replaced.
    streams: Mutex<CancellationToken>,
    /// Answers a stream only with its first message, as upstream's does.
    late: bool,
    /// Ids of callers, by the number of component streams they opened.
    opened: watch::Sender<Vec<String>>,
}

impl Operator {
    pub fn new(late: bool) -> Self {
        Self {
            state: Arc::new(State {
                components: Mutex::default(),
                configuration: Mutex::default(),
                component_updates: broadcast::Sender::new(16),
                configuration_updates: broadcast::Sender::new(16),
                streams: Mutex::default(),
                late,
                opened: watch::Sender::new(Vec::new()),
            }),
            reports: None,
        }
    }

    /// Takes reports too.
    pub fn with_reports(self, reports: &Reports) -> Self {
        Self {
            reports: Some(reports.clone()),
            ..self
        }
    }

    /// Serves until the test ends; returns the address.
    pub async fn serve(&self, authority: &Authority) -> String {
        let identity = authority.control_plane("dapr-operator").await;
        let (listener, address) = listen(&identity, ClientAuth::Required).await;
        self.serve_on(listener);
        address
    }

    pub fn serve_on(&self, listener: outrigger_identity::Listener) {
        let server = tonic::transport::Server::builder()
            .add_optional_service(self.reports.as_ref().map(Reports::server))
            .add_service(OperatorServer::new(self.clone()));
        tokio::spawn(async move { server.serve_with_incoming(listener).await.unwrap() });
    }

    /// Changes a component without telling anybody.
    pub fn put_silently(&self, name: &str, json: &str) {
        self.state.components.lock().insert(name.to_owned(), json.to_owned());
    }

    pub fn put(&self, name: &str, json: &str) {
        let old = self.state.components.lock().insert(name.to_owned(), json.to_owned());
        let kind = if old.is_some() {
            ResourceEventType::Updated
        } else {
            ResourceEventType::Created
        };
        self.send(json, kind);
    }

    pub fn delete(&self, name: &str) {
        let old = self.state.components.lock().remove(name).unwrap();
        self.send(&old, ResourceEventType::Deleted);
    }

    pub fn configure(&self, json: &str) {
        *self.state.configuration.lock() = json.to_owned();
        let event = ConfigurationUpdateEvent {
            configuration: json.to_owned().into(),
            r#type: ResourceEventType::Updated.into(),
        };
        let _ = self.state.configuration_updates.send(event);
    }

    /// Ends all streams.
    pub fn break_streams(&self) {
        std::mem::take(&mut *self.state.streams.lock()).cancel();
    }

    /// Waits until that many component streams were opened; returns who opened them.
    pub async fn opened(&self, count: usize) -> Vec<String> {
        let mut opened = self.state.opened.subscribe();
        let wait = opened.wait_for(|ids| ids.len() >= count);
        tokio::time::timeout(super::PATIENCE, wait)
            .await
            .expect("the sidecar opens its stream")
            .unwrap()
            .clone()
    }

    fn send(&self, json: &str, kind: ResourceEventType) {
        let _ = self.state.component_updates.send(ComponentUpdateEvent {
            component: json.to_owned().into(),
            r#type: kind.into(),
        });
    }

    async fn stream<T: Clone + Send + 'static>(
        &self,
        sender: &broadcast::Sender<T>,
    ) -> Result<Response<Updates<T>>, Status> {
        let mut receiver = sender.subscribe();
        let broken = self.state.streams.lock().clone();
        let first = match self.state.late {
            true => tokio::select! {
                first = receiver.recv() => first.ok(),
                () = broken.cancelled() => None,
            },
            false => None,
        };
        let rest = BroadcastStream::new(receiver).filter_map(|event| std::future::ready(event.ok().map(Ok)));
        let events = futures::stream::iter(first.map(Ok))
            .chain(rest)
            .take_until(broken.cancelled_owned());
        Ok(Response::new(Box::pin(events)))
    }
}

fn caller<T>(request: &Request<T>) -> String {
    let id = request.extensions().get::<Peer>().and_then(|peer| peer.id.clone());
    id.map(|id| id.to_string()).unwrap_or_default()
}

fn absent<T>() -> Result<T, Status> {
    Err(Status::unimplemented("not in this test"))
}

#[tonic::async_trait]
impl Api for Operator {
    type ComponentUpdateStream = Updates<ComponentUpdateEvent>;
    type ConfigurationUpdateStream = Updates<ConfigurationUpdateEvent>;
    type SubscriptionUpdateStream = Updates<SubscriptionUpdateEvent>;
    type HTTPEndpointUpdateStream = Updates<HttpEndpointUpdateEvent>;
    type MCPServerUpdateStream = Updates<McpServerUpdateEvent>;
    type ResiliencyUpdateStream = Updates<ResiliencyUpdateEvent>;
    type WorkflowAccessPolicyUpdateStream = Updates<WorkflowAccessPolicyUpdateEvent>;

    async fn component_update(
        &self,
        request: Request<ComponentUpdateRequest>,
    ) -> Result<Response<Self::ComponentUpdateStream>, Status> {
        let id = caller(&request);
        self.state.opened.send_modify(|ids| ids.push(id));
        self.stream(&self.state.component_updates).await
    }

    async fn list_components(
        &self,
        request: Request<ListComponentsRequest>,
    ) -> Result<Response<ListComponentResponse>, Status> {
        if request.get_ref().namespace != "shop" {
            return Err(Status::permission_denied("identity does not match requested namespace"));
        }
        let components = self.state.components.lock();
        let components: Vec<Bytes> = components.values().map(|json| json.clone().into()).collect();
        Ok(Response::new(ListComponentResponse::from(components)))
    }

    async fn get_configuration(
        &self,
        request: Request<GetConfigurationRequest>,
    ) -> Result<Response<GetConfigurationResponse>, Status> {
        let configuration = self.state.configuration.lock().clone();
        if request.get_ref().name == "missing" {
            return Err(Status::unknown(
                "error getting configuration shop/missing: Configuration.dapr.io \"missing\" not found",
            ));
        }
        Ok(Response::new(GetConfigurationResponse {
            configuration: configuration.into(),
        }))
    }

    async fn configuration_update(
        &self,
        _: Request<ConfigurationUpdateRequest>,
    ) -> Result<Response<Self::ConfigurationUpdateStream>, Status> {
        self.stream(&self.state.configuration_updates).await
    }

    async fn list_subscriptions(&self, _: Request<()>) -> Result<Response<ListSubscriptionsResponse>, Status> {
        absent()
    }

    async fn get_resiliency(
        &self,
        _: Request<GetResiliencyRequest>,
    ) -> Result<Response<GetResiliencyResponse>, Status> {
        absent()
    }

    async fn list_resiliency(
        &self,
        _: Request<ListResiliencyRequest>,
    ) -> Result<Response<ListResiliencyResponse>, Status> {
        absent()
    }

    async fn list_subscriptions_v2(
        &self,
        _: Request<ListSubscriptionsRequest>,
    ) -> Result<Response<ListSubscriptionsResponse>, Status> {
        absent()
    }

    async fn subscription_update(
        &self,
        _: Request<SubscriptionUpdateRequest>,
    ) -> Result<Response<Self::SubscriptionUpdateStream>, Status> {
        absent()
    }

    async fn list_http_endpoints(
        &self,
        _: Request<ListHttpEndpointsRequest>,
    ) -> Result<Response<ListHttpEndpointsResponse>, Status> {
        absent()
    }

    async fn http_endpoint_update(
        &self,
        _: Request<HttpEndpointUpdateRequest>,
    ) -> Result<Response<Self::HTTPEndpointUpdateStream>, Status> {
        absent()
    }

    async fn list_mcp_servers(
        &self,
        _: Request<ListMcpServersRequest>,
    ) -> Result<Response<ListMcpServersResponse>, Status> {
        absent()
    }

    async fn mcp_server_update(
        &self,
        _: Request<McpServerUpdateRequest>,
    ) -> Result<Response<Self::MCPServerUpdateStream>, Status> {
        absent()
    }

    async fn resiliency_update(
        &self,
        _: Request<ResiliencyUpdateRequest>,
    ) -> Result<Response<Self::ResiliencyUpdateStream>, Status> {
        absent()
    }

    async fn list_workflow_access_policy(
        &self,
        _: Request<ListWorkflowAccessPolicyRequest>,
    ) -> Result<Response<ListWorkflowAccessPolicyResponse>, Status> {
        absent()
    }

    async fn workflow_access_policy_update(
        &self,
        _: Request<WorkflowAccessPolicyUpdateRequest>,
    ) -> Result<Response<Self::WorkflowAccessPolicyUpdateStream>, Status> {
        absent()
    }
}
