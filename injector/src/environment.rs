//! The environment variables that configure the injector, read once. A variable that is present but empty overrides a
//! default, as upstream has it.

use std::{collections::HashMap, path::PathBuf};

use outrigger_core::{
    TrustDomain,
    annotations::{truthy, truthy_default_true},
    spiffe::SpiffeIdError,
};

use crate::{
    authorise::{Allowed, PatternError},
    patch::tolerations::{self, Toleration},
};

/// What the environment says.
#[derive(Debug, Clone)]
pub struct Environment {
    /// `NAMESPACE`: the control plane's.
    pub namespace: String,
    /// `DAPR_CONTROL_PLANE_TRUST_DOMAIN`
    pub trust_domain: TrustDomain,
    /// `DAPR_TRUST_ANCHORS_FILE`
    pub trust_anchors_file: PathBuf,
    /// `DAPR_SENTRY_ADDRESS`: where the injector itself gets its certificate; sidecars get a computed address.
    pub sentry_address: String,
    /// `KUBE_CLUSTER_DOMAIN`; empty means that it is to be detected.
    pub cluster_domain: String,
    /// `DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK`
    pub skip_root_check: bool,
    /// `SIDECAR_IMAGE`
    pub sidecar_image: String,
    /// `SIDECAR_IMAGE_PULL_POLICY`
    pub pull_policy: &'static str,
    /// `ALLOWED_SERVICE_ACCOUNTS` and `ALLOWED_SERVICE_ACCOUNTS_PREFIX_NAMES`
    pub allowed: Allowed,
    /// `IGNORE_ENTRYPOINT_TOLERATIONS`
    pub ignore_entrypoint_tolerations: Vec<Toleration>,
    /// `ACTORS_ENABLED`, `ACTORS_SERVICE_NAME`, `ACTORS_SERVICE_ADDRESS`
    pub actors: Actors,
    /// `REMINDERS_SERVICE_NAME`, `REMINDERS_SERVICE_ADDRESS`; `None` for the built-in reminders.
    pub reminders: Option<Service>,
    /// `SIDECAR_RUN_AS_NON_ROOT`
    pub run_as_non_root: bool,
    /// `SIDECAR_RUN_AS_USER`
    pub run_as_user: Option<i64>,
    /// `SIDECAR_RUN_AS_GROUP`
    pub run_as_group: Option<i64>,
    /// `SIDECAR_READ_ONLY_ROOT_FILESYSTEM`
    pub read_only_root_filesystem: bool,
    /// `SIDECAR_DROP_ALL_CAPABILITIES`
    pub drop_all_capabilities: bool,
    /// `SIDECAR_SECCOMP_PROFILE_TYPE`: upstream has only the annotation.
    pub seccomp_profile_type: String,
    /// `ENABLE_K8S_DOWNWARD_APIS`
    pub downward_apis: bool,
    /// `NATIVE_SIDECAR_ENABLED`
    pub native_sidecar: bool,
    /// `STRICT_ANNOTATIONS`: upstream has no such mode.
    pub strict: bool,
    /// `DAPR_COMPONENT_SOCKETS_FOLDER`
    pub component_sockets_folder: String,
    /// `TRUST_DISTRIBUTION_ENABLED` and `TRUST_ANCHORS_CONFIGMAP_NAME`: the ConfigMap that the operator keeps in each namespace;
    /// `None` when it keeps none.
    pub trust_anchors_config_map: Option<String>,
}

/// The service that places actors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actors {
    Disabled,
    /// Dapr's own placement service, at this host and port within the control plane's namespace.
    Placement(Address),
    /// Another one, by name.
    Other(Service),
}

/// A service by type and address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub name: String,
    pub address: Address,
}

/// A Service's name in the control plane's namespace, and its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub service: String,
    pub port: u32,
}

/// Why the environment cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    #[error("required key {0} missing value")]
    Missing(&'static str),
    #[error("NAMESPACE is empty: it must name the control plane's namespace")]
    EmptyNamespace,
    #[error("invalid value for {what} service address: {found:?} is not <name>:<port> with a port above 0")]
    Address { what: &'static str, found: String },
    #[error("invalid value for {key}: {found:?} is not an integer")]
    Integer { key: &'static str, found: String },
    #[error("invalid value for DAPR_CONTROL_PLANE_TRUST_DOMAIN")]
    TrustDomain(#[source] SpiffeIdError),
    #[error("cannot use the allowed service accounts: {0}")]
    Allowed(#[from] PatternError),
}

impl Environment {
    /// Reads the variables. What upstream merely warns of is logged here as well.
    ///
    /// # Errors
    /// Names the variable, what was found and what was expected.
    pub fn parse(variables: &HashMap<String, String>) -> Result<Self, EnvironmentError> {
        let get = |key: &str| variables.get(key).map(String::as_str);
        let text = |key: &str| get(key).unwrap_or_default();
        let required = |key: &'static str| get(key).ok_or(EnvironmentError::Missing(key));
        let integer = |key: &'static str| match text(key) {
            "" => Ok(None),
            found => found.parse().map(Some).map_err(|_| EnvironmentError::Integer {
                key,
                found: found.to_owned(),
            }),
        };

        let sidecar_image = required("SIDECAR_IMAGE")?.to_owned();
        let namespace = required("NAMESPACE")?.to_owned();
        if namespace.is_empty() {
            return Err(EnvironmentError::EmptyNamespace);
        }
        let prefix_names = text("ALLOWED_SERVICE_ACCOUNTS_PREFIX_NAMES");
        if !prefix_names.is_empty() {
            tracing::warn!("ALLOWED_SERVICE_ACCOUNTS_PREFIX_NAMES is deprecated: use ALLOWED_SERVICE_ACCOUNTS");
        }
        Ok(Self {
            namespace,
            trust_domain: TrustDomain::new(get("DAPR_CONTROL_PLANE_TRUST_DOMAIN").unwrap_or("cluster.local"))
                .map_err(EnvironmentError::TrustDomain)?,
            trust_anchors_file: get("DAPR_TRUST_ANCHORS_FILE")
                .unwrap_or("/var/run/dapr.io/tls/ca.crt")
                .into(),
            sentry_address: text("DAPR_SENTRY_ADDRESS").to_owned(),
            cluster_domain: text("KUBE_CLUSTER_DOMAIN").to_owned(),
            skip_root_check: text("DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK") == "true",
            sidecar_image,
            pull_policy: match get("SIDECAR_IMAGE_PULL_POLICY") {
                None | Some("Always") => "Always",
                Some("Never") => "Never",
                Some(_) => "IfNotPresent",
            },
            allowed: Allowed::new(&[text("ALLOWED_SERVICE_ACCOUNTS"), prefix_names])?,
            ignore_entrypoint_tolerations: tolerations_of(text("IGNORE_ENTRYPOINT_TOLERATIONS")),
            actors: actors(
                text("ACTORS_ENABLED"),
                text("ACTORS_SERVICE_NAME"),
                text("ACTORS_SERVICE_ADDRESS"),
            )?,
            reminders: reminders(text("REMINDERS_SERVICE_NAME"), text("REMINDERS_SERVICE_ADDRESS"))?,
            run_as_non_root: truthy_default_true(text("SIDECAR_RUN_AS_NON_ROOT")),
            run_as_user: integer("SIDECAR_RUN_AS_USER")?,
            run_as_group: integer("SIDECAR_RUN_AS_GROUP")?,
            read_only_root_filesystem: truthy_default_true(text("SIDECAR_READ_ONLY_ROOT_FILESYSTEM")),
            drop_all_capabilities: truthy(text("SIDECAR_DROP_ALL_CAPABILITIES")),
            seccomp_profile_type: text("SIDECAR_SECCOMP_PROFILE_TYPE").to_owned(),
            downward_apis: truthy(text("ENABLE_K8S_DOWNWARD_APIS")),
            native_sidecar: truthy(text("NATIVE_SIDECAR_ENABLED")),
            strict: truthy(text("STRICT_ANNOTATIONS")),
            component_sockets_folder: get("DAPR_COMPONENT_SOCKETS_FOLDER")
                .unwrap_or("/tmp/dapr-components-sockets")
                .to_owned(),
            trust_anchors_config_map: truthy(text("TRUST_DISTRIBUTION_ENABLED")).then(|| {
                let name = text("TRUST_ANCHORS_CONFIGMAP_NAME");
                if name.is_empty() { "dapr-root-ca.crt" } else { name }.to_owned()
            }),
        })
    }
}

fn tolerations_of(json: &str) -> Vec<Toleration> {
    if json.is_empty() {
        return Vec::new();
    }
    tolerations::parse(json).unwrap_or_else(|error| {
        tracing::warn!(%error, "IGNORE_ENTRYPOINT_TOLERATIONS is not a JSON array of tolerations and is ignored");
        Vec::new()
    })
}

fn actors(enabled: &str, name: &str, address: &str) -> Result<Actors, EnvironmentError> {
    // The address is checked even when actors are disabled: a mistake should show at once.
    let address = match name {
        "" => Address {
            service: "dapr-placement-server".to_owned(),
            port: 50005,
        },
        _ => service_address("actor", address)?,
    };
    Ok(match name {
        _ if !truthy_default_true(enabled) => Actors::Disabled,
        "" | "placement" => Actors::Placement(address),
        name => Actors::Other(Service {
            name: name.to_owned(),
            address,
        }),
    })
}

/// Upstream passes a broken, and unused, address to sidecars for the name `default`; here it means what it says.
fn reminders(name: &str, address: &str) -> Result<Option<Service>, EnvironmentError> {
    if matches!(name, "" | "default") {
        return Ok(None);
    }
    Ok(Some(Service {
        name: name.to_owned(),
        address: service_address("reminders", address)?,
    }))
}

fn service_address(what: &'static str, found: &str) -> Result<Address, EnvironmentError> {
    let parts = found
        .split_once(':')
        .filter(|(service, _)| !service.is_empty())
        .and_then(|(service, port)| Some((service, port.parse().ok().filter(|port| *port > 0)?)));
    match parts {
        Some((service, port)) => Ok(Address {
            service: service.to_owned(),
            port,
        }),
        None => Err(EnvironmentError::Address {
            what,
            found: found.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests;
