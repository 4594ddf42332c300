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
    /// Attempts that could not be made, in a row.
    refusals: u32,
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
    /// `first` is asked for: whether a new pod would be injected has to be found out before.
    Now {
        first: bool,
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
            return Permission::Now { first: true };
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
        match state.not_before <= now {
            true => Permission::Now {
                first: !matches!(state.phase, Phase::Proven { .. }),
            },
            false => Permission::NotBefore(state.not_before),
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

    /// A pod was evicted; `before` are the uids of all pods that its owner had.
    pub(super) fn evicted(&mut self, owner: &Owner, before: HashSet<String>, now: Instant) {
        let state = self.state(owner, now);
        state.refusals = 0;
        state.held = None;
        state.blocked = None;
        state.phase = match std::mem::replace(&mut state.phase, Phase::Untried) {
            Phase::Proven { before: mut earlier } => {
                earlier.extend(before);
                Phase::Proven { before: earlier }
            }
            _ => Phase::Canary { before },
        };
    }

    /// An eviction was not tried. Returns whether the reason is another than before.
    pub(super) fn refused(&mut self, owner: &Owner, reason: &'static str, version: u64, now: Instant) -> bool {
        let state = self.state(owner, now);
        state.blocked = None;
        state.refusals += 1;
        state.not_before = now + pause(BACKOFF, state.refusals);
        let before = state.held.replace(Held { reason, version });
        before.map(|held| held.reason) != Some(reason)
    }

    /// The API server refused an eviction, a disruption budget in the case of `BUDGET`. Returns true once, after a minute without
    /// progress.
    pub(super) fn blocked(&mut self, owner: &Owner, reason: &'static str, version: u64, now: Instant) -> bool {
        let state = self.state(owner, now);
        state.refusals += 1;
        state.held = Some(Held { reason, version });
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
            failures: 0,
            held: None,
            blocked: None,
        });
        state.tried = now;
        state
    }
}

impl State {
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

fn pause((first, last): (Duration, Duration), attempts: u32) -> Duration {
    let doubled = first * 2_u32.saturating_pow(attempts.saturating_sub(1).min(10));
    doubled.min(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Permission = Permission::Now { first: true };
    const NEXT: Permission = Permission::Now { first: false };

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
            patched: false,
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
        assert_eq!(owners.permission(&owner(), 1, now), FIRST);
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
        assert_eq!(owners.permission(&owner(), 1, now), NEXT);
        owners.evicted(&owner(), before(), now);
        assert_eq!(owners.permission(&owner(), 1, now), NEXT, "no more waiting");
        let lacking = owners.observe(&owner(), &pods(&[("c", true), ("d", false)]), 1, now);
        assert_eq!(lacking, Some(Replacement::Lacking), "but still watched");
        assert_eq!(owners.permission(&owner(), 1, now), Permission::Stopped);
    }

    #[test]
    fn what_was_proved_long_ago_is_proved_again() {
        let now = Instant::now();
        let mut owners = Owners::default();
        owners.evicted(&owner(), before(), now);
        owners.observe(&owner(), &pods(&[("c", true)]), 1, now);
        assert_eq!(owners.permission(&owner(), 1, now), NEXT);
        assert_eq!(owners.permission(&owner(), 1, now + REPLACEMENT_DEADLINE), FIRST);
    }

    #[test]
    fn a_replacement_without_a_sidecar_ends_it() {
        let mut now = Instant::now();
        let mut owners = Owners::default();
        for (version, pause) in [(1, 10), (2, 20), (3, 40)] {
            owners.evicted(&owner(), before(), now);
            let replacement = format!("c{version}");
            let lacking = owners.observe(&owner(), &pods(&[(&replacement, false)]), version, now);
            assert_eq!(lacking, Some(Replacement::Lacking));
            assert_eq!(owners.held(&owner()), Some(STOPPED));
            assert_eq!(owners.permission(&owner(), version, now + KEEP), Permission::Stopped);
            // Another injector, another try, and each after a longer pause.
            let then = now + Duration::from_secs(pause);
            assert_eq!(
                owners.permission(&owner(), version + 1, now),
                Permission::NotBefore(then)
            );
            now = then;
            assert_eq!(owners.permission(&owner(), version + 1, now), FIRST);
        }
    }

    #[test]
    fn a_later_pod_with_a_sidecar_takes_it_up_again() {
        let now = Instant::now();
        let mut owners = Owners::default();
        owners.evicted(&owner(), before(), now);
        owners.observe(&owner(), &pods(&[("c", false)]), 1, now);
        assert_eq!(
            owners.observe(&owner(), &pods(&[("c", false), ("d", false)]), 1, now),
            None
        );
        let with = pods(&[("c", false), ("e", true)]);
        assert_eq!(owners.observe(&owner(), &with, 1, now), Some(Replacement::Injected));
        assert_eq!(owners.permission(&owner(), 1, now), NEXT);
    }

    #[test]
    fn an_outage_says_nothing_of_owners() {
        let now = Instant::now();
        let mut owners = Owners::default();
        owners.evicted(&owner(), before(), now);
        owners.interrupted();
        assert_eq!(owners.observe(&owner(), &pods(&[("c", false)]), 1, now), None);
        assert_eq!(owners.permission(&owner(), 1, now), FIRST);
    }

    #[test]
    fn refusals_back_off_until_something_changes() {
        let now = Instant::now();
        let mut owners = Owners::default();
        for (pause, news) in [
            (10, true),
            (20, false),
            (40, false),
            (80, false),
            (160, false),
            (320, false),
            (600, false),
        ] {
            assert_eq!(owners.refused(&owner(), "NamespaceNotSelected", 1, now), news);
            let then = now + Duration::from_secs(pause);
            assert_eq!(owners.permission(&owner(), 1, now), Permission::NotBefore(then));
        }
        assert_eq!(owners.held(&owner()), Some("NamespaceNotSelected"));
        assert_eq!(owners.permission(&owner(), 2, now), FIRST);
        assert_eq!(owners.held(&owner()), None);
        assert!(owners.refused(&owner(), "CaBundleMissing", 2, now));
        owners.expire(now, |_| false);
        assert_ne!(owners.permission(&owner(), 2, now), FIRST, "its pods may still come");
        owners.expire(now + KEEP, |_| true);
        assert_ne!(owners.permission(&owner(), 2, now), FIRST);
        owners.expire(now + KEEP, |_| false);
        assert_eq!(owners.permission(&owner(), 2, now), FIRST);
    }

    #[test]
    fn a_budget_is_told_of_once_after_a_minute_without_progress() {
        let start = Instant::now();
        let mut owners = Owners::default();
        let mut now = start;
        let mut told = Vec::new();
        while now < start + Duration::from_secs(180) {
            if owners.blocked(&owner(), BUDGET, 1, now) {
                told.push(now - start);
            }
            // A change of the webhook gives no budget any room.
            let Permission::NotBefore(then) = owners.permission(&owner(), 2, now) else {
                panic!("a pause");
            };
            assert!(then - now <= BUDGET_BACKOFF.1);
            now = then;
        }
        assert_eq!(told, [PATIENCE]);
        owners.evicted(&owner(), before(), now);
        assert!(!owners.blocked(&owner(), BUDGET, 1, now));
        assert!(
            owners.blocked(&owner(), BUDGET, 1, now + PATIENCE),
            "that was progress, and this is another stall"
        );
    }

    #[test]
    fn whatever_refuses_for_a_minute_is_told_of() {
        let start = Instant::now();
        for reason in ["error", "forbidden"] {
            let (mut owners, mut now, mut told) = (Owners::default(), start, Vec::new());
            while now < start + Duration::from_secs(1800) {
                if owners.blocked(&owner(), reason, 1, now) {
                    told.push(now - start);
                }
                let Permission::NotBefore(then) = owners.permission(&owner(), 1, now) else {
                    panic!("a pause");
                };
                now = then;
            }
            assert_eq!(told, [PATIENCE], "{reason}");
            assert_eq!(owners.held(&owner()), Some(reason));
        }
    }

    #[test]
    fn a_pod_that_goes_another_way_ends_the_stall() {
        let now = Instant::now();
        let ways: [fn(&mut Owners); 3] = [
            |owners| owners.unblocked(&owner()),
            |owners| owners.unblock_others(&HashSet::new()),
            |owners| {
                owners.refused(&owner(), "NamespaceNotSelected", 1, Instant::now());
            },
        ];
        for end in ways {
            let mut owners = Owners::default();
            assert!(!owners.blocked(&owner(), BUDGET, 1, now));
            owners.unblock_others(&HashSet::from(["rs"]));
            end(&mut owners);
            assert!(!owners.blocked(&owner(), BUDGET, 1, now + PATIENCE));
        }
        let mut owners = Owners::default();
        assert!(!owners.blocked(&owner(), BUDGET, 1, now));
        owners.unblock_others(&HashSet::from(["rs"]));
        assert!(owners.blocked(&owner(), BUDGET, 1, now + PATIENCE));
    }

    #[test]
    fn a_replacement_that_never_comes_does_not_hold_up_for_ever() {
        let now = Instant::now();
        let mut owners = Owners::default();
        owners.evicted(&owner(), before(), now);
        assert_eq!(owners.awaiting(now), [owner()]);
        let later = now + REPLACEMENT_DEADLINE;
        assert!(owners.awaiting(later).is_empty());
        assert_eq!(owners.permission(&owner(), 1, later), FIRST);
    }
}
