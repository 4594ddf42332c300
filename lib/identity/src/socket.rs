//! Options of TCP sockets. A peer whose node is lost says nothing: without these, a connection that only waits would last for
//! hours, and one with data on its way for a quarter of one.

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};

/// Silence before the first probe.
const IDLE: Duration = Duration::from_secs(15);
/// Between probes.
const INTERVAL: Duration = Duration::from_secs(5);
const PROBES: u32 = 3;
/// How long sent data or probes may stay unacknowledged: as long as it takes the probes to give up.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// No delay for small messages, and a silent peer is given up after about half a minute. What a listener accepts inherits both.
pub(crate) fn tune<'a>(socket: impl Into<SockRef<'a>>) -> io::Result<()> {
    let socket = socket.into();
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(IDLE)
        .with_interval(INTERVAL)
        .with_retries(PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn silent_peers_are_noticed_on_both_sides() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        tune(&listener).unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        tune(&dialled).unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        for socket in [SockRef::from(&dialled), SockRef::from(&accepted)] {
            assert!(socket.tcp_nodelay().unwrap());
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), IDLE);
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), INTERVAL);
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), PROBES);
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED));
        }
    }
}
