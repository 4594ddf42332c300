//! Which pods are evicted now, and what follows from how that went: one pod of an owner first, after the injector was asked, and
//! then several at once.

use std::time::Duration;

use futures::{StreamExt, future::join_all, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{Resource, ResourceExt};
use outrigger_process::kubernetes::watch::ObjectKey;
use tokio::time::Instant;

use super::{
    EVICT, RESTORE, SETTLE, State,
    candidates::CALLS,
    evictor::{Outcome, evict},
    notice,
    owners::{self, Owner, Permission},
    settings::Mode,
};
use crate::missing::{Finding, Reason};

/// Pods that are evicted in one go. When the injector fails again meanwhile, so many are replaced in vain.
const AT_ONCE: usize = 64;

/// A pod and its owner.
type Owned<'a> = (&'a ObjectKey, &'a Owner);

/// Adds a pod to a batch that takes so many, unless it is to go `alone` and the batch has one of its owner.
fn add<'a>(batch: &mut Vec<Owned<'a>>, most: usize, pod: Owned<'a>, alone: bool) {
    let has_owner = || {
        batch
            .iter()
            .any(|(_, owner)| owner.reference.uid == pod.1.reference.uid)
    };
    if batch.len() < most && !(alone && has_owner()) {
        batch.push(pod);
    }
}

impl State {
    /// Evicts pods that may be. Returns when to look for others: `now` if there may be some already.
    pub(super) async fn evict_some(&mut self, waiting: &[(ObjectKey, Owner)], now: Instant) -> Option<Instant> {
        self.held = None;
        let since = *self.usable_since.get_or_insert(now);
        if now < since + SETTLE {
            return Some(since + SETTLE);
        }
        let at_once = match self.watchdog.settings.per_minute {
            ..=0 => AT_ONCE,
            1.. => 1,
        };
        let version = self.watchdog.version();
        let (mut next, mut first, mut more) = (None, Vec::new(), Vec::new());
        for (key, owner) in waiting {
            let then = match self.owners.permission(owner, version, now) {
                Permission::First | Permission::More { .. } if now < self.next_eviction => self.next_eviction,
                Permission::First => {
                    add(&mut first, at_once, (key, owner), true);
                    continue;
                }
                Permission::More { alone } => {
                    add(&mut more, at_once, (key, owner), alone);
                    continue;
                }
                // Once means that nothing is tried twice.
                Permission::NotBefore(_) if self.watchdog.settings.mode == Mode::Once => continue,
                Permission::NotBefore(then) | Permission::Awaiting(then) => then,
                Permission::Stopped => continue,
            };
            next = Some(next.map_or(then, |next: Instant| next.min(then)));
        }
        match (&*first, &*more) {
            ([], []) => return next,
            ([], more) => self.evict_more(more, now).await,
            // Without the others: what the watches tell in the meantime counts.
            (first, _) => self.evict_first(first, now).await,
        }
        Some(now)
    }

    /// Nothing has shown yet that new pods of these owners get a sidecar: one pod of each.
    async fn evict_first(&mut self, batch: &[Owned<'_>], now: Instant) {
        let pods = self.read_again(batch, now).await;
        let watchdog = &self.watchdog;
        let mut admission = watchdog.probe.admission();
        let version = admission.borrow_and_update().version();
        let prospects: Vec<_> = pods.iter().map(|(_, pod)| watchdog.probe.prospects(pod)).collect();
        let prospects: Vec<_> = tokio::select! {
            prospects = stream::iter(prospects).buffered(CALLS).collect() => prospects,
            // The answers would be about an injector that is none any more.
            Ok(()) = admission.changed() => return,
        };
        let mut promising = Vec::new();
        for (lacking, prospects) in pods.into_iter().zip(prospects) {
            match prospects {
                Ok(()) => promising.push(lacking),
                Err(finding) => self.hold_owner(lacking.0.1, finding, version, now),
            }
        }
        let uids = |owner: &Owner| self.watchdog.pods_of(owner).into_iter().map(|pod| pod.uid).collect();
        let before: Vec<_> = promising.iter().map(|((_, owner), _)| uids(owner)).collect();
        let outcomes = self.evict_all(&promising).await;
        for ((((key, owner), pod), before), outcome) in promising.iter().zip(before).zip(outcomes) {
            if outcome == Outcome::Evicted {
                self.owners.evicted_first(owner, before, now);
            }
            self.settle(key, owner, pod, outcome, now);
        }
    }

    /// New pods of these owners get their sidecar.
    async fn evict_more(&mut self, batch: &[Owned<'_>], now: Instant) {
        let pods = self.read_again(batch, now).await;
        let outcomes = self.evict_all(&pods).await;
        let mut outcomes: Vec<_> = pods.iter().zip(outcomes).collect();
        // What was refused is the state that an owner is left in.
        outcomes.sort_by_key(|(_, outcome)| !matches!(outcome, Outcome::Evicted | Outcome::Gone));
        for (((key, owner), pod), outcome) in outcomes {
            if outcome == Outcome::Evicted {
                self.owners.evicted(owner, now);
            }
            self.settle(key, owner, pod, outcome, now);
        }
    }

    /// How each went, in the same order.
    async fn evict_all(&self, pods: &[(Owned<'_>, Pod)]) -> Vec<Outcome> {
        let client = &self.watchdog.client;
        // All are requested before replacements and their starts keep the API server busy.
        join_all(pods.iter().map(|(_, pod)| evict(client, pod))).await
    }

    /// Those that still lack their sidecar and are to be evicted, as they are now.
    async fn read_again<'a>(&mut self, batch: &[Owned<'a>], now: Instant) -> Vec<(Owned<'a>, Pod)> {
        let keys = batch.iter().map(|(key, _)| *key);
        let read = self.candidates.read_again(keys).await;
        let mut lacking = Vec::new();
        for ((key, owner), pod) in batch.iter().zip(read) {
            match pod {
                Ok(Some(pod)) => lacking.push(((*key, *owner), pod)),
                Ok(None) => self.owners.unblocked(owner),
                Err(error) => {
                    tracing::warn!(pod = %key, %error, "cannot read a pod that lacks its sidecar; trying again");
                    self.watchdog.count("refused", "error");
                    self.owners.refused(owner, "error", self.watchdog.version(), now);
                }
            }
        }
        lacking
    }

    /// Takes in how an eviction went.
    fn settle(&mut self, key: &ObjectKey, owner: &Owner, pod: &Pod, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Evicted => {
                tracing::info!(pod = %key, owner = owner.reference.name, "evicted a pod that lacks its sidecar");
                self.candidates.set_evicted(key);
                if self.watchdog.settings.per_minute > 0 {
                    let spacing =
                        Duration::from_secs(60) / u32::try_from(self.watchdog.settings.per_minute).unwrap_or(u32::MAX);
                    self.next_eviction = now + spacing;
                }
                self.watchdog.count("evicted", "no_sidecar");
                let note = "evicted, because it has no sidecar although dapr.io/enabled is true";
                self.untold
                    .push((pod.object_ref(&()), notice(EVICT, false, note.to_owned())));
            }
            Outcome::Gone => {
                self.candidates.remove(key);
                self.owners.unblocked(owner);
            }
            Outcome::Budget(why) => {
                self.watchdog.count("refused", "disruption_budget");
                self.blocked(pod, owner, owners::BUDGET, &why, now);
            }
            Outcome::Forbidden(why) => {
                tracing::warn!(pod = %key, "not allowed to evict pods, and pods are not deleted instead");
                self.watchdog.count("refused", "forbidden");
                self.blocked(pod, owner, "forbidden", &why, now);
            }
            Outcome::Failed(error) => {
                tracing::warn!(pod = %key, error, "cannot evict a pod that lacks its sidecar; trying again");
                self.watchdog.count("refused", "error");
                self.blocked(pod, owner, "error", &error, now);
            }
        }
    }

    /// The API server did not evict a pod. Its users are told when that lasts.
    fn blocked(&mut self, pod: &Pod, owner: &Owner, reason: &'static str, why: &str, now: Instant) {
        let version = self.watchdog.version();
        if !self.owners.blocked(owner, reason, version, now) {
            return;
        }
        let note = format!("pods have no sidecar, and for a minute none of them could be evicted: {why}");
        tracing::warn!(
            pod = pod.name_any(),
            namespace = owner.namespace,
            owner = owner.reference.name,
            "{note}"
        );
        let notice = notice(EVICT, true, note);
        self.untold.push((pod.object_ref(&()), notice.clone()));
        self.untold.push((owner.object_reference(), notice));
    }

    /// Tells users what happened to their pods since the last time.
    pub(super) async fn tell(&mut self) {
        let (events, untold) = (&self.watchdog.events, std::mem::take(&mut self.untold));
        let told = untold
            .iter()
            .map(|(regarding, notice)| events.publish(regarding, notice.clone()));
        let told: Vec<_> = told.collect();
        stream::iter(told).buffer_unordered(CALLS).collect::<()>().await;
    }

    /// A new pod of the owner would get no sidecar either, as far as is known in this version of the cluster's state.
    fn hold_owner(&mut self, owner: &Owner, finding: Finding, version: u64, now: Instant) {
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
            let notice = notice((reason.as_str(), RESTORE.1), true, note);
            self.untold.push((owner.object_reference(), notice));
        }
        if matches!(reason, Reason::InjectorUnreachable | Reason::InjectorFailed) {
            self.unanswered = Some((now, finding));
        }
    }
}
