//! The watchdog: has pods replaced that should have a sidecar and have none, because they were created while the injector was
//! away. It acts on what it watches, carefully: only pods whose owner is known to replace them, through the eviction API, at a limited
//! rate, after the injector said that it would inject them now, and one pod of an owner first.

mod candidates;
mod decision;
mod eviction;
mod evictor;
mod owners;
mod settings;

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use outrigger_crds::status::EventReason;
use outrigger_process::kubernetes::watch::ObjectKey;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

pub use self::settings::{Mode, Settings};
use self::{
    candidates::Candidates,
    owners::{Owner, Owners, Replacement},
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
/// So many Events are published before anything else is done.
const MAX_UNTOLD: usize = 256;
/// Nobody is asked again for this long after there was no answer.
const UNANSWERED: Duration = Duration::from_secs(5);

/// Reason and action of Events.
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
    /// Events that wait until nothing more urgent is to be done.
    untold: Vec<(ObjectReference, Notice)>,
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
                () = stop.cancelled() => return state.tell().await,
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

    fn count(&self, action: &str, reason: &str) {
        self.metrics.watchdog_pods.with_label_values(&[action, reason]).inc();
    }
}

fn notice((reason, action): (&'static str, &'static str), warning: bool, note: String) -> Notice {
    Notice {
        warning,
        reason,
        action,
        note,
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
            untold: Vec::new(),
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
            None => self.evict_some(&waiting, now).await,
        };
        if eviction == Some(now) && self.untold.len() < MAX_UNTOLD {
            // What is less urgent waits for it.
            return eviction;
        }
        self.tell().await;
        let retry = match self.watchdog.settings.mode {
            // Nothing is tried twice.
            Mode::Once => None,
            Mode::Every(interval) => Some(interval),
        };
        self.candidates.label(now, retry).await;
        [eviction, self.candidates.next(now)].into_iter().flatten().min()
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
                    let notice = notice(RESTORE, true, note.to_owned());
                    watchdog.events.publish(&owner.object_reference(), notice).await;
                }
            }
        }
    }
}
