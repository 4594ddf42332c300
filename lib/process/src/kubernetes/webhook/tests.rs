use std::{net::IpAddr, time::Duration};

use axum::routing::get;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::mpsc,
    time::Instant,
};

use super::*;

struct InMemory(mpsc::Receiver<(DuplexStream, SocketAddr)>);

impl Listener for InMemory {
    type Io = DuplexStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (DuplexStream, SocketAddr) {
        match self.0.recv().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([127, 0, 0, 1], 0)))
    }
}

struct Server {
    connections: mpsc::Sender<(DuplexStream, SocketAddr)>,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<()>,
}

impl Server {
    fn start() -> Self {
        let (connections, incoming) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let router = Router::new().route("/", get(|| async { "hello" }));
        let served = tokio::spawn(serve(InMemory(incoming), router, stop.clone()));
        Self {
            connections,
            stop,
            served,
        }
    }

    async fn connect(&self, peer: impl Into<IpAddr>) -> DuplexStream {
        let (client, server) = duplex(4096);
        let peer = SocketAddr::from((peer.into(), 1));
        self.connections.send((server, peer)).await.unwrap();
        client
    }
}

const LOCAL: [u8; 4] = [127, 0, 0, 1];
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// Whether a request on this connection is answered; otherwise it was closed.
async fn answered(client: &mut DuplexStream) -> bool {
    if client.write_all(REQUEST).await.is_err() {
        return false;
    }
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello") {
        let mut buffer = [0; 512];
        match client.read(&mut buffer).await {
            Ok(0) | Err(_) => return false,
            Ok(read) => answer.extend_from_slice(&buffer[..read]),
        }
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"));
    true
}

#[tokio::test(start_paused = true)]
async fn silent_and_slow_clients_are_cut_off() {
    for sent in ["", "GET / HT", "GET / HTTP/1.1\r\nhost: a\r\n"] {
        let server = Server::start();
        let mut client = server.connect(LOCAL).await;
        client.write_all(sent.as_bytes()).await.unwrap();
        let start = Instant::now();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
        assert!(start.elapsed() <= 2 * HEADER_DEADLINE, "{sent:?}");
    }
}

#[tokio::test]
async fn stops_when_told() {
    let server = Server::start();
    let mut client = server.connect(LOCAL).await;
    assert!(answered(&mut client).await);
    server.stop.cancel();
    server.served.await.unwrap();
    client.read_to_end(&mut Vec::new()).await.unwrap();
}

#[tokio::test]
async fn an_api_server_gets_in_and_stays_whatever_others_do() {
    let server = Server::start();
    let mut early = server.connect([10, 0, 0, 1]).await;
    assert!(answered(&mut early).await);
    // Others take all places, and then some.
    let mut others = Vec::new();
    for number in 0..MAX_CONNECTIONS + 100 {
        others.push(server.connect([10, 1, 0, u8::try_from(number % 5).unwrap()]).await);
    }
    let mut late = server.connect([10, 0, 0, 2]).await;
    assert!(answered(&mut late).await);
    assert!(
        answered(&mut early).await,
        "its connection is the oldest, but one of few"
    );
    // Whoever made room is cut at once.
    assert_eq!(others[0].read(&mut [0; 16]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn one_peer_leaves_places_for_others() {
    let server = Server::start();
    let mut first = server.connect(LOCAL).await;
    assert!(answered(&mut first).await);
    let mut held = Vec::new();
    for _ in 0..MAX_CONNECTIONS_OF_A_PEER {
        held.push(server.connect(LOCAL).await);
    }
    let newest = held.last_mut().unwrap();
    assert!(answered(newest).await);
    assert!(!answered(&mut first).await);
}

#[tokio::test(start_paused = true)]
async fn connections_end_between_requests_when_they_are_old() {
    let server = Server::start();
    let mut client = server.connect(LOCAL).await;
    let start = Instant::now();
    while answered(&mut client).await {
        assert!(start.elapsed() < MAX_AGE * 2);
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    assert!(start.elapsed() >= MAX_AGE.mul_f64(0.9), "{:?}", start.elapsed());
}
