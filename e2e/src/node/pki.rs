//! The cluster's certificates, keys and kubeconfigs. A restart finds those of the first start.

use std::fs;
use std::path::PathBuf;

use outrigger_testkit::certs::{self, Authority};
use outrigger_testkit::kubeconfig;

use super::Error;
use super::layout::{API_SERVER_PORT, CLUSTER_DOMAIN, KUBERNETES_ADDRESS, Layout, NODE_ADDRESS};

/// The group that may do everything.
const ADMINISTRATORS: &str = "system:masters";

/// What the node itself uses of it.
pub(super) struct Pki {
    /// An administrator's kubeconfig for processes inside the node.
    pub(super) inside: PathBuf,
}

/// Writes them, unless they are there. `port` is the API server's on the machine's loopback.
pub(super) fn prepare(layout: &Layout, port: u16) -> Result<Pki, Error> {
    // What is written last.
    if !layout.folder.kubeconfig().exists() {
        write(layout, port)?;
    }
    Ok(Pki {
        inside: layout.folder.pki("admin.kubeconfig"),
    })
}

fn write(layout: &Layout, port: u16) -> Result<(), Error> {
    let folder = layout.folder.pki("");
    let failed = || Error::prepare(format!("write to {}", folder.display()));
    let name = layout.folder.name();
    let authority = Authority::new("kubernetes")?;
    fs::write(layout.pki("ca.crt"), authority.pem()).map_err(failed())?;
    certs::write_private(&layout.folder.pki("ca.key"), &authority.key_pem()).map_err(failed())?;
    let key = certs::service_account_key()?;
    certs::write_private(&layout.folder.pki("service-accounts.key"), &key).map_err(failed())?;

    let full_name = format!("kubernetes.default.svc.{CLUSTER_DOMAIN}");
    let hosts = [
        "127.0.0.1",
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        &full_name,
        KUBERNETES_ADDRESS,
        NODE_ADDRESS,
    ];
    authority
        .server("kube-apiserver", None, &hosts)?
        .write(&folder, "apiserver")
        .map_err(failed())?;
    let kubelet_client = authority.client("kube-apiserver-kubelet-client", Some(ADMINISTRATORS))?;
    kubelet_client.write(&folder, "kubelet-client").map_err(failed())?;
    authority
        .client("front-proxy", None)?
        .write(&folder, "front-proxy")
        .map_err(failed())?;

    let inside = format!("https://127.0.0.1:{API_SERVER_PORT}");
    let node_user = format!("system:node:{name}");
    let node = authority.server(&node_user, Some("system:nodes"), &[name, NODE_ADDRESS])?;
    node.write(&folder, "kubelet").map_err(failed())?;
    let admin = authority.client("admin", Some(ADMINISTRATORS))?;
    let users = [
        ("admin", admin.clone()),
        ("kubelet", node),
        (
            "kube-controller-manager",
            authority.client("system:kube-controller-manager", None)?,
        ),
        ("kube-scheduler", authority.client("system:kube-scheduler", None)?),
        ("kube-proxy", authority.client("system:kube-proxy", None)?),
        ("coredns", authority.client("system:coredns", None)?),
    ];
    for (file, user) in users {
        let text = kubeconfig::render(name, &inside, &authority.pem(), &user);
        certs::write_private(&layout.folder.pki(&format!("{file}.kubeconfig")), &text).map_err(failed())?;
    }
    let outside = kubeconfig::render(name, &format!("https://127.0.0.1:{port}"), &authority.pem(), &admin);
    certs::write_private(&layout.folder.kubeconfig(), &outside).map_err(failed())
}
