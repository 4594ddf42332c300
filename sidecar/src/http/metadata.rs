//! The metadata API.

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
};
use http::StatusCode;
use tonic::Code;

use super::Public;
use crate::{api_error::ApiError, metadata::Answer};

/// Longest value of an attribute. The public port has no body limit of its own.
const LONGEST: usize = 64 << 10;

pub async fn get(State(public): State<Public>) -> Json<Answer> {
    Json(public.metadata.answer())
}

pub async fn put(State(public): State<Public>, Path(key): Path<String>, body: Body) -> Result<StatusCode, ApiError> {
    let refuse =
        |message: String| ApiError::new("ERR_BODY_READ", StatusCode::BAD_REQUEST, Code::InvalidArgument, message);
    let value = axum::body::to_bytes(body, LONGEST)
        .await
        .map_err(|error| refuse(format!("failed to read request body: {}", crate::text::chain(&error))))?;
    let value = String::from_utf8(value.into())
        .map_err(|_| refuse("failed to read request body: it is not UTF-8".to_owned()))?;
    public
        .metadata
        .set(key, value)
        .map_err(|error| refuse(error.to_string()))?;
    Ok(StatusCode::NO_CONTENT)
}
