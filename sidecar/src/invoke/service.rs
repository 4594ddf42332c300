//! The server for other sidecars: calls the application beside this one for them.

use std::pin::Pin;

use axum::body::Body;
use futures::{Stream, StreamExt, stream};
use http::Response;
use http_body_util::{BodyExt, Limited};
use outrigger_core::SpiffeId;
use outrigger_identity::Peer;
use outrigger_proto::{
    common::{InvokeRequest, InvokeResponse},
    internals::{
        InternalInvokeRequest, InternalInvokeRequestStream, InternalInvokeResponse, InternalInvokeResponseStream,
        Status as AppStatus, service_invocation_server::ServiceInvocation,
    },
};
use tonic::{Request, Status, Streaming};

use super::{headers, target, wire};
use crate::{
    app::channel::{AppChannel, Call, Error},
    metrics::Metrics,
};

/// Serves other sidecars.
pub struct Service {
    pub app: AppChannel,
    pub max_body: usize,
    pub metrics: Metrics,
}

#[tonic::async_trait]
impl ServiceInvocation for Service {
    type CallLocalStreamStream = Pin<Box<dyn Stream<Item = Result<InternalInvokeResponseStream, Status>> + Send>>;

    async fn call_local(
        &self,
        request: Request<InternalInvokeRequest>,
    ) -> Result<tonic::Response<InternalInvokeResponse>, Status> {
        self.count(&request);
        let mut request = request.into_inner();
        let data = request
            .message
            .as_mut()
            .and_then(|message| message.data.take())
            .unwrap_or_default();
        let response = self.call(request, Body::from(data.value)).await?;
        let (mut head, body) = head(response);
        let data = Limited::new(body, self.max_body)
            .collect()
            .await
            .map_err(|error| Status::internal(format!("cannot read the application's answer: {error}")))?;
        if let Some(message) = &mut head.message {
            message.data = Some(prost_types::Any {
                type_url: String::new(),
                value: data.to_bytes().into(),
            });
        }
        Ok(tonic::Response::new(head))
    }

    async fn call_local_stream(
        &self,
        request: Request<Streaming<InternalInvokeRequestStream>>,
    ) -> Result<tonic::Response<Self::CallLocalStreamStream>, Status> {
        self.count(&request);
        let mut messages = request.into_inner();
        let first = messages
            .message()
            .await?
            .ok_or_else(|| Status::invalid_argument("the stream has no message"))?;
        let request = first
            .request
            .ok_or_else(|| Status::invalid_argument("the first message of the stream has no request"))?;
        let rest = messages.map(|message| match message {
            Ok(message) if message.request.is_some() => Err(Status::invalid_argument("a second request in the stream")),
            Ok(message) => Ok(message.payload),
            Err(status) => Err(status),
        });
        let response = self.call(request, wire::body(first.payload, rest)).await?;
        let (head, body) = head(response);
        let first = InternalInvokeResponseStream {
            response: Some(head),
            payload: None,
        };
        let rest = wire::payloads(body).map(|payload| match payload {
            Ok(payload) => Ok(InternalInvokeResponseStream {
                response: None,
                payload: Some(payload),
            }),
            Err(error) => Err(Status::internal(format!("the application's answer broke off: {error}"))),
        });
        Ok(tonic::Response::new(Box::pin(
            stream::once(async { Ok(first) }).chain(rest),
        )))
    }
}

impl Service {
    /// By the caller's verified identity: a label from what callers say of themselves would have no bounds.
    fn count<T>(&self, request: &Request<T>) {
        let id = request.extensions().get::<Peer>().and_then(|peer| peer.id.as_ref());
        self.metrics
            .invocation_received(id.and_then(SpiffeId::workload).map_or("", |workload| workload.app_id));
    }

    async fn call(&self, request: InternalInvokeRequest, body: Body) -> Result<Response<Body>, Status> {
        let InvokeRequest {
            method,
            content_type,
            http_extension,
            ..
        } = request
            .message
            .ok_or_else(|| Status::invalid_argument("the request has no message"))?;
        let extension = http_extension.unwrap_or_default();
        let method = target::clean(&method).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let mut headers = headers::from_metadata(request.metadata);
        headers::set_content_type(&mut headers, &content_type);
        let call = Call {
            method: headers::method(extension.verb)
                .ok_or_else(|| Status::invalid_argument(format!("unknown HTTP verb {}", extension.verb)))?,
            path: target::path(&method),
            query: extension.querystring,
            headers,
            body,
        };
        self.app.call(call).await.map_err(|error| match error {
            Error::Path(_) => Status::invalid_argument(error.to_string()),
            _ => Status::internal(error.to_string()),
        })
    }
}

/// The answer's head in terms of the internal protocol, and its body.
fn head(response: Response<Body>) -> (InternalInvokeResponse, Body) {
    let (parts, body) = response.into_parts();
    let head = InternalInvokeResponse {
        status: Some(AppStatus {
            code: parts.status.as_u16().into(),
            ..AppStatus::default()
        }),
        headers: headers::to_metadata(&parts.headers),
        trailers: headers::Metadata::new(),
        message: Some(InvokeResponse {
            data: None,
            content_type: headers::content_type(&parts.headers),
        }),
    };
    (head, body)
}
