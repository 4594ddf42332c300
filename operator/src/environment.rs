//! The environment, read once at the start.

use anyhow::bail;
use outrigger_process::{logs, privileges};

/// Namespace of the pod, where Kubernetes mounts a service account.
const SERVICE_ACCOUNT_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// What the operator takes from its environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Namespace of the control plane.
    pub namespace: String,
    /// Namespace of the Lease: the pod's own, which is the control plane's outside Kubernetes.
    pub lease_namespace: String,
    /// `ENABLE_WEBHOOKS`, which only `false` switches off.
    pub webhooks: bool,
    /// Name of the pod: `POD_NAME`, or else the host name, which Kubernetes sets to it.
    pub hostname: String,
}

impl Environment {
    /// # Errors
    /// When `NAMESPACE` is not set or empty, or the process runs as root without being allowed to.
    pub fn read() -> anyhow::Result<Self> {
        let namespace = match std::env::var("NAMESPACE") {
            Ok(namespace) if namespace.is_empty() => bail!("'NAMESPACE' environment variable is empty"),
            Ok(namespace) => namespace,
            Err(_) => bail!("'NAMESPACE' environment variable not set"),
        };
        privileges::refuse_root(privileges::root_is_allowed())?;
        let lease_namespace = std::fs::read_to_string(SERVICE_ACCOUNT_NAMESPACE)
            .ok()
            .map(|namespace| namespace.trim().to_owned())
            .filter(|namespace| !namespace.is_empty());
        let pod_name = std::env::var("POD_NAME").ok().filter(|name| !name.is_empty());
        Ok(Self {
            lease_namespace: lease_namespace.unwrap_or_else(|| namespace.clone()),
            namespace,
            webhooks: !std::env::var("ENABLE_WEBHOOKS").is_ok_and(|value| value.eq_ignore_ascii_case("false")),
            hostname: pod_name.unwrap_or_else(logs::hostname),
        })
    }
}
