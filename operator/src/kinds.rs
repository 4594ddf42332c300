//! The kinds that are served to sidecars, and what differs between their streams.

use std::sync::Arc;

use bytes::Bytes;
use outrigger_crds::{
    Component, Configuration, DaprResource, HTTPEndpoint, MCPServer, Related, Resiliency, Subscription,
    WorkflowAccessPolicy,
};
use outrigger_proto::{
    codec::framed,
    operator::{self as proto, ResourceEventType},
};

use crate::{index::Index, metrics::Metrics};

/// A kind that is served to sidecars.
pub trait Kind: Related {
    /// A message of the kind's update stream.
    type Event: Send + 'static;

    /// Whether upstream's older charts know nothing of the kind. Then the API server may refuse it for want of rights,
    /// which must keep nobody from becoming ready.
    const OPTIONAL: bool;

    /// Whether a stock sidecar takes a change without restarting. What changes in the Secrets of the others reaches it with the
    /// next list only.
    const RELOADS_LIVE: bool;

    /// An event of the kind's update stream, as gRPC sends it.
    fn event(payload: Bytes, type_: ResourceEventType) -> Bytes;

    fn index(indexes: &Indexes) -> &Arc<Index<Self>>;
}

macro_rules! kinds {
    ($($kind:ident in $index:ident as $event:ident { $payload:ident } optional $optional:literal live $live:literal;)*) => {
        /// The kinds by name.
        pub const KINDS: &[&str] = &[$(<$kind as DaprResource>::KIND),*];

        /// One index a kind.
        #[derive(Clone)]
        pub struct Indexes {
            $(pub $index: Arc<Index<$kind>>,)*
        }

        impl Indexes {
            pub fn new(metrics: &Metrics) -> Self {
                Self { $($index: Arc::new(Index::new(metrics.kind::<$kind>())),)* }
            }

            /// Calls a generic visitor for every kind.
            pub fn visit(&self, visitor: &mut impl Visitor) {
                $(visitor.visit(&self.$index);)*
            }
        }

        $(impl Kind for $kind {
            type Event = proto::$event;

            const OPTIONAL: bool = $optional;
            const RELOADS_LIVE: bool = $live;

            fn event(payload: Bytes, type_: ResourceEventType) -> Bytes {
                framed(&proto::$event { $payload: payload, r#type: type_.into() })
            }

            fn index(indexes: &Indexes) -> &Arc<Index<Self>> {
                &indexes.$index
            }
        })*
    };
}

/// The name of a kind, if it is one of ours.
pub fn kind(name: &str) -> Option<&'static str> {
    KINDS.iter().copied().find(|kind| *kind == name)
}

/// Something to do for every kind.
pub trait Visitor {
    fn visit<K: Kind>(&mut self, index: &Arc<Index<K>>);
}

kinds! {
    Component in components as ComponentUpdateEvent { component } optional false live true;
    Configuration in configurations as ConfigurationUpdateEvent { configuration } optional false live false;
    HTTPEndpoint in http_endpoints as HttpEndpointUpdateEvent { http_endpoints } optional false live false;
    MCPServer in mcp_servers as McpServerUpdateEvent { mcp_server } optional true live true;
    Resiliency in resiliencies as ResiliencyUpdateEvent { resiliency } optional false live false;
    Subscription in subscriptions as SubscriptionUpdateEvent { subscription } optional false live true;
    WorkflowAccessPolicy in workflow_access_policies as WorkflowAccessPolicyUpdateEvent { policy } optional true live true;
}
