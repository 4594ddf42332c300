//! Which pods are evicted now, and what follows from how that went: one pod of an owner first, after the injector was asked, and
//! then several at once.

use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::{Resource, ResourceExt};
use outrigger_process::kubernetes::watch::ObjectKey;
use tokio::time::Instant;

use super::{
    EVICT, RESTORE, SETTLE, State,
    evictor::{Outcome, evict},
    notice,
    owners::{self, Owner, Permission},
    settings::Mode,
};
use crate::{
    events::Notice,
    missing::{Finding, Reason},
};

/// What an object's users are told.
type Told = (ObjectReference, Notice);

/// Pods that are evicted at one time. When the injector fails again meanwhile, so many are replaced in vain.
const AT_ONCE: usize = 16;

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
        let mut next = None;
        let mut batch: Vec<(&ObjectKey, &Owner)> = Vec::new();
        for (key, owner) in waiting {
            let then = match self.owners.permission(owner, self.watchdog.version(), now) {
                Permission::First | Permission::More { .. } if now < self.next_eviction => self.next_eviction,
                Permission::First => {
                    self.evict_first(key, owner, now).await;
                    // Alone: what the watches tell in the meantime counts.
                    return Some(now);
                }
                Permission::More { alone } => {
                    let follows = || {
                        batch
                            .iter()
                            .any(|(_, other)| other.reference.uid == owner.reference.uid)
                    };
                    if batch.len() < at_once && !(alone && follows()) {
                        batch.push((key, owner));
                    }
                    continue;
                }
                // Once means that nothing is tried twice.
                Permission::NotBefore(_) if self.watchdog.settings.mode == Mode::Once => continue,
                Permission::NotBefore(then) | Permission::Awaiting(then) => then,
                Permission::Stopped => continue,
            };
            next = Some(next.map_or(then, |next: Instant| next.min(then)));
        }
        if batch.is_empty() {
            return next;
        }
        self.evict_more(&batch, now).await;
        Some(now)
    }

    /// Nothing has shown yet that a new pod of the owner gets a sidecar.
    async fn evict_first(&mut self, key: &ObjectKey, owner: &Owner, now: Instant) {
        let Some((_, pod)) = self.read_again(&[(key, owner)], now).await.pop() else {
            return;
        };
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
        let before = self.watchdog.pods_of(owner).into_iter().map(|pod| pod.uid).collect();
        let outcome = evict(&self.watchdog.client, &pod).await;
        if outcome == Outcome::Evicted {
            self.owners.evicted_first(owner, before, now);
        }
        let notices = self.settle(key, owner, &pod, outcome, now);
        self.publish_all(notices).await;
    }

    /// New pods of these owners get their sidecar.
    async fn evict_more(&mut self, batch: &[(&ObjectKey, &Owner)], now: Instant) {
        let pods = self.read_again(batch, now).await;
        let client = &self.watchdog.client;
        let outcomes = join_all(pods.iter().map(|(_, pod)| evict(client, pod))).await;
        let mut outcomes: Vec<_> = pods.iter().zip(outcomes).collect();
        // What was refused is the state that an owner is left in.
        outcomes.sort_by_key(|(_, outcome)| !matches!(outcome, Outcome::Evicted | Outcome::Gone));
        let mut notices = Vec::new();
        for (((key, owner), pod), outcome) in outcomes {
            if outcome == Outcome::Evicted {
                self.owners.evicted(owner, now);
            }
            notices.extend(self.settle(key, owner, pod, outcome, now));
        }
        self.publish_all(notices).await;
    }

    /// Those that still lack their sidecar and are to be evicted, as they are now.
    async fn read_again<'a>(
        &mut self,
        batch: &[(&'a ObjectKey, &'a Owner)],
        now: Instant,
    ) -> Vec<((&'a ObjectKey, &'a Owner), Pod)> {
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

    /// Takes in how an eviction went. Returns what is to be told of it.
    fn settle(&mut self, key: &ObjectKey, owner: &Owner, pod: &Pod, outcome: Outcome, now: Instant) -> Vec<Told> {
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
                vec![(pod.object_ref(&()), notice(EVICT, false, note.to_owned()))]
            }
            Outcome::Gone => {
                self.candidates.remove(key);
                self.owners.unblocked(owner);
                Vec::new()
            }
            Outcome::Budget(why) => {
                self.watchdog.count("refused", "disruption_budget");
                self.blocked(pod, owner, owners::BUDGET, &why, now)
            }
            Outcome::Forbidden(why) => {
                tracing::warn!(pod = %key, "not allowed to evict pods, and pods are not deleted instead");
                self.watchdog.count("refused", "forbidden");
                self.blocked(pod, owner, "forbidden", &why, now)
            }
            Outcome::Failed(error) => {
                tracing::warn!(pod = %key, error, "cannot evict a pod that lacks its sidecar; trying again");
                self.watchdog.count("refused", "error");
                self.blocked(pod, owner, "error", &error, now)
            }
        }
    }

    /// The API server did not evict a pod. Its users are told when that lasts.
    fn blocked(&mut self, pod: &Pod, owner: &Owner, reason: &'static str, why: &str, now: Instant) -> Vec<Told> {
        let version = self.watchdog.version();
        if !self.owners.blocked(owner, reason, version, now) {
            return Vec::new();
        }
        let note = format!("pods have no sidecar, and for a minute none of them could be evicted: {why}");
        tracing::warn!(
            pod = pod.name_any(),
            namespace = owner.namespace,
            owner = owner.reference.name,
            "{note}"
        );
        let notice = notice(EVICT, true, note);
        vec![
            (pod.object_ref(&()), notice.clone()),
            (owner.object_reference(), notice),
        ]
    }

    async fn publish_all(&self, told: Vec<Told>) {
        let events = &self.watchdog.events;
        join_all(
            told.into_iter()
                .map(async |(regarding, notice)| events.publish(&regarding, notice).await),
        )
        .await;
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
            let notice = notice((reason.as_str(), RESTORE.1), true, note);
            self.watchdog.events.publish(&owner.object_reference(), notice).await;
        }
        if matches!(reason, Reason::InjectorUnreachable | Reason::InjectorFailed) {
            self.unanswered = Some((now, finding));
        }
    }
}
