//! Ports on loopback for programs that tests start.

use std::{
    io,
    net::TcpListener,
    ops::Range,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
    process,
};

use parking_lot::Mutex;

/// Below the range from which Linux takes ports for outgoing connections, so that none takes ours between choosing it
/// and the program listening on it.
const PORTS: Range<u16> = 20_000..32_000;
/// Ports that a process takes at a time.
const BLOCK: u16 = 50;

/// What this process has taken, and what is left of it.
static TAKEN: Mutex<Taken> = Mutex::new(Taken {
    blocks: Vec::new(),
    left: 0..0,
});

struct Taken {
    /// Nobody ever connects to these. While one is held no other process takes its block, and the kernel closes it however this
    /// process ends.
    blocks: Vec<UnixListener>,
    left: Range<u16>,
}

/// Ports of 127.0.0.1 that are free now, and that no test gets a second time as long as this process lives, whether anybody
/// listens on them or not; `None` when there are not so many.
pub fn free_ports<const N: usize>() -> Option<[u16; N]> {
    let mut taken = TAKEN.lock();
    let mut ports = Vec::with_capacity(N);
    while ports.len() < N {
        let port = match taken.left.next() {
            Some(port) => port,
            None => {
                let (block, ports) = take_block()?;
                taken.blocks.push(block);
                taken.left = ports;
                continue;
            }
        };
        // Somebody else's program may have it.
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            ports.push(port);
        }
    }
    ports.try_into().ok()
}

/// A block that no process holds. Each begins to look elsewhere.
fn take_block() -> Option<(UnixListener, Range<u16>)> {
    let count = (PORTS.end - PORTS.start) / BLOCK;
    let first = u16::try_from(process::id() % u32::from(count)).ok()?;
    (0..count).find_map(|step| {
        let start = PORTS.start + (first + step) % count * BLOCK;
        let held = hold(start).ok()?;
        Some((held, start..start + BLOCK))
    })
}

/// A name that one socket of the machine can have, without any file.
fn hold(block: u16) -> io::Result<UnixListener> {
    let name = SocketAddr::from_abstract_name(format!("outrigger-ports-{block}"))?;
    UnixListener::bind_addr(&name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        let mut seen = HashSet::new();
        for _ in 0..BLOCK {
            let ports: [u16; 3] = free_ports().expect("free ports");
            for port in ports {
                assert!(PORTS.contains(&port) && seen.insert(port), "{port}");
            }
        }
        let (held, block) = take_block().expect("a free block");
        assert!(hold(block.start).is_err(), "another process has to look elsewhere");
        drop(held);
        assert!(hold(block.start).is_ok());
    }
}
