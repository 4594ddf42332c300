//! Calls to the application over HTTP.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, uri};
use http_body::{Frame, SizeHint};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::settings::{App, Protocol};

/// Header with the token that callers present.
pub const TOKEN_HEADER: &str = "dapr-api-token";
/// Connections kept open while idle.
const IDLE_CONNECTIONS: usize = 64;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the application was not called, or did not answer. The texts reach callers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("app channel is not initialized: the sidecar was started without an app port")]
    NoPort,
    #[error("app is not in a healthy state")]
    Unhealthy,
    #[error("the application protocol {0} is not supported by this release (it has http and h2c)")]
    Protocol(&'static str),
    #[error("method {0:?} is not a legal path")]
    Path(String),
    #[error("the application did not answer: {0}")]
    Call(String),
}

/// Calls the application; clones share connections and limits.
#[derive(Clone)]
pub struct AppChannel {
    inner: Option<Arc<Inner>>,
    healthy: watch::Receiver<bool>,
}

struct Inner {
    client: Result<Client<HttpConnector, Body>, &'static str>,
    authority: uri::Authority,
    token: Option<HeaderValue>,
    permits: Option<Arc<Semaphore>>,
}

/// A call.
pub struct Call {
    pub method: Method,
    /// Begins with `/`.
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub body: Body,
}

impl AppChannel {
    /// A channel to `app`; `None` has no application, and every call says so.
    ///
    /// # Errors
    /// When host and port are no legal authority, or the token no legal header.
    pub fn new(app: Option<&App>, healthy: watch::Receiver<bool>) -> anyhow::Result<Self> {
        let inner = app.map(Inner::new).transpose()?.map(Arc::new);
        Ok(Self { inner, healthy })
    }

    /// Calls the application. The permit of the concurrency limit is held until the answer's body has been read or dropped.
    ///
    /// # Errors
    /// When there is no application, it is unhealthy, or it does not answer.
    pub async fn call(&self, call: Call) -> Result<Response<Body>, Error> {
        let inner = self.inner.as_ref().ok_or(Error::NoPort)?;
        if !*self.healthy.borrow() {
            return Err(Error::Unhealthy);
        }
        let permit = match &inner.permits {
            // Never closed.
            Some(permits) => permits.clone().acquire_owned().await.ok(),
            None => None,
        };
        let response = inner.send(call).await?;
        Ok(response.map(|body| Body::new(Held { body, _permit: permit })))
    }

    /// Asks for the application's health, whatever it was before.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn probe(&self, path: &str) -> Result<StatusCode, Error> {
        let inner = self.inner.as_ref().ok_or(Error::NoPort)?;
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        let call = Call {
            method: Method::GET,
            path,
            query: String::new(),
            headers: HeaderMap::new(),
            body: Body::empty(),
        };
        inner.send(call).await.map(|response| response.status())
    }
}

impl Inner {
    fn new(app: &App) -> anyhow::Result<Self> {
        let host = if app.host.contains(':') {
            format!("[{}]", app.host)
        } else {
            app.host.clone()
        };
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let mut client = Client::builder(TokioExecutor::new());
        client
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS);
        let client = match app.protocol {
            Protocol::Http => Ok(client.build(connector)),
            Protocol::H2c => Ok(client.http2_only(true).build(connector)),
            other => {
                let protocol = other.as_str();
                tracing::warn!(
                    protocol,
                    "this release calls applications over http and h2c only: it waits for the port, and every call to this \
                     application will fail"
                );
                Err(protocol)
            }
        };
        let token = app.token.as_ref().map(|token| {
            HeaderValue::try_from(token).map(|mut value| {
                value.set_sensitive(true);
                value
            })
        });
        Ok(Self {
            client,
            authority: format!("{host}:{}", app.port).parse()?,
            token: token.transpose()?,
            permits: app
                .max_concurrency
                .map(|n| Arc::new(Semaphore::new(n.min(Semaphore::MAX_PERMITS)))),
        })
    }

    async fn send(&self, call: Call) -> Result<Response<Body>, Error> {
        let client = self.client.as_ref().map_err(|protocol| Error::Protocol(protocol))?;
        let path = if call.query.is_empty() {
            call.path
        } else {
            format!("{}?{}", call.path, call.query)
        };
        let uri = Uri::builder()
            .scheme("http")
            .authority(self.authority.clone())
            .path_and_query(path.as_str());
        let mut request = Request::new(call.body);
        *request.uri_mut() = uri.build().map_err(|_| Error::Path(path))?;
        *request.method_mut() = call.method;
        *request.headers_mut() = call.headers;
        request.headers_mut().remove(TOKEN_HEADER);
        if let Some(token) = &self.token {
            request.headers_mut().insert(TOKEN_HEADER, token.clone());
        }
        let response = client
            .request(request)
            .await
            .map_err(|error| Error::Call(outrigger_core::text::chain(&error)))?;
        Ok(response.map(Body::new))
    }
}

/// A body that holds a permit until it ends.
struct Held {
    body: Body,
    _permit: Option<OwnedSemaphorePermit>,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
