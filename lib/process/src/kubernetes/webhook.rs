//! Serving webhooks to the API server: HTTP/1.1 and HTTP/2 over any listener, with the limits and deadlines that keep slow or
//! large clients from holding resources.

mod body;
mod places;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    Extension, Router,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    serve::Listener,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulConnection},
    service::TowerToHyperService,
};
use outrigger_core::backoff::random_fraction;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::body::read;
use self::places::{Place, Places};

/// A request's header has to arrive within this time.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);
/// HTTP/2 connections are asked for a sign of life this often, and closed without one.
const PING: Duration = Duration::from_secs(30);
const PING_DEADLINE: Duration = Duration::from_secs(10);
/// The API servers of a cluster need a handful.
const MAX_CONNECTIONS: usize = 1024;
/// They may come through one proxy.
const MAX_CONNECTIONS_OF_A_PEER: usize = 256;
/// Give or take a tenth: connections then spread over the replicas that there are, and nobody keeps one for ever.
const MAX_AGE: Duration = Duration::from_secs(300);
const MAX_STREAMS: u32 = 256;
/// Requests in flight get this long at the end of their connection.
const DRAIN: Duration = Duration::from_secs(5);
/// The API server takes requests of 3 MiB, and puts one into a review with few additions.
const MAX_BODY: usize = 8 << 20;
/// The API server itself gives up after ten seconds, unless told otherwise.
const BODY_DEADLINE: Duration = Duration::from_secs(9);

/// Serves until `stop`, then lets requests in flight end. A connection ends after a while, and earlier when others need its place.
pub async fn serve<L>(mut listener: L, router: Router, stop: CancellationToken)
where
    L: Listener<Addr = SocketAddr>,
{
    let places = Places::new(MAX_CONNECTIONS, MAX_CONNECTIONS_OF_A_PEER);
    let connections = TaskTracker::new();
    let builder = builder();
    loop {
        let (io, peer) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let ip = peer.ip().to_canonical();
        let place = places.take(ip);
        let service = TowerToHyperService::new(router.clone().layer(Extension(Peer(ip))));
        let connection = builder
            .serve_connection(TokioIo::new(Prompt::new(io)), service)
            .into_owned();
        connections.spawn(see_through(connection, peer, place, stop.clone()));
    }
    drop(listener);
    connections.close();
    // Each has a deadline of its own.
    connections.wait().await;
}

/// Where a request's connection comes from.
#[derive(Debug, Clone, Copy)]
struct Peer(IpAddr);

/// Drives a connection to its end.
async fn see_through<C: GracefulConnection>(connection: C, peer: SocketAddr, place: Place, stop: CancellationToken)
where
    C::Error: std::fmt::Debug,
{
    let mut connection = pin!(connection);
    let age = MAX_AGE.mul_f64(0.9 + 0.2 * random_fraction());
    let ended = |result| {
        if let Err(error) = result {
            tracing::debug!(%peer, ?error, "a connection ended with an error");
        }
    };
    tokio::select! {
        result = connection.as_mut() => return ended(result),
        () = place.lost() => return tracing::debug!(%peer, "a connection made room for another one"),
        () = sleep(age) => {}
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        result = connection => ended(result),
        () = place.lost() => {}
        () = sleep(DRAIN) => tracing::debug!(%peer, "a connection whose requests did not end was cut"),
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

/// An error in the shape of Go's `http.Error`, whose text the API server hands on.
pub fn refusal(status: StatusCode, message: &str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, format!("{message}\n")).into_response()
}

/// A connection whose client has to say something soon: which version of HTTP it speaks is read without a deadline.
struct Prompt<Io> {
    io: Io,
    /// `None` after the first bytes.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<Io> Prompt<Io> {
    fn new(io: Io) -> Self {
        Self {
            io,
            deadline: Some(Box::pin(sleep(HEADER_DEADLINE))),
        }
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Prompt<Io> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        match &mut self.deadline {
            Some(deadline) if read.is_pending() => {
                ready!(deadline.as_mut().poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            _ => {
                self.deadline = None;
                read
            }
        }
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Prompt<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
