//! The Configuration of the control plane itself: where sentry is, and which trust domain.

mod follow;

use std::time::Duration;

use anyhow::Context;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject},
};
use outrigger_core::TrustDomain;
use outrigger_crds::Configuration;
use outrigger_process::health::Target;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::sleep;

pub use self::follow::Follower;
use crate::deadline::in_time;

const RETRY: Duration = Duration::from_secs(2);
const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";

/// What the operator uses of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemConfiguration {
    pub trust_domain: TrustDomain,
    /// `host:port`.
    pub sentry_address: String,
    /// Whether sidecars call each other with mTLS.
    pub mtls: bool,
}

/// Only these fields: a mistake elsewhere in the object must not keep the control plane from starting.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    mtls: Option<Mtls>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Mtls {
    enabled: Option<bool>,
    control_plane_trust_domain: Option<String>,
    sentry_address: Option<String>,
}

/// Reads the Configuration `name`, waiting for as long as it does not exist or the API server does not answer.
///
/// # Errors
/// When the object is there and cannot be used.
pub async fn load(client: Client, namespace: &str, name: &str, health: &Target) -> anyhow::Result<SystemConfiguration> {
    let resource = ApiResource::erase::<Configuration>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &resource);
    let what = format!("Configuration {namespace}/{name}");
    let mut last = String::new();
    loop {
        let reason = match in_time(api.get(name)).await {
            Ok(object) => {
                let configuration = parse(&object.data["spec"], namespace);
                let configuration = configuration.with_context(|| format!("{what} cannot be used"))?;
                health.ready();
                return Ok(configuration);
            }
            Err(kube::Error::Api(status)) if status.is_not_found() => format!("{what} does not exist yet"),
            Err(error) => format!("{what} cannot be read: {error}"),
        };
        health.not_ready(reason.clone());
        if reason != last {
            tracing::warn!("{reason}; trying again");
            last = reason;
        }
        sleep(RETRY).await;
    }
}

fn parse(spec: &Value, namespace: &str) -> anyhow::Result<SystemConfiguration> {
    let spec = Option::<Spec>::deserialize(spec).context("spec")?;
    let mtls = spec.and_then(|spec| spec.mtls).unwrap_or_default();
    let set = |value: Option<String>| value.filter(|text| !text.is_empty());
    let trust_domain = set(mtls.control_plane_trust_domain);
    let trust_domain = trust_domain.as_deref().unwrap_or(DEFAULT_TRUST_DOMAIN);
    Ok(SystemConfiguration {
        trust_domain: TrustDomain::new(trust_domain).context("spec.mtls.controlPlaneTrustDomain")?,
        sentry_address: set(mtls.sentry_address)
            .unwrap_or_else(|| format!("dapr-sentry.{namespace}.svc.cluster.local:443")),
        mtls: mtls.enabled.unwrap_or(true),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(spec: &Value) -> anyhow::Result<SystemConfiguration> {
        parse(spec, "dapr-system")
    }

    #[test]
    fn takes_what_is_set_and_defaults_the_rest() {
        let full =
            json!({"mtls": {"enabled": false, "controlPlaneTrustDomain": "example.org", "sentryAddress": "s:1"}});
        let full = read(&full).unwrap();
        assert_eq!(full.trust_domain.as_str(), "example.org");
        assert_eq!((full.sentry_address.as_str(), full.mtls), ("s:1", false));

        let spec = json!({"mtls": {}, "tracing": {"otel": {"timeout": "soon"}}});
        for sparse in [read(&spec), read(&json!({})), read(&Value::Null)] {
            let sparse = sparse.unwrap();
            assert_eq!(sparse.trust_domain.as_str(), "cluster.local");
            assert_eq!(sparse.sentry_address, "dapr-sentry.dapr-system.svc.cluster.local:443");
            assert!(sparse.mtls);
        }
    }

    #[test]
    fn names_the_field_that_is_wrong() {
        let error = read(&json!({"mtls": {"controlPlaneTrustDomain": "Not Legal"}})).unwrap_err();
        assert!(
            format!("{error:#}").contains("spec.mtls.controlPlaneTrustDomain"),
            "{error:#}"
        );
    }
}
