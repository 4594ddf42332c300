//! How far each owner's pods have been dealt with: one pod goes first, and the others only after its replacement got a
//! sidecar. An injector that does not inject must not cost an app all its pods.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::OwnerReference};
use outrigger_process::kubernetes::watch::ObjectKey;
use tokio::time::Instant;

use crate::{events::reference, pods::PodInfo};

/// A controller that owns pods.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Owner {
    pub(super) namespace: String,
    pub(super) reference: OwnerReference,
}

/// Pause after a refusal or a failure: doubles from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));
/// The same after a budget said no: it may say yes as soon as a replacement is ready.
const BUDGET_BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// What allows nothing for this long is told of.
const PATIENCE: Duration = Duration::from_secs(60);
/// A replacement that does not come at all holds up the others no longer than this; and the sidecar that one got proves nothing
/// after it.
const REPLACEMENT_DEADLINE: Duration = Duration::from_secs(600);
/// Owners without pods are forgotten after this.
const KEEP: Duration = Duration::from_secs(3600);

/// What stands in the way of owners that are left alone.
pub(super) const STOPPED: &str = "ReplacementWithoutSidecar";
/// What stands in the way of pods that a budget protects.
pub(super) const BUDGET: &str = "DisruptionBudget";

/// All owners that something was done to, by uid.
#[derive(Debug, Default)]
pub(super) struct Owners {
    states: HashMap<String, State>,
}

#[derive(Debug)]
struct State {
    owner: Owner,
    phase: Phase,
    /// When a pod was evicted last, or was to be.
    tried: Instant,
    not_before: Instant,
    /// Attempts that could not be made, in a row, and when the last one was: what was tried at one time counts once.
    refusals: u32,
    refused: Option<Instant>,
    /// A budget lets few of its pods go, so that several at once are mostly refused.
    budgeted: bool,
    /// Replacements without a sidecar, in a row.
    failures: u32,
    held: Option<Held>,
    /// Since when no eviction has succeeded, and whether that was told.
    blocked: Option<(Instant, bool)>,
}

/// Why the last attempt was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    reason: &'static str,
    /// The state of the cluster that was the reason.
    version: u64,
}

#[derive(Debug)]
enum Phase {
    /// No pod has gone first yet.
    Untried,
    /// One has, and its replacement is awaited.
    Canary {
        /// Uids of the pods that the owner had.
        before: HashSet<String>,
    },
    /// A replacement got its sidecar.
    Proven { before: HashSet<String> },
    /// A replacement got none: left alone while the cluster stays as it was, or until a new pod has a sidecar.
    Stopped { version: u64, before: HashSet<String> },
}

/// Whether a pod of an owner may be evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permission {
    /// Once it was found out that a new pod would be injected.
    First,
    /// Now; and no other one of the owner at the same time, if `alone`.
    More {
        alone: bool,
    },
    NotBefore(Instant),
    /// The replacement of another pod is awaited, at most until then.
    Awaiting(Instant),
    Stopped,
}

/// What became of a replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replacement {
    Injected,
    Lacking,
}

impl Owners {
    /// `version` is a number that changes whenever something about injection does.
    pub(super) fn permission(&mut self, owner: &Owner, version: u64, now: Instant) -> Permission {
        let Some(state) = self.states.get_mut(&owner.reference.uid) else {
            return Permission::First;
        };
        match &state.phase {
            Phase::Stopped { version: seen, .. } if *seen == version => return Permission::Stopped,
            Phase::Stopped { .. } => {
                state.phase = Phase::Untried;
                state.not_before = state.tried + pause(BACKOFF, state.failures);
            }
            Phase::Canary { .. } => {
                let deadline = state.tried + REPLACEMENT_DEADLINE;
                if now < deadline {
                    return Permission::Awaiting(deadline);
                }
                state.phase = Phase::Untried;
            }
            Phase::Proven { .. } if now >= state.tried + REPLACEMENT_DEADLINE => state.phase = Phase::Untried,
            Phase::Untried | Phase::Proven { .. } => {}
        }
        if state
            .held
            .is_some_and(|held| held.reason != BUDGET && held.version != version)
        {
            state.held = None;
            state.refusals = 0;
            state.not_before = now;
        }
        match &state.phase {
            _ if now < state.not_before => Permission::NotBefore(state.not_before),
            Phase::Proven { .. } => Permission::More { alone: state.budgeted },
            _ => Permission::First,
        }
    }

    /// What stands in the way of an owner's pods, if anything but time.
    pub(super) fn held(&self, owner: &Owner) -> Option<&'static str> {
        let state = self.states.get(&owner.reference.uid)?;
        match state.phase {
            Phase::Stopped { .. } => Some(STOPPED),
            _ => state.held.map(|held| held.reason),
        }
    }

    /// The first pod was evicted; `before` are the uids of all pods that its owner had.
    pub(super) fn evicted_first(&mut self, owner: &Owner, before: HashSet<String>, now: Instant) {
        self.evicted(owner, now);
        let state = self.state(owner, now);
        state.phase = Phase::Canary { before };
        state.budgeted = false;
    }

    /// A pod was evicted.
    pub(super) fn evicted(&mut self, owner: &Owner, now: Instant) {
        let state = self.state(owner, now);
        state.refusals = 0;
        state.held = None;
        state.blocked = None;
    }

    /// An eviction was not tried. Returns whether the reason is another than before.
    pub(super) fn refused(&mut self, owner: &Owner, reason: &'static str, version: u64, now: Instant) -> bool {
        let state = self.state(owner, now);
        state.blocked = None;
        state.count_refusal(now);
        state.not_before = now + pause(BACKOFF, state.refusals);
        let before = state.held.replace(Held { reason, version });
        before.map(|held| held.reason) != Some(reason)
    }

    /// The API server refused an eviction, a disruption budget in the case of `BUDGET`. Returns true once, after a minute without
    /// progress.
    pub(super) fn blocked(&mut self, owner: &Owner, reason: &'static str, version: u64, now: Instant) -> bool {
        let state = self.state(owner, now);
        state.count_refusal(now);
        state.held = Some(Held { reason, version });
        state.budgeted |= reason == BUDGET;
        let backoff = match reason {
            BUDGET => BUDGET_BACKOFF,
            _ => BACKOFF,
        };
        state.not_before = now + pause(backoff, state.refusals);
        let (since, told) = state.blocked.get_or_insert((now, false));
        if now < *since + PATIENCE {
            state.not_before = state.not_before.min(*since + PATIENCE);
            return false;
        }
        !std::mem::replace(told, true)
    }

    /// A pod that was to be evicted is none any more: what stood in the way of it may not stand in that of the next.
    pub(super) fn unblocked(&mut self, owner: &Owner) {
        if let Some(state) = self.states.get_mut(&owner.reference.uid) {
            state.blocked = None;
        }
    }

    /// The same for owners that have no pods to evict any more.
    pub(super) fn unblock_others(&mut self, waiting: &HashSet<&str>) {
        for (uid, state) in &mut self.states {
            if !waiting.contains(&**uid) {
                state.blocked = None;
            }
        }
    }

    /// Nobody gets a sidecar now: what pods get meanwhile says nothing of their owners, and what they got before proves nothing.
    pub(super) fn interrupted(&mut self) {
        for state in self.states.values_mut() {
            if matches!(state.phase, Phase::Canary { .. } | Phase::Proven { .. }) {
                state.phase = Phase::Untried;
            }
        }
    }

    /// Looks at the pods that an owner has now.
    pub(super) fn observe(
        &mut self,
        owner: &Owner,
        pods: &[PodInfo],
        version: u64,
        now: Instant,
    ) -> Option<Replacement> {
        let state = self.states.get_mut(&owner.reference.uid)?;
        let stopped = matches!(state.phase, Phase::Stopped { .. });
        let (Phase::Canary { before } | Phase::Proven { before } | Phase::Stopped { before, .. }) = &mut state.phase
        else {
            return None;
        };
        let new: Vec<_> = pods.iter().filter(|pod| !before.contains(&pod.uid)).collect();
        let lacking = new.iter().any(|pod| !pod.injected);
        if new.is_empty() || (stopped && lacking) {
            return None;
        }
        let mut before = std::mem::take(before);
        before.extend(new.iter().map(|pod| pod.uid.clone()));
        state.tried = now;
        if lacking {
            state.failures += 1;
            state.phase = Phase::Stopped { version, before };
            return Some(Replacement::Lacking);
        }
        state.failures = 0;
        state.phase = Phase::Proven { before };
        Some(Replacement::Injected)
    }

    /// Owners whose new pods are worth a look.
    pub(super) fn awaiting(&self, now: Instant) -> Vec<Owner> {
        let awaiting = self.states.values().filter(|state| state.is_awaiting(now));
        awaiting.map(|state| state.owner.clone()).collect()
    }

    /// Forgets owners that nothing was done to for long and that have no pods.
    pub(super) fn expire(&mut self, now: Instant, has_pods: impl Fn(&Owner) -> bool) {
        self.states
            .retain(|_, state| now < state.tried + KEEP || has_pods(&state.owner));
    }

    fn state(&mut self, owner: &Owner, now: Instant) -> &mut State {
        let state = self.states.entry(owner.reference.uid.clone()).or_insert_with(|| State {
            owner: owner.clone(),
            phase: Phase::Untried,
            tried: now,
            not_before: now,
            refusals: 0,
            refused: None,
            budgeted: false,
            failures: 0,
            held: None,
            blocked: None,
        });
        state.tried = now;
        state
    }
}

impl State {
    fn count_refusal(&mut self, now: Instant) {
        if self.refused.replace(now) != Some(now) {
            self.refusals += 1;
        }
    }

    fn is_awaiting(&self, now: Instant) -> bool {
        match self.phase {
            Phase::Untried => false,
            Phase::Stopped { .. } => true,
            Phase::Canary { .. } | Phase::Proven { .. } => now < self.tried + REPLACEMENT_DEADLINE,
        }
    }
}

impl Owner {
    /// For Events.
    pub(super) fn object_reference(&self) -> ObjectReference {
        let OwnerReference {
            api_version,
            kind,
            name,
            uid,
            ..
        } = &self.reference;
        let key = ObjectKey::new(&*self.namespace, &**name);
        reference(api_version, kind, &key, uid)
    }
}

fn pause((first, last): (Duration, Duration), attempts: u32) -> Duration {
    let doubled = first * 2_u32.saturating_pow(attempts.saturating_sub(1).min(10));
    doubled.min(last)
}

#[cfg(test)]
mod tests;
