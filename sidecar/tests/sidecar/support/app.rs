//! An application.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use http::StatusCode;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::net::TcpListener;

/// Tells what it was asked.
pub struct App {
    pub port: u16,
    pub healthy: Arc<AtomicBool>,
}

impl App {
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let healthy = Arc::new(AtomicBool::new(true));
        let router = Router::new()
            .route("/healthz", get(health).with_state(healthy.clone()))
            .route(
                "/teapot",
                any(|| async { (StatusCode::IM_A_TEAPOT, [("x-kind", "teapot")], "short and stout") }),
            )
            .route(
                "/copy",
                any(|request: Request| async { Body::new(request.into_body()) }),
            )
            .fallback(describe);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { port, healthy }
    }
}

async fn health(State(healthy): State<Arc<AtomicBool>>) -> StatusCode {
    if healthy.load(Ordering::Relaxed) {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

async fn describe(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let headers: serde_json::Map<_, _> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap())))
        .collect();
    Json(json!({
        "method": parts.method.as_str(),
        "uri": parts.uri.to_string(),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    }))
    .into_response()
}
