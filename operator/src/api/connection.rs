//! Connections with an end, so that replicas balance and rotated identities are checked again.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use outrigger_core::backoff::random_fraction;
use outrigger_identity::Peer;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};
use tonic::transport::server::Connected;

/// From this age on a connection takes no new calls.
pub const MAX_AGE: Duration = Duration::from_secs(30 * 60);
/// Its streams end within this time after that, at a moment of its own: sidecars that connected together come back apart.
pub const SPREAD: Duration = Duration::from_secs(5 * 60);

/// What handlers learn about the connection of a call.
#[derive(Debug, Clone)]
pub struct Client {
    pub peer: Peer,
    /// When its streams end.
    pub ends_at: Instant,
}

/// A connection that knows its end.
pub(super) struct Connection<IO> {
    io: IO,
    client: Client,
}

impl<IO: Connected<ConnectInfo = Peer>> Connection<IO> {
    pub(super) fn new(io: IO, now: Instant) -> Self {
        let client = Client {
            peer: io.connect_info(),
            ends_at: now + MAX_AGE + SPREAD.mul_f64(random_fraction()),
        };
        Self { io, client }
    }
}

impl<IO> Connected for Connection<IO> {
    type ConnectInfo = Client;

    fn connect_info(&self) -> Client {
        self.client.clone()
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Connection<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Connection<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
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
}
