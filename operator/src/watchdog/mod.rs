//! The watchdog: has pods replaced that should have a sidecar and have none, because they were created while the injector was
//! away. It acts on what it watches, carefully: only pods whose owner is known to replace them, through the eviction API, at a limited
//! rate, after the injector said that it would inject them now, and one pod of an owner first.

mod decision;
mod evictor;
mod owners;
mod settings;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::{Api, Client, Resource, ResourceExt};
use outrigger_crds::status::EventReason;
use outrigger_process::kubernetes::watch::ObjectKey;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

pub use self::settings::{Mode, Settings};
use self::{
    decision::{Decision, decide},
    evictor::{Outcome, evict, label},
    owners::{Owner, Owners, Permission, Replacement},
};
use crate::{
    deadline::in_time,
    events::{Events, Notice},
    metrics::Metrics,
    missing::{Finding, Probe, Reason},
    pods::Pods,
};

/// Changes that come within this time are acted on together.
const QUIET: Duration = Duration::from_millis(100);
/// From the moment in which everything is in place to that in which all of the cluster's proxies know it.
const SETTLE: Duration = Duration::from_secs(1);
/// Nobody is asked again for this long after there was no answer.
const UNANSWERED: Duration = Duration::from_secs(5);
/// A pod that could not be read is read again after this.
const UNREAD: Duration = Duration::from_secs(5);
/// Pods that are read at one time.
const READS: usize = 8;

/// Reason and action of Events. Those about one object that have both in common are one Event, whose note stays the first.
const RESTORE: (&str, &str) = (EventReason::SidecarMissing.as_str(), "RestoreSidecar");
const EVICT: (&str, &str) = (EventReason::SidecarMissing.as_str(), "Evict");

/// The watchdog's state.
pub struct Watchdog {
    settings: Settings,
    client: Client,
    probe: Probe,
    metrics: Metrics,
    events: Arc<Events>,
    pods: Arc<Pods>,
    candidates: BTreeMap<ObjectKey, Candidate>,
    owners: Owners,
    /// Since when everything that injection needs has been in place.
    usable_since: Option<Instant>,
    /// When the injector did not answer, and how.
    unanswered: Option<(Instant, Finding)>,
    /// Earliest moment of the next eviction.
    next_eviction: Instant,
    /// Why nothing is evicted, as logged last.
    held: Option<Reason>,
}

/// A pod without a label that says that it has a sidecar.
struct Candidate {
    uid: String,
    /// `None` until it has been read.
    decision: Option<Decision>,
    reference: ObjectReference,
    /// What its users were told last.
    told: Option<&'static str>,
    /// Nothing is tried again before this.
    not_before: Option<Instant>,
}

impl Watchdog {
    pub fn new(
        settings: Settings,
        client: Client,
        probe: Probe,
        metrics: Metrics,
        events: Arc<Events>,
        pods: Arc<Pods>,
    ) -> Self {
        Self {
            settings,
            client,
            probe,
            metrics,
            events,
            pods,
            candidates: BTreeMap::new(),
            owners: Owners::default(),
            usable_since: None,
            unanswered: None,
            next_eviction: Instant::now(),
            held: None,
        }
    }

    /// Works until `stop`, or in the mode `once` until nothing is left to be done.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut pods = self.pods.changes();
        let mut admission = self.probe.admission();
        let mut due = Instant::now();
        loop {
            // What the watches tell is acted on soon, and not event by event.
            let soon = Instant::now() + QUIET;
            let complete = self.pods.synced() && admission.borrow().complete();
            tokio::select! {
                () = stop.cancelled() => return,
                Ok(()) = pods.changed() => due = due.min(soon),
                Ok(()) = admission.changed() => {
                    self.unanswered = None;
                    due = due.min(soon);
                }
                // A pod that merely has not been seen yet must not pass for the replacement of another.
                () = sleep_until(due), if complete => match self.pass(Instant::now()).await {
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

    /// Does what can be done now. Returns when to look again, or `None` when nothing is left that time alone would change.
    async fn pass(&mut self, now: Instant) -> Option<Instant> {
        self.follow_pods();
        let unread = self.read_pods().await;
        let unread = (unread > 0).then(|| now + UNREAD);
        let outage = self.outage(now);
        self.look_at_replacements(now).await;
        self.label_and_report(now).await;
        let waiting = self.evictable();
        let owners = waiting.iter().map(|(_, owner)| &*owner.reference.uid);
        self.owners.unblock_others(&owners.collect());
        self.count_held(&waiting);
        if waiting.is_empty() {
            self.held = None;
            return unread;
        }
        if let Some(finding) = outage {
            self.hold(&finding, waiting.len());
            return Some(now + self.interval().min(UNANSWERED));
        }
        self.held = None;
        let since = *self.usable_since.get_or_insert(now);
        if now < since + SETTLE {
            return Some(since + SETTLE);
        }
        let mut next = unread;
        for (key, owner) in waiting {
            let then = match self.owners.permission(&owner, self.version(), now) {
                Permission::Now { .. } if now < self.next_eviction => self.next_eviction,
                Permission::Now { first } => {
                    self.evict(&key, &owner, first, now).await;
                    // One at a time: what the watches tell in the meantime counts.
                    return Some(now);
                }
                // Once means that nothing is tried twice.
                Permission::NotBefore(_) if self.settings.mode == Mode::Once => continue,
                Permission::NotBefore(then) | Permission::Awaiting(then) => then,
                Permission::Stopped => continue,
            };
            next = Some(next.map_or(then, |next| next.min(then)));
        }
        next
    }

    fn version(&self) -> u64 {
        self.probe.admission().borrow().version()
    }

    /// Takes over which pods there are.
    fn follow_pods(&mut self) {
        let lacking: BTreeMap<_, _> = self.pods.lacking().into_iter().collect();
        self.candidates
            .retain(|key, candidate| lacking.get(key) == Some(&candidate.uid));
        for (key, uid) in lacking {
            self.candidates.entry(key).or_insert_with(|| Candidate {
                uid,
                decision: None,
                reference: ObjectReference::default(),
                told: None,
                not_before: None,
            });
        }
    }

    /// Reads the pods that nothing is known of, whole. Returns how many could not be read.
    async fn read_pods(&mut self) -> usize {
        let unread = self
            .candidates
            .iter()
            .filter(|(_, candidate)| candidate.decision.is_none());
        let unread: Vec<_> = unread
            .map(|(key, candidate)| (key.clone(), candidate.uid.clone()))
            .collect();
        let client = &self.client;
        let reads = stream::iter(unread).map(|(key, uid)| async move { (read(client, &key, &uid).await, key) });
        let read: Vec<_> = reads.buffer_unordered(READS).collect().await;
        let mut failed = 0;
        for (pod, key) in read {
            match pod {
                Ok(pod) => self.judge(&key, pod.as_ref()),
                Err(error) => {
                    failed += 1;
                    tracing::warn!(pod = %key, %error, "cannot read a pod; trying again");
                }
            }
        }
        failed
    }

    /// Decides about a pod as it is now; `None` is one that is gone.
    fn judge(&mut self, key: &ObjectKey, pod: Option<&Pod>) {
        let Some(pod) = pod else {
            self.candidates.remove(key);
            return;
        };
        if let Some(candidate) = self.candidates.get_mut(key) {
            candidate.decision = Some(decide(pod, self.settings.can_label));
            candidate.reference = pod.object_ref(&());
        }
    }

    /// Why nothing is evicted now, whoever owns it.
    fn outage(&mut self, now: Instant) -> Option<Finding> {
        if let Some(finding) = self.probe.outage() {
            self.usable_since = None;
            self.unanswered = None;
            self.owners.interrupted();
            return Some(finding);
        }
        let (at, finding) = self.unanswered.as_ref()?;
        (now < *at + UNANSWERED).then(|| finding.clone())
    }

    fn hold(&mut self, finding: &Finding, pods: usize) {
        let held = i64::try_from(pods).unwrap_or(i64::MAX);
        self.metrics.watchdog_held.reset();
        self.metrics
            .watchdog_held
            .with_label_values(&[finding.reason.as_str()])
            .set(held);
        if self.held.replace(finding.reason) != Some(finding.reason) {
            tracing::warn!(
                pods,
                reason = finding.reason.as_str(),
                "pods lack their sidecar and are not evicted: {}",
                finding.note
            );
            self.count("held", finding.reason.as_str());
        }
    }

    fn count_held(&self, waiting: &[(ObjectKey, Owner)]) {
        self.metrics.watchdog_held.reset();
        for (_, owner) in waiting {
            if let Some(reason) = self.owners.held(owner) {
                self.metrics.watchdog_held.with_label_values(&[reason]).inc();
            }
        }
    }

    /// Pods to evict and their owners, in a stable order.
    fn evictable(&self) -> Vec<(ObjectKey, Owner)> {
        let owned = self.candidates.iter().filter_map(|(key, candidate)| {
            let Some(Decision::Evict(reference)) = &candidate.decision else {
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

    /// `first`: nothing has shown yet that a new pod of the owner gets a sidecar.
    async fn evict(&mut self, key: &ObjectKey, owner: &Owner, first: bool, now: Instant) {
        let Some(uid) = self.candidates.get(key).map(|candidate| candidate.uid.clone()) else {
            return;
        };
        // It may have ended since it was read.
        let pod = match read(&self.client, key, &uid).await {
            Ok(pod) => pod,
            Err(error) => {
                tracing::warn!(pod = %key, %error, "cannot read a pod that lacks its sidecar; trying again");
                self.refuse(owner, "error", now);
                return;
            }
        };
        self.judge(key, pod.as_ref());
        let Some(pod) = pod.filter(|pod| matches!(decide(pod, self.settings.can_label), Decision::Evict(_))) else {
            self.owners.unblocked(owner);
            return;
        };
        if first && let Err(finding) = self.probe.prospects(&pod).await {
            self.hold_owner(owner, finding, now).await;
            return;
        }
        let before = self.uids(owner);
        match evict(&self.client, key, &uid).await {
            Outcome::Evicted => {
                tracing::info!(pod = %key, owner = owner.reference.name, "evicted a pod that lacks its sidecar");
                self.owners.evicted(owner, before, now);
                // Its uid stays known to the index until it is gone.
                self.judge_evicted(key);
                if self.settings.per_minute > 0 {
                    let spacing = Duration::from_secs(60) / u32::try_from(self.settings.per_minute).unwrap_or(u32::MAX);
                    self.next_eviction = now + spacing;
                }
                self.count("evicted", "no_sidecar");
                let note = "evicted, because it has no sidecar although dapr.io/enabled is true";
                self.publish(&pod.object_ref(&()), EVICT, false, note.to_owned()).await;
            }
            Outcome::Gone => {
                self.candidates.remove(key);
                self.owners.unblocked(owner);
            }
            Outcome::Budget(why) => {
                self.count("refused", "disruption_budget");
                self.blocked(&pod, owner, owners::BUDGET, &why, now).await;
            }
            Outcome::Forbidden(why) => {
                tracing::warn!(pod = %key, "not allowed to evict pods, and pods are not deleted instead");
                self.count("refused", "forbidden");
                self.blocked(&pod, owner, "forbidden", &why, now).await;
            }
            Outcome::Failed(error) => {
                tracing::warn!(pod = %key, error, "cannot evict a pod that lacks its sidecar; trying again");
                self.count("refused", "error");
                self.blocked(&pod, owner, "error", &error, now).await;
            }
        }
    }

    /// The API server did not evict a pod. Its users are told when that lasts.
    async fn blocked(&mut self, pod: &Pod, owner: &Owner, reason: &'static str, why: &str, now: Instant) {
        let version = self.version();
        if self.owners.blocked(owner, reason, version, now) {
            let note = format!("pods have no sidecar, and for a minute none of them could be evicted: {why}");
            tracing::warn!(
                pod = pod.name_any(),
                namespace = owner.namespace,
                owner = owner.reference.name,
                "{note}"
            );
            self.publish(&pod.object_ref(&()), EVICT, true, note.clone()).await;
            self.publish(&owner.object_reference(), EVICT, true, note).await;
        }
    }

    fn judge_evicted(&mut self, key: &ObjectKey) {
        if let Some(candidate) = self.candidates.get_mut(key) {
            candidate.decision = Some(Decision::Skip(decision::Skip::Terminating));
        }
    }

    fn refuse(&mut self, owner: &Owner, reason: &'static str, now: Instant) {
        self.count("refused", reason);
        let version = self.version();
        self.owners.refused(owner, reason, version, now);
    }

    /// A new pod of the owner would get no sidecar either.
    async fn hold_owner(&mut self, owner: &Owner, finding: Finding, now: Instant) {
        let reason = finding.reason;
        self.count("refused", reason.as_str());
        let version = self.version();
        if self.owners.refused(owner, reason.as_str(), version, now) {
            let name = &owner.reference.name;
            let new = match reason {
                Reason::CreatorUnknown => "may get none either",
                _ => "would get none",
            };
            let note = format!(
                "pods have no sidecar and are not evicted, since new ones {new}: {}",
                finding.note
            );
            tracing::warn!(
                namespace = owner.namespace,
                owner = name,
                reason = reason.as_str(),
                "{note}"
            );
            let what = (reason.as_str(), RESTORE.1);
            self.publish(&owner.object_reference(), what, true, note).await;
        }
        if matches!(reason, Reason::InjectorUnreachable | Reason::InjectorFailed) {
            self.unanswered = Some((now, finding));
        }
    }

    /// Uids of all pods of an owner.
    fn uids(&self, owner: &Owner) -> HashSet<String> {
        let pods = self.pods.of_owner(&owner.namespace, &owner.reference.uid);
        pods.into_iter().map(|pod| pod.uid).collect()
    }

    async fn look_at_replacements(&mut self, now: Instant) {
        let pods = self.pods.clone();
        let owned = |owner: &Owner| pods.of_owner(&owner.namespace, &owner.reference.uid);
        self.owners.expire(now, |owner| !owned(owner).is_empty());
        for owner in self.owners.awaiting(now) {
            match self.owners.observe(&owner, &owned(&owner), self.version(), now) {
                None => {}
                Some(Replacement::Injected) => self.count("replaced", "injected"),
                Some(Replacement::Lacking) => {
                    self.count("replaced", "lacking");
                    let note = "a pod was evicted to get its sidecar, and its replacement got none either; no more are evicted \
                        until the injector or its webhook changes";
                    tracing::warn!(namespace = owner.namespace, owner = owner.reference.name, "{note}");
                    self.publish(&owner.object_reference(), RESTORE, true, note.to_owned())
                        .await;
                }
            }
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
            match self
                .candidates
                .get(&key)
                .and_then(|candidate| candidate.decision.clone())
            {
                Some(Decision::Label) => match label(&self.client, &key).await {
                    Ok(()) => {
                        self.count("labelled", "has_sidecar");
                        if let Some(candidate) = self.candidates.get_mut(&key) {
                            candidate.decision = Some(Decision::Skip(decision::Skip::HasSidecar));
                        }
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
    async fn tell_once(&mut self, key: &ObjectKey, reason: &'static str, note: &str) {
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
        self.publish(&reference, RESTORE, true, note.to_owned()).await;
    }

    async fn publish(
        &self,
        regarding: &ObjectReference,
        (reason, action): (&'static str, &'static str),
        warning: bool,
        note: String,
    ) {
        let notice = Notice {
            warning,
            reason,
            action,
            note,
        };
        self.events.publish(regarding, notice).await;
    }

    fn count(&self, action: &str, reason: &str) {
        self.metrics.watchdog_pods.with_label_values(&[action, reason]).inc();
    }
}

/// The pod with this uid, unless it is gone.
async fn read(client: &Client, key: &ObjectKey, uid: &str) -> kube::Result<Option<Pod>> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &key.namespace);
    let pod = in_time(api.get_opt(&key.name)).await?;
    Ok(pod.filter(|pod| pod.uid().as_deref() == Some(uid)))
}
