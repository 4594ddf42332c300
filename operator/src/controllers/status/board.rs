//! What every replica knows about each object, for whoever writes its status.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use kube::api::ApiResource;
use outrigger_core::backoff::Backoff;
use outrigger_crds::{Configuration, DaprResource, Guarded, Related, Status, status::Rejection};
use outrigger_process::kubernetes::watch::ObjectKey;
use outrigger_proto::outrigger::operator::v1::ShareRequest;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    decision::Outcome,
    facts::{Fact, Facts, Knowledge, Source},
    gathered::{Affected, Audience, Gathered},
    links::Surroundings,
    reported::{GRACE, JUDGING, Published, Reported, is_recent},
    view::View,
};
use crate::{
    pods::{PodChange, Pods},
    queue::Queue,
};

/// Least time between two writes of one object's status.
pub(super) const PACE: Duration = Duration::from_secs(1);
/// Pauses after failed writes of an object's status.
const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));

/// An object of any kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    pub kind: &'static str,
    pub key: ObjectKey,
}

/// All objects, what they say of each other, and those whose status has to be looked at.
pub struct Board {
    inner: Mutex<Inner>,
    pub(super) queue: Queue<Id>,
    /// The control plane's Configuration.
    system: ObjectKey,
    pods: Arc<Pods>,
}

#[derive(Default)]
struct Inner {
    entries: HashMap<Id, Entry>,
    facts: Facts,
    /// Who depends on each fact.
    dependents: HashMap<Fact, BTreeSet<Id>>,
    gathered: Gathered,
    /// The last replica that shares.
    replica: u64,
    /// Until then sidecars may be connected that no replica has told of: this one began to lead, or a replica is gone.
    unsettled_until: Option<Instant>,
}

struct Entry {
    view: Arc<View>,
    /// The status that the object has.
    current: Option<Status>,
    /// No write before this.
    not_before: Option<Instant>,
    retry: Backoff,
    /// What an Event said last in this term: other leaders tell of what happens between two.
    told: Option<Outcome>,
    /// Whether the last Event about sidecars was that some reject it.
    told_rejected: Option<bool>,
    /// When its generation was seen.
    since: Instant,
    /// Since when less is known of sidecars than its status says.
    lacking: Option<Instant>,
}

/// What there is to say about an object now.
pub(super) struct Look {
    pub(super) view: Arc<View>,
    pub(super) current: Option<Status>,
    pub(super) surroundings: Surroundings,
    pub(super) reported: Reported,
}

impl Board {
    /// `system` is the control plane's Configuration, which no pod names.
    pub fn new(system: ObjectKey, pods: Arc<Pods>) -> Self {
        Self {
            inner: Mutex::default(),
            queue: Queue::default(),
            system,
            pods,
        }
    }

    /// Takes in an object that is new or changed, its status included.
    pub fn observe<K: Related>(&self, object: &Guarded<K>, resource: &Arc<ApiResource>, now: Instant) {
        let key = ObjectKey::of(object);
        let view = Arc::new(View::of(object, &key, resource, &self.system));
        let current = match &object.0 {
            Ok(object) => object.status().cloned(),
            Err(invalid) => invalid.status.clone(),
        };
        let id = Id { kind: K::KIND, key };
        let mut inner = self.inner.lock();
        inner.unlink(&id);
        for fact in view.facts(&id.key) {
            inner.dependents.entry(fact).or_default().insert(id.clone());
        }
        let changed = inner.facts.observe(&id.key, object.0.as_ref().ok());
        match inner.entries.get_mut(&id) {
            // A new object of the name begins anew.
            Some(entry) if entry.view.reference.uid == view.reference.uid => {
                if entry.view.generation != view.generation {
                    entry.since = now;
                    entry.lacking = None;
                }
                entry.view = view;
                entry.current = current;
            }
            _ => {
                let entry = Entry {
                    view,
                    current,
                    not_before: None,
                    retry: RETRY,
                    told: None,
                    told_rejected: None,
                    since: now,
                    lacking: None,
                };
                inner.entries.insert(id.clone(), entry);
            }
        }
        self.requeue(&inner, &id, now);
        self.requeue_dependents(&inner, &changed, now);
    }

    /// Takes in that an object is gone.
    pub fn forget(&self, id: &Id, now: Instant) {
        let mut inner = self.inner.lock();
        inner.unlink(id);
        inner.entries.remove(id);
        let changed = inner.facts.forget(id.kind, &id.key);
        self.requeue_dependents(&inner, &changed, now);
        drop(inner);
        self.queue.remove(id);
    }

    /// Takes in how a pod changed, if it did.
    pub fn observe_pod(&self, change: Option<PodChange>, now: Instant) {
        let Some(change) = change else { return };
        let mut inner = self.inner.lock();
        let changed = inner.facts.pod(&change);
        self.requeue_dependents(&inner, &changed, now);
    }

    /// Takes in that a Secret is another one now. Those that refer to it are looked at.
    pub fn secret_changed(&self, secret: &ObjectKey, now: Instant) {
        let inner = self.inner.lock();
        self.requeue_dependents(&inner, &[Fact::Secret(secret.clone())], now);
    }

    /// Takes in how far a source has come. What waited for it is looked at.
    pub fn known(&self, source: Source, knowledge: Knowledge, now: Instant) {
        let mut inner = self.inner.lock();
        if inner.facts.set_knowledge(source, knowledge) {
            let of_source = inner.dependents.keys().filter(|fact| fact.source() == Some(source));
            let facts: Vec<_> = of_source.cloned().collect();
            self.requeue_dependents(&inner, &facts, now);
        }
    }

    /// Takes in what of the control plane's Configuration waits for a restart.
    pub fn control_plane_waits(&self, what: Option<String>, now: Instant) {
        let mut inner = self.inner.lock();
        if inner.facts.set_waiting(what) {
            self.requeue_dependents(&inner, &[Fact::Waiting], now);
        }
    }

    /// The next object to look at.
    #[cfg(test)]
    pub(crate) async fn next(&self) -> Id {
        self.queue.next().await
    }

    /// Takes in that this replica begins to lead, and has heard of no sidecars yet.
    pub fn begin_gathering(&self, now: Instant) {
        let mut inner = self.inner.lock();
        inner.unsettled_until = Some(now + GRACE);
        for entry in inner.entries.values_mut() {
            entry.lacking = None;
        }
    }

    /// A number for a replica that shares what its sidecars report.
    pub fn replica(&self) -> u64 {
        let mut inner = self.inner.lock();
        inner.replica += 1;
        inner.replica
    }

    /// Takes in what a replica shares.
    pub fn gather(&self, replica: u64, request: ShareRequest, now: Instant) {
        let mut inner = self.inner.lock();
        let affected = inner.gathered.take(replica, request);
        self.requeue_affected(&inner, &affected, now);
    }

    /// Takes in that a replica is gone. Its sidecars will come back elsewhere.
    pub fn forget_replica(&self, replica: u64, now: Instant) {
        let mut inner = self.inner.lock();
        inner.unsettled_until = Some(now + GRACE);
        let affected = inner.gathered.forget(replica);
        self.requeue_affected(&inner, &affected, now);
    }

    fn requeue_affected(&self, inner: &Inner, affected: &Affected, now: Instant) {
        for id in affected.objects.iter().filter(|id| inner.entries.contains_key(id)) {
            self.requeue(inner, id, now);
        }
        if affected.namespaces.is_empty() {
            return;
        }
        for id in inner.entries.keys() {
            if affected.namespaces.contains(&id.key.namespace) {
                self.requeue(inner, id, now);
            }
        }
    }

    fn requeue_dependents(&self, inner: &Inner, facts: &[Fact], now: Instant) {
        for id in facts.iter().filter_map(|fact| inner.dependents.get(fact)).flatten() {
            self.requeue(inner, id, now);
        }
    }

    fn requeue(&self, inner: &Inner, id: &Id, now: Instant) {
        let not_before = inner.entries.get(id).and_then(|entry| entry.not_before);
        self.queue.add(id.clone(), not_before.map_or(now, |at| at.max(now)));
    }

    /// Has everything looked at, as a new leader must, who has told nobody of anything.
    pub(super) fn begin_term(&self, now: Instant) {
        let mut inner = self.inner.lock();
        for entry in inner.entries.values_mut() {
            entry.told = None;
            entry.told_rejected = None;
        }
        for id in inner.entries.keys() {
            self.requeue(&inner, id, now);
        }
    }

    /// `None` if the object is gone, or is to be looked at later: because something that it depends on is not known yet, or
    /// it changed while its status was being written.
    pub(super) fn look(&self, id: &Id, now: Instant) -> Option<Look> {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let entry = inner.entries.get_mut(id)?;
        if let Some(not_before) = entry.not_before.filter(|at| *at > now) {
            self.queue.add(id.clone(), not_before);
            return None;
        }
        let surroundings = entry.view.links.check(&id.key, &inner.facts)?;
        let audience = match id.kind {
            Configuration::KIND => Audience::Users(inner.facts.users(&id.key)),
            _ => Audience::Scopes(&entry.view.links.scopes),
        };
        let generation = entry.view.generation.unwrap_or_default();
        let reported = inner.gathered.sum(id, generation, audience);
        let unsettled = inner.unsettled_until.filter(|until| *until > now);
        Some(Look {
            view: entry.view.clone(),
            current: entry.current.clone(),
            surroundings,
            reported: self.settle(id, entry, reported, unsettled, now),
        })
    }

    /// What may be said of sidecars now. Has the object looked at again when that changes with time alone.
    fn settle(
        &self,
        id: &Id,
        entry: &mut Entry,
        mut reported: Reported,
        unsettled: Option<Instant>,
        now: Instant,
    ) -> Reported {
        let published = Published::of(entry.current.as_ref(), entry.view.generation);
        if published.is_ready || now >= entry.since + JUDGING {
            reported.awaited = 0;
        } else if reported.awaited > 0 {
            self.queue.add(id.clone(), entry.since + JUDGING);
        }
        // A generation that was not ready before is not before those are heard who are only on their way.
        let missing = published.counts.matching - reported.counts.matching;
        if let Some(until) = unsettled.filter(|_| missing > 0 && !published.is_ready) {
            reported.counts.matching += missing;
            reported.awaited += missing;
            self.queue.add(id.clone(), until);
        }
        if !reported.lacks(&published, unsettled.is_some()) {
            entry.lacking = None;
            return reported;
        }
        let until = *entry.lacking.get_or_insert(now) + GRACE;
        let until = unsettled.map_or(until, |unsettled| unsettled.max(until));
        if now < until {
            self.queue.add(id.clone(), until);
            reported.keep(&published);
            return reported;
        }
        // A pod whose sidecar rejects the object and ends comes back again and again, each time for a moment.
        let wall = Timestamp::now();
        let comes_back =
            |rejection: &Rejection| is_recent(rejection, wall) && self.pods.has(&id.key.namespace, &rejection.pod);
        let returning = reported.keep_returning(&published, comes_back) > 0;
        if returning {
            self.queue.add(id.clone(), now + GRACE);
        }
        // What is taken back later waits anew.
        entry.lacking = returning.then_some(now);
        reported
    }

    /// Remembers a write, so that neither a second one follows soon nor the watch has to deliver it first.
    pub(super) fn written(&self, id: &Id, view: &Arc<View>, status: Status, not_before: Instant) {
        if let Some(entry) = self.inner.lock().entries.get_mut(id) {
            entry.not_before = Some(not_before);
            entry.retry.reset();
            if Arc::ptr_eq(&entry.view, view) {
                entry.current = Some(status);
            }
        }
    }

    /// Has the object looked at again after a pause, since its status could not be written.
    pub(super) fn failed(&self, id: &Id, now: Instant) {
        if let Some(entry) = self.inner.lock().entries.get_mut(id) {
            // Nothing is written more often than it would be without failures.
            let at = now + entry.retry.next_pause().max(PACE);
            // Edits in between do not hurry it.
            entry.not_before = Some(at);
            self.queue.add(id.clone(), at);
        }
    }

    /// Whether it is news to those who read Events that sidecars reject an object, or do so no longer.
    pub(super) fn is_news_of_sidecars(&self, id: &Id, before: bool, rejected: bool) -> bool {
        let mut inner = self.inner.lock();
        let entry = inner.entries.get_mut(id);
        entry.is_some_and(|entry| entry.told_rejected.replace(rejected).unwrap_or(before) != rejected)
    }

    /// Whether an outcome is news to those who read Events: other than what the last one said, or else than what stood in the
    /// status `before`. That an object is accepted from the start is none.
    pub(super) fn is_news(&self, id: &Id, before: Option<Outcome>, outcome: Outcome) -> bool {
        let mut inner = self.inner.lock();
        let Some(entry) = inner.entries.get_mut(id) else {
            return false;
        };
        match entry.told.replace(outcome).or(before) {
            Some(last) => last != outcome,
            None => !outcome.accepted,
        }
    }
}

impl Inner {
    fn unlink(&mut self, id: &Id) {
        let Some(entry) = self.entries.get(id) else {
            return;
        };
        for fact in entry.view.facts(&id.key) {
            if let Some(ids) = self.dependents.get_mut(&fact) {
                ids.remove(id);
                if ids.is_empty() {
                    self.dependents.remove(&fact);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
