//! How far each owner's pods have been dealt with: one pod goes first, and the others only after its replacement got a
//! sidecar. An injector that does not inject must not cost an app all its pods.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::OwnerReference};
use tokio::time::Instant;

use crate::pods::PodInfo;

/// A controller that owns pods.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Owner {
    pub(super) namespace: String,
    pub(super) reference: OwnerReference,
}

/// Pause after a failure: doubles from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));
/// After so many replacements in a row without a sidecar an owner is left alone, until the injector changes.
const MAX_FAILURES: u32 = 3;
/// A replacement that does not come at all holds up the others no longer than this.
const REPLACEMENT_DEADLINE: Duration = Duration::from_secs(600);
/// Owners without pods are forgotten after this.
const KEEP: Duration = Duration::from_secs(3600);

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
    /// Attempts that could not be made, in a row.
    refusals: u32,
    /// Replacements without a sidecar, in a row.
    failures: u32,
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
    /// Left alone while the injector stays as it was.
    Stopped { injector: u64 },
}

/// Whether a pod of an owner may be evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permission {
    Now,
    NotBefore(Instant),
    /// The replacement of another pod is awaited, at most until then.
    Awaiting(Instant),
    Stopped,
}

/// What became of a replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replacement {
    Injected,
    Lacking { stopped: bool },
}

impl Owners {
    /// `injector` is a number that changes whenever the injector does.
    pub(super) fn permission(&mut self, owner: &Owner, injector: u64, now: Instant) -> Permission {
        let Some(state) = self.states.get_mut(&owner.reference.uid) else {
            return Permission::Now;
        };
        match &state.phase {
            Phase::Stopped { injector: seen } if *seen == injector => return Permission::Stopped,
            Phase::Stopped { .. } => {
                state.phase = Phase::Untried;
                state.failures = 0;
                state.not_before = now;
            }
            Phase::Canary { .. } => {
                let deadline = state.tried + REPLACEMENT_DEADLINE;
                if now < deadline {
                    return Permission::Awaiting(deadline);
                }
                state.phase = Phase::Untried;
            }
            Phase::Untried | Phase::Proven { .. } => {}
        }
        match state.not_before <= now {
            true => Permission::Now,
            false => Permission::NotBefore(state.not_before),
        }
    }

    /// A pod was evicted; `before` are the uids of all pods that its owner had.
    pub(super) fn evicted(&mut self, owner: &Owner, before: HashSet<String>, now: Instant) {
        let state = self.state(owner, now);
        state.refusals = 0;
        state.phase = match std::mem::replace(&mut state.phase, Phase::Untried) {
            Phase::Proven { before: mut earlier } => {
                earlier.extend(before);
                Phase::Proven { before: earlier }
            }
            _ => Phase::Canary { before },
        };
    }

    /// An eviction was refused or failed.
    pub(super) fn refused(&mut self, owner: &Owner, now: Instant) {
        let state = self.state(owner, now);
        state.refusals += 1;
        state.not_before = now + backoff(state.refusals);
    }

    /// Looks at the pods that an owner has now.
    pub(super) fn observe(
        &mut self,
        owner: &Owner,
        pods: &[PodInfo],
        injector: u64,
        now: Instant,
    ) -> Option<Replacement> {
        let state = self.states.get_mut(&owner.reference.uid)?;
        let (Phase::Canary { before, .. } | Phase::Proven { before }) = &mut state.phase else {
            return None;
        };
        let new: Vec<_> = pods.iter().filter(|pod| !before.contains(&pod.uid)).collect();
        if new.is_empty() {
            return None;
        }
        if new.iter().all(|pod| pod.injected) {
            let mut before = std::mem::take(before);
            before.extend(new.iter().map(|pod| pod.uid.clone()));
            state.phase = Phase::Proven { before };
            state.failures = 0;
            return Some(Replacement::Injected);
        }
        state.failures += 1;
        state.not_before = now + backoff(state.failures);
        let stopped = state.failures >= MAX_FAILURES;
        state.phase = match stopped {
            true => Phase::Stopped { injector },
            false => Phase::Untried,
        };
        Some(Replacement::Lacking { stopped })
    }

    /// Owners whose new pods are worth a look.
    pub(super) fn awaiting(&self, now: Instant) -> Vec<Owner> {
        let awaiting = self.states.values().filter(|state| state.is_awaiting(now));
        awaiting.map(|state| state.owner.clone()).collect()
    }

    /// Whether there are such owners.
    pub(super) fn are_awaited(&self, now: Instant) -> bool {
        self.states.values().any(|state| state.is_awaiting(now))
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
            failures: 0,
        });
        state.tried = now;
        state
    }
}

impl State {
    fn is_awaiting(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Canary { .. } | Phase::Proven { .. }) && now < self.tried + REPLACEMENT_DEADLINE
    }
}

impl Owner {
    /// For Events.
    pub(super) fn object_reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some(self.reference.api_version.clone()),
            kind: Some(self.reference.kind.clone()),
            name: Some(self.reference.name.clone()),
            namespace: Some(self.namespace.clone()),
            uid: Some(self.reference.uid.clone()),
            ..Default::default()
        }
    }
}

fn backoff(failures: u32) -> Duration {
    let doubled = BACKOFF.0 * 2_u32.saturating_pow(failures.saturating_sub(1).min(10));
    doubled.min(BACKOFF.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner {
            namespace: "shop".into(),
            reference: OwnerReference {
                uid: "rs".into(),
                ..Default::default()
            },
        }
    }

    fn pods(pods: &[(&str, bool)]) -> Vec<PodInfo> {
        let info = |(uid, injected): &(&str, bool)| PodInfo {
            selection: crate::pods::Selection::NotInjected,
            uid: (*uid).to_owned(),
            app: "cart".into(),
            configuration: None,
            owner: Some("rs".into()),
            injected: *injected,
            created: None,
        };
        pods.iter().map(info).collect()
    }

    fn before() -> HashSet<String> {
        HashSet::from(["a".to_owned(), "b".to_owned()])
    }

    #[test]
    fn the_others_wait_for_the_first_ones_replacement() {
        let now = Instant::now();
        let mut owners = Owners::default();
        assert_eq!(owners.permission(&owner(), 1, now), Permission::Now);
        owners.evicted(&owner(), before(), now);
        assert_eq!(
            owners.permission(&owner(), 1, now),
            Permission::Awaiting(now + REPLACEMENT_DEADLINE)
        );
        assert_eq!(
            owners.observe(&owner(), &pods(&[("a", false), ("b", false)]), 1, now),
            None
        );

        let replaced = pods(&[("b", false), ("c", true)]);
        assert_eq!(owners.observe(&owner(), &replaced, 1, now), Some(Replacement::Injected));
        assert_eq!(owners.observe(&owner(), &replaced, 1, now), None, "seen already");
        assert_eq!(owners.permission(&owner(), 1, now), Permission::Now);
        owners.evicted(&owner(), before(), now);
        assert_eq!(owners.permission(&owner(), 1, now), Permission::Now, "no more waiting");
        let lacking = owners.observe(&owner(), &pods(&[("c", true), ("d", false)]), 1, now);
        assert_eq!(
            lacking,
            Some(Replacement::Lacking { stopped: false }),
            "but still watched"
        );
    }

    #[test]
    fn replacements_without_a_sidecar_slow_down_and_then_stop() {
        let mut now = Instant::now();
        let mut owners = Owners::default();
        for (replacement, pause) in [("c", 10), ("d", 20)] {
            owners.evicted(&owner(), before(), now);
            let lacking = owners.observe(&owner(), &pods(&[(replacement, false)]), 1, now);
            assert_eq!(lacking, Some(Replacement::Lacking { stopped: false }));
            let then = now + Duration::from_secs(pause);
            assert_eq!(owners.permission(&owner(), 1, now), Permission::NotBefore(then));
            now = then;
            assert_eq!(owners.permission(&owner(), 1, now), Permission::Now);
        }
        owners.evicted(&owner(), before(), now);
        let lacking = owners.observe(&owner(), &pods(&[("e", false)]), 1, now);
        assert_eq!(lacking, Some(Replacement::Lacking { stopped: true }));
        now += REPLACEMENT_DEADLINE * 100;
        assert_eq!(owners.permission(&owner(), 1, now), Permission::Stopped);
        assert_eq!(
            owners.permission(&owner(), 2, now),
            Permission::Now,
            "another injector, another try"
        );
    }

    #[test]
    fn refusals_back_off() {
        let now = Instant::now();
        let mut owners = Owners::default();
        for pause in [10, 20, 40, 80, 160, 320, 600, 600] {
            owners.refused(&owner(), now);
            let then = now + Duration::from_secs(pause);
            assert_eq!(owners.permission(&owner(), 1, now), Permission::NotBefore(then));
        }
        owners.evicted(&owner(), before(), now);
        owners.refused(&owner(), now);
        owners.expire(now, |_| false);
        assert_ne!(
            owners.permission(&owner(), 1, now),
            Permission::Now,
            "its replacement may still come"
        );
        owners.expire(now + KEEP, |_| true);
        owners.expire(now + KEEP, |_| false);
        assert_eq!(owners.permission(&owner(), 1, now), Permission::Now);
    }

    #[test]
    fn a_replacement_that_never_comes_does_not_hold_up_for_ever() {
        let now = Instant::now();
        let mut owners = Owners::default();
        owners.evicted(&owner(), before(), now);
        assert_eq!(owners.awaiting(now), [owner()]);
        let later = now + REPLACEMENT_DEADLINE;
        assert!(owners.awaiting(later).is_empty());
        assert_eq!(owners.permission(&owner(), 1, later), Permission::Now);
    }
}
