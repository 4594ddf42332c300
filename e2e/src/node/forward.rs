//! Carries connections from the machine's loopback to the API server in the node's network.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::layout::API_SERVER_PORT;

/// Watches hold a connection each, unless HTTP/2 shares them; more than this wait.
const CONNECTIONS: usize = 4096;
/// After a failed accept, usually for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Never ends by itself.
pub(super) fn to_api_server(listener: std::net::TcpListener) -> io::Result<impl Future<Output = ()>> {
    let listener = TcpListener::from_std(listener)?;
    Ok(forward(listener, ("127.0.0.1", API_SERVER_PORT)))
}

async fn forward(listener: TcpListener, target: (&'static str, u16)) {
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else {
            return;
        };
        let Ok((mut client, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        tokio::spawn(async move {
            // The client sees a closed connection, as it would without us in between.
            if let Ok(mut server) = TcpStream::connect(target).await {
                let _ = client.set_nodelay(true).and_then(|()| server.set_nodelay(true));
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn carries_both_ways_until_both_ends_close() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, port) = (front.local_addr().unwrap(), server.local_addr().unwrap().port());
        let forwarder = tokio::spawn(forward(front, ("127.0.0.1", port)));

        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let (mut accepted, _) = server.accept().await.unwrap();
        let mut question = String::new();
        accepted.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "question");
        accepted.write_all(b"answer").await.unwrap();
        drop(accepted);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
        forwarder.abort();
    }

    #[tokio::test]
    async fn closes_when_nobody_listens_behind() {
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let address = front.local_addr().unwrap();
        let forwarder = tokio::spawn(forward(front, ("127.0.0.1", closed)));
        let mut client = TcpStream::connect(address).await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
        forwarder.abort();
    }
}
