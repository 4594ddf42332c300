//! The shutdown API.

use axum::extract::State;
use http::{HeaderMap, StatusCode};
use outrigger_core::annotations::truthy;

use super::Api;

pub async fn shutdown(State(api): State<Api>, headers: HeaderMap) -> StatusCode {
    let force = headers
        .get("dapr-force-shutdown")
        .and_then(|value| value.to_str().ok())
        .is_some_and(truthy);
    if force {
        api.shutdown.force();
    } else {
        api.shutdown.start();
    }
    StatusCode::NO_CONTENT
}
