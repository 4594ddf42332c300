//! The gRPC API.

mod invoke;
pub mod server;
mod service;
mod state;
mod steps;

use std::sync::Arc;

use crate::{
    components::state::api::StateApi, invoke::Invoker, metadata::Metadata, metrics::Metrics,
    resources::configuration::ApiLogging, shutdown::Shutdown,
};

/// What the API needs.
#[derive(Clone)]
pub struct Api {
    pub state: StateApi,
    pub metadata: Metadata,
    pub invoker: Arc<Invoker>,
    pub shutdown: Shutdown,
    pub metrics: Metrics,
    pub logging: ApiLogging,
    /// Callers have to present it.
    pub token: Option<Arc<str>>,
    pub max_body: usize,
}
