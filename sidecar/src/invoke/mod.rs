//! Service invocation: to the application beside this sidecar, or through another sidecar to its application.

pub mod headers;
pub mod pool;
pub mod remote;
pub mod resolver;
pub mod service;
pub mod status;
pub mod target;
pub mod wire;

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderMap, Method, Response, StatusCode};
use tonic::{Code, Status};

use crate::{
    api_error::ApiError,
    app::channel::{self, AppChannel, Call},
    metrics::Metrics,
};
use headers::Route;
use pool::{Peer, Pool};
use remote::{Payload, Remote};
use resolver::Resolver;
use target::Target;

/// A call of an application's method.
pub struct Invocation {
    pub target: Target,
    pub verb: Method,
    pub query: String,
    pub headers: HeaderMap,
    pub body: Payload,
}

/// Why there is no answer of the application.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    App(#[from] channel::Error),
    #[error(transparent)]
    Resolve(#[from] resolver::Error),
    #[error("HTTP method {0} cannot be invoked on another application")]
    Verb(Method),
    #[error("{}", crate::text::status(.0))]
    Remote(Box<Status>),
}

/// Invokes applications.
pub struct Invoker {
    pub app: AppChannel,
    pub app_id: String,
    /// The namespace of this workload's identity.
    pub namespace: String,
    pub resolver: Resolver,
    pub pool: Arc<Pool>,
    /// Port of this sidecar's internal server; others in the cluster use the same.
    pub internal_port: u16,
    /// This host's address, as others see it.
    pub host: String,
    pub max_body: usize,
    pub metrics: Metrics,
}

impl Invoker {
    /// Calls the method and returns the application's answer, whatever its status is.
    ///
    /// # Errors
    /// When the application was not reached.
    pub async fn invoke(&self, invocation: Invocation) -> Result<Response<Body>, Error> {
        let namespace = invocation.target.namespace.as_deref().unwrap_or(&self.namespace);
        if invocation.target.app_id == self.app_id && namespace == self.namespace {
            return self.local(invocation).await;
        }
        let address = self
            .resolver
            .resolve(&invocation.target.app_id, namespace, self.internal_port)?;
        let peer = Peer {
            address,
            namespace: namespace.to_owned(),
            app_id: invocation.target.app_id.clone(),
        };
        let verb = headers::verb(&invocation.verb).ok_or(Error::Verb(invocation.verb))?;
        let mut metadata = headers::to_metadata(&invocation.headers);
        let route = Route {
            caller: &self.app_id,
            caller_namespace: &self.namespace,
            host: &self.host,
            callee: &peer.app_id,
        };
        headers::add_route(&mut metadata, &route);
        let remote = Remote {
            method: invocation.target.method,
            verb,
            query: invocation.query,
            content_type: headers::content_type(&invocation.headers),
            metadata,
            body: invocation.body,
        };
        self.metrics
            .invocation_sent(&peer.app_id, matches!(remote.body, Payload::Arriving(_)));
        remote::call(&self.pool, &peer, remote, self.max_body)
            .await
            .map_err(|status| Error::Remote(Box::new(status)))
    }

    async fn local(&self, invocation: Invocation) -> Result<Response<Body>, Error> {
        let call = Call {
            method: invocation.verb,
            path: target::path(&invocation.target.method),
            query: invocation.query,
            headers: headers::local(&invocation.headers),
            body: match invocation.body {
                Payload::Whole(bytes) => Body::from(bytes),
                Payload::Arriving(body) => body,
            },
        };
        let mut response = self.app.call(call).await?;
        *response.headers_mut() = headers::local(response.headers());
        Ok(response)
    }
}

impl Error {
    /// The error as callers of the APIs see it.
    pub fn for_api(&self, app_id: &str) -> ApiError {
        let denied = matches!(self, Self::Remote(status) if status.code() == Code::PermissionDenied);
        let http = if denied {
            StatusCode::FORBIDDEN
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        };
        let grpc = if denied { Code::PermissionDenied } else { Code::Internal };
        ApiError::new(
            "ERR_DIRECT_INVOKE",
            http,
            grpc,
            format!("failed to invoke, id: {app_id}, err: {self}"),
        )
    }
}
