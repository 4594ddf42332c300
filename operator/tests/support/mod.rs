//! The API over connections in memory, whose peers are who the test says.
#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod edits;

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use outrigger_identity::Peer;
use outrigger_operator::api::Api;
use outrigger_proto::operator::operator_client::OperatorClient;
pub(crate) use outrigger_testkit::eventually;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, server::Connected};

/// Generous: the machine may be busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Awaits something that has to happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen in time"),
    }
}

/// A running API.
pub(crate) struct Server {
    connections: mpsc::Sender<io::Result<Connection>>,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Server {
    pub(crate) fn start(api: Api) -> Self {
        let (connections, incoming) = mpsc::channel(8);
        Self {
            connections,
            task: tokio::spawn(api.serve(ReceiverStream::new(incoming))),
        }
    }

    /// A client with this SPIFFE id, or none.
    pub(crate) async fn client(&self, id: &str) -> OperatorClient<Channel> {
        self.try_client(id).await.expect("the server runs")
    }

    /// As [`Server::client`], of a server that may have ended.
    pub(crate) async fn try_client(&self, id: &str) -> Option<OperatorClient<Channel>> {
        self.channel(id).await.map(OperatorClient::new)
    }

    /// A connection of somebody with this SPIFFE id, or none; `None` if the server has ended.
    pub(crate) async fn channel(&self, id: &str) -> Option<Channel> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let peer = peer(id);
        self.connections.send(Ok(Connection { io: far, peer })).await.ok()?;
        let near = Arc::new(Mutex::new(Some(near)));
        let connector = tower::service_fn(move |_| {
            let near = near.lock().take();
            async move {
                near.map(TokioIo::new)
                    .ok_or_else(|| io::Error::other("one connection only"))
            }
        });
        let endpoint = Endpoint::from_static("http://operator");
        endpoint.connect_with_connector(connector).await.ok()
    }

    /// A connection from which nothing comes after its first words.
    pub(crate) async fn silent(&self, id: &str) -> Silent {
        let (mut near, far) = tokio::io::duplex(64 * 1024);
        let peer = peer(id);
        self.connections.send(Ok(Connection { io: far, peer })).await.unwrap();
        // HTTP/2's preface, and empty settings.
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        near.write_all(preface).await.unwrap();
        Silent(near)
    }

    /// Waits for the end.
    pub(crate) async fn ended(self) {
        soon("the end of the server", self.task).await.unwrap().unwrap();
    }
}

fn peer(id: &str) -> Peer {
    Peer {
        addr: SocketAddr::from(([127, 0, 0, 1], 1)),
        id: (!id.is_empty()).then(|| id.parse().unwrap()),
    }
}

/// A client that says nothing any more.
pub(crate) struct Silent(DuplexStream);

impl Silent {
    /// Waits until the server has closed the connection.
    pub(crate) async fn closed(mut self) {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).await.unwrap();
    }
}

/// One end of a pipe.
pub(crate) struct Connection {
    io: DuplexStream,
    peer: Peer,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
