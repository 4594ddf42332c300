//! Configuration files of the node's programs. JSON where YAML is read: every JSON text is one.

use std::fs;

use serde_json::{Value, json};

use super::Error;
use super::layout::{CLUSTER_CIDR, CLUSTER_DOMAIN, CONTAINERD_SOCKET, DNS_READY, Layout, NODE_ADDRESS, POD_CIDR, text};
use super::network;
use super::storage::Snapshotter;
use crate::cluster::cgroup;
use crate::toolchain::PAUSE_IMAGE;

pub(super) fn write(layout: &Layout, snapshotter: Snapshotter) -> Result<(), Error> {
    let masquerade_all = !network::bridge_calls_iptables();
    let files = [
        ("containerd.toml", containerd(layout, snapshotter)),
        ("cni/10-pods.conflist", pod_network().to_string()),
        ("kubelet.json", kubelet(layout).to_string()),
        ("kube-proxy.json", proxy(layout, masquerade_all).to_string()),
        ("Corefile", dns(layout)),
        ("audit.json", audit().to_string()),
    ];
    for (name, content) in files {
        let path = layout.folder.etc(name);
        let failed = || Error::prepare(format!("write {}", path.display()));
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed())?;
        }
        fs::write(&path, content).map_err(failed())?;
    }
    Ok(())
}

fn containerd(layout: &Layout, snapshotter: Snapshotter) -> String {
    // Where processes may not lower their OOM score, runc fails to start a container that asks for it.
    format!(
        "version = 4

[plugins.'io.containerd.server.v1.grpc']
address = '{CONTAINERD_SOCKET}'

[plugins.'io.containerd.server.v1.ttrpc']
address = '{CONTAINERD_SOCKET}.ttrpc'

[plugins.'io.containerd.cri.v1.images']
snapshotter = '{}'

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{PAUSE_IMAGE}'

[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['{}']
conf_dir = '{}'
",
        snapshotter.name(),
        text(&layout.bin),
        layout.etc("cni"),
    )
}

fn pod_network() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                // A pod may reach itself through its Service.
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": POD_CIDR}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

fn kubelet(layout: &Layout) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD_SOCKET}"),
        "tlsCertFile": layout.pki("kubelet.crt"),
        "tlsPrivateKeyFile": layout.pki("kubelet.key"),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": layout.pki("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupRoot": cgroup::path(layout.folder.name()),
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": false,
        "failSwapOn": false,
        "clusterDomain": CLUSTER_DOMAIN,
        "clusterDNS": [NODE_ADDRESS],
        // Names outside the cluster do not resolve, wherever the machine would look them up.
        "resolvConf": "",
        "maxPods": 200,
        // A developer's full disk is no reason to evict a test's pods.
        "localStorageCapacityIsolation": false,
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "0%",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
        },
    })
}

fn proxy(layout: &Layout, masquerade_all: bool) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": CLUSTER_CIDR,
        "hostnameOverride": layout.folder.name(),
        "clientConnection": {"kubeconfig": layout.pki("kube-proxy.kubeconfig")},
        "iptables": {"masqueradeAll": masquerade_all},
        // The limits are sysctls of the machine.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    })
}

fn dns(layout: &Layout) -> String {
    // No cache: a test that asks for a name too early would hear for seconds that it does not exist.
    format!(
        ".:53 {{
    bind {NODE_ADDRESS}
    errors
    ready {DNS_READY}
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {}
        pods insecure
    }}
}}
",
        layout.pki("coredns.kubeconfig")
    )
}

fn audit() -> Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{"level": "Metadata"}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::folder::Folder;

    fn layout() -> Layout {
        let folder = Folder::at("/cache/clusters/blue".into()).unwrap();
        Layout {
            folder,
            bin: "/cache/bin".into(),
            audit: false,
        }
    }

    #[test]
    fn clusters_keep_their_pods_apart() {
        assert_eq!(kubelet(&layout())["cgroupRoot"], "/outrigger-blue");
    }

    #[test]
    fn containerd_is_told_where_things_are() {
        let text = containerd(&layout(), Snapshotter::Native);
        for expected in [
            "snapshotter = 'native'",
            "bin_dirs = ['/cache/bin']",
            "conf_dir = '/cache/clusters/blue/etc/cni'",
        ] {
            assert!(text.contains(expected), "{text}");
        }
    }
}
