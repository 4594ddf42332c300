//! From watched objects to what each sidecar is sent: events in, values out, no I/O.
//!
//! An object is encoded once for each version. Subscribers are found by namespace and app; each holds references to the
//! versions that it has still to be sent.

mod history;
mod lists;
mod outbox;
mod subscription;
mod version;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use outrigger_crds::{DaprResource, EncodeError};
use outrigger_process::kubernetes::watch::ObjectKey;
use parking_lot::RwLock;
use tokio::time::Instant;

use self::{
    history::History,
    lists::Lists,
    outbox::{Offered, Transition},
    subscription::Subscriber,
};
use crate::metrics::KindMetrics;

pub use self::{history::WINDOW, lists::List, outbox::Event, subscription::Subscription, version::Version};

/// How far the watch behind an index has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The first list is not complete.
    Syncing,
    /// Everything in the cluster is known.
    Synced,
    /// The API server does not serve the kind: there are no objects.
    Absent,
    /// The API server refuses the list.
    Forbidden,
}

/// All objects of a kind, and who wants to hear of them.
pub struct Index<K> {
    inner: RwLock<Inner<K>>,
    metrics: KindMetrics,
}

struct Inner<K> {
    state: State,
    namespaces: HashMap<Arc<str>, Namespace<K>>,
    history: History<K>,
}

struct Namespace<K> {
    /// The key of this namespace, for others to share.
    name: Arc<str>,
    /// Sorted, so that lists have a stable order.
    objects: BTreeMap<Arc<str>, Arc<Version<K>>>,
    lists: Lists<K>,
    /// By app id.
    subscribers: HashMap<Arc<str>, Vec<Arc<Subscriber<K>>>>,
}

impl<K: DaprResource> Index<K> {
    pub fn new(metrics: KindMetrics) -> Self {
        Self {
            inner: RwLock::new(Inner {
                state: State::Syncing,
                namespaces: HashMap::new(),
                history: History::default(),
            }),
            metrics,
        }
    }

    pub fn state(&self) -> State {
        self.inner.read().state
    }

    /// Once synced an index stays so: a watch that fails later leaves the last known objects in place.
    pub fn set_state(&self, state: State) {
        let mut inner = self.inner.write();
        if inner.state != State::Synced {
            inner.state = state;
        }
    }

    /// Takes in an object that is new or changed. Returns whether sidecars see a difference.
    ///
    /// # Errors
    /// When the object cannot be encoded; the last version stays.
    pub fn apply(&self, object: K, now: Instant) -> Result<bool, EncodeError> {
        let namespace = object.meta().namespace.clone().unwrap_or_default();
        let name = object.meta().name.clone().unwrap_or_default();
        // Only the watch writes, so the old version cannot change before the lock is taken again.
        let old = self.get(&namespace, &name);
        let Some(new) = Version::next(object, old.as_deref())? else {
            self.metrics.suppressed.inc();
            return Ok(false);
        };
        self.metrics.encoded.inc_by(new.payload().len() as u64);
        let new = Arc::new(new);
        let mut inner = self.inner.write();
        let space = inner.namespace_mut(&namespace);
        space.objects.insert(new.name().clone(), new.clone());
        space.lists.clear();
        let change = Transition {
            old,
            new: Some(new),
            at: now,
        };
        self.publish(&mut inner, &namespace, change, now);
        Ok(true)
    }

    /// Takes in that an object is gone.
    pub fn delete(&self, key: &ObjectKey, now: Instant) {
        let mut inner = self.inner.write();
        let Some(space) = inner.namespaces.get_mut(key.namespace.as_str()) else {
            return;
        };
        let Some(old) = space.objects.remove(key.name.as_str()) else {
            return;
        };
        space.lists.clear();
        let change = Transition {
            old: Some(old),
            new: None,
            at: now,
        };
        self.publish(&mut inner, &key.namespace, change, now);
        inner.drop_if_unused(&key.namespace);
    }

    /// Has objects sent again that refer to a Secret, where `differs` says that a value is another one now.
    pub fn touch(&self, secret: &ObjectKey, differs: impl Fn(&K) -> bool, now: Instant) {
        let mut inner = self.inner.write();
        let Some(space) = inner.namespaces.get(secret.namespace.as_str()) else {
            return;
        };
        let touched = |version: &&Arc<Version<K>>| {
            version.secret_names().contains(&secret.name)
                && version.with_secrets().is_some_and(|object| differs(object))
        };
        let touched: Vec<_> = space.objects.values().filter(touched).cloned().collect();
        for version in touched {
            let change = Transition {
                old: Some(version.clone()),
                new: Some(version),
                at: now,
            };
            self.publish(&mut inner, &secret.namespace, change, now);
        }
    }

    /// Adds, by namespace, the names of the Secrets that objects refer to which some subscriber may see.
    pub fn wanted_secrets(&self, wanted: &mut HashMap<String, BTreeSet<String>>) {
        let inner = self.inner.read();
        for (namespace, space) in &inner.namespaces {
            let referring = space
                .objects
                .values()
                .filter(|version| !version.secret_names().is_empty());
            for version in referring.filter(|version| space.is_seen(version)) {
                let names = wanted.entry(namespace.to_string()).or_default();
                names.extend(version.secret_names().iter().cloned());
            }
        }
    }

    /// Offers a change to those who may see the old or the new version.
    fn publish(&self, inner: &mut Inner<K>, namespace: &str, change: Transition<K>, now: Instant) {
        // What the first list contains is no news.
        if inner.state == State::Syncing {
            return;
        }
        let Some(space) = inner.namespaces.get(namespace) else {
            return;
        };
        let sides = || change.old.iter().chain(&change.new);
        if sides().any(|version| version.scopes().is_empty()) {
            for subscriber in space.subscribers.values().flatten() {
                self.offer(subscriber, &change, true);
            }
        } else {
            let mut apps: Vec<&str> = sides()
                .flat_map(|version| version.scopes())
                .map(String::as_str)
                .collect();
            apps.sort_unstable();
            apps.dedup();
            for subscriber in apps.iter().filter_map(|app| space.subscribers.get(*app)).flatten() {
                self.offer(subscriber, &change, true);
            }
        }
        let name = space.name.clone();
        inner.history.push(name, change, now);
    }

    fn offer(&self, subscriber: &Subscriber<K>, change: &Transition<K>, certain: bool) {
        match subscriber.offer(change, certain) {
            Offered::Invisible => {}
            Offered::Queued => self.metrics.pending.inc(),
            Offered::Coalesced => self.metrics.coalesced.inc(),
            Offered::Cancelled => {
                self.metrics.pending.dec();
                self.metrics.suppressed.inc();
            }
        }
    }

    /// What `app` may see in a namespace.
    pub fn list(&self, namespace: &str, app: &str) -> Arc<List<K>> {
        let inner = self.inner.read();
        match inner.namespaces.get(namespace) {
            Some(space) => space.lists.of(app, &space.objects),
            None => Arc::default(),
        }
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Version<K>>> {
        self.inner.read().namespaces.get(namespace)?.objects.get(name).cloned()
    }

    /// Registers a subscriber, which is sent what changes from now on, and what changed within the last two seconds.
    pub fn subscribe(self: &Arc<Self>, namespace: &str, app: &str, now: Instant) -> Subscription<K> {
        let mut inner = self.inner.write();
        let space = inner.namespace_mut(namespace);
        let namespace = space.name.clone();
        let app = match space.subscribers.get_key_value(app) {
            Some((app, _)) => app.clone(),
            None => app.into(),
        };
        let subscriber = Arc::new(Subscriber::new(app.clone()));
        space.subscribers.entry(app).or_default().push(subscriber.clone());
        for change in inner.history.since_window(&namespace, now) {
            self.offer(&subscriber, change, false);
        }
        self.metrics.streams.inc();
        Subscription::new(self.clone(), namespace, subscriber)
    }

    fn unsubscribe(&self, namespace: &str, subscriber: &Arc<Subscriber<K>>) {
        let mut inner = self.inner.write();
        if let Some(space) = inner.namespaces.get_mut(namespace)
            && let Some(siblings) = space.subscribers.get_mut(subscriber.app())
        {
            if let Some(at) = siblings.iter().position(|other| Arc::ptr_eq(other, subscriber)) {
                siblings.swap_remove(at);
                self.metrics.streams.dec();
                self.metrics.pending.sub(subscriber.pending());
            }
            if siblings.is_empty() {
                space.subscribers.remove(subscriber.app());
            }
        }
        inner.drop_if_unused(namespace);
    }

    /// Forgets changes that are too old to be replayed, and lists; to be called every few seconds.
    pub fn expire(&self, now: Instant) {
        let Inner {
            namespaces, history, ..
        } = &mut *self.inner.write();
        history.expire(now);
        namespaces.values_mut().for_each(|space| space.lists.clear());
        namespaces.retain(|_, space| space.is_used() || history.mentions(&space.name));
    }

    pub fn metrics(&self) -> &KindMetrics {
        &self.metrics
    }
}

impl<K: DaprResource> Inner<K> {
    fn namespace_mut(&mut self, name: &str) -> &mut Namespace<K> {
        // The entry API would need an owned key each time.
        if !self.namespaces.contains_key(name) {
            let name: Arc<str> = name.into();
            self.namespaces.insert(name.clone(), Namespace::new(name));
        }
        self.namespaces.get_mut(name).expect("it was inserted above")
    }

    fn drop_if_unused(&mut self, name: &str) {
        if let Some(space) = self.namespaces.get(name)
            && !space.is_used()
            && !self.history.mentions(&space.name)
        {
            self.namespaces.remove(name);
        }
    }
}

impl<K: DaprResource> Namespace<K> {
    fn new(name: Arc<str>) -> Self {
        Self {
            name,
            objects: BTreeMap::new(),
            lists: Lists::default(),
            subscribers: HashMap::new(),
        }
    }

    /// Whether a subscriber may see a version.
    fn is_seen(&self, version: &Version<K>) -> bool {
        match version.scopes() {
            [] => !self.subscribers.is_empty(),
            scopes => scopes.iter().any(|app| self.subscribers.contains_key(app.as_str())),
        }
    }

    fn is_used(&self) -> bool {
        !(self.objects.is_empty() && self.subscribers.is_empty())
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
