//! The custom resources of the group `dapr.io`: their types, their definitions, and the JSON that sidecars get.
//!
//! Objects come in through [`Guarded`] and go out through [`encode`]; in between, [`resolve`] fills in secrets.

pub mod configuration;
pub mod decode;
pub mod definition;
pub mod encode;
pub mod http_endpoint;
pub mod mcp_server;
pub mod reference;
pub mod references;
pub mod resiliency;
pub mod rules;
pub mod secrets;
pub mod shared;
pub mod status;
pub mod subscription;
pub mod workflow_access_policy;

mod checks;
mod component;
mod duration;
mod dynamic_value;
mod go;
mod raw;
mod resource;
mod schema;

pub use checks::Problem;
pub use component::{Component, ComponentSpec};
pub use configuration::{Configuration, ConfigurationSpec};
pub use decode::{Guarded, InvalidObject, decode};
pub use duration::CanonicalDuration;
pub use dynamic_value::DynamicValue;
pub use encode::{EncodeError, encode};
pub use http_endpoint::{HTTPEndpoint, HTTPEndpointSpec};
pub use mcp_server::{MCPServer, MCPServerSpec};
pub use references::Related;
pub use resiliency::{Resiliency, ResiliencySpec};
pub use resource::{Column, DaprResource, GROUP};
pub use secrets::{Lookup, Resolved, Unresolved, resolve};
pub use shared::{Auth, NameValuePair, SecretKeyRef, SecretStore};
pub use status::Status;
/// The stored version.
pub use subscription::v2alpha1::{Subscription, SubscriptionSpec};
pub use workflow_access_policy::{WorkflowAccessPolicy, WorkflowAccessPolicySpec};
