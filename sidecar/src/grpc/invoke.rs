//! `InvokeService`: an application's method called over gRPC. The application answers in HTTP.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use outrigger_proto::{
    common::{InvokeRequest, InvokeResponse},
    runtime::InvokeServiceRequest,
};
use tonic::{Request, Response, Status, metadata::MetadataMap};

use super::Api;
use crate::{
    api_error::ApiError,
    invoke::{Invocation, headers, remote::Payload, status::http_to_grpc, target::Target},
};

/// Metadata with the status that the application answered with.
const HTTP_STATUS: &str = "dapr-http-status";
/// Longest part of the application's answer that an error carries.
const LONGEST_EXCERPT: usize = 63;

pub async fn invoke(api: &Api, request: Request<InvokeServiceRequest>) -> Result<Response<InvokeResponse>, Status> {
    let (metadata, _, InvokeServiceRequest { id, message }) = request.into_parts();
    let InvokeRequest {
        method,
        data,
        content_type,
        http_extension,
    } = message.ok_or_else(|| Status::invalid_argument("the request has no message"))?;
    let extension = http_extension.unwrap_or_default();
    // A method here may bring its query along.
    let (method, query) = match method.split_once('?') {
        Some((method, query)) if extension.querystring.is_empty() => (method.to_owned(), query.to_owned()),
        _ => (method, extension.querystring),
    };
    let target = Target::new(&id, &method).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let mut sent = metadata.into_headers();
    // That of the gRPC call, not of the message.
    sent.remove(header::CONTENT_TYPE);
    headers::set_content_type(&mut sent, &content_type);
    let invocation = Invocation {
        target,
        verb: headers::method(extension.verb)
            .ok_or_else(|| Status::invalid_argument("http_extension.verb is unknown"))?,
        query,
        headers: sent,
        body: Payload::Whole(data.map(|data| Bytes::from(data.value)).unwrap_or_default()),
    };
    let response = api
        .invoker
        .invoke(invocation)
        .await
        .map_err(|error| error.for_api(&id).status())?;
    answer(response, api.max_body).await
}

async fn answer(response: http::Response<Body>, max_body: usize) -> Result<Response<InvokeResponse>, Status> {
    let (parts, body) = response.into_parts();
    let data = Limited::new(body, max_body)
        .collect()
        .await
        .map_err(|error| Status::internal(format!("cannot read the application's answer: {error}")))?
        .to_bytes();
    let mut metadata = headers::to_grpc(&parts.headers);
    metadata.insert(HTTP_STATUS, HeaderValue::from(parts.status.as_u16()));
    let metadata = MetadataMap::from_headers(metadata);
    if !parts.status.is_success() {
        return Err(failure(parts.status, &data, metadata));
    }
    let content_type = headers::content_type(&parts.headers);
    let data = Some(prost_types::Any {
        type_url: String::new(),
        value: data.into(),
    });
    let mut response = Response::new(InvokeResponse { data, content_type });
    *response.metadata_mut() = metadata;
    Ok(response)
}

fn failure(status: StatusCode, data: &[u8], metadata: MetadataMap) -> Status {
    let text = status.canonical_reason().unwrap_or("Unknown");
    let excerpt = String::from_utf8_lossy(&data[..data.len().min(LONGEST_EXCERPT)]);
    let code = http_to_grpc(status);
    let status = ApiError::new("", status, code, text)
        .with_reason(text)
        .with_metadata("http.code", status.as_str())
        .with_metadata("http.error_message", &excerpt)
        .status();
    Status::with_details_and_metadata(code, text, Bytes::copy_from_slice(status.details()), metadata)
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[tokio::test]
    async fn failures_of_the_application_become_statuses() {
        let response = http::Response::builder()
            .status(404)
            .header("x-mine", "1")
            .body(Body::from("no such item"))
            .unwrap();
        let status = answer(response, 1000).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::NotFound, "Not Found"));
        assert_eq!(status.metadata().get(HTTP_STATUS).unwrap(), "404");
        assert_eq!(status.metadata().get("x-mine").unwrap(), "1");
        let details = String::from_utf8_lossy(status.details()).into_owned();
        assert!(
            details.contains("no such item") && details.contains("http.code"),
            "{details}"
        );
    }

    #[tokio::test]
    async fn answers_keep_type_and_headers() {
        let response = http::Response::builder()
            .status(201)
            .header("content-type", "text/plain")
            .body(Body::from("ok"))
            .unwrap();
        let response = answer(response, 1000).await.unwrap();
        assert_eq!(response.metadata().get(HTTP_STATUS).unwrap(), "201");
        let message = response.into_inner();
        assert_eq!(
            (message.content_type.as_str(), message.data.unwrap().value.as_slice()),
            ("text/plain", &b"ok"[..])
        );
        let long = http::Response::new(Body::from("too long"));
        assert!(answer(long, 3).await.is_err());
    }
}
