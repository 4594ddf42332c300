//! The metadata API.

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
};
use http::StatusCode;

use super::{Public, read_up_to, unreadable};
use crate::{
    api_error::ApiError,
    metadata::{Answer, LONGEST_ATTRIBUTE},
};

pub async fn get(State(public): State<Public>) -> Json<Answer> {
    Json(public.metadata.answer())
}

pub async fn put(State(public): State<Public>, Path(key): Path<String>, body: Body) -> Result<StatusCode, ApiError> {
    let value = read_up_to(body, LONGEST_ATTRIBUTE).await?;
    let value = String::from_utf8(value.into()).map_err(|_| unreadable("it is not UTF-8"))?;
    public
        .metadata
        .set(key, value)
        .map_err(|error| unreadable(&error.to_string()))?;
    Ok(StatusCode::NO_CONTENT)
}
