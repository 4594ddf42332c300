//! Addresses and paths inside a node. Every node has its own network, so all use the same addresses.

use std::path::{Path, PathBuf};

use crate::cluster::folder::Folder;

pub(super) const NODE_ADDRESS: &str = "10.201.0.1";
pub(super) const NODE_PREFIX: &str = "10.201.0.1/24";
pub(super) const CLUSTER_CIDR: &str = "10.244.0.0/16";
pub(super) const POD_CIDR: &str = "10.244.0.0/24";
pub(super) const SERVICE_CIDR: &str = "10.96.0.0/16";
/// The Service `kubernetes`: the first address of the range.
pub(super) const KUBERNETES_ADDRESS: &str = "10.96.0.1";
pub(super) const CLUSTER_DOMAIN: &str = "cluster.local";
pub(super) const API_SERVER_PORT: u16 = 6443;
pub(super) const ETCD: &str = "http://127.0.0.1:2379";
pub(super) const DNS_READY: &str = "10.201.0.1:8181";
/// In the node's own `/run`.
pub(super) const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

/// Where a node finds its files.
pub(super) struct Layout {
    pub(super) folder: Folder,
    pub(super) bin: PathBuf,
    pub(super) audit: bool,
}

impl Layout {
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// The text of a path in `pki`, for flags.
    pub(super) fn pki(&self, file: &str) -> String {
        text(&self.folder.pki(file))
    }

    /// The text of a path in `etc`, for flags.
    pub(super) fn etc(&self, file: &str) -> String {
        text(&self.folder.etc(file))
    }
}

pub(super) fn text(path: &Path) -> String {
    path.display().to_string()
}
