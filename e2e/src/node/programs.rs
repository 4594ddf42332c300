//! The command lines of the node's programs.

use super::layout::{API_SERVER_PORT, CLUSTER_CIDR, ETCD, Layout, NODE_ADDRESS, SERVICE_CIDR, text};

/// The issuer of service account tokens, as kubeadm has it.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// A program: its name, which its log has too, the file that it is in, and its arguments.
pub(super) struct Program {
    pub(super) name: &'static str,
    pub(super) file: &'static str,
    pub(super) args: Vec<String>,
}

impl Program {
    fn kubernetes(name: &'static str, args: Vec<String>) -> Self {
        Self {
            name,
            file: "kubernetes",
            args,
        }
    }
}

pub(super) fn etcd() -> Program {
    Program::kubernetes(
        "etcd",
        vec![
            "--data-dir=/var/lib/etcd".into(),
            // The data lives as long as the machine: a node that is killed loses nothing.
            "--unsafe-no-fsync".into(),
            format!("--listen-client-urls={ETCD}"),
            format!("--advertise-client-urls={ETCD}"),
        ],
    )
}

pub(super) fn api_server(layout: &Layout) -> Program {
    let pki = |file| layout.pki(file);
    let mut args = vec![
        format!("--etcd-servers={ETCD}"),
        format!("--advertise-address={NODE_ADDRESS}"),
        format!("--secure-port={API_SERVER_PORT}"),
        format!("--service-cluster-ip-range={SERVICE_CIDR}"),
        format!("--tls-cert-file={}", pki("apiserver.crt")),
        format!("--tls-private-key-file={}", pki("apiserver.key")),
        format!("--client-ca-file={}", pki("ca.crt")),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged=true".into(),
        format!("--service-account-issuer={ISSUER}"),
        format!("--service-account-key-file={}", pki("service-accounts.key")),
        format!("--service-account-signing-key-file={}", pki("service-accounts.key")),
        format!("--kubelet-client-certificate={}", pki("kubelet-client.crt")),
        format!("--kubelet-client-key={}", pki("kubelet-client.key")),
        format!("--kubelet-certificate-authority={}", pki("ca.crt")),
        // The default asks for the node's name first, which nobody resolves.
        "--kubelet-preferred-address-types=InternalIP".into(),
        format!("--proxy-client-cert-file={}", pki("front-proxy.crt")),
        format!("--proxy-client-key-file={}", pki("front-proxy.key")),
        format!("--requestheader-client-ca-file={}", pki("ca.crt")),
        // One authority signs everybody here, so only this name may speak for others.
        "--requestheader-allowed-names=front-proxy".into(),
        "--requestheader-username-headers=X-Remote-User".into(),
        "--requestheader-group-headers=X-Remote-Group".into(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
    ];
    if layout.audit {
        args.push(format!("--audit-policy-file={}", layout.etc("audit.json")));
        args.push(format!("--audit-log-path={}", text(&layout.folder.log("audit"))));
    }
    Program::kubernetes("kube-apiserver", args)
}

pub(super) fn controller_manager(layout: &Layout) -> Program {
    let pki = |file| layout.pki(file);
    let kubeconfig = pki("kube-controller-manager.kubeconfig");
    Program::kubernetes(
        "kube-controller-manager",
        vec![
            format!("--kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            "--bind-address=127.0.0.1".into(),
            "--leader-elect=false".into(),
            "--use-service-account-credentials".into(),
            // Each controller gets an account of its own, and at the default of 20 requests a second that takes 4 s.
            "--kube-api-qps=500".into(),
            "--kube-api-burst=1000".into(),
            "--allocate-node-cidrs".into(),
            // How soon a new node is free for pods; the default is 5 s.
            "--node-monitor-period=500ms".into(),
            format!("--cluster-cidr={CLUSTER_CIDR}"),
            format!("--service-cluster-ip-range={SERVICE_CIDR}"),
            format!("--root-ca-file={}", pki("ca.crt")),
            format!("--service-account-private-key-file={}", pki("service-accounts.key")),
            format!("--cluster-signing-cert-file={}", pki("ca.crt")),
            format!("--cluster-signing-key-file={}", pki("ca.key")),
        ],
    )
}

pub(super) fn scheduler(layout: &Layout) -> Program {
    let kubeconfig = layout.pki("kube-scheduler.kubeconfig");
    Program::kubernetes(
        "kube-scheduler",
        vec![
            format!("--kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            "--bind-address=127.0.0.1".into(),
            "--leader-elect=false".into(),
        ],
    )
}

pub(super) fn containerd(layout: &Layout) -> Program {
    Program {
        name: "containerd",
        file: "containerd",
        args: vec![format!("--config={}", layout.etc("containerd.toml"))],
    }
}

pub(super) fn kubelet(layout: &Layout) -> Program {
    Program::kubernetes(
        "kubelet",
        vec![
            format!("--config={}", layout.etc("kubelet.json")),
            format!("--kubeconfig={}", layout.pki("kubelet.kubeconfig")),
            format!("--hostname-override={}", layout.folder.name()),
            format!("--node-ip={NODE_ADDRESS}"),
        ],
    )
}

pub(super) fn proxy(layout: &Layout) -> Program {
    Program::kubernetes(
        "kube-proxy",
        vec![format!("--config={}", layout.etc("kube-proxy.json"))],
    )
}

pub(super) fn dns(layout: &Layout) -> Program {
    Program {
        name: "coredns",
        file: "coredns",
        args: vec![format!("-conf={}", layout.etc("Corefile"))],
    }
}
