//! Ports on loopback for programs that tests start.

use std::{
    net::TcpListener,
    ops::Range,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

/// Below the range from which Linux takes ports for outgoing connections, so that none takes ours between choosing it
/// and the program listening on it.
const PORTS: Range<u16> = 20_000..32_000;
/// Between the first places where two processes look. A prime, so that it takes long until two meet.
const STRIDE: u32 = 211;

/// Ports of 127.0.0.1 that are free now; `None` when there are not so many. Those of an earlier call are not among them, whether
/// anybody listens on them by now or not, and other processes look in other places.
pub fn free_ports<const N: usize>() -> Option<[u16; N]> {
    static CHOSEN: AtomicU32 = AtomicU32::new(0);
    let size = PORTS.end - PORTS.start;
    let chosen = CHOSEN.fetch_add(u32::try_from(N).ok()?, Ordering::Relaxed);
    let start = process::id().wrapping_mul(STRIDE).wrapping_add(chosen);
    let offset = u16::try_from(start % u32::from(size)).ok()?;
    // Each listener is held until all are chosen.
    let listeners: Vec<_> = (0..size)
        .map(|step| PORTS.start + (offset + step) % size)
        .filter_map(|port| {
            TcpListener::bind(("127.0.0.1", port))
                .ok()
                .map(|listener| (port, listener))
        })
        .take(N)
        .collect();
    let ports: Vec<u16> = listeners.iter().map(|(port, _)| *port).collect();
    ports.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_and_different() {
        let ports: [u16; 3] = free_ports().expect("free ports");
        assert!(ports[0] != ports[1] && ports[1] != ports[2] && ports[0] != ports[2]);
        assert!(ports.iter().all(|port| PORTS.contains(port)));
        let later: [u16; 3] = free_ports().expect("free ports");
        assert!(later.iter().all(|port| !ports.contains(port)), "{ports:?} {later:?}");
    }
}
