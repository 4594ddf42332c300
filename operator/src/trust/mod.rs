//! Trust distribution: a ConfigMap with the trust anchors in every namespace that has a pod with a sidecar. Sidecars mount it, so
//! they learn of a new root while they run. Names are those that upstream announced.
//!
//! ConfigMaps are kept while their namespace has such pods, and stay behind afterwards: anchors are public, and removing them
//! could take them from a pod that is just starting.

mod pace;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    runtime::watcher,
};
use outrigger_identity::Anchors;
use outrigger_process::kubernetes::{
    client::Clients,
    watch::{Change, ObjectKey, changes},
};
use prometheus::IntCounterVec;
use serde_json::json;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use self::pace::Pace;
use crate::{
    FIELD_MANAGER,
    deadline::in_time,
    events::{Events, Notice},
    pods::Pods,
    queue::Queue,
    scope::Scope,
};

/// Key of the anchors in the ConfigMap.
const KEY: &str = "ca.crt";
/// Without the right to watch, what is there is overwritten this often.
const BLIND: Duration = Duration::from_secs(300);

/// What is distributed, and as what.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the ConfigMaps.
    pub name: String,
    pub anchors: watch::Receiver<Arc<Anchors>>,
}

/// Keeps the ConfigMaps.
pub struct Distributor {
    client: Client,
    settings: Settings,
    pods: Arc<Pods>,
    events: Arc<Events>,
    writes: IntCounterVec,
    /// Namespaces that need a ConfigMap.
    wanted: BTreeSet<String>,
    /// The anchors in each ConfigMap that exists.
    known: HashMap<String, String>,
    /// Whether the ConfigMaps can be watched; `None` before the first answer.
    watching: Option<bool>,
    queue: Queue<String>,
    paces: HashMap<String, Pace>,
    /// What was said of each namespace whose ConfigMap cannot be written.
    told: HashMap<String, String>,
}

impl Distributor {
    pub fn new(
        client: Client,
        settings: Settings,
        pods: Arc<Pods>,
        events: Arc<Events>,
        writes: IntCounterVec,
    ) -> Self {
        Self {
            client,
            settings,
            pods,
            events,
            writes,
            wanted: BTreeSet::new(),
            known: HashMap::new(),
            watching: None,
            queue: Queue::default(),
            paces: HashMap::new(),
            told: HashMap::new(),
        }
    }

    /// Works until `stop`.
    pub async fn run(self, clients: &Clients, scope: &Scope, stop: CancellationToken) {
        let only = watcher::Config::default().fields(&format!("metadata.name={}", self.settings.name));
        let maps = changes(scope.api::<ConfigMap>(&clients.watches), only);
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.follow(maps) => {}
        }
    }

    async fn follow(mut self, maps: impl Stream<Item = Change<ConfigMap>>) {
        let mut maps = std::pin::pin!(maps);
        let (mut pods, mut anchors) = (self.pods.changes(), self.settings.anchors.clone());
        self.want(self.pods.namespaces_with_sidecars());
        loop {
            // What exists is unknown at first: writing then would be work for nothing after each change of leader.
            let settled = self.watching.is_some();
            tokio::select! {
                Some(change) = maps.next() => self.seen(change),
                Ok(()) = pods.changed() => self.want(self.pods.namespaces_with_sidecars()),
                Ok(()) = anchors.changed() => {
                    for namespace in &self.wanted {
                        self.queue.add(namespace.clone(), Instant::now());
                    }
                }
                namespace = self.queue.next(), if settled => self.reconcile(namespace).await,
            }
        }
    }

    fn want(&mut self, namespaces: BTreeSet<String>) {
        for namespace in namespaces.difference(&self.wanted) {
            self.queue.add(namespace.clone(), Instant::now());
        }
        for namespace in self.wanted.difference(&namespaces) {
            self.paces.remove(namespace);
            self.told.remove(namespace);
        }
        self.wanted = namespaces;
    }

    fn seen(&mut self, change: Change<ConfigMap>) {
        match change {
            Change::Apply(map) => {
                let namespace = ObjectKey::of(&map).namespace;
                let anchors = map.data.and_then(|mut data| data.remove(KEY)).unwrap_or_default();
                self.known.insert(namespace.clone(), anchors);
                self.again(namespace);
            }
            Change::Delete(key) => {
                self.known.remove(&key.namespace);
                self.again(key.namespace);
            }
            Change::Synced => self.watching = Some(true),
            Change::Absent | Change::Forbidden => {
                if self.watching != Some(false) {
                    tracing::warn!(
                        name = self.settings.name,
                        "the ConfigMaps with the trust anchors may not be watched; they are written periodically instead"
                    );
                }
                self.watching = Some(false);
            }
        }
    }

    /// Looks at a namespace once its pace allows.
    fn again(&self, namespace: String) {
        let at = self.paces.get(&namespace).map_or_else(Instant::now, Pace::next);
        self.queue.add(namespace, at);
    }

    async fn reconcile(&mut self, namespace: String) {
        let anchors = self.settings.anchors.borrow().pem().to_owned();
        let in_place = self.watching == Some(true) && self.known.get(&namespace) == Some(&anchors);
        if anchors.is_empty() || in_place || !self.wanted.contains(&namespace) {
            return;
        }
        let pace = self.paces.entry(namespace.clone()).or_default();
        pace.wrote(Instant::now());
        let retry = pace.next();
        let result = self.write(&namespace, &anchors).await;
        let label = match &result {
            Ok(_) => "written",
            Err(kube::Error::Api(status)) if status.is_forbidden() => "forbidden",
            Err(_) => "error",
        };
        self.writes.with_label_values(&[label]).inc();
        match result {
            Ok(_) => {
                tracing::info!(namespace, name = self.settings.name, "wrote the trust anchors");
                self.told.remove(&namespace);
                self.known.insert(namespace.clone(), anchors);
                if self.watching == Some(false) {
                    self.queue.add(namespace, Instant::now() + BLIND);
                }
            }
            Err(error) => {
                self.tell(&namespace, error.to_string()).await;
                self.queue.add(namespace, retry);
            }
        }
    }

    async fn write(&self, namespace: &str, anchors: &str) -> kube::Result<ConfigMap> {
        let map = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": self.settings.name,
                "namespace": namespace,
                "labels": {"app.kubernetes.io/managed-by": "dapr-operator", "app.kubernetes.io/part-of": "dapr"},
            },
            "data": {KEY: anchors},
        });
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        in_time(api.patch(&self.settings.name, &params, &Patch::Apply(&map))).await
    }

    /// Says once why a namespace has no anchors, or old ones.
    async fn tell(&mut self, namespace: &str, error: String) {
        if self.told.get(namespace) == Some(&error) {
            return;
        }
        tracing::warn!(
            namespace,
            name = self.settings.name,
            error,
            "cannot write the trust anchors; trying again"
        );
        let regarding = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("ConfigMap".to_owned()),
            namespace: Some(namespace.to_owned()),
            name: Some(self.settings.name.clone()),
            ..ObjectReference::default()
        };
        let notice = Notice {
            warning: true,
            reason: "TrustAnchorsNotWritten",
            action: "DistributeTrust",
            note: format!("sidecars in this namespace do not learn of new trust anchors: {error}"),
        };
        self.events.publish(&regarding, notice).await;
        self.told.insert(namespace.to_owned(), error);
    }
}
