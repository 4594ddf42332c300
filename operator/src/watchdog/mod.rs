//! The watchdog: has pods replaced that should have a sidecar and have none, because they were created while the injector was
//! away. It acts on what it watches, carefully: only pods whose owner is known to replace them, through the eviction API, at a limited
//! rate, after the injector said that it would inject them now, and one pod of an owner first.

mod candidates;
mod decision;
mod evictor;
mod owners;
mod settings;

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::{Client, Resource, ResourceExt};
use outrigger_crds::status::EventReason;
use outrigger_process::kubernetes::watch::ObjectKey;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

pub use self::settings::{Mode, Settings};
use self::{
    candidates::Candidates,
    evictor::{Outcome, evict},
    owners::{Owner, Owners, Permission, Replacement},
};
use crate::{
    events::{Events, Notice},
    metrics::Metrics,
    missing::{Finding, Probe, Reason},
    pods::{PodInfo, Pods},
};

/// Changes that come within this time are acted on together.
const QUIET: Duration = Duration::from_millis(100);
/// From the moment in which everything is in place to that in which all of the cluster's proxies know it.
const SETTLE: Duration = Duration::from_secs(1);
/// Nobody is asked again for this long after there was no answer.
const UNANSWERED: Duration = Duration::from_secs(5);

/// Reason and action of Events. Those about one object that have both in common are one Event, whose note stays the first.
const RESTORE: (&str, &str) = (EventReason::SidecarMissing.as_str(), "RestoreSidecar");
const EVICT: (&str, &str) = (EventReason::SidecarMissing.as_str(), "Evict");

/// What the watchdog works with.
pub struct Watchdog {
    pub settings: Settings,
    pub client: Client,
    pub probe: Probe,
    pub metrics: Metrics,
    pub events: Arc<Events>,
    pub pods: Arc<Pods>,
}

/// Its state.
struct State {
    watchdog: Watchdog,
    candidates: Candidates,
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

impl Watchdog {
    /// Works until `stop`, or in the mode `once` until nothing is left to be done.
    pub async fn run(self, stop: CancellationToken) {
        let mut pods = self.pods.changes();
        let mut admission = self.probe.admission();
        let mut state = State::new(self);
        let mut due = Instant::now();
        loop {
            // What the watches tell is acted on soon, and not event by event.
            let soon = Instant::now() + QUIET;
            let complete = state.watchdog.pods.synced() && admission.borrow().complete();
            tokio::select! {
                () = stop.cancelled() => return,
                Ok(()) = pods.changed() => due = due.min(soon),
                Ok(()) = admission.changed() => {
                    state.unanswered = None;
                    due = due.min(soon);
                }
                // A pod that merely has not been seen yet must not pass for the replacement of another.
                () = sleep_until(due), if complete => match state.pass(Instant::now()).await {
                    Some(next) => due = next,
                    None if state.watchdog.settings.mode == Mode::Once => {
                        tracing::info!("the watchdog has nothing left to do and ends, since it runs once");
                        return;
                    }
                    None => due = Instant::now() + state.watchdog.interval(),
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

    fn version(&self) -> u64 {
        self.probe.admission().borrow().version()
    }

    /// The pods that an owner has.
    fn pods_of(&self, owner: &Owner) -> Vec<PodInfo> {
        self.pods.of_owner(&owner.namespace, &owner.reference.uid)
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

impl State {
    fn new(watchdog: Watchdog) -> Self {
        let (client, metrics) = (watchdog.client.clone(), watchdog.metrics.clone());
        Self {
            candidates: Candidates::new(client, metrics, watchdog.settings.can_label),
            watchdog,
            owners: Owners::default(),
            usable_since: None,
            unanswered: None,
            next_eviction: Instant::now(),
            held: None,
        }
    }

    /// Does what can be done now. Returns when to look again, or `None` when nothing is left that time alone would change.
    async fn pass(&mut self, now: Instant) -> Option<Instant> {
        self.candidates.follow(self.watchdog.pods.lacking());
        self.candidates.read(now).await;
        let outage = self.outage(now);
        self.look_at_replacements(now).await;
        let waiting = self.candidates.evictable();
        let owners = waiting.iter().map(|(_, owner)| &*owner.reference.uid);
        self.owners.unblock_others(&owners.collect());
        self.count_held(&waiting);
        let eviction = match outage {
            _ if waiting.is_empty() => {
                self.held = None;
                None
            }
            Some(finding) => {
                self.hold(&finding, waiting.len());
                Some(now + self.watchdog.interval().min(UNANSWERED))
            }
            None => self.evict_one(&waiting, now).await,
        };
        if eviction == Some(now) {
            // What is less urgent waits for it.
            return eviction;
        }
        let retry = match self.watchdog.settings.mode {
            // Nothing is tried twice.
            Mode::Once => None,
            Mode::Every(interval) => Some(interval),
        };
        self.candidates.label(now, retry).await;
        [eviction, self.candidates.next(now)].into_iter().flatten().min()
    }

    /// Evicts the first pod that may be. Returns when to look for another one: `now` if there may be one already.
    async fn evict_one(&mut self, waiting: &[(ObjectKey, Owner)], now: Instant) -> Option<Instant> {
        self.held = None;
        let since = *self.usable_since.get_or_insert(now);
        if now < since + SETTLE {
            return Some(since + SETTLE);
        }
        let mut next = None;
        for (key, owner) in waiting {
            let then = match self.owners.permission(owner, self.watchdog.version(), now) {
                Permission::Now { .. } if now < self.next_eviction => self.next_eviction,
                Permission::Now { first } => {
                    self.evict(key, owner, first, now).await;
                    // One at a time: what the watches tell in the meantime counts.
                    return Some(now);
                }
                // Once means that nothing is tried twice.
                Permission::NotBefore(_) if self.watchdog.settings.mode == Mode::Once => continue,
                Permission::NotBefore(then) | Permission::Awaiting(then) => then,
                Permission::Stopped => continue,
            };
            next = Some(next.map_or(then, |next: Instant| next.min(then)));
        }
        next
    }

    /// Why nothing is evicted now, whoever owns it.
    fn outage(&mut self, now: Instant) -> Option<Finding> {
        if let Some(finding) = self.watchdog.probe.outage() {
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
        self.watchdog.metrics.watchdog_held.reset();
        self.watchdog
            .metrics
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
            self.watchdog.count("held", finding.reason.as_str());
        }
    }

    fn count_held(&self, waiting: &[(ObjectKey, Owner)]) {
        self.watchdog.metrics.watchdog_held.reset();
        for (_, owner) in waiting {
            if let Some(reason) = self.owners.held(owner) {
                self.watchdog.metrics.watchdog_held.with_label_values(&[reason]).inc();
            }
        }
    }

    /// `first`: nothing has shown yet that a new pod of the owner gets a sidecar.
    async fn evict(&mut self, key: &ObjectKey, owner: &Owner, first: bool, now: Instant) {
        let pod = match self.candidates.read_again(key).await {
            Ok(Some(pod)) => pod,
            Ok(None) => {
                self.owners.unblocked(owner);
                return;
            }
            Err(error) => {
                tracing::warn!(pod = %key, %error, "cannot read a pod that lacks its sidecar; trying again");
                self.watchdog.count("refused", "error");
                self.owners.refused(owner, "error", self.watchdog.version(), now);
                return;
            }
        };
        if first {
            let mut admission = self.watchdog.probe.admission();
            let version = admission.borrow_and_update().version();
            let prospects = tokio::select! {
                prospects = self.watchdog.probe.prospects(&pod) => prospects,
                // The answer would be about an injector that is none any more.
                Ok(()) = admission.changed() => return,
            };
            if let Err(finding) = prospects {
                self.hold_owner(owner, finding, version, now).await;
                return;
            }
        }
        let before = self.watchdog.pods_of(owner).into_iter().map(|pod| pod.uid).collect();
        let uid = pod.uid().unwrap_or_default();
        match evict(&self.watchdog.client, key, &uid).await {
            Outcome::Evicted => {
                tracing::info!(pod = %key, owner = owner.reference.name, "evicted a pod that lacks its sidecar");
                self.owners.evicted(owner, before, now);
                self.candidates.set_evicted(key);
                if self.watchdog.settings.per_minute > 0 {
                    let spacing =
                        Duration::from_secs(60) / u32::try_from(self.watchdog.settings.per_minute).unwrap_or(u32::MAX);
                    self.next_eviction = now + spacing;
                }
                self.watchdog.count("evicted", "no_sidecar");
                let note = "evicted, because it has no sidecar although dapr.io/enabled is true";
                self.watchdog
                    .publish(&pod.object_ref(&()), EVICT, false, note.to_owned())
                    .await;
            }
            Outcome::Gone => {
                self.candidates.remove(key);
                self.owners.unblocked(owner);
            }
            Outcome::Budget(why) => {
                self.watchdog.count("refused", "disruption_budget");
                self.blocked(&pod, owner, owners::BUDGET, &why, now).await;
            }
            Outcome::Forbidden(why) => {
                tracing::warn!(pod = %key, "not allowed to evict pods, and pods are not deleted instead");
                self.watchdog.count("refused", "forbidden");
                self.blocked(&pod, owner, "forbidden", &why, now).await;
            }
            Outcome::Failed(error) => {
                tracing::warn!(pod = %key, error, "cannot evict a pod that lacks its sidecar; trying again");
                self.watchdog.count("refused", "error");
                self.blocked(&pod, owner, "error", &error, now).await;
            }
        }
    }

    /// The API server did not evict a pod. Its users are told when that lasts.
    async fn blocked(&mut self, pod: &Pod, owner: &Owner, reason: &'static str, why: &str, now: Instant) {
        let version = self.watchdog.version();
        if self.owners.blocked(owner, reason, version, now) {
            let note = format!("pods have no sidecar, and for a minute none of them could be evicted: {why}");
            tracing::warn!(
                pod = pod.name_any(),
                namespace = owner.namespace,
                owner = owner.reference.name,
                "{note}"
            );
            self.watchdog
                .publish(&pod.object_ref(&()), EVICT, true, note.clone())
                .await;
            self.watchdog
                .publish(&owner.object_reference(), EVICT, true, note)
                .await;
        }
    }

    /// A new pod of the owner would get no sidecar either, as far as is known in this version of the cluster's state.
    async fn hold_owner(&mut self, owner: &Owner, finding: Finding, version: u64, now: Instant) {
        let reason = finding.reason;
        self.watchdog.count("refused", reason.as_str());
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
            self.watchdog.publish(&owner.object_reference(), what, true, note).await;
        }
        if matches!(reason, Reason::InjectorUnreachable | Reason::InjectorFailed) {
            self.unanswered = Some((now, finding));
        }
    }

    async fn look_at_replacements(&mut self, now: Instant) {
        let watchdog = &self.watchdog;
        self.owners.expire(now, |owner| !watchdog.pods_of(owner).is_empty());
        for owner in self.owners.awaiting(now) {
            match self
                .owners
                .observe(&owner, &watchdog.pods_of(&owner), watchdog.version(), now)
            {
                None => {}
                Some(Replacement::Injected) => watchdog.count("replaced", "injected"),
                Some(Replacement::Lacking) => {
                    watchdog.count("replaced", "lacking");
                    let note = "a pod was evicted to get its sidecar, and its replacement got none either; no more are evicted \
                        until the injector or its webhook changes";
                    tracing::warn!(namespace = owner.namespace, owner = owner.reference.name, "{note}");
                    watchdog
                        .publish(&owner.object_reference(), RESTORE, true, note.to_owned())
                        .await;
                }
            }
        }
    }
}
