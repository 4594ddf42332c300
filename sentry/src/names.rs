//! DNS names that certificates of control-plane processes carry, for peers that look at host names: API servers that call
//! webhooks, and the scheduler's members among themselves.

use outrigger_core::control_plane::Service;

/// Both must hold: the namespace is the control plane's, and the id is one of these.
pub(crate) fn dns_names(id: &str, namespace: &str, control_plane_namespace: &str, cluster_domain: &str) -> Vec<String> {
    if namespace != control_plane_namespace {
        return Vec::new();
    }
    match Service::from_app_id(id) {
        Some(Service::Injector) => vec![format!("dapr-sidecar-injector.{namespace}.svc")],
        Some(Service::Operator) => vec![format!("dapr-webhook.{namespace}.svc")],
        Some(Service::Scheduler) => (0..3)
            .map(|n| format!("dapr-scheduler-server-{n}.dapr-scheduler-server.{namespace}.svc.{cluster_domain}"))
            .collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_control_plane_gets_names() {
        let names = |id, namespace| dns_names(id, namespace, "dapr-system", "cluster.local");
        assert_eq!(
            names("dapr-injector", "dapr-system"),
            ["dapr-sidecar-injector.dapr-system.svc"]
        );
        assert_eq!(names("dapr-operator", "dapr-system"), ["dapr-webhook.dapr-system.svc"]);
        assert_eq!(names("dapr-scheduler", "dapr-system").len(), 3);
        assert!(names("dapr-injector", "shop").is_empty());
        assert!(names("cart", "dapr-system").is_empty());
    }
}
