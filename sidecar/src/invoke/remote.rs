//! A call to an application beside another sidecar.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::{HeaderMap, Response, StatusCode};
use outrigger_proto::{
    common::{HttpExtension, InvokeRequest, http_extension::Verb},
    internals::{
        ApiVersion, InternalInvokeRequest, InternalInvokeRequestStream, InternalInvokeResponse, Status as AppStatus,
        service_invocation_client::ServiceInvocationClient,
    },
};
use serde_json::json;
use tokio::sync::oneshot;
use tonic::{Code, Status, transport::Channel};

use super::{
    headers::{self, Metadata},
    pool::{Peer, Pool},
    wire,
};

/// Attempts after the first, and the pause before each, when the user has no policy.
const RETRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// A request in terms of the internal protocol.
pub struct Remote {
    pub method: String,
    pub verb: Verb,
    pub query: String,
    pub content_type: String,
    pub metadata: Metadata,
    pub body: Payload,
}

/// A body that is at hand can be sent again; one that is still arriving cannot.
pub enum Payload {
    Whole(Bytes),
    Arriving(Body),
}

/// Calls the peer, and again when it could not be reached.
///
/// # Errors
/// The status with which the sidecars failed. What the application answers is an answer.
pub async fn call(pool: &Pool, peer: &Peer, remote: Remote, max_body: usize) -> Result<Response<Body>, Status> {
    let message = InvokeRequest {
        method: remote.method,
        data: None,
        content_type: remote.content_type,
        http_extension: Some(HttpExtension {
            verb: remote.verb.into(),
            querystring: remote.query,
        }),
    };
    let request = InternalInvokeRequest {
        ver: ApiVersion::V1.into(),
        metadata: remote.metadata,
        message: Some(message),
        actor: None,
    };
    let mut body = remote.body;
    let mut tries = 0;
    loop {
        let this_time = match &mut body {
            Payload::Whole(bytes) => Payload::Whole(bytes.clone()),
            Payload::Arriving(body) => Payload::Arriving(std::mem::take(body)),
        };
        let again = matches!(this_time, Payload::Whole(_)) && tries < RETRIES;
        let channel = pool
            .channel(peer)
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let status = match once(channel, request.clone(), this_time, max_body).await {
            Ok(response) => return Ok(response),
            Err(status) => status,
        };
        if !matches!(status.code(), Code::Unavailable | Code::Unauthenticated) {
            return Err(status);
        }
        pool.evict(peer);
        if !again {
            return Err(status);
        }
        tracing::debug!(
            app_id = peer.app_id,
            address = peer.address,
            error = crate::text::status(&status),
            "trying again"
        );
        tries += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn once(
    channel: Channel,
    request: InternalInvokeRequest,
    body: Payload,
    max_body: usize,
) -> Result<Response<Body>, Status> {
    let mut client = ServiceInvocationClient::new(channel).max_decoding_message_size(wire::largest_message(max_body));
    let (whole, body) = match body {
        Payload::Whole(bytes) => (Some(bytes.clone()), Body::from(bytes)),
        Payload::Arriving(body) => (None, body),
    };
    let (broken, breaks) = oneshot::channel();
    let first = InternalInvokeRequestStream {
        request: Some(request.clone()),
        payload: None,
    };
    let messages = stream::once(async { first }).chain(until_broken(body, broken));
    let answer = async {
        let mut answers = client.call_local_stream(messages).await?.into_inner();
        let first = answers
            .message()
            .await?
            .ok_or_else(|| Status::internal("the other sidecar sent no answer"))?;
        let head = first
            .response
            .ok_or_else(|| Status::internal("the other sidecar's answer has no head"))?;
        let rest = answers.map(|message| match message {
            Ok(message) if message.response.is_some() => {
                Err(Status::internal("a second head in the other sidecar's answer"))
            }
            Ok(message) => Ok(message.payload),
            Err(status) => Err(status),
        });
        response(head, wire::body(first.payload, rest))
    };
    let result = tokio::select! {
        result = answer => result,
        Ok(error) = breaks => Err(Status::cancelled(format!("the request's body broke off: {error}"))),
    };
    match (result, whole) {
        // A sidecar from before the streaming call.
        (Err(status), Some(data)) if status.code() == Code::Unimplemented => unary(&mut client, request, data).await,
        (result, _) => result,
    }
}

async fn unary(
    client: &mut ServiceInvocationClient<Channel>,
    mut request: InternalInvokeRequest,
    data: Bytes,
) -> Result<Response<Body>, Status> {
    if let Some(message) = &mut request.message {
        message.data = Some(prost_types::Any {
            type_url: String::new(),
            value: data.into(),
        });
    }
    let mut head = client.call_local(request).await?.into_inner();
    let data = head
        .message
        .as_mut()
        .and_then(|message| message.data.take())
        .unwrap_or_default();
    response(head, Body::from(data.value))
}

/// Payloads of the request. When its body breaks off, the stream must not end: an end would make the rest look whole.
fn until_broken(
    body: Body,
    broken: oneshot::Sender<axum::Error>,
) -> impl Stream<Item = InternalInvokeRequestStream> + Send {
    let mut broken = Some(broken);
    wire::payloads(body).filter_map(move |payload| {
        let failed = match payload {
            Ok(payload) => Ok(InternalInvokeRequestStream {
                request: None,
                payload: Some(payload),
            }),
            Err(error) => Err((error, broken.take())),
        };
        async move {
            match failed {
                Ok(message) => Some(message),
                Err((error, sender)) => {
                    // Nobody listens when the answer has begun already; then the caller is gone as well.
                    let _ = sender.map(|sender| sender.send(error));
                    std::future::pending().await
                }
            }
        }
    })
}

/// The application's answer. One from a gRPC application becomes its equivalent in HTTP.
fn response(head: InternalInvokeResponse, body: Body) -> Result<Response<Body>, Status> {
    let status = head.status.unwrap_or_default();
    let message = head.message.unwrap_or_default();
    let mut headers = headers::from_metadata(head.headers);
    headers::set_content_type(&mut headers, &message.content_type);
    if headers::content_type(&headers).starts_with("application/grpc") {
        return Ok(from_grpc(&status, headers, body));
    }
    let code = u16::try_from(status.code)
        .ok()
        .and_then(|code| StatusCode::from_u16(code).ok());
    let mut response = Response::new(body);
    *response.status_mut() =
        code.ok_or_else(|| Status::internal(format!("the application's status {} is not one of HTTP", status.code)))?;
    *response.headers_mut() = headers;
    Ok(response)
}

fn from_grpc(status: &AppStatus, mut headers: HeaderMap, body: Body) -> Response<Body> {
    let code = Code::from_i32(status.code);
    let body = match code {
        Code::Ok => body,
        _ => {
            headers::set_content_type(&mut headers, "application/json");
            Body::from(json!({"code": status.code, "message": status.message, "details": []}).to_string())
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = super::status::grpc_to_http(code);
    *response.headers_mut() = headers;
    response
}
