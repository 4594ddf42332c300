//! The API server's side of the webhook.

use std::{net::Ipv4Addr, sync::Arc};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// As the API server speaks, or one review after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Makes connections.
pub(super) struct Client {
    port: u16,
    name: String,
    protocol: Protocol,
    tls: TlsConnector,
}

/// A connection that waits for its next review.
pub(super) enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>, String),
    Http2(http2::SendRequest<Full<Bytes>>, String),
}

impl Client {
    /// Trusts `anchor` (DER), for a server of this name.
    pub(super) fn new(port: u16, name: String, anchor: &[u8], protocol: Protocol) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(anchor.to_vec().into())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        if protocol == Protocol::Http2 {
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        Ok(Self {
            port,
            name,
            protocol,
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    pub(super) async fn connect(&self) -> anyhow::Result<Connection> {
        let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(self.name.clone())?;
        let io = TokioIo::new(self.tls.connect(name, tcp).await.context("TLS handshake")?);
        Ok(match self.protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await?;
                tokio::spawn(connection);
                Connection::Http1(sender, self.name.clone())
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                tokio::spawn(connection);
                Connection::Http2(sender, self.name.clone())
            }
        })
    }
}

impl Connection {
    /// Another way to the same connection.
    pub(super) fn share(&self) -> anyhow::Result<Self> {
        match self {
            Self::Http1(..) => anyhow::bail!("HTTP/1.1 has one request at a time"),
            Self::Http2(sender, name) => Ok(Self::Http2(sender.clone(), name.clone())),
        }
    }

    /// Sends a review; the answer has to have a patch.
    pub(super) async fn review(&mut self, body: Bytes) -> anyhow::Result<Bytes> {
        let answer = match self {
            Self::Http1(sender, name) => {
                let request = Request::post("/mutate?timeout=10s").header(header::HOST, name.as_str());
                sender.ready().await?;
                sender.send_request(finish(request, body)?).await?
            }
            Self::Http2(sender, name) => {
                let request = Request::post(format!("https://{name}/mutate?timeout=10s"));
                sender.ready().await?;
                sender.send_request(finish(request, body)?).await?
            }
        };
        let status = answer.status();
        let answer = answer.into_body().collect().await?.to_bytes();
        let patched = answer.windows(9).any(|part| part == b"\"patch\":\"");
        ensure!(
            status == StatusCode::OK && patched,
            "{status} {}",
            String::from_utf8_lossy(&answer)
        );
        Ok(answer)
    }
}

fn finish(request: http::request::Builder, body: Bytes) -> anyhow::Result<Request<Full<Bytes>>> {
    let request = request.header(header::CONTENT_TYPE, "application/json");
    Ok(request.body(Full::new(body))?)
}
