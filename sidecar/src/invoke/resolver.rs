//! Name resolution: the address of an application's sidecar.

use outrigger_core::cluster_domain;

use crate::{resources::configuration::NameResolution, settings::Mode};

/// Stands for the app id in a format.
const APP_ID: &str = "{appid}";

/// How app ids become addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolver {
    /// The Service that the operator makes for each application.
    Kubernetes { domain: String },
    /// A text with a place for the app id.
    NameFormat { format: String },
    /// Only the own application can be invoked; the text says why.
    Unavailable(String),
}

/// There is no way to the application.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("couldn't resolve the address of {app_id}: {reason}")]
pub struct Error {
    app_id: String,
    reason: String,
}

impl Resolver {
    /// The resolver that the Configuration asks for, or the mode's default. What is asked for in vain makes it unavailable, so
    /// that everything else still works.
    pub fn new(mode: Mode, wanted: Option<&NameResolution>) -> Self {
        let component = wanted.map(|wanted| wanted.component.trim()).unwrap_or_default();
        let option = |key: &str| {
            wanted
                .and_then(|wanted| wanted.configuration.get(key))
                .and_then(|value| value.as_str())
        };
        match (component, mode) {
            ("kubernetes", _) | ("", Mode::Kubernetes) => match option("template") {
                Some(_) => Self::Unavailable("nameResolution.configuration.template is not supported by this release".to_owned()),
                None => Self::Kubernetes { domain: option("clusterDomain").unwrap_or(cluster_domain::DEFAULT).to_owned() },
            },
            ("nameformat", _) => match option("format").filter(|format| format.contains(APP_ID)) {
                Some(format) => Self::NameFormat { format: format.to_owned() },
                None => Self::Unavailable(format!("nameResolution.configuration.format is missing or has no {APP_ID}")),
            },
            ("", Mode::Standalone) => Self::Unavailable(
                "mDNS, the default in standalone mode, is not supported by this release; set nameResolution.component to \
                 nameformat in a Configuration"
                    .to_owned(),
            ),
            (other, _) => Self::Unavailable(format!(
                "the name resolution component {other:?} is not supported by this release (it has kubernetes and nameformat)"
            )),
        }
    }

    /// `host:port` of an application's sidecar. `port` is the caller's own internal port, which all sidecars in a cluster share.
    ///
    /// # Errors
    /// When there is no name resolution, and why.
    pub fn resolve(&self, app_id: &str, namespace: &str, port: u16) -> Result<String, Error> {
        match self {
            Self::Kubernetes { domain } => Ok(format!("{app_id}-dapr.{namespace}.svc.{domain}:{port}")),
            Self::NameFormat { format } => {
                let address = format.replace(APP_ID, app_id);
                let has_port = address
                    .rsplit_once(':')
                    .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
                Ok(if has_port { address } else { format!("{address}:{port}") })
            }
            Self::Unavailable(reason) => Err(Error {
                app_id: app_id.to_owned(),
                reason: reason.clone(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted(component: &str, configuration: serde_json::Value) -> Option<NameResolution> {
        Some(NameResolution {
            component: component.into(),
            version: "v1".into(),
            configuration,
        })
    }

    #[test]
    fn services_in_kubernetes() {
        let resolver = Resolver::new(Mode::Kubernetes, None);
        assert_eq!(
            resolver.resolve("cart", "shop", 50002).unwrap(),
            "cart-dapr.shop.svc.cluster.local:50002"
        );
        let resolver = Resolver::new(
            Mode::Kubernetes,
            wanted("kubernetes", json!({"clusterDomain": "k.example"})).as_ref(),
        );
        assert_eq!(
            resolver.resolve("cart", "shop", 1).unwrap(),
            "cart-dapr.shop.svc.k.example:1"
        );
    }

    #[test]
    fn formats() {
        let resolver = Resolver::new(
            Mode::Standalone,
            wanted("nameformat", json!({"format": "{appid}.internal"})).as_ref(),
        );
        assert_eq!(resolver.resolve("cart", "", 50002).unwrap(), "cart.internal:50002");
        let resolver = Resolver::new(
            Mode::Standalone,
            wanted("nameformat", json!({"format": "127.0.0.{appid}:7"})).as_ref(),
        );
        assert_eq!(resolver.resolve("11", "", 50002).unwrap(), "127.0.0.11:7");
    }

    #[test]
    fn what_is_missing_says_so() {
        let reason = |mode, wanted: Option<NameResolution>| {
            Resolver::new(mode, wanted.as_ref())
                .resolve("cart", "shop", 1)
                .unwrap_err()
                .to_string()
        };
        assert!(reason(Mode::Standalone, None).starts_with("couldn't resolve the address of cart: mDNS"));
        assert!(reason(Mode::Kubernetes, wanted("consul", json!(null))).contains("\"consul\""));
        assert!(reason(Mode::Standalone, wanted("nameformat", json!({}))).contains("{appid}"));
        assert!(reason(Mode::Kubernetes, wanted("kubernetes", json!({"template": "x"}))).contains("template"));
    }
}
