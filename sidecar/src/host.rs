//! Facts about the machine: its address, and a port that stays the same.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    os::unix::fs::MetadataExt,
};

/// Where stable ports begin.
const FIRST_PORT: u64 = 47300;
/// Documentation addresses: nothing is sent there, the kernel only picks the route.
const PROBES: [(&str, &str); 2] = [("0.0.0.0:0", "192.0.2.1:80"), ("[::]:0", "[2001:db8::1]:80")];

/// This host's address as others see it: what the environment says, or the source of the default route.
pub fn address(from_environment: Option<&str>) -> String {
    if let Some(address) = from_environment {
        return address.to_owned();
    }
    let routed = PROBES.iter().find_map(|(local, remote)| {
        let socket = UdpSocket::bind(local).ok()?;
        socket.connect(remote).ok()?;
        socket.local_addr().ok().map(|address: SocketAddr| address.ip())
    });
    let address = routed.unwrap_or_else(|| {
        tracing::warn!("this host has no route to others: its address is taken to be 127.0.0.1");
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    });
    address.to_string()
}

/// A port that is the same after a restart, so that what others remember stays right; another free one if it is taken.
pub fn stable_port(app_id: &str) -> u16 {
    let mut hasher = DefaultHasher::new();
    (app_id, std::env::current_dir().ok(), user()).hash(&mut hasher);
    let range = u64::from(u16::MAX) - FIRST_PORT;
    let port = u16::try_from(FIRST_PORT + hasher.finish() % range).unwrap_or_default();
    // 0 lets the kernel choose.
    if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
        port
    } else {
        0
    }
}

/// Effective user id.
pub fn user() -> Option<u32> {
    std::fs::metadata("/proc/self").ok().map(|metadata| metadata.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_decides() {
        assert_eq!(address(Some("10.1.2.3")), "10.1.2.3");
    }

    #[test]
    fn a_taken_port_is_replaced() {
        let port = stable_port("a-name-that-only-this-test-uses");
        assert!(port == 0 || u64::from(port) >= FIRST_PORT);
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        assert_eq!(stable_port("a-name-that-only-this-test-uses"), 0);
    }
}
