//! Facts about objects of the API server, kept current by a watch: of the cluster, or where that is forbidden of one namespace.
//! Nobody has to wait for it: what it does not know is read by name.

use std::{collections::HashMap, fmt::Debug, sync::Arc};

use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Resource, runtime::watcher};
use outrigger_process::{
    health::Target,
    kubernetes::{
        access::{Objects, granted},
        client::Clients,
        watch::{Change, ObjectKey, changes, until_forbidden},
    },
};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;

/// What is known by now; clones share it.
pub(super) struct Cache<V>(Arc<RwLock<HashMap<ObjectKey, Arc<V>>>>);

impl<V> Clone for Cache<V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<V> Cache<V> {
    pub(super) fn get(&self, key: &ObjectKey) -> Option<Arc<V>> {
        self.0.read().get(key).cloned()
    }

    /// Keeps the facts, for ever: those of all objects, and while that is forbidden those of the objects in `namespace`. The target
    /// is ready once there is nothing more to wait for.
    pub(super) async fn follow<K>(self, clients: Clients, namespace: String, facts: fn(&K) -> V, target: Target)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug
            + Send
            + 'static,
    {
        let kind = K::kind(&()).into_owned();
        let watches = || clients.watches.clone();
        loop {
            self.watch(Api::all(watches()), facts, &target).await;
            tracing::warn!(
                kind,
                "only those of the control plane's namespace are watched; others are read for each of their requests"
            );
            tokio::select! {
                () = granted::<K>(&clients.calls, Objects::default()) => tracing::info!(kind, "those of the whole cluster may be watched now"),
                () = async {
                    self.watch(Api::namespaced(watches(), &namespace), facts, &target).await;
                    tracing::warn!(kind, "these cannot be watched; each request for a certificate reads what it needs");
                    target.ready();
                    std::future::pending::<()>().await;
                } => {}
            }
        }
    }

    /// Until watching is forbidden. What is known then is forgotten: nobody would correct it any more.
    async fn watch<K>(&self, api: Api<K>, facts: fn(&K) -> V, target: &Target)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        until_forbidden(changes(api, watcher::Config::default()), |change| match change {
            Change::Apply(object) => {
                let meta = object.meta();
                let key = ObjectKey::new(
                    meta.namespace.clone().unwrap_or_default(),
                    meta.name.clone().unwrap_or_default(),
                );
                self.0.write().insert(key, Arc::new(facts(&object)));
            }
            Change::Delete(key) => {
                self.0.write().remove(&key);
            }
            Change::Synced => target.ready(),
            // Kinds that are not installed have no objects.
            Change::Absent => target.ready(),
            Change::Forbidden => {}
        })
        .await;
        self.0.write().clear();
    }
}
