//! What the injector knows of the cluster: a snapshot that tasks keep current, so that no admission review waits for the API
//! server.

pub mod accounts;
pub mod components;
pub mod configuration;
pub mod version;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::RwLock;
use tokio::sync::watch;

use crate::patch::components::ComponentContainer;

/// How often objects are read that cannot be watched.
pub(crate) const POLL: Duration = Duration::from_secs(30);

/// The snapshot; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// `None` while the Configuration is not known.
    mtls: watch::Sender<Option<bool>>,
    components: RwLock<Components>,
    allowed_uids: RwLock<HashSet<String>>,
    /// The version of a cluster that has no native sidecars.
    too_old: RwLock<Option<String>>,
}

/// Containers that Components bring, by namespace and name: in the order in which the API server lists them.
#[derive(Debug, Default)]
struct Components {
    known: Known,
    namespaces: HashMap<String, BTreeMap<String, ComponentContainer>>,
}

/// How much of the cluster's Components is known.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
enum Known {
    /// Nothing, for this reason.
    Nothing(String),
    #[default]
    NotListedYet,
    All,
    /// More is forbidden.
    Namespace(String),
}

/// Why the Components of a namespace are not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ComponentsError {
    #[error("they have not been listed yet; try again")]
    NotListedYet,
    #[error("{0}")]
    Unavailable(String),
    #[error("the injector may list Components only in namespace {allowed:?}, not in {asked:?}")]
    Forbidden { allowed: String, asked: String },
}

impl Cluster {
    /// Whether the control plane's Configuration has mTLS on. It has unless the Configuration says otherwise.
    pub fn mtls(&self) -> bool {
        self.shared.mtls.borrow().unwrap_or(true)
    }

    pub fn set_mtls(&self, on: bool) {
        if self.shared.mtls.send_replace(Some(on)) != Some(on) {
            tracing::info!(mtls = on, "sidecars are injected with this mTLS setting");
        }
    }

    /// The Configuration cannot be read: what is known of it stays, and mTLS is on when nothing is.
    fn assume_mtls(&self) {
        self.set_mtls(self.mtls());
    }

    /// Waits until the Configuration, or its absence, is known.
    pub async fn mtls_known(&self) {
        // Cannot fail: the sender is part of what `self` holds.
        let _ = self.shared.mtls.subscribe().wait_for(Option::is_some).await;
    }

    /// Whether a UID belongs to a service account that is allowed by name.
    pub fn is_allowed_uid(&self, uid: &str) -> bool {
        self.shared.allowed_uids.read().contains(uid)
    }

    pub fn set_allowed_uids(&self, uids: HashSet<String>) {
        *self.shared.allowed_uids.write() = uids;
    }

    /// The cluster's version when it knows no native sidecars. They are as wanted while it is not known, as upstream has it.
    pub fn too_old_for_native_sidecars(&self) -> Option<String> {
        self.shared.too_old.read().clone()
    }

    pub fn set_too_old_for_native_sidecars(&self, version: Option<String>) {
        *self.shared.too_old.write() = version;
    }

    /// Containers that the Components of a namespace bring.
    ///
    /// # Errors
    /// When its Components are not known: to leave them out silently would be worse.
    pub fn component_containers(&self, namespace: &str) -> Result<Vec<ComponentContainer>, ComponentsError> {
        let components = self.shared.components.read();
        match &components.known {
            Known::All => {}
            Known::Namespace(only) if only == namespace => {}
            Known::Namespace(only) => {
                return Err(ComponentsError::Forbidden {
                    allowed: only.clone(),
                    asked: namespace.to_owned(),
                });
            }
            Known::NotListedYet => return Err(ComponentsError::NotListedYet),
            Known::Nothing(reason) => return Err(ComponentsError::Unavailable(reason.clone())),
        }
        let containers = components.namespaces.get(namespace);
        Ok(containers.into_iter().flat_map(|list| list.values().cloned()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_components_are_an_error() {
        let cluster = Cluster::default();
        assert_eq!(cluster.component_containers("shop"), Err(ComponentsError::NotListedYet));
        cluster.shared.components.write().known = Known::All;
        assert_eq!(cluster.component_containers("shop"), Ok(Vec::new()));
        cluster.shared.components.write().known = Known::Namespace("dapr-system".into());
        assert_eq!(cluster.component_containers("dapr-system"), Ok(Vec::new()));
        assert_eq!(
            cluster.component_containers("shop").unwrap_err().to_string(),
            "the injector may list Components only in namespace \"dapr-system\", not in \"shop\""
        );
    }

    #[test]
    fn mtls_is_on_unless_switched_off() {
        let cluster = Cluster::default();
        assert!(cluster.mtls());
        cluster.set_mtls(false);
        assert!(!cluster.mtls());
    }
}
