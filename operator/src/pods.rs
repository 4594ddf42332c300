//! What is known of pods that ask for a sidecar, from watches of their metadata: the Configuration that each app uses, and
//! whether the pods of an owner got their sidecar. Nothing is kept of other pods.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use outrigger_core::annotations;
use outrigger_process::kubernetes::{owner::controller, slim::Slim, watch::ObjectKey};
use parking_lot::RwLock;
use tokio::sync::watch;

/// A pod, its metadata only.
pub type PodMetadata = Slim<Pod>;

/// Which pods a watch selects, by the label that injection leaves. Together they see every pod once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// Those that the injector has patched.
    Injected,
    /// All others.
    NotInjected,
}

/// Name of the Configuration that an app's pods are annotated with.
pub type Assigned = Option<Arc<str>>;

/// A pod that asks for a sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodInfo {
    pub uid: String,
    pub app: String,
    pub configuration: Assigned,
    /// Uid of the controller that owns the pod.
    pub owner: Option<String>,
    /// Whether the injector's label says that it has a sidecar.
    pub injected: bool,
    /// Whether the watchdog found that it has one.
    pub patched: bool,
    /// The watch that sees it.
    pub selection: Selection,
    pub created: Option<Timestamp>,
}

/// All pods that ask for a sidecar.
#[derive(Default)]
pub struct Pods {
    inner: RwLock<Inner>,
    changes: watch::Sender<()>,
}

#[derive(Default)]
struct Inner {
    synced: Vec<Selection>,
    namespaces: HashMap<String, Namespace>,
}

#[derive(Default)]
struct Namespace {
    /// By name.
    pods: HashMap<String, PodInfo>,
    /// By app id, for the apps that someone follows.
    assigned: HashMap<String, watch::Sender<Assigned>>,
}

impl Selection {
    pub const ALL: [Self; 2] = [Self::Injected, Self::NotInjected];

    /// The label selector of the watch.
    pub fn selector(self) -> String {
        match self {
            Self::Injected => annotations::LABEL_INJECTED.to_owned(),
            Self::NotInjected => format!("!{}", annotations::LABEL_INJECTED),
        }
    }

    fn of(pod: &PodMetadata) -> Self {
        match pod.label(annotations::LABEL_INJECTED) {
            Some(_) => Self::Injected,
            None => Self::NotInjected,
        }
    }
}

/// Whether a pod asks for a sidecar.
pub fn asks_for_sidecar(pod: &PodMetadata) -> bool {
    pod.annotation(annotations::ENABLED).is_some_and(annotations::truthy)
}

impl PodInfo {
    /// `None` for pods that do not ask for a sidecar.
    fn of(pod: &PodMetadata) -> Option<Self> {
        if !asks_for_sidecar(pod) {
            return None;
        }
        let metadata = &pod.metadata;
        let non_empty = |key| pod.annotation(key).filter(|value| !value.is_empty());
        let app = non_empty(annotations::APP_ID).or(metadata.name.as_deref());
        Some(Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            app: app.unwrap_or_default().to_owned(),
            configuration: non_empty(annotations::CONFIG).map(Into::into),
            owner: controller(pod).map(|owner| owner.uid.clone()),
            injected: pod.label(annotations::LABEL_INJECTED) == Some("true"),
            patched: pod.label(annotations::LABEL_WATCHDOG_PATCHED).is_some(),
            selection: Selection::of(pod),
            created: metadata.creation_timestamp.as_ref().map(|time| time.0),
        })
    }
}

impl PodInfo {
    fn lacks_labels(&self) -> bool {
        self.selection == Selection::NotInjected && !self.patched
    }
}

/// A pod that neither injection nor the watchdog has labelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    pub key: ObjectKey,
    pub uid: String,
    /// Uid of the controller that owns the pod.
    pub owner: Option<String>,
    pub created: Option<Timestamp>,
}

/// How a pod that asks for a sidecar changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodChange {
    pub namespace: String,
    pub before: Option<PodInfo>,
    pub after: Option<PodInfo>,
}

impl Pods {
    /// Takes in a pod that is new or changed. Returns what changed of what is known.
    pub fn apply(&self, pod: &PodMetadata) -> Option<PodChange> {
        let key = ObjectKey::of(pod);
        self.set(&key, PodInfo::of(pod), Selection::of(pod))
    }

    /// Takes in that a watch no longer sees a pod. Returns what changed of what is known.
    pub fn delete(&self, key: &ObjectKey, selection: Selection) -> Option<PodChange> {
        self.set(key, None, selection)
    }

    fn set(&self, key: &ObjectKey, info: Option<PodInfo>, selection: Selection) -> Option<PodChange> {
        let mut inner = self.inner.write();
        let known = inner.namespaces.get(&key.namespace);
        let known = known.and_then(|space| space.pods.get(&key.name));
        // A pod whose label changes leaves one watch and enters the other, and either may be first.
        if info.is_none() && known.is_none_or(|known| known.selection != selection) {
            return None;
        }
        let space = inner.namespaces.entry(key.namespace.clone()).or_default();
        let before = match info.clone() {
            Some(info) => space.pods.insert(key.name.clone(), info),
            None => space.pods.remove(&key.name),
        };
        let change = PodChange {
            namespace: key.namespace.clone(),
            before,
            after: info,
        };
        if change.before != change.after {
            for info in change.after.iter().chain(&change.before) {
                space.assign(&info.app);
            }
        }
        if space.pods.is_empty() && space.assigned.is_empty() {
            inner.namespaces.remove(&key.namespace);
        }
        drop(inner);
        if change.before == change.after {
            return None;
        }
        self.changes.send_replace(());
        Some(change)
    }

    /// Takes in that a watch has seen all its pods.
    pub fn set_synced(&self, selection: Selection) {
        let mut inner = self.inner.write();
        if !inner.synced.contains(&selection) {
            inner.synced.push(selection);
        }
        drop(inner);
        self.changes.send_replace(());
    }

    /// Whether all pods have been seen.
    pub fn synced(&self) -> bool {
        self.inner.read().synced.len() == Selection::ALL.len()
    }

    /// Marked changed whenever something about pods changes.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// The Configuration of an app, now and after each change. Of several pods the newest with an annotation decides: it is
    /// the one that a rollout leads to.
    pub fn assigned(&self, namespace: &str, app: &str) -> watch::Receiver<Assigned> {
        let mut inner = self.inner.write();
        let space = inner.namespaces.entry(namespace.to_owned()).or_default();
        space.assigned.retain(|_, sender| sender.receiver_count() > 0);
        let current = space.newest_configuration(app);
        let sender = space.assigned.entry(app.to_owned());
        sender.or_insert_with(|| watch::Sender::new(current)).subscribe()
    }

    /// Namespaces with a pod that has a sidecar.
    pub fn namespaces_with_sidecars(&self) -> BTreeSet<String> {
        let inner = self.inner.read();
        let with_sidecars = inner.namespaces.iter();
        let with_sidecars = with_sidecars.filter(|(_, space)| space.pods.values().any(|pod| pod.injected));
        with_sidecars.map(|(namespace, _)| namespace.clone()).collect()
    }

    /// Whether there is a pod of this name that asks for a sidecar.
    pub fn has(&self, namespace: &str, name: &str) -> bool {
        let inner = self.inner.read();
        let space = inner.namespaces.get(namespace);
        space.is_some_and(|space| space.pods.contains_key(name))
    }

    /// Pods that neither injection nor the watchdog has labelled.
    pub fn lacking(&self) -> Vec<Lacking> {
        let inner = self.inner.read();
        let all = inner.namespaces.iter();
        let all = all.flat_map(|(namespace, space)| space.pods.iter().map(move |(name, pod)| (namespace, name, pod)));
        let lacking = all.filter(|(.., pod)| pod.lacks_labels());
        lacking
            .map(|(namespace, name, pod)| Lacking {
                key: ObjectKey::new(namespace.clone(), name.clone()),
                uid: pod.uid.clone(),
                owner: pod.owner.clone(),
                created: pod.created,
            })
            .collect()
    }

    /// Whether that is true of the pod with this uid.
    pub fn is_lacking(&self, key: &ObjectKey, uid: &str) -> bool {
        let inner = self.inner.read();
        let pod = inner
            .namespaces
            .get(&key.namespace)
            .and_then(|space| space.pods.get(&key.name));
        pod.is_some_and(|pod| pod.uid == uid && pod.lacks_labels())
    }

    /// The pods that a controller owns.
    pub fn of_owner(&self, namespace: &str, owner_uid: &str) -> Vec<PodInfo> {
        let inner = self.inner.read();
        let Some(space) = inner.namespaces.get(namespace) else {
            return Vec::new();
        };
        let owned = space
            .pods
            .values()
            .filter(|pod| pod.owner.as_deref() == Some(owner_uid));
        owned.cloned().collect()
    }
}

impl Namespace {
    fn newest_configuration(&self, app: &str) -> Assigned {
        let pods = self
            .pods
            .iter()
            .filter(|(_, pod)| pod.app == app && pod.configuration.is_some());
        let newest = pods.max_by_key(|(name, pod)| (pod.created, *name));
        newest.and_then(|(_, pod)| pod.configuration.clone())
    }

    fn assign(&mut self, app: &str) {
        let Some(sender) = self.assigned.get(app) else {
            return;
        };
        if sender.receiver_count() == 0 {
            self.assigned.remove(app);
            return;
        }
        let current = self.newest_configuration(app);
        sender.send_if_modified(|assigned| {
            let changed = *assigned != current;
            *assigned = current;
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, created: &str, annotations: serde_json::Value) -> PodMetadata {
        serde_json::from_value(json!({"metadata": {
            "name": name, "namespace": "shop", "uid": name, "creationTimestamp": created, "annotations": annotations,
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true}],
        }}))
        .unwrap()
    }

    const OLD: &str = "2026-01-01T00:00:00Z";
    const NEW: &str = "2026-01-02T00:00:00Z";

    #[test]
    fn the_assignment_follows_the_newest_pod() {
        let pods = Pods::default();
        let mut assigned = pods.assigned("shop", "cart");
        assert_eq!(
            *assigned.borrow_and_update(),
            None,
            "the stream may come before the pod"
        );

        let annotations = json!({"dapr.io/enabled": "yes", "dapr.io/app-id": "cart", "dapr.io/config": "tracing"});
        pods.apply(&pod("a", OLD, annotations));
        assert_eq!(assigned.borrow_and_update().as_deref(), Some("tracing"));
        let annotations = json!({"dapr.io/enabled": "true", "dapr.io/app-id": "cart", "dapr.io/config": "quiet"});
        pods.apply(&pod("b", NEW, annotations));
        assert_eq!(assigned.borrow_and_update().as_deref(), Some("quiet"));
        let annotations = json!({"dapr.io/enabled": "true", "dapr.io/app-id": "cart"});
        pods.apply(&pod("c", NEW, annotations));
        assert!(
            !assigned.has_changed().unwrap(),
            "a pod without an annotation decides nothing"
        );
        pods.delete(&ObjectKey::new("shop", "b"), Selection::NotInjected);
        assert_eq!(assigned.borrow_and_update().as_deref(), Some("tracing"));
    }

    #[test]
    fn only_pods_that_ask_for_a_sidecar_count_and_their_name_stands_in_for_the_app_id() {
        let pods = Pods::default();
        pods.apply(&pod("cart", OLD, json!({"dapr.io/config": "tracing"})));
        assert_eq!(*pods.assigned("shop", "cart").borrow(), None);
        pods.apply(&pod(
            "cart",
            OLD,
            json!({"dapr.io/config": "tracing", "dapr.io/enabled": "on"}),
        ));
        assert_eq!(pods.assigned("shop", "cart").borrow().as_deref(), Some("tracing"));
        assert_eq!(pods.of_owner("shop", "r").len(), 1);
        assert!(pods.of_owner("shop", "other").is_empty());
    }

    #[test]
    fn a_pod_that_gets_its_label_moves_from_one_watch_to_the_other() {
        let labelled = || {
            let mut pod = pod(
                "cart",
                OLD,
                json!({"dapr.io/enabled": "true", "dapr.io/config": "tracing"}),
            );
            pod.metadata.labels = Some([(annotations::LABEL_INJECTED.to_owned(), "true".to_owned())].into());
            pod
        };
        let key = ObjectKey::new("shop", "cart");
        let pods = Pods::default();
        pods.apply(&pod("cart", OLD, json!({"dapr.io/enabled": "true"})));
        pods.apply(&labelled());
        pods.delete(&key, Selection::NotInjected);
        assert_eq!(pods.assigned("shop", "cart").borrow().as_deref(), Some("tracing"));
        pods.delete(&key, Selection::Injected);
        assert_eq!(*pods.assigned("shop", "cart").borrow(), None);
    }

    #[test]
    fn namespaces_are_named_while_they_have_a_pod_with_a_sidecar() {
        let pods = Pods::default();
        let asks = pod("cart", OLD, json!({"dapr.io/enabled": "true"}));
        pods.apply(&asks);
        assert!(pods.namespaces_with_sidecars().is_empty(), "it has none yet");
        let mut has = asks;
        let labels = [(annotations::LABEL_INJECTED.to_owned(), "true".to_owned())];
        has.metadata.labels = Some(labels.into());
        pods.apply(&has);
        assert_eq!(pods.namespaces_with_sidecars(), ["shop".to_owned()].into());
        pods.delete(&ObjectKey::new("shop", "cart"), Selection::Injected);
        assert!(pods.namespaces_with_sidecars().is_empty());
    }

    #[test]
    fn nothing_is_kept_for_who_left() {
        let pods = Pods::default();
        drop(pods.assigned("shop", "cart"));
        pods.apply(&pod("cart", OLD, json!({"dapr.io/enabled": "true"})));
        pods.delete(&ObjectKey::new("shop", "cart"), Selection::NotInjected);
        assert!(pods.inner.read().namespaces.is_empty());
    }
}
