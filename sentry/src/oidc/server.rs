//! The listener: HTTP/1.1 and HTTP/2, plain or over TLS, with bounds on connections and on the time for a request's head.

use std::{sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use outrigger_process::{health::Target, http::bind};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{Oidc, tls::Certificate};

/// Connections at once; further ones wait in the kernel's queue.
const CONNECTIONS: usize = 512;
/// For the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// No connection lives longer: there is a limited number, and one that says nothing must not keep its place.
const AGE: Duration = Duration::from_secs(60);
/// For the head of a request, and so also for an idle connection.
const HEAD: Duration = Duration::from_secs(10);
/// For requests in flight at the end.
const DRAIN: Duration = Duration::from_secs(5);

/// Serves until `stop`. With TLS the port opens once there is a certificate.
///
/// # Errors
/// When the port cannot be bound.
pub(crate) async fn serve(oidc: Oidc, target: Target, stop: CancellationToken) -> anyhow::Result<()> {
    let certificate = oidc.options.tls.clone().map(Certificate::new);
    if let Some(certificate) = &certificate {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = certificate.ready() => {}
        }
        tokio::spawn(certificate.clone().follow(stop.clone()));
    }
    let listener = bind(&oidc.options.address, oidc.options.port, "OIDC discovery").await?;
    tracing::info!(address = %listener.local_addr()?, tls = certificate.is_some(), "OIDC server is listening");
    target.ready();

    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = GracefulShutdown::new();
    let router = oidc.router();
    loop {
        let slot = slots.clone().acquire_owned().await?;
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: give others time to close theirs.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let config = certificate.as_ref().map(Certificate::current);
        let (router, watcher) = (router.clone(), connections.watcher());
        tokio::spawn(async move {
            let _slot = slot;
            match config {
                None => requests(stream, router, watcher).await,
                Some(None) => {}
                Some(Some(config)) => {
                    if let Some(stream) = handshake(TlsAcceptor::from(config), stream).await {
                        requests(stream, router, watcher).await;
                    }
                }
            }
        });
    }
    drop(listener);
    // Whoever has not finished by then is cut off.
    let _ = timeout(DRAIN, connections.shutdown()).await;
    Ok(())
}

async fn handshake(acceptor: TlsAcceptor, stream: TcpStream) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake with the OIDC server failed"),
        Err(_) => tracing::debug!("TLS handshake with the OIDC server timed out"),
    }
    None
}

async fn requests<S>(stream: S, router: Router, watcher: hyper_util::server::graceful::Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(HEAD))
        .max_concurrent_streams(16);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match timeout(AGE, watcher.watch(connection)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection to the OIDC server broke"),
        Err(_) => tracing::debug!("a connection to the OIDC server was ended for its age"),
    }
}
