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
mod tests {
    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<Environment, EnvironmentError> {
        let required = [("SIDECAR_IMAGE", "daprd:1"), ("NAMESPACE", "dapr-system")];
        let all = required.iter().chain(variables);
        Environment::parse(
            &all.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        )
    }

    fn error(variables: &[(&str, &str)]) -> String {
        parse(variables).unwrap_err().to_string()
    }

    #[test]
    fn defaults() {
        let env = parse(&[]).unwrap();
        assert_eq!(env.pull_policy, "Always");
        assert_eq!(env.trust_domain.as_str(), "cluster.local");
        assert_eq!(env.trust_anchors_file.to_str(), Some("/var/run/dapr.io/tls/ca.crt"));
        assert_eq!(env.component_sockets_folder, "/tmp/dapr-components-sockets");
        assert_eq!(
            env.actors,
            Actors::Placement(Address {
                service: "dapr-placement-server".into(),
                port: 50005
            })
        );
        assert_eq!((env.run_as_user, env.run_as_group, env.reminders), (None, None, None));
        assert!(env.run_as_non_root && env.read_only_root_filesystem);
        assert!(!env.drop_all_capabilities && !env.downward_apis && !env.native_sidecar && !env.skip_root_check);
    }

    #[test]
    fn anchors_are_mounted_when_they_are_distributed() {
        let name = |variables: &[(&str, &str)]| parse(variables).unwrap().trust_anchors_config_map;
        let other = ("TRUST_ANCHORS_CONFIGMAP_NAME", "other");
        assert_eq!(name(&[]), None);
        assert_eq!(name(&[other]), None);
        let on = ("TRUST_DISTRIBUTION_ENABLED", "true");
        assert_eq!(name(&[on]).as_deref(), Some("dapr-root-ca.crt"));
        assert_eq!(name(&[on, other]).as_deref(), Some("other"));
    }

    #[test]
    fn required_variables_must_be_there() {
        let missing = |variables: &[(&str, &str)]| {
            let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            Environment::parse(&variables.collect()).unwrap_err().to_string()
        };
        assert_eq!(
            missing(&[("NAMESPACE", "x")]),
            "required key SIDECAR_IMAGE missing value"
        );
        assert_eq!(
            missing(&[("SIDECAR_IMAGE", "")]),
            "required key NAMESPACE missing value"
        );
        assert_eq!(
            missing(&[("SIDECAR_IMAGE", ""), ("NAMESPACE", "")]),
            "NAMESPACE is empty: it must name the control plane's namespace"
        );
    }

    #[test]
    fn present_but_empty_overrides_a_default() {
        assert_eq!(
            parse(&[("DAPR_COMPONENT_SOCKETS_FOLDER", "")])
                .unwrap()
                .component_sockets_folder,
            ""
        );
        assert_eq!(
            parse(&[("SIDECAR_IMAGE_PULL_POLICY", "")]).unwrap().pull_policy,
            "IfNotPresent"
        );
        let error = parse(&[("DAPR_CONTROL_PLANE_TRUST_DOMAIN", "")]).unwrap_err();
        assert_eq!(
            format!("{:#}", anyhow::Error::from(error)),
            "invalid value for DAPR_CONTROL_PLANE_TRUST_DOMAIN: trust domain is empty"
        );
    }

    #[test]
    fn pull_policy_is_exact() {
        for (found, expected) in [
            ("Always", "Always"),
            ("Never", "Never"),
            ("always", "IfNotPresent"),
            ("IfNotPresent", "IfNotPresent"),
        ] {
            assert_eq!(
                parse(&[("SIDECAR_IMAGE_PULL_POLICY", found)]).unwrap().pull_policy,
                expected
            );
        }
    }

    #[test]
    fn booleans_are_lenient() {
        let env = parse(&[
            ("SIDECAR_RUN_AS_NON_ROOT", "no"),
            ("SIDECAR_DROP_ALL_CAPABILITIES", "Yes"),
            ("NATIVE_SIDECAR_ENABLED", "1"),
            ("DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK", "TRUE"),
        ])
        .unwrap();
        assert!(!env.run_as_non_root && env.drop_all_capabilities && env.native_sidecar);
        assert!(!env.skip_root_check, "exactly true");
    }

    #[test]
    fn numbers() {
        let env = parse(&[("SIDECAR_RUN_AS_USER", "1000"), ("SIDECAR_RUN_AS_GROUP", "0")]).unwrap();
        assert_eq!((env.run_as_user, env.run_as_group), (Some(1000), Some(0)));
        assert_eq!(
            error(&[("SIDECAR_RUN_AS_USER", "root")]),
            "invalid value for SIDECAR_RUN_AS_USER: \"root\" is not an integer"
        );
    }

    #[test]
    fn actor_and_reminder_services() {
        let other = |name: &str, service: &str, port| Service {
            name: name.into(),
            address: Address {
                service: service.into(),
                port,
            },
        };
        let actors = |enabled, name, address| {
            parse(&[
                ("ACTORS_ENABLED", enabled),
                ("ACTORS_SERVICE_NAME", name),
                ("ACTORS_SERVICE_ADDRESS", address),
            ])
        };
        assert_eq!(actors("false", "placement", "a:1").unwrap().actors, Actors::Disabled);
        assert_eq!(
            actors("", "placement", "a:1").unwrap().actors,
            Actors::Placement(other("", "a", 1).address)
        );
        assert_eq!(
            actors("true", "mine", "a.b:70000").unwrap().actors,
            Actors::Other(other("mine", "a.b", 70000))
        );
        for bad in ["", "a", ":1", "a:", "a:0", "a:-1", "a:1:2", "a:x"] {
            let expected =
                format!("invalid value for actor service address: {bad:?} is not <name>:<port> with a port above 0");
            assert_eq!(actors("true", "mine", bad).unwrap_err().to_string(), expected);
        }
        let reminders =
            |name, address| parse(&[("REMINDERS_SERVICE_NAME", name), ("REMINDERS_SERVICE_ADDRESS", address)]);
        assert_eq!(reminders("default", "").unwrap().reminders, None);
        assert_eq!(reminders("r", "s:5").unwrap().reminders, Some(other("r", "s", 5)));
        assert!(reminders("r", "").is_err());
    }

    #[test]
    fn allowed_accounts_are_checked() {
        assert_eq!(
            error(&[("ALLOWED_SERVICE_ACCOUNTS", "shop")]),
            "cannot use the allowed service accounts: invalid pattern \"shop\", must contain exactly one ':' separating \
             namespace and name"
        );
        assert!(parse(&[("ALLOWED_SERVICE_ACCOUNTS_PREFIX_NAMES", "a*:b*")]).is_ok());
    }

    #[test]
    fn tolerations_that_cannot_be_read_are_ignored() {
        let of = |json| {
            parse(&[("IGNORE_ENTRYPOINT_TOLERATIONS", json)])
                .unwrap()
                .ignore_entrypoint_tolerations
        };
        assert_eq!(of(r#"[{"Key":"k","operator":"Exists"}]"#).len(), 1);
        for broken in ["", "x", "{}", r#"[{\"key\":\"k\"}]"#] {
            assert!(of(broken).is_empty(), "{broken}");
        }
    }
}
