//! The node's network: loopback and a bridge that carries the node's address.

use std::fs;
use std::path::Path;

use tokio::process::Command;

use super::Error;
use super::layout::NODE_PREFIX;
use crate::command;

/// Has the kernel apply iptables to what goes from pod to pod over the bridge, so that answers of Services find back.
const BRIDGE_CALLS_IPTABLES: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

pub(super) async fn set_up() -> Result<(), Error> {
    ip("link set lo up").await?;
    // A dummy interface would do, but not every kernel has it.
    ip("link add node0 type bridge").await?;
    ip(&format!("address add {NODE_PREFIX} dev node0")).await?;
    ip("link set node0 up").await?;
    // Service addresses need a route before kube-proxy's rules rewrite them. It leads nowhere else.
    ip("route add default dev node0").await?;
    write("/proc/sys/net/ipv4/ip_forward")?;
    if bridge_calls_iptables() {
        write(BRIDGE_CALLS_IPTABLES)?;
    }
    Ok(())
}

/// Whether the kernel can; kube-proxy masquerades everything when it cannot.
pub(super) fn bridge_calls_iptables() -> bool {
    Path::new(BRIDGE_CALLS_IPTABLES).exists()
}

async fn ip(words: &str) -> Result<(), Error> {
    let mut command = Command::new("ip");
    command.args(words.split(' '));
    command::run(command).await?;
    Ok(())
}

fn write(file: &str) -> Result<(), Error> {
    fs::write(file, "1").map_err(Error::prepare(format!("write 1 to {file}")))
}
