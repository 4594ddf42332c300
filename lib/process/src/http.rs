//! A small plain-text HTTP server, as the health and metrics endpoints need it.

use std::{io, time::Duration};

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Requests in flight get this long at shutdown.
const DRAIN: Duration = Duration::from_secs(5);

/// Why a server could not listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for {purpose}")]
pub struct BindError {
    address: String,
    purpose: &'static str,
    #[source]
    source: io::Error,
}

/// Binds `host:port`; an empty host means all interfaces.
///
/// # Errors
/// Names the address and what it was for.
pub async fn bind(host: &str, port: u16, purpose: &'static str) -> Result<TcpListener, BindError> {
    let failed = |address: String| {
        move |source| BindError {
            address,
            purpose,
            source,
        }
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        // One dual-stack socket where the kernel has IPv6.
        if let Ok(listener) = TcpListener::bind(("::", port)).await {
            return Ok(listener);
        }
        return TcpListener::bind(("0.0.0.0", port))
            .await
            .map_err(failed(format!("0.0.0.0:{port}")));
    }
    TcpListener::bind((host, port))
        .await
        .map_err(failed(format!("{host}:{port}")))
}

/// Serves until `stop`, then drains for at most five seconds.
///
/// # Errors
/// When accepting connections fails for good.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) -> io::Result<()> {
    let stopped = stop.clone();
    let server = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    tokio::select! {
        result = server => result,
        () = async { stopped.cancelled().await; tokio::time::sleep(DRAIN).await } => Ok(()),
    }
}
