//! Follows the control plane's Configuration, of which the injector needs one flag.

use kube::{Api, runtime::watcher};
use outrigger_core::control_plane::SYSTEM_CONFIGURATION;
use outrigger_process::kubernetes::{
    access::{Objects, granted},
    client::Clients,
    slim::{self, Slim},
    watch::{Change, changes, until_forbidden},
};
use serde_json::Value;

use super::{Cluster, POLL};

type Configuration = Slim<slim::Configuration, Value>;

/// On unless it is switched off.
fn mtls(configuration: &Configuration) -> bool {
    let enabled = configuration.spec.pointer("/mtls/enabled");
    enabled.and_then(Value::as_bool).unwrap_or(true)
}

/// Follows the Configuration for ever. Upstream's chart grants only `get`: then it is read every half minute, until it may be
/// watched.
pub async fn follow(clients: Clients, namespace: String, cluster: Cluster) {
    let this = Objects {
        namespace: Some(&namespace),
        name: Some(SYSTEM_CONFIGURATION),
    };
    loop {
        watch(clients.watches.clone(), &namespace, &cluster).await;
        tokio::select! {
            () = granted::<Configuration>(&clients.calls, this) => {
                tracing::info!(configuration = SYSTEM_CONFIGURATION, "the Configuration may be watched now");
            }
            () = poll(clients.calls.clone(), &namespace, &cluster) => {}
        }
    }
}

/// Until it is forbidden.
async fn watch(client: kube::Client, namespace: &str, cluster: &Cluster) {
    let watched: Api<Configuration> = Api::namespaced(client, namespace);
    let only = watcher::Config::default().fields(&format!("metadata.name={SYSTEM_CONFIGURATION}"));
    let mut seen = false;
    until_forbidden(changes(watched, only), |change| match change {
        Change::Apply(configuration) => {
            seen = true;
            cluster.set_mtls(mtls(&configuration));
        }
        Change::Delete(_) => cluster.set_mtls(true),
        // Listed, and it is not there.
        Change::Synced if !seen => cluster.set_mtls(true),
        Change::Absent => cluster.set_mtls(true),
        Change::Synced | Change::Forbidden => {}
    })
    .await;
}

/// Reads it again and again.
async fn poll(client: kube::Client, namespace: &str, cluster: &Cluster) {
    tracing::warn!(
        configuration = SYSTEM_CONFIGURATION,
        seconds = POLL.as_secs(),
        "the Configuration may not be watched and is read periodically instead"
    );
    let api: Api<Configuration> = Api::namespaced(client, namespace);
    loop {
        match api.get_opt(SYSTEM_CONFIGURATION).await {
            Ok(configuration) => cluster.set_mtls(configuration.is_none_or(|configuration| mtls(&configuration))),
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
        let on = |spec: &str| {
            let json = format!(r#"{{"metadata":{{"name":"daprsystem"}},"spec":{spec}}}"#);
            mtls(&serde_json::from_str(&json).unwrap())
        };
        assert!(!on(r#"{"mtls":{"enabled":false}}"#));
        for spec in [
            "null",
            "{}",
            r#"{"mtls":null}"#,
            r#"{"mtls":{}}"#,
            r#"{"mtls":{"enabled":true}}"#,
        ] {
            assert!(on(spec), "{spec}");
        }
    }
}
