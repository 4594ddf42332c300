//! The server loop: HTTP/1.1 and HTTP/2 over any listener, with the deadlines that keep slow clients from holding resources.

use std::{sync::Arc, time::Duration};

use axum::{Router, serve::Listener};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// A request's header has to arrive within this time.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);
/// HTTP/2 connections are asked for a sign of life this often, and closed without one.
const PING: Duration = Duration::from_secs(30);
const PING_DEADLINE: Duration = Duration::from_secs(10);
/// The API servers of a cluster need a handful.
const MAX_CONNECTIONS: usize = 1024;
const MAX_STREAMS: u32 = 256;
/// Requests in flight get this long at shutdown.
const DRAIN: Duration = Duration::from_secs(5);

/// Serves until `stop`, then lets requests in flight end.
pub async fn serve<L>(mut listener: L, router: Router, stop: CancellationToken)
where
    L: Listener,
    L::Addr: std::fmt::Debug,
{
    let service = TowerToHyperService::new(router);
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let builder = builder();
    loop {
        let accept = async {
            // Closed never: the semaphore lives as long as this function.
            let slot = slots.clone().acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, (io, peer)) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept => accepted,
        };
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(io), service.clone()).into_owned());
        tokio::spawn(async move {
            let _slot = slot;
            if let Err(error) = connection.await {
                tracing::debug!(?peer, error, "a connection ended with an error");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!(seconds = DRAIN.as_secs(), "connections still open were abandoned");
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING_DEADLINE)
        .max_concurrent_streams(MAX_STREAMS);
    builder
}
