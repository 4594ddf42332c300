//! The watchdog: has pods replaced that should have a sidecar and have none, because they were created while the injector was
//! away. It acts on what it watches, carefully: only pods whose owner replaces them, through the eviction API, at a limited
//! rate, one pod of an owner first.

mod decision;
mod evictor;
mod injector;
mod owners;
mod settings;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Api, Client, Resource, runtime::watcher};
use outrigger_core::annotations;
use outrigger_crds::status::EventReason;
use outrigger_process::kubernetes::{
    client::Clients,
    watch::{Change, ObjectKey, changes, changes_where},
};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

pub use self::settings::{Mode, Settings};
use self::{
    decision::{Decision, UnlabelledPod, decide},
    evictor::{Outcome, evict, label},
    injector::{Injector, InjectorDeployment, Readiness},
    owners::{Owner, Owners, Permission, Replacement},
};
use crate::{
    events::{Events, Notice},
    metrics::Metrics,
    pods::Pods,
    scope::Scope,
};

/// Changes that come within this time are acted on together.
const QUIET: Duration = Duration::from_millis(100);

/// The watchdog's state.
pub struct Watchdog {
    settings: Settings,
    client: Client,
    metrics: Metrics,
    events: Arc<Events>,
    pods: Arc<Pods>,
    candidates: BTreeMap<ObjectKey, Candidate>,
    owners: Owners,
    injector: Injector,
    /// Whether all pods without the injector's label have been seen.
    synced: bool,
    /// Earliest moment of the next eviction.
    next_eviction: Instant,
    /// Why nothing is evicted, as logged last.
    held: Option<String>,
}

/// A pod that something is to be done about.
struct Candidate {
    uid: String,
    decision: Decision,
    reference: ObjectReference,
    /// What its users were told last.
    told: Option<&'static str>,
    /// Nothing is tried again before this.
    not_before: Option<Instant>,
}

impl Watchdog {
    pub fn new(settings: Settings, client: Client, metrics: Metrics, events: Arc<Events>, pods: Arc<Pods>) -> Self {
        Self {
            settings,
            client,
            metrics,
            events,
            pods,
            candidates: BTreeMap::new(),
            owners: Owners::default(),
            injector: Injector::default(),
            synced: false,
            next_eviction: Instant::now(),
            held: None,
        }
    }

    /// Works until `stop`, or in the mode `once` until nothing is left to be done.
    pub async fn run(mut self, clients: &Clients, scope: &Scope, stop: CancellationToken) {
        let unlabelled = format!(
            "!{},!{}",
            annotations::LABEL_INJECTED,
            annotations::LABEL_WATCHDOG_PATCHED
        );
        let pods = watcher::Config::default().labels(&unlabelled);
        let asks = |pod: &UnlabelledPod| pod.annotation(annotations::ENABLED).is_some_and(annotations::truthy);
        let mut pods = std::pin::pin!(changes_where(scope.api(&clients.watches), pods, asks));
        let injector: Api<InjectorDeployment> =
            Api::namespaced(clients.watches.clone(), &self.settings.control_plane_namespace);
        let injector = changes(injector, watcher::Config::default().labels(injector::LABELS));
        let mut injector = std::pin::pin!(injector);
        let mut all_pods = self.pods.changes();
        let mut due = Instant::now() + self.interval();
        loop {
            // What the watches tell is acted on soon, and not event by event.
            let soon = Instant::now() + QUIET;
            tokio::select! {
                () = stop.cancelled() => return,
                Some(change) = pods.next() => {
                    self.take(change);
                    due = due.min(soon);
                }
                Some(change) = injector.next() => {
                    self.injector.apply(change, Instant::now());
                    due = due.min(soon);
                }
                Ok(()) = all_pods.changed(), if !self.pods.synced() || self.owners.are_awaited(soon) => due = due.min(soon),
                // A pod that merely has not been seen yet must not pass for the replacement of another.
                () = sleep_until(due), if self.synced && self.pods.synced() => match self.pass(Instant::now()).await {
                    Some(next) => due = next,
                    None if self.settings.mode == Mode::Once => {
                        tracing::info!("the watchdog has nothing left to do and ends, since it runs once");
                        return;
                    }
                    None => due = Instant::now() + self.interval(),
                },
            }
        }
    }

    fn interval(&self) -> Duration {
        match self.settings.mode {
            Mode::Every(interval) => interval,
            Mode::Once => Duration::from_secs(5),
        }
    }

    fn take(&mut self, change: Change<UnlabelledPod>) {
        match change {
            Change::Apply(pod) => {
                let key = ObjectKey::of(&pod);
                let decision = decide(&pod, self.settings.can_label);
                if matches!(decision, Decision::Skip(_)) {
                    self.candidates.remove(&key);
                    return;
                }
                let uid = pod.metadata.uid.clone().unwrap_or_default();
                match self.candidates.get_mut(&key).filter(|known| known.uid == uid) {
                    Some(known) => known.decision = decision,
                    None => {
                        let candidate = Candidate {
                            uid,
                            decision,
                            reference: pod.object_ref(&()),
                            told: None,
                            not_before: None,
                        };
                        self.candidates.insert(key, candidate);
                    }
                }
            }
            Change::Delete(key) => {
                self.candidates.remove(&key);
            }
            Change::Synced => self.synced = true,
            Change::Absent | Change::Forbidden => {}
        }
    }

    /// Does what can be done now. Returns when to look again, or `None` when nothing is left that time alone would change.
    async fn pass(&mut self, now: Instant) -> Option<Instant> {
        self.look_at_replacements(now).await;
        self.label_and_report(now).await;
        let waiting = self.evictable();
        if waiting.is_empty() {
            self.held = None;
            return None;
        }
        match self.injector.readiness(&self.client, now).await {
            Readiness::Ready => self.held = None,
            Readiness::Soon(then) => return Some(then),
            Readiness::NotReady(why) => {
                if self.held.as_ref() != Some(&why) {
                    tracing::warn!(
                        pods = waiting.len(),
                        "pods lack their sidecar and are not evicted: {why}"
                    );
                    self.count("held", "injector_not_ready");
                    self.held = Some(why);
                }
                return Some(now + self.interval());
            }
        }
        let mut next: Option<Instant> = None;
        for (key, owner) in waiting {
            let then = match self.owners.permission(&owner, self.injector.version(), now) {
                Permission::Now if now < self.next_eviction => self.next_eviction,
                Permission::Now => {
                    self.evict(&key, &owner, now).await;
                    // One at a time: what the watches tell in the meantime counts.
                    return Some(now);
                }
                Permission::NotBefore(then) | Permission::Awaiting(then) => then,
                Permission::Stopped => continue,
            };
            next = Some(next.map_or(then, |next| next.min(then)));
        }
        next
    }

    /// Pods to evict and their owners, in a stable order.
    fn evictable(&self) -> Vec<(ObjectKey, Owner)> {
        let owned = self.candidates.iter().filter_map(|(key, candidate)| {
            let Decision::Evict(reference) = &candidate.decision else {
                return None;
            };
            let owner = Owner {
                namespace: key.namespace.clone(),
                reference: reference.clone(),
            };
            Some((key.clone(), owner))
        });
        owned.collect()
    }

    async fn evict(&mut self, key: &ObjectKey, owner: &Owner, now: Instant) {
        let Some(candidate) = self.candidates.get(key) else {
            return;
        };
        let (uid, reference) = (candidate.uid.clone(), candidate.reference.clone());
        let before = self.uids(owner);
        let reason = match evict(&self.client, key, &uid).await {
            Outcome::Evicted => {
                tracing::info!(pod = %key, owner = owner.reference.name, "evicted a pod that lacks its sidecar");
                self.owners.evicted(owner, before, now);
                self.candidates.remove(key);
                if self.settings.per_minute > 0 {
                    let spacing = Duration::from_secs(60) / u32::try_from(self.settings.per_minute).unwrap_or(u32::MAX);
                    self.next_eviction = now + spacing;
                }
                self.count("evicted", "no_sidecar");
                let note = "evicted, because it has no sidecar although dapr.io/enabled is true";
                self.publish(&reference, false, note.to_owned()).await;
                return;
            }
            Outcome::Gone => {
                self.candidates.remove(key);
                return;
            }
            Outcome::Budget(why) => {
                let note = format!("the pod has no sidecar and cannot be evicted now: {why}");
                self.tell_once(key, "disruption_budget", note).await;
                "disruption_budget"
            }
            Outcome::Forbidden => {
                tracing::warn!(pod = %key, "not allowed to evict pods, and pods are not deleted instead");
                "forbidden"
            }
            Outcome::Failed(error) => {
                tracing::warn!(pod = %key, error, "cannot evict a pod that lacks its sidecar; trying again");
                "error"
            }
        };
        self.count("refused", reason);
        self.owners.refused(owner, now);
    }

    /// Uids of all pods of an owner, from both watches: either may be behind.
    fn uids(&self, owner: &Owner) -> HashSet<String> {
        let pods = self.pods.of_owner(&owner.namespace, &owner.reference.uid);
        let ours = self.candidates.values().filter(|candidate| match &candidate.decision {
            Decision::Evict(reference) => reference.uid == owner.reference.uid,
            _ => false,
        });
        let ours = ours.map(|candidate| candidate.uid.clone());
        pods.into_iter().map(|pod| pod.uid).chain(ours).collect()
    }

    async fn look_at_replacements(&mut self, now: Instant) {
        let pods = self.pods.clone();
        let owned = |owner: &Owner| pods.of_owner(&owner.namespace, &owner.reference.uid);
        self.owners.expire(now, |owner| !owned(owner).is_empty());
        for owner in self.owners.awaiting(now) {
            let (reason, note) = match self
                .owners
                .observe(&owner, &owned(&owner), self.injector.version(), now)
            {
                None => continue,
                Some(Replacement::Injected) => {
                    self.count("replaced", "injected");
                    continue;
                }
                Some(Replacement::Lacking { stopped: false }) => (
                    "lacking",
                    "a pod was evicted to get its sidecar, and its replacement got none either",
                ),
                Some(Replacement::Lacking { stopped: true }) => (
                    "stopped",
                    "its pods get no sidecar although dapr.io/enabled is true; no more are evicted until the injector changes",
                ),
            };
            self.count("replaced", reason);
            tracing::warn!(namespace = owner.namespace, owner = owner.reference.name, "{note}");
            self.publish(&owner.object_reference(), true, note.to_owned()).await;
        }
    }

    /// Labels what has a sidecar, and tells users what is left to them.
    async fn label_and_report(&mut self, now: Instant) {
        let due = |candidate: &Candidate| candidate.not_before.is_none_or(|then| then <= now);
        let keys: Vec<_> = self
            .candidates
            .iter()
            .filter(|(_, c)| due(c))
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            match self.candidates.get(&key).map(|candidate| candidate.decision.clone()) {
                Some(Decision::Label) => match label(&self.client, &key).await {
                    Ok(()) => {
                        self.count("labelled", "has_sidecar");
                        self.candidates.remove(&key);
                    }
                    Err(error) => {
                        tracing::warn!(pod = %key, error, "cannot label a pod that has a sidecar; trying again");
                        let then = now + self.interval();
                        if let Some(candidate) = self.candidates.get_mut(&key) {
                            candidate.not_before = Some(then);
                        }
                    }
                },
                Some(Decision::Report(report)) => self.tell_once(&key, report.reason(), report.note()).await,
                _ => {}
            }
        }
    }

    /// Publishes an Event about a pod, unless that was its last one.
    async fn tell_once(&mut self, key: &ObjectKey, reason: &'static str, note: String) {
        let Some(candidate) = self
            .candidates
            .get_mut(key)
            .filter(|candidate| candidate.told != Some(reason))
        else {
            return;
        };
        candidate.told = Some(reason);
        let reference = candidate.reference.clone();
        tracing::warn!(pod = %key, reason, "{note}");
        self.count("left", reason);
        self.publish(&reference, true, note).await;
    }

    async fn publish(&self, regarding: &ObjectReference, warning: bool, note: String) {
        let notice = Notice {
            warning,
            reason: EventReason::SidecarMissing.as_str(),
            action: "RestoreSidecar",
            note,
        };
        self.events.publish(regarding, notice).await;
    }

    fn count(&self, action: &str, reason: &str) {
        self.metrics.watchdog_pods.with_label_values(&[action, reason]).inc();
    }
}
