//! Service invocation, and the answer to paths that are nothing else.

use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use http::{StatusCode, header};
use http_body::Body as _;
use tonic::Code;

use super::{Api, read};
use crate::{
    api_error::ApiError,
    invoke::{
        Invocation,
        remote::Payload,
        target::{self, Target},
    },
};

/// Building blocks of upstream that this release does not have, by their part of the path.
const NOT_BUILT: &[(&str, &str)] = &[
    ("publish", "pub/sub"),
    ("bindings", "bindings"),
    ("secrets", "secrets"),
    ("configuration", "configuration"),
    ("lock", "distributed lock"),
    ("unlock", "distributed lock"),
    ("crypto", "cryptography"),
    ("subtlecrypto", "cryptography"),
    ("jobs", "jobs"),
    ("actors", "actors"),
    ("workflows", "workflow"),
    ("conversation", "conversation"),
];

pub async fn invoke(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let path = request.uri().path();
    if let Some(block) = not_built(path) {
        return Err(ApiError::not_built(block));
    }
    let target = Target::of(path, request.headers()).map_err(|error| refuse(&error))?;
    let app_id = target.app_id.clone();
    let (mut parts, body) = request.into_parts();
    if target::credentials_name_app(&parts.headers) {
        parts.headers.remove(header::AUTHORIZATION);
    }
    let invocation = Invocation {
        target,
        verb: parts.method,
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body: payload(body).await?,
    };
    api.invoker
        .invoke(invocation)
        .await
        .map_err(|error| error.for_api(&app_id))
}

/// A body of known length is read, so that it can be sent again; another one is passed on as it arrives.
async fn payload(body: Body) -> Result<Payload, ApiError> {
    match body.size_hint().exact() {
        Some(_) => read(body).await.map(Payload::Whole),
        None => Ok(Payload::Arriving(body)),
    }
}

fn refuse(error: &target::Error) -> ApiError {
    match error {
        target::Error::NoAppId => ApiError::new(
            "ERR_DIRECT_INVOKE",
            StatusCode::NOT_FOUND,
            Code::NotFound,
            error.to_string(),
        ),
        other => ApiError::new(
            "ERR_BAD_REQUEST",
            StatusCode::BAD_REQUEST,
            Code::InvalidArgument,
            format!("invalid request: {other}"),
        ),
    }
}

fn not_built(path: &str) -> Option<&'static str> {
    let mut segments = path.strip_prefix("/v1.0")?.splitn(3, '/');
    let version = segments.next()?;
    if !matches!(version, "" | "-alpha1" | "-alpha2" | "-beta1") {
        return None;
    }
    let group = segments.next()?;
    NOT_BUILT
        .iter()
        .find(|(name, _)| *name == group)
        .map(|(_, block)| *block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn building_blocks_that_are_missing_are_named() {
        assert_eq!(not_built("/v1.0/publish/p/t"), Some("pub/sub"));
        assert_eq!(not_built("/v1.0-alpha1/lock/x"), Some("distributed lock"));
        for other in [
            "/v1.0/state/x",
            "/v1.0/publisher/x",
            "/v1.0-gamma/publish/x",
            "/v2.0/publish/x",
            "/publish",
            "/v1.0",
        ] {
            assert_eq!(not_built(other), None, "{other}");
        }
    }
}
