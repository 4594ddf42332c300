//! What is the same for every sidecar that this injector makes.

use crate::{
    environment::{Actors, Address, Environment, Service},
    patch::tolerations::Toleration,
};

/// Resolved once at start from the environment, the flags and the injector's own pod.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The control plane's namespace.
    pub namespace: String,
    pub trust_domain: String,
    pub image: String,
    pub pull_policy: &'static str,
    pub operator_address: String,
    /// Where sidecars get their certificates. Always computed: the address that the injector itself uses is not passed on.
    pub sentry_address: String,
    /// `None` when sidecars are not to use the scheduler.
    pub scheduler_address: Option<String>,
    /// Empty when actors are placed by another service, or disabled.
    pub placement_address: String,
    /// `name:address` of another service that places actors; sidecars ignore it, but upstream passes it.
    pub actors_service: Option<String>,
    /// `name:address`; sidecars ignore it, but upstream passes it.
    pub reminders_service: Option<String>,
    pub security: Security,
    pub downward_apis: bool,
    pub native_sidecar: bool,
    /// Mistakes in annotations are denied instead of warned of.
    pub strict: bool,
    pub ignore_entrypoint_tolerations: Vec<Toleration>,
    pub component_sockets_folder: String,
    /// Whether sidecars get a projected token to show to sentry.
    pub token_volume: bool,
    /// ConfigMap with the trust anchors, which follows them while sidecars run.
    pub trust_anchors_config_map: Option<String>,
}

/// The security context of sidecars.
#[derive(Debug, Clone)]
pub struct Security {
    pub run_as_non_root: bool,
    pub run_as_user: Option<i64>,
    pub run_as_group: Option<i64>,
    pub read_only_root_filesystem: bool,
    pub drop_all_capabilities: bool,
    /// Unless a pod's annotation says otherwise; empty leaves it to the pod's own security context.
    pub seccomp_profile_type: String,
}

impl Settings {
    pub fn new(env: &Environment, cluster_domain: &str, scheduler_enabled: bool, token_volume: bool) -> Self {
        let host = |service: &str, port| format!("{service}.{}.svc.{cluster_domain}:{port}", env.namespace);
        let at = |address: &Address| host(&address.service, address.port);
        let named = |service: &Service| format!("{}:{}", service.name, at(&service.address));
        let (placement_address, actors_service) = match &env.actors {
            Actors::Disabled => (String::new(), None),
            Actors::Placement(address) => (at(address), None),
            Actors::Other(service) => (String::new(), Some(named(service))),
        };
        Self {
            namespace: env.namespace.clone(),
            trust_domain: env.trust_domain.to_string(),
            image: env.sidecar_image.clone(),
            pull_policy: env.pull_policy,
            operator_address: host("dapr-api", 443),
            sentry_address: host("dapr-sentry", 443),
            scheduler_address: scheduler_enabled.then(|| host("dapr-scheduler-server-a", 443)),
            placement_address,
            actors_service,
            reminders_service: env.reminders.as_ref().map(named),
            security: Security {
                run_as_non_root: env.run_as_non_root,
                run_as_user: env.run_as_user,
                run_as_group: env.run_as_group,
                read_only_root_filesystem: env.read_only_root_filesystem,
                drop_all_capabilities: env.drop_all_capabilities,
                seccomp_profile_type: env.seccomp_profile_type.clone(),
            },
            downward_apis: env.downward_apis,
            native_sidecar: env.native_sidecar,
            strict: env.strict,
            ignore_entrypoint_tolerations: env.ignore_entrypoint_tolerations.clone(),
            component_sockets_folder: env.component_sockets_folder.clone(),
            token_volume,
            trust_anchors_config_map: env.trust_anchors_config_map.clone(),
        }
    }
}
