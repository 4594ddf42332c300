//! Health, as probes and SDKs ask for it.

use axum::extract::{Query, State};
use http::StatusCode;
use serde::Deserialize;
use tonic::Code;

use super::Public;
use crate::api_error::ApiError;

#[derive(Deserialize)]
pub struct Question {
    /// Asks also whether this is the sidecar of that application.
    appid: Option<String>,
}

pub async fn healthz(State(public): State<Public>, Query(question): Query<Question>) -> Result<StatusCode, ApiError> {
    if !public.health.is_ready() {
        return Err(unhealthy("ERR_HEALTH_NOT_READY", message(&public.health.missing())));
    }
    match question.appid.filter(|app_id| !app_id.is_empty()) {
        Some(app_id) if *app_id != *public.app_id => Err(unhealthy(
            "ERR_HEALTH_APPID_NOT_MATCH",
            "dapr app-id does not match".to_owned(),
        )),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}

pub async fn outbound(State(public): State<Public>) -> Result<StatusCode, ApiError> {
    if *public.outbound.borrow() {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(unhealthy(
            "ERR_OUTBOUND_HEALTH_NOT_READY",
            "dapr outbound is not ready".to_owned(),
        ))
    }
}

fn unhealthy(code: &'static str, message: String) -> ApiError {
    ApiError::new(code, StatusCode::INTERNAL_SERVER_ERROR, Code::Unavailable, message)
}

/// Upstream's list of targets, then the reasons.
fn message(missing: &[(&'static str, String)]) -> String {
    let names: Vec<_> = missing.iter().map(|(name, _)| *name).collect();
    let reasons: String = missing
        .iter()
        .map(|(name, reason)| format!("; {name}: {reason}"))
        .collect();
    format!("dapr is not ready: [{}]{reasons}", names.join(" "))
}

#[cfg(test)]
mod tests {
    use super::message;

    #[test]
    fn says_what_is_missing_and_why() {
        let missing = [
            ("operator", "connection refused".to_owned()),
            ("runtime", "starting".to_owned()),
        ];
        assert_eq!(
            message(&missing),
            "dapr is not ready: [operator runtime]; operator: connection refused; runtime: starting"
        );
    }
}
