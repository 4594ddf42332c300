//! Serving webhooks to the API server: HTTP/1.1 and HTTP/2 over any listener, with the limits and deadlines that keep slow or
//! large clients from holding resources.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    serve::Listener,
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Semaphore,
    time::{Sleep, sleep},
};
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
/// The API server takes requests of 3 MiB, and puts one into a review with few additions.
const MAX_BODY: usize = 8 << 20;
/// The API server itself gives up after ten seconds, unless told otherwise.
const BODY_DEADLINE: Duration = Duration::from_secs(9);

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
        let connection = graceful.watch(
            builder
                .serve_connection(TokioIo::new(Prompt::new(io)), service.clone())
                .into_owned(),
        );
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

/// The whole body of a review, which must not be empty: at most 8 MiB within nine seconds.
///
/// # Errors
/// The answer to give instead.
pub async fn read(body: Body) -> Result<Bytes, Response> {
    let empty = || refusal(StatusCode::BAD_REQUEST, "empty body");
    let collected = match tokio::time::timeout(BODY_DEADLINE, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return Err(refusal(StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than 8 MiB"));
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "a body cannot be read");
            return Err(empty());
        }
        Err(_) => return Err(refusal(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")),
    };
    if collected.is_empty() {
        return Err(empty());
    }
    Ok(collected)
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
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        sync::mpsc,
    };

    use super::*;

    struct InMemory(mpsc::Receiver<DuplexStream>);

    impl Listener for InMemory {
        type Io = DuplexStream;
        type Addr = ();

        async fn accept(&mut self) -> (DuplexStream, ()) {
            match self.0.recv().await {
                Some(io) => (io, ()),
                None => std::future::pending().await,
            }
        }

        fn local_addr(&self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A served connection, and what ends the server.
    async fn connect() -> (DuplexStream, CancellationToken, tokio::task::JoinHandle<()>) {
        let (sender, connections) = mpsc::channel(1);
        let (client, server) = duplex(4096);
        sender.send(server).await.unwrap();
        let stop = CancellationToken::new();
        let router = Router::new().route("/", get(|| async { "hello" }));
        let served = tokio::spawn(serve(InMemory(connections), router, stop.clone()));
        (client, stop, served)
    }

    #[tokio::test(start_paused = true)]
    async fn silent_and_slow_clients_are_cut_off() {
        for sent in ["", "GET / HT", "GET / HTTP/1.1\r\nhost: a\r\n"] {
            let (mut client, _stop, _served) = connect().await;
            client.write_all(sent.as_bytes()).await.unwrap();
            let start = tokio::time::Instant::now();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            assert!(!answer.starts_with(b"HTTP/1.1 200"));
            assert!(start.elapsed() <= 2 * HEADER_DEADLINE, "{sent:?}");
        }
    }

    #[tokio::test]
    async fn stops_when_told() {
        let (mut client, stop, served) = connect().await;
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut status = [0; 15];
        client.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200 OK");
        stop.cancel();
        served.await.unwrap();
        client.read_to_end(&mut Vec::new()).await.unwrap();
    }
}
