//! The trust anchors in the control plane's ConfigMap, for processes whose mounted copy is not there yet.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use outrigger_core::control_plane::TRUST_BUNDLE;
use outrigger_identity::Elsewhere;

/// Key of the anchors, as the chart mounts it.
const ANCHORS: &str = "ca.crt";
const DEADLINE: Duration = Duration::from_secs(5);

/// Asks the API server for the ConfigMap. Upstream's chart does not grant that: then the mounted file has to do.
pub fn anchors(client: Client, namespace: &str) -> Elsewhere {
    let maps: Api<ConfigMap> = Api::namespaced(client, namespace);
    Elsewhere::new(move || {
        let maps = maps.clone();
        async move {
            match tokio::time::timeout(DEADLINE, maps.get_opt(TRUST_BUNDLE)).await {
                Ok(Ok(map)) => map?.data?.remove(ANCHORS).filter(|text| !text.is_empty()),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "the trust anchors cannot be read from the API server");
                    None
                }
                Err(_) => None,
            }
        }
    })
}
