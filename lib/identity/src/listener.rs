//! One accept loop for TLS and plaintext. Each handshake reads the TLS configuration of the moment and runs in a task of its
//! own, bounded in number and time, so that a silent client holds up nobody.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::Stream;
use outrigger_core::SpiffeId;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    places::{Place, Places, Queue},
    socket,
    tls::ServerTls,
    verify,
};

/// Connections that wait for a place, of all addresses together; they cost a file descriptor each. Above that those of the
/// address that has most of them are closed.
const WAITING: usize = 4096;

/// What a handler learns about its peer; parsed once for a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    pub addr: SocketAddr,
    /// The verified identity; `None` on plaintext and where no client certificate is asked for.
    pub id: Option<SpiffeId>,
}

/// Bounds on connections. What is above them waits.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// At most this many handshakes at once; no address gets all of them.
    pub handshakes: usize,
    /// For one handshake.
    pub timeout: Duration,
    /// At most this many connections at once, for servers whose clients ask once and leave; no address gets all of them. `None`
    /// for any number.
    pub connections: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshakes: 256,
            timeout: Duration::from_secs(5),
            connections: None,
        }
    }
}

/// Accepted connections, for tonic (a stream) and axum (a listener). Dropping it stops accepting.
pub struct Listener {
    connections: mpsc::Receiver<Connection>,
    addr: SocketAddr,
}

/// A connection, encrypted or not.
pub struct Connection {
    io: Io,
    peer: Peer,
    /// Given back when the connection ends.
    _place: Option<Place>,
}

enum Io {
    Tls(Box<TlsStream<TcpStream>>),
    Plain(TcpStream),
}

impl Listener {
    /// Serves TLS; connections that arrive before the first certificate are closed.
    ///
    /// # Errors
    /// When the socket has no address or takes no options.
    pub fn tls(tcp: TcpListener, tls: ServerTls, limits: Limits) -> io::Result<Self> {
        Self::spawn(tcp, Some(tls), limits)
    }

    /// Serves plaintext.
    ///
    /// # Errors
    /// When the socket has no address or takes no options.
    pub fn plain(tcp: TcpListener) -> io::Result<Self> {
        Self::spawn(tcp, None, Limits::default())
    }

    fn spawn(tcp: TcpListener, tls: Option<ServerTls>, limits: Limits) -> io::Result<Self> {
        let addr = tcp.local_addr()?;
        // Accepted connections inherit it.
        socket::tune(&tcp)?;
        let (sender, connections) = mpsc::channel(64);
        tokio::spawn(accept(tcp, tls, limits, sender));
        Ok(Self { connections, addr })
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }
}

async fn accept(tcp: TcpListener, tls: Option<ServerTls>, limits: Limits, connections: mpsc::Sender<Connection>) {
    let handshakes = Arc::new(Semaphore::new(limits.handshakes));
    // Handshakes are shared by addresses, too, or who says nothing in any of them would keep out everybody.
    let most = limits.connections.or(tls.is_some().then_some(limits.handshakes));
    let mut arrivals = Arrivals::new(tcp, most);
    loop {
        // Given back only when somebody took the connection: those that wait for that are bounded, too.
        let Ok(handshake) = handshakes.clone().acquire_owned().await else {
            return;
        };
        let (io, addr, place) = tokio::select! {
            () = connections.closed() => return,
            arrival = arrivals.next() => arrival,
        };
        let Some(tls) = &tls else {
            let _ = connections
                .send(Connection {
                    io: Io::Plain(io),
                    peer: Peer { addr, id: None },
                    _place: place,
                })
                .await;
            continue;
        };
        let Some(config) = tls.current() else {
            tracing::debug!(%addr, "connection refused: no certificate yet");
            continue;
        };
        let connections = connections.clone();
        let (handshake_place, place) = match limits.connections {
            Some(_) => (None, place),
            None => (place, None),
        };
        tokio::spawn(async move {
            let _handshake = (handshake, handshake_place);
            match timeout(limits.timeout, TlsAcceptor::from(config).accept(io)).await {
                Ok(Ok(io)) => {
                    let leaf = io.get_ref().1.peer_certificates().and_then(<[_]>::first);
                    // The handshake verified it already: this only reads it.
                    let id = leaf.and_then(|leaf| verify::spiffe_id_of(leaf).ok());
                    let connection = Connection {
                        io: Io::Tls(Box::new(io)),
                        peer: Peer { addr, id },
                        _place: place,
                    };
                    let _ = connections.send(connection).await;
                }
                Ok(Err(error)) => tracing::debug!(%addr, %error, "TLS handshake failed"),
                Err(_) => tracing::debug!(%addr, "TLS handshake timed out"),
            }
        });
    }
}

/// Connections as they come in, or where their number is bounded, as they get their places.
struct Arrivals {
    tcp: TcpListener,
    bounded: Option<(Places, Queue<(TcpStream, SocketAddr)>)>,
}

impl Arrivals {
    fn new(tcp: TcpListener, most: Option<usize>) -> Self {
        let bounded = most.map(|most| {
            let places = Places::new(most);
            (places.clone(), Queue::new(places, WAITING))
        });
        Self { tcp, bounded }
    }

    /// Loses nothing when it is dropped half way.
    async fn next(&mut self) -> (TcpStream, SocketAddr, Option<Place>) {
        loop {
            let Some((places, queue)) = &mut self.bounded else {
                let (io, addr) = accept_one(&self.tcp).await;
                return (io, addr, None);
            };
            if let Some(((io, addr), place)) = queue.next() {
                return (io, addr, Some(place));
            }
            tokio::select! {
                (io, addr) = accept_one(&self.tcp) => queue.push(addr.ip().to_canonical(), (io, addr)),
                () = places.given_back() => {}
            }
        }
    }
}

async fn accept_one(tcp: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match tcp.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                // Out of file descriptors, most likely: give others time to close theirs.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

impl Stream for Listener {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.connections.poll_recv(cx).map(|connection| connection.map(Ok))
    }
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        match self.connections.recv().await {
            Some(connection) => {
                let addr = connection.peer.addr;
                (connection, addr)
            }
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }
}

impl tonic::transport::server::Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl axum::extract::connect_info::Connected<axum::serve::IncomingStream<'_, Listener>> for Peer {
    fn connect_info(stream: axum::serve::IncomingStream<'_, Listener>) -> Self {
        stream.io().peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tls(io) => Pin::new(io).poll_read(cx, buf),
            Io::Plain(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Tls(io) => Pin::new(io).poll_write(cx, buf),
            Io::Plain(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tls(io) => Pin::new(io).poll_flush(cx),
            Io::Plain(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tls(io) => Pin::new(io).poll_shutdown(cx),
            Io::Plain(io) => Pin::new(io).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Io::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Tls(io) => io.is_write_vectored(),
            Io::Plain(io) => io.is_write_vectored(),
        }
    }
}
