//! DNS names that certificates of control-plane processes carry, for peers that look at host names: API servers that call
//! webhooks, and the scheduler's members among themselves.

use outrigger_core::control_plane::Service;

/// What the names are made of.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    /// Namespace of the control plane.
    pub(crate) namespace: String,
    pub(crate) cluster_domain: String,
    pub(crate) scheduler_replicas: u16,
}

impl Names {
    /// Both must hold: the namespace is the control plane's, and the id is one of these.
    pub(crate) fn of(&self, id: &str, namespace: &str) -> Vec<String> {
        if namespace != self.namespace {
            return Vec::new();
        }
        let domain = &self.cluster_domain;
        match Service::from_app_id(id) {
            Some(Service::Injector) => vec![format!("dapr-sidecar-injector.{namespace}.svc")],
            Some(Service::Operator) => vec![format!("dapr-webhook.{namespace}.svc")],
            Some(Service::Scheduler) => (0..self.scheduler_replicas)
                .map(|n| format!("dapr-scheduler-server-{n}.dapr-scheduler-server.{namespace}.svc.{domain}"))
                .collect(),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_control_plane_gets_names() {
        let names = Names {
            namespace: "dapr-system".into(),
            cluster_domain: "corp.example".into(),
            scheduler_replicas: 2,
        };
        let of = |id, namespace| names.of(id, namespace);
        assert_eq!(
            of("dapr-injector", "dapr-system"),
            ["dapr-sidecar-injector.dapr-system.svc"]
        );
        assert_eq!(of("dapr-operator", "dapr-system"), ["dapr-webhook.dapr-system.svc"]);
        assert_eq!(
            of("dapr-scheduler", "dapr-system"),
            [
                "dapr-scheduler-server-0.dapr-scheduler-server.dapr-system.svc.corp.example",
                "dapr-scheduler-server-1.dapr-scheduler-server.dapr-system.svc.corp.example"
            ]
        );
        assert!(of("dapr-injector", "shop").is_empty());
        assert!(of("cart", "dapr-system").is_empty());
    }
}
