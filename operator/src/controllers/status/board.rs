//! What every replica knows about each object, for whoever writes its status.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource, api::ApiResource};
use outrigger_core::backoff::Backoff;
use outrigger_crds::{DaprResource, Guarded, SecretStore, Status, Unresolved, resolve};
use outrigger_process::kubernetes::watch::ObjectKey;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::decision::Finding;
use crate::{
    queue::Queue,
    secrets::{Found, lookup, secret_names},
};

/// Pauses after failed writes of an object's status.
const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));

/// An object of any kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    pub kind: &'static str,
    pub key: ObjectKey,
}

/// All objects, and those whose status has to be looked at.
#[derive(Default)]
pub struct Board {
    entries: Mutex<HashMap<Id, Entry>>,
    pub(super) queue: Queue<Id>,
}

struct Entry {
    view: Arc<View>,
    /// No write before this.
    not_before: Option<Instant>,
    retry: Backoff,
}

/// What is known of an object.
pub(super) struct View {
    pub(super) resource: Arc<ApiResource>,
    pub(super) reference: ObjectReference,
    pub(super) generation: Option<i64>,
    pub(super) finding: Finding,
    /// A secret store component that it names.
    pub(super) secret_store: Option<String>,
    pub(super) secrets: Option<Arc<dyn References>>,
    pub(super) current: Current,
}

/// The status that the object has.
#[derive(Clone)]
pub(super) enum Current {
    Known(Option<Status>),
    /// The object cannot be decoded, and so neither can its status.
    Unknown,
}

/// The Secrets that an object refers to.
pub(super) trait References: Send + Sync {
    /// Names of the Secrets.
    fn names(&self) -> BTreeSet<&str>;
    /// References that lead nowhere.
    fn unresolved(&self, found: &BTreeMap<String, Found>) -> Vec<Unresolved>;
}

impl<K: DaprResource> References for K {
    fn names(&self) -> BTreeSet<&str> {
        secret_names(self)
    }

    fn unresolved(&self, found: &BTreeMap<String, Found>) -> Vec<Unresolved> {
        resolve(self, &|name, key| lookup(found, name, key)).unresolved
    }
}

impl View {
    fn of<K: DaprResource>(object: &Guarded<K>, resource: &Arc<ApiResource>) -> Self {
        let metadata = object.meta();
        let view = Self {
            resource: resource.clone(),
            reference: object.object_ref(&()),
            generation: metadata.generation,
            finding: Finding::Invalid(String::new()),
            secret_store: None,
            secrets: None,
            current: Current::Unknown,
        };
        match &object.0 {
            Ok(object) => Self {
                finding: Finding::Valid {
                    warnings: object.problems().iter().map(ToString::to_string).collect(),
                },
                secret_store: match object.secret_store() {
                    SecretStore::Component(name) => Some(name.to_owned()),
                    SecretStore::Kubernetes => None,
                },
                secrets: (!object.secret_refs().is_empty()).then(|| Arc::new(object.clone()) as Arc<dyn References>),
                current: Current::Known(object.status().cloned()),
                ..view
            },
            Err(invalid) => Self {
                finding: Finding::Invalid(invalid.error.clone()),
                ..view
            },
        }
    }

    /// Whether the object may get another status although it does not change.
    pub(super) fn depends_on_others(&self) -> bool {
        self.secrets.is_some() || self.secret_store.is_some()
    }
}

impl Board {
    /// Takes in an object that is new or changed, its status included.
    pub fn observe<K: DaprResource>(&self, object: &Guarded<K>, resource: &Arc<ApiResource>, now: Instant) {
        let id = Id {
            kind: K::KIND,
            key: ObjectKey::of(object),
        };
        let view = Arc::new(View::of(object, resource));
        let mut entries = self.entries.lock();
        let not_before = entries.get(&id).and_then(|entry| entry.not_before);
        entries.insert(
            id.clone(),
            Entry {
                view,
                not_before,
                retry: RETRY,
            },
        );
        drop(entries);
        self.queue.add(id, not_before.map_or(now, |at| at.max(now)));
    }

    /// Takes in that an object is gone.
    pub fn forget(&self, id: &Id) {
        self.entries.lock().remove(id);
        self.queue.remove(id);
    }

    /// Has everything looked at, as a new leader must.
    pub(super) fn requeue_all(&self, now: Instant) {
        let ids: Vec<_> = self.entries.lock().keys().cloned().collect();
        for id in ids {
            self.queue.add(id, now);
        }
    }

    pub(super) fn view(&self, id: &Id) -> Option<Arc<View>> {
        self.entries.lock().get(id).map(|entry| entry.view.clone())
    }

    /// Remembers a write, so that neither a second one follows soon nor the watch has to deliver it first.
    pub(super) fn written(&self, id: &Id, view: &Arc<View>, status: Status, not_before: Instant) {
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(id) else {
            return;
        };
        entry.not_before = Some(not_before);
        entry.retry.reset();
        if Arc::ptr_eq(&entry.view, view) {
            entry.view = Arc::new(View {
                resource: view.resource.clone(),
                reference: view.reference.clone(),
                generation: view.generation,
                finding: view.finding.clone(),
                secret_store: view.secret_store.clone(),
                secrets: view.secrets.clone(),
                current: Current::Known(Some(status)),
            });
        }
    }

    /// Has the object looked at again after a pause, since its status could not be written.
    pub(super) fn failed(&self, id: &Id) {
        if let Some(entry) = self.entries.lock().get_mut(id) {
            self.queue.add(id.clone(), Instant::now() + entry.retry.next_pause());
        }
    }
}

#[cfg(test)]
mod tests {
    use outrigger_crds::Component;
    use serde_json::json;
    use tokio::time::timeout;

    use super::*;

    const PACE: Duration = Duration::from_secs(1);

    fn observe(board: &Board, version: &str) -> Id {
        let object = json!({
            "metadata": {"name": "db", "namespace": "shop", "uid": "u", "resourceVersion": version},
            "spec": {"type": "state.redis", "version": "v1", "metadata": []},
        });
        let object: Guarded<Component> = serde_json::from_str(&object.to_string()).unwrap();
        board.observe(&object, &Arc::new(ApiResource::erase::<Component>(&())), Instant::now());
        Id {
            kind: "Component",
            key: ObjectKey::new("shop", "db"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_is_looked_at_once_for_many_changes_and_not_soon_after_a_write() {
        let board = Board::default();
        let id = observe(&board, "1");
        observe(&board, "2");
        assert_eq!(board.queue.next().await, id);
        let view = board.view(&id).unwrap();
        board.written(&id, &view, Status::default(), Instant::now() + PACE);
        assert!(
            matches!(board.view(&id).unwrap().current, Current::Known(Some(_))),
            "without waiting for the watch"
        );

        observe(&board, "3");
        assert!(timeout(PACE / 2, board.queue.next()).await.is_err());
        assert_eq!(board.queue.next().await, id);

        observe(&board, "4");
        board.forget(&id);
        assert!(board.view(&id).is_none());
        assert!(timeout(PACE * 2, board.queue.next()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_leader_looks_at_everything() {
        let board = Board::default();
        let id = observe(&board, "1");
        board.queue.next().await;
        board.requeue_all(Instant::now());
        assert_eq!(board.queue.next().await, id);
    }
}
