//! Ports for programs that are started outside of a cluster.

use anyhow::Context;

/// A port of this machine that nobody else chooses.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    let [port] = outrigger_testkit::free_ports().context("no port is free on 127.0.0.1")?;
    Ok(port)
}

/// Where a part of the control plane serves, on loopback.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Serving {
    pub(crate) port: u16,
    pub(crate) healthz: u16,
    pub(crate) metrics: u16,
}

impl Serving {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Self::at(free_port()?)
    }

    /// The same with a port that is known already.
    pub(crate) fn at(port: u16) -> anyhow::Result<Self> {
        let (healthz, metrics) = (free_port()?, free_port()?);
        Ok(Self { port, healthz, metrics })
    }

    /// Flags that all parts have.
    pub(crate) fn flags(&self) -> [String; 6] {
        [
            "--listen-address=127.0.0.1".to_owned(),
            format!("--port={}", self.port),
            "--healthz-listen-address=127.0.0.1".to_owned(),
            format!("--healthz-port={}", self.healthz),
            "--metrics-listen-address=127.0.0.1".to_owned(),
            format!("--metrics-port={}", self.metrics),
        ]
    }
}
