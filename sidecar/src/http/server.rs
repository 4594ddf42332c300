//! Listening for HTTP: several addresses or a Unix socket, limits, and an end that lets requests finish.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use axum::Router;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::steps;

/// Time for a client to send its headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests in flight get this long at shutdown.
const DRAIN: Duration = Duration::from_secs(10);
/// The smallest buffer that the HTTP library takes.
const SMALLEST_BUFFER: usize = 8 << 10;
/// A port may be taken for a moment, by the process that this one replaces.
const BIND_TRIES: u32 = 6;
const BIND_PAUSE: Duration = Duration::from_millis(500);

/// A socket that is listened on.
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket, which goes with it.
pub struct SocketFile(PathBuf);

/// Limits of a server.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub max_body: usize,
    pub max_header: usize,
    /// Whether HTTP/2 without TLS is spoken as well.
    pub h2c: bool,
}

/// Listens on each address. One that fails is logged and left out.
///
/// # Errors
/// When none works: names the last address and why.
pub async fn bind(addresses: &[String], port: u16, purpose: &'static str) -> anyhow::Result<Vec<TcpListener>> {
    let mut failure = anyhow::anyhow!("no address to listen on for {purpose}");
    for attempt in 1..=BIND_TRIES {
        let mut listeners = Vec::new();
        for address in addresses {
            match outrigger_process::http::bind(address, port, purpose).await {
                Ok(listener) => listeners.push(listener),
                Err(error) => {
                    failure = anyhow::Error::new(error);
                    tracing::debug!(error = format!("{failure:#}"), "an address cannot be listened on");
                }
            }
        }
        if !listeners.is_empty() {
            return Ok(listeners);
        }
        if attempt == 1 {
            tracing::warn!(
                error = format!("{failure:#}"),
                "could not listen on any endpoint; trying again for a moment"
            );
        }
        if attempt < BIND_TRIES {
            tokio::time::sleep(BIND_PAUSE).await;
        }
    }
    Err(failure.context("could not listen on any endpoint"))
}

/// Listens on a Unix socket, replacing one that an earlier process left behind.
///
/// # Errors
/// Names the path.
pub fn bind_unix(path: &Path) -> anyhow::Result<Listener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove the old socket {}", path.display()));
        }
        _ => {}
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot listen on the socket {}", path.display()))?;
    Ok(Listener::Unix(listener, SocketFile(path.to_owned())))
}

/// Serves until `stop`, then lets requests in flight finish.
///
/// # Errors
/// Never today; the type is that of a task.
pub async fn serve(listener: Listener, router: Router, limits: Limits, stop: CancellationToken) -> anyhow::Result<()> {
    let connections = GracefulShutdown::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(io) => connection(io, &router, limits, &connections),
                Err(error) => {
                    // Out of file descriptors, most likely: give others time to close theirs.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, connections.shutdown()).await.is_err() {
        tracing::warn!("requests still in flight at the end of the drain were cut off");
    }
    Ok(())
}

impl Listener {
    async fn accept(&self) -> std::io::Result<Box<dyn Io>> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (io, _) = listener.accept().await?;
                // Without it small answers wait for acknowledgements; failing costs only time.
                let _ = io.set_nodelay(true);
                Box::new(io)
            }
            Self::Unix(listener, _) => Box::new(listener.accept().await?.0),
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "cannot remove the socket");
        }
    }
}

/// Bytes in both directions.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

fn connection(io: Box<dyn Io>, router: &Router, limits: Limits, connections: &GracefulShutdown) {
    let router = router.clone();
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let router = router.clone();
        router.oneshot(steps::prepare(request, limits.max_body))
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    if !limits.h2c {
        builder = builder.http1_only();
    }
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(limits.max_header.max(SMALLEST_BUFFER) * 2);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits.max_header).unwrap_or(u32::MAX).max(16 << 10));
    let connection = builder.serve_connection(TokioIo::new(io), service).into_owned();
    let connection = connections.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error, "a connection ended with an error");
        }
    });
}
