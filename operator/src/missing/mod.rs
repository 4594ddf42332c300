//! Tells why a pod that asks for a sidecar has none: one Event on the pod, within seconds of its creation. Pods are found by
//! the watch of those without the injector's label; what the injector told of one counts most, then what the cluster's state
//! was when the pod was seen, and at last what the injector says in a dry run.

mod admission;
mod creator;
mod decide;
mod matching;
mod probe;
pub mod reason;
mod refusals;
mod review;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::{Api, Client, Resource, ResourceExt};
use outrigger_core::{annotations, backoff::Backoff};
use outrigger_process::kubernetes::watch::ObjectKey;
use prometheus::IntCounterVec;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

pub(crate) use self::decide::{controller, has_sidecar};
pub use self::{
    admission::{Admission, follow},
    probe::{Probe, Settings},
    reason::{Finding, Reason},
    refusals::Refusals,
};
use crate::{
    deadline::in_time,
    events::{Events, Notice},
    pods::Pods,
};

/// Changes that come within this time are looked at together.
const QUIET: Duration = Duration::from_millis(50);
/// From a pod's creation to the moment when what the injector tells of it has arrived.
const TOLD: Duration = Duration::from_secs(2);
/// Of older pods no injector tells any more.
const NEW: SignedDuration = SignedDuration::from_secs(30);
/// Pods that are looked into at one time; most of the time they only wait.
const MAX_LOOKS: usize = 256;
/// Calls of the API server and of the injector at one time.
const MAX_CALLS: usize = 8;

/// Finds pods without a sidecar and tells why.
pub struct Finder {
    pub client: Client,
    pub probe: Probe,
    pub pods: Arc<Pods>,
    pub refusals: Arc<Refusals>,
    pub events: Arc<Events>,
    /// Pods by reason.
    pub found: IntCounterVec,
}

/// A pod to look into.
struct Look {
    key: ObjectKey,
    uid: String,
    seen: Instant,
}

impl Finder {
    /// Works until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut admission = self.probe.admission();
        tokio::select! {
            () = stop.cancelled() => return,
            known = admission.wait_for(Admission::complete) => if known.is_err() { return },
        }
        drop(admission);
        let calls = Semaphore::new(MAX_CALLS);
        let mut changes = self.pods.changes();
        let mut known: HashMap<ObjectKey, String> = HashMap::new();
        let mut waiting: VecDeque<Look> = VecDeque::new();
        let mut looks = FuturesUnordered::new();
        let mut due = Some(Instant::now());
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Ok(()) = changes.changed() => due = due.or_else(|| Some(Instant::now() + QUIET)),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    due = None;
                    let seen = Instant::now();
                    let lacking = self.pods.lacking();
                    let new = lacking.iter().filter(|(key, uid)| known.get(key) != Some(uid));
                    waiting.extend(new.map(|(key, uid)| Look { key: key.clone(), uid: uid.clone(), seen }));
                    known = lacking.into_iter().collect();
                }
                Some(()) = looks.next() => {}
            }
            while looks.len() < MAX_LOOKS
                && let Some(look) = waiting.pop_front()
            {
                looks.push(self.look(look, &calls));
            }
        }
    }

    async fn look(&self, look: Look, calls: &Semaphore) {
        let Some(pod) = self.fetch(&look, calls).await else {
            return;
        };
        let labels = pod.labels();
        if labels.contains_key(annotations::LABEL_INJECTED) || labels.contains_key(annotations::LABEL_WATCHDOG_PATCHED)
        {
            return;
        }
        let is_new = pod
            .creation_timestamp()
            .is_some_and(|at| Timestamp::now().duration_since(at.0) < NEW);
        if !is_new && is_over(&pod) {
            return;
        }
        let finding = match decide::by_pod(&pod) {
            Some(finding) => finding,
            None => self.explain(&pod, is_new, look.seen, calls).await,
        };
        self.tell(&look, &pod, finding).await;
    }

    /// The whole pod, once the API server answers; `None` when it is gone.
    async fn fetch(&self, look: &Look, calls: &Semaphore) -> Option<Pod> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &look.key.namespace);
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        loop {
            let permit = calls.acquire().await;
            let answer = in_time(api.get_opt(&look.key.name)).await;
            drop(permit);
            match answer {
                Ok(pod) => return pod.filter(|pod| pod.uid().as_deref() == Some(&look.uid)),
                Err(_) if !self.pods.is_lacking(&look.key, &look.uid) => return None,
                Err(error) => {
                    let pause = backoff.next_pause();
                    tracing::warn!(pod = %look.key, %error, "cannot read a pod that has no sidecar; trying again");
                    sleep(pause).await;
                }
            }
        }
    }

    async fn explain(&self, pod: &Pod, is_new: bool, seen: Instant, calls: &Semaphore) -> Finding {
        let permit = calls.acquire().await;
        let namespace = self.probe.namespace(&pod.namespace().unwrap_or_default()).await;
        drop(permit);
        // What is wrong may be put right in the meantime, and the pod keeps lacking its sidecar.
        let then = self.probe.by_cluster(pod, &namespace);
        if is_new {
            sleep_until(seen + TOLD).await;
            if let Some(finding) = self
                .refusals
                .about(pod, Instant::now())
                .as_ref()
                .and_then(decide::by_report)
            {
                return finding;
            }
        }
        if let Some(finding) = then.or_else(|| self.probe.by_cluster(pod, &namespace)) {
            return finding;
        }
        let _permit = calls.acquire().await;
        self.probe.review(pod).await
    }

    async fn tell(&self, look: &Look, pod: &Pod, finding: Finding) {
        let Finding { reason, note } = finding;
        tracing::warn!(pod = %look.key, reason = reason.as_str(), "{note}");
        self.found.with_label_values(&[reason.as_str()]).inc();
        let notice = Notice {
            warning: true,
            reason: reason.as_str(),
            action: "Inject",
            note,
        };
        // Nobody looks at a pod that is gone already.
        let owner = controller(pod).filter(|owner| owner.kind != "Node" && !self.pods.is_lacking(&look.key, &look.uid));
        if let Some(owner) = owner {
            let owner = ObjectReference {
                api_version: Some(owner.api_version.clone()),
                kind: Some(owner.kind.clone()),
                name: Some(owner.name.clone()),
                namespace: pod.namespace(),
                uid: Some(owner.uid.clone()),
                ..ObjectReference::default()
            };
            self.events.publish(&owner, notice.clone()).await;
        }
        self.events.publish_once(&pod.object_ref(&()), notice).await;
    }
}

/// Whether a pod ended, or is about to.
fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_some() || matches!(phase, Some("Succeeded" | "Failed"))
}
