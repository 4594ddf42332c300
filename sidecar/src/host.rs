//! Facts about the machine: its address, and a port that stays the same.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
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

/// A port that is the same after a restart, so that what others remember stays right.
pub fn stable_port(app_id: &str) -> u16 {
    let mut hasher = DefaultHasher::new();
    (app_id, std::env::current_dir().ok(), user()).hash(&mut hasher);
    let range = u64::from(u16::MAX) - FIRST_PORT;
    // 0, which cannot come out, would let the kernel choose.
    u16::try_from(FIRST_PORT + hasher.finish() % range).unwrap_or_default()
}

fn user() -> Option<u32> {
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
    fn ports_are_stable_and_differ() {
        assert_eq!(stable_port("cart"), stable_port("cart"));
        assert_ne!(stable_port("cart"), stable_port("till"));
        assert!(u64::from(stable_port("cart")) >= FIRST_PORT);
    }
}
