//! The HTTP API, and the public port that serves health and metadata only.

mod health;
mod invoke;
mod metadata;
pub mod server;
mod shutdown;
mod state;
mod steps;

pub use steps::same;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::FromRef,
    middleware,
    routing::{any, get, post, put},
};
use bytes::Bytes;
use http::StatusCode;
use outrigger_process::health::Health;
use tokio::sync::watch;
use tonic::Code;

use crate::{
    api_error::ApiError, components::state::api::StateApi, invoke::Invoker, metadata::Metadata, metrics::Metrics,
    resources::configuration::ApiLogging, shutdown::Shutdown,
};

/// What the public port needs.
#[derive(Clone)]
pub struct Public {
    pub app_id: Arc<str>,
    pub health: Health,
    /// Whether the application may call out: earlier than the sidecar is ready.
    pub outbound: watch::Receiver<bool>,
    pub metadata: Metadata,
}

/// What the API needs.
#[derive(Clone)]
pub struct Api {
    pub public: Public,
    pub state: StateApi,
    pub invoker: Arc<Invoker>,
    pub shutdown: Shutdown,
    pub metrics: Metrics,
    pub logging: ApiLogging,
    /// Callers have to present it.
    pub token: Option<Arc<str>>,
    pub max_header: usize,
}

impl FromRef<Api> for Public {
    fn from_ref(api: &Api) -> Self {
        api.public.clone()
    }
}

/// Routes of the public port: no token, so that probes work.
pub fn public(state: Public) -> Router {
    health_and_metadata().with_state(state)
}

fn health_and_metadata<S: Clone + Send + Sync + 'static>() -> Router<S>
where
    Public: FromRef<S>,
{
    Router::new()
        .route("/v1.0/healthz", get(health::healthz))
        .route("/v1.0/healthz/outbound", get(health::outbound))
        .route("/v1.0/metadata", get(metadata::get))
        .route("/v1.0/metadata/{key}", put(metadata::put))
}

/// Routes of the API. What matches none of them, method included, is service invocation.
pub fn api(api: Api) -> Router {
    let token = middleware::from_fn_with_state(api.clone(), steps::check_token);
    let header = middleware::from_fn_with_state(api.clone(), steps::check_header_size);
    let measure = middleware::from_fn_with_state(api.clone(), steps::measure);
    health_and_metadata()
        .route("/v1.0/shutdown", post(shutdown::shutdown))
        .route("/v1.0/state/{store}", post(state::save).put(state::save))
        .route(
            "/v1.0/state/{store}/{key}",
            get(state::get)
                .delete(state::delete)
                .post(state::bulk_or_transaction)
                .put(state::bulk_or_transaction),
        )
        .route("/v1.0-alpha1/state/{store}/query", post(state::query).put(state::query))
        .route("/v1.0/invoke/{*target}", any(invoke::invoke))
        .method_not_allowed_fallback(invoke::invoke)
        .fallback(invoke::invoke)
        .with_state(api)
        .layer(token)
        .layer(header)
        .layer(measure)
}

/// Reads a body, whose size the server limits.
async fn read(body: Body) -> Result<Bytes, ApiError> {
    read_up_to(body, usize::MAX).await
}

async fn read_up_to(body: Body, most: usize) -> Result<Bytes, ApiError> {
    axum::body::to_bytes(body, most)
        .await
        .map_err(|error| unreadable(&outrigger_core::text::chain(&error)))
}

fn unreadable(why: &str) -> ApiError {
    let message = format!("failed to read request body: {why}");
    ApiError::new("ERR_BODY_READ", StatusCode::BAD_REQUEST, Code::InvalidArgument, message)
}
