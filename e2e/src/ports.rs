//! Ports for programs that are started outside of a cluster.

use anyhow::Context;

/// A port of this machine that nobody else chooses.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    let [port] = outrigger_testkit::free_ports().context("no port is free on 127.0.0.1")?;
    Ok(port)
}
