//! A small plain-text HTTP server, as the health and metrics endpoints need it.

use std::{io, time::Duration};

use axum::Router;
use tokio::net::{TcpListener, TcpSocket, lookup_host};
use tokio_util::sync::CancellationToken;

/// Requests in flight get this long at shutdown.
const DRAIN: Duration = Duration::from_secs(5);

/// Connections that the kernel keeps until they are accepted, as far as `net.core.somaxconn` lets it. When it has no room, a client
/// tries again only after a second, then two, then four.
const BACKLOG: u32 = 4096;

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
        if let Ok(listener) = listen("::", port).await {
            return Ok(listener);
        }
        return listen("0.0.0.0", port).await.map_err(failed(format!("0.0.0.0:{port}")));
    }
    listen(host, port).await.map_err(failed(format!("{host}:{port}")))
}

/// On the first address of the host that can be bound.
async fn listen(host: &str, port: u16) -> io::Result<TcpListener> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in lookup_host((host, port)).await? {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        socket.set_reuseaddr(true)?;
        match socket.bind(address).and_then(|()| socket.listen(BACKLOG)) {
            Ok(listener) => return Ok(listener),
            Err(error) => failure = error,
        }
    }
    Err(failure)
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
