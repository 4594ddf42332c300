//! gRPC channels whose every new connection reads the identity of the moment.

use std::{io, sync::Arc, time::Duration};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

use crate::{
    anchors::Anchors,
    error::{Error, io_error},
    socket,
    tls::{self, ClientTls},
    verify::Expect,
};

/// TCP connect and TLS handshake together.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Upstream's operator and sentry close the connection of a client that pings more often than every five minutes.
pub(crate) const SLOW_KEEPALIVE: Duration = Duration::from_secs(310);

pub(crate) fn endpoint(address: &str, keepalive: Duration) -> Result<Endpoint, Error> {
    // The scheme stays `http`: with `https` tonic looks for TLS of its own and refuses.
    let endpoint =
        Endpoint::from_shared(format!("http://{address}")).map_err(|_| Error::Address(address.to_owned()))?;
    if endpoint.uri().port().is_none() {
        return Err(Error::Address(address.to_owned()));
    }
    Ok(endpoint
        .http2_keep_alive_interval(keepalive)
        .keep_alive_timeout(Duration::from_secs(10)))
}

pub(crate) fn lazy(address: &str, tls: ClientTls, keepalive: Duration) -> Result<Channel, Error> {
    let connector = tower::service_fn(move |uri: Uri| {
        let config = tls.current();
        async move {
            let config = config.ok_or_else(|| io_error("no certificate yet"))?;
            dial(uri, config).await.map(TokioIo::new)
        }
    });
    Ok(endpoint(address, keepalive)?.connect_with_connector_lazy(connector))
}

/// Connects to a server that is known by its SPIFFE id, without presenting a certificate: how sentry is called.
///
/// # Errors
/// When the address is not `host:port`, or the server cannot be reached or is not the expected one.
pub async fn anonymous_channel(address: &str, anchors: &Arc<Anchors>, expect: &Expect) -> Result<Channel, Error> {
    let config = Arc::new(tls::client_config(anchors, expect, None)?);
    let connector = tower::service_fn(move |uri| {
        let config = config.clone();
        async move { dial(uri, config).await.map(TokioIo::new) }
    });
    endpoint(address, SLOW_KEEPALIVE)?
        .connect_with_connector(connector)
        .await
        .map_err(Error::Connect)
}

/// A channel without TLS, for peers that run with mTLS switched off.
///
/// # Errors
/// When the address is not `host:port`.
pub fn plain_channel(address: &str, keepalive: Duration) -> Result<Channel, Error> {
    let connector = tower::service_fn(|uri: Uri| async move {
        let tcp = connect(authority(&uri));
        in_time(&uri, tcp).await.map(TokioIo::new)
    });
    Ok(endpoint(address, keepalive)?.connect_with_connector_lazy(connector))
}

/// Connects and shakes hands within [`DIAL_TIMEOUT`].
async fn dial(uri: Uri, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let handshake = async {
        let tcp = connect(authority(&uri)).await?;
        let name = ServerName::try_from(host).map_err(io_error)?;
        TlsConnector::from(config).connect(name, tcp).await
    };
    in_time(&uri, handshake).await
}

async fn connect(address: &str) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(address).await?;
    socket::tune(&tcp)?;
    Ok(tcp)
}

async fn in_time<T>(uri: &Uri, connecting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(DIAL_TIMEOUT, connecting)
        .await
        .unwrap_or_else(|_| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no connection to {} within {DIAL_TIMEOUT:?}", authority(uri)),
            ))
        })
}

/// `host:port`.
fn authority(uri: &Uri) -> &str {
    uri.authority().map(http::uri::Authority::as_str).unwrap_or_default()
}
