//! What happens to every call before its method sees it, and to its answer.

use std::time::Instant;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::header;
use tonic::{Code, Status};

use super::Api;
use crate::{api_error::ApiError, app::channel::TOKEN_HEADER, http::same};

/// Path of the API's service.
const SERVICE: &str = "/dapr.proto.runtime.v1.Dapr/";

/// Checks the token, counts and logs, and words the answer to methods that this release does not have.
pub async fn around(State(api): State<Api>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let path = request.uri().path().to_owned();
    let agent = request
        .headers()
        .get(header::USER_AGENT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let mut response = match check_token(&api, &request) {
        Err(error) => error.status().into_http(),
        Ok(()) => next.run(request).await,
    };
    let mut code = code(&response);
    let known = path.starts_with(SERVICE) && !unknown(&response);
    if code == Code::Unimplemented && !known {
        response = not_built(&path).into_http();
        code = Code::Unimplemented;
    }
    let took = start.elapsed();
    // What callers make up is no label.
    let method = if known { path.trim_start_matches('/') } else { "" };
    api.metrics.grpc(method, name(code), took);
    if api.logging.enabled {
        let duration = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            method = path,
            useragent = agent,
            code = i32::from(code),
            duration,
            "gRPC API Called"
        );
    }
    response
}

fn check_token(api: &Api, request: &Request) -> Result<(), ApiError> {
    let Some(expected) = api.token.as_deref() else {
        return Ok(());
    };
    let refuse = |message: &str| {
        ApiError::new(
            "Unauthenticated",
            http::StatusCode::UNAUTHORIZED,
            Code::Unauthenticated,
            message,
        )
    };
    match request.headers().get(TOKEN_HEADER) {
        None => Err(refuse("missing api token in request metadata")),
        Some(token) if same(token.as_bytes(), expected.as_bytes()) => Ok(()),
        Some(_) => Err(refuse("authentication error: api token mismatch")),
    }
}

/// The status of an answer that is all headers; one with a body ends with its status, and methods here fail before their body.
fn code(response: &Response) -> Code {
    response
        .headers()
        .get("grpc-status")
        .map_or(Code::Ok, |status| Code::from_bytes(status.as_bytes()))
}

/// Answers to methods that nobody knows carry no message.
fn unknown(response: &Response) -> bool {
    code(response) == Code::Unimplemented && !response.headers().contains_key("grpc-message")
}

fn not_built(path: &str) -> Status {
    match path.strip_prefix(SERVICE) {
        Some(method) => ApiError::not_built(method).status(),
        None => Status::unimplemented(format!(
            "{path}: this release serves no other gRPC services and does not proxy them to applications"
        )),
    }
}

/// As upstream's metrics spell the codes.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
