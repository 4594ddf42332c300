//! Follows the control plane's Configuration, of which the injector needs one flag.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Resource, core::NamespaceResourceScope, runtime::watcher};
use outrigger_core::control_plane::SYSTEM_CONFIGURATION;
use outrigger_process::kubernetes::{
    client::Clients,
    watch::{Change, changes, until_forbidden},
};
use serde::Deserialize;
use serde_json::Value;

use super::{Cluster, POLL};

/// A Configuration, read as leniently as possible.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Configuration {
    metadata: ObjectMeta,
    spec: Value,
}

impl Configuration {
    /// On unless it is switched off.
    fn mtls(&self) -> bool {
        self.spec
            .pointer("/mtls/enabled")
            .and_then(Value::as_bool)
            .unwrap_or(true)
    }
}

impl Resource for Configuration {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Configuration".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "dapr.io".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1alpha1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "configurations".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Follows the Configuration for ever. Upstream's chart grants only `get`: then it is read every half minute.
pub async fn follow(clients: Clients, namespace: String, cluster: Cluster) {
    let watched: Api<Configuration> = Api::namespaced(clients.watches, &namespace);
    let only = watcher::Config::default().fields(&format!("metadata.name={SYSTEM_CONFIGURATION}"));
    let mut seen = false;
    until_forbidden(changes(watched, only), |change| match change {
        Change::Apply(configuration) => {
            seen = true;
            cluster.set_mtls(configuration.mtls());
        }
        Change::Delete(_) => cluster.set_mtls(true),
        // Listed, and it is not there.
        Change::Synced if !seen => cluster.set_mtls(true),
        Change::Absent => cluster.set_mtls(true),
        Change::Synced | Change::Forbidden => {}
    })
    .await;
    tracing::warn!(
        configuration = SYSTEM_CONFIGURATION,
        seconds = POLL.as_secs(),
        "the Configuration may not be watched and is read periodically instead"
    );
    let api: Api<Configuration> = Api::namespaced(clients.calls, &namespace);
    loop {
        match api.get_opt(SYSTEM_CONFIGURATION).await {
            Ok(configuration) => cluster.set_mtls(configuration.is_none_or(|configuration| configuration.mtls())),
            Err(error) => {
                tracing::warn!(configuration = SYSTEM_CONFIGURATION, %error, "cannot read the Configuration");
                cluster.assume_mtls();
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_false_switches_mtls_off() {
        let mtls = |spec: &str| {
            let json = format!(r#"{{"metadata":{{"name":"daprsystem"}},"spec":{spec}}}"#);
            serde_json::from_str::<Configuration>(&json).unwrap().mtls()
        };
        assert!(!mtls(r#"{"mtls":{"enabled":false}}"#));
        for on in [
            "null",
            "{}",
            r#"{"mtls":null}"#,
            r#"{"mtls":{}}"#,
            r#"{"mtls":{"enabled":true}}"#,
        ] {
            assert!(mtls(on), "{on}");
        }
    }
}
