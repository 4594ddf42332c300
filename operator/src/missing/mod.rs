//! Tells why a pod that asks for a sidecar has none: one Event on the pod, within seconds of its creation. Pods are found by
//! the watch of those without the injector's label; what the injector told of one counts most, then what the cluster's state
//! was when the pod was seen, and at last what the injector says in a dry run.
//!
//! An injector tells one replica, and that one tells of the pod; of all others the one that leads does.

mod admission;
mod creator;
mod decide;
mod matching;
mod probe;
pub mod reason;
mod refusals;
mod refused;
mod review;
mod silence;
mod tell;

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt};
use outrigger_core::{annotations, backoff::Backoff};
use outrigger_process::kubernetes::{owner::controller, watch::ObjectKey};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

pub(crate) use self::decide::{has_ended, has_sidecar, is_job};
pub use self::{
    admission::{Admission, follow},
    probe::{Probe, Settings},
    reason::{Finding, Reason},
    refusals::Refusals,
    refused::Refused,
    tell::Teller,
};
use crate::{
    deadline::in_time,
    events::{Notice, reference},
    pods::{Lacking, Pods},
};

/// Changes that come within this time are looked at together.
const QUIET: Duration = Duration::from_millis(50);
/// From a pod's creation to the moment when what the injector tells of it has arrived.
const TOLD: Duration = Duration::from_secs(2);
/// Of older pods no injector tells any more.
const NEW: SignedDuration = SignedDuration::from_secs(30);
/// Pods that are looked into at one time; most of the time they only wait.
const MAX_LOOKS: usize = 256;
/// Calls of the API server at one time.
const MAX_CALLS: usize = 8;

/// Finds pods without a sidecar and tells why.
pub struct Finder {
    pub client: Client,
    pub probe: Probe,
    pub pods: Arc<Pods>,
    pub refusals: Arc<Refusals>,
    pub teller: Teller,
}

/// A pod to look into.
struct Look {
    pod: Lacking,
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
        let mut known = HashSet::new();
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
                    let before = std::mem::take(&mut known);
                    for pod in self.pods.lacking() {
                        known.insert(pod.uid.clone());
                        if !before.contains(&pod.uid) {
                            waiting.push_back(Look { pod, seen });
                        }
                    }
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
        let Some(pod) = self.fetch(&look.pod, calls).await else {
            return;
        };
        let labels = pod.labels();
        if labels.contains_key(annotations::LABEL_INJECTED) || labels.contains_key(annotations::LABEL_WATCHDOG_PATCHED)
        {
            return;
        }
        let is_over = has_ended(&pod) || pod.metadata.deletion_timestamp.is_some();
        if is_over && !is_new(look.pod.created) {
            return;
        }
        let finding = match decide::by_pod(&pod) {
            Some(finding) => finding,
            None => match self.explain(&look, &pod, calls).await {
                Some(finding) => finding,
                None => return,
            },
        };
        let _permit = calls.acquire().await;
        self.tell(&look.pod, &pod, decide::advised(finding, &pod)).await;
    }

    /// The whole pod, once the API server answers; `None` when it is gone.
    async fn fetch(&self, lacking: &Lacking, calls: &Semaphore) -> Option<Pod> {
        let Lacking { key, uid, .. } = lacking;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        loop {
            let permit = calls.acquire().await;
            let answer = in_time(api.get_opt(&key.name)).await;
            drop(permit);
            match answer {
                Ok(pod) => return pod.filter(|pod| pod.uid().as_ref() == Some(uid)),
                Err(_) if !self.pods.is_lacking(key, uid) => return None,
                Err(error) => {
                    let pause = backoff.next_pause();
                    tracing::warn!(pod = %key, %error, "cannot read a pod that has no sidecar; trying again");
                    sleep(pause).await;
                }
            }
        }
    }

    /// `None` when an injector told of the pod: then that is told.
    async fn explain(&self, look: &Look, pod: &Pod, calls: &Semaphore) -> Option<Finding> {
        let permit = calls.acquire().await;
        let namespace = self.probe.namespace(&look.pod.key.namespace).await;
        drop(permit);
        // What is wrong may be put right in the meantime, and the pod keeps lacking its sidecar.
        let then = self.probe.by_cluster(pod, &namespace);
        if is_new(look.pod.created) {
            sleep_until(look.seen + TOLD).await;
            if self.refusals.about(&look.pod, Instant::now()).is_some() {
                return None;
            }
        }
        match then.or_else(|| self.probe.by_cluster(pod, &namespace)) {
            Some(finding) => Some(finding),
            None => Some(self.probe.review(pod).await),
        }
    }

    async fn tell(&self, lacking: &Lacking, pod: &Pod, finding: Finding) {
        let Lacking { key, uid, .. } = lacking;
        let notice = Notice::from(finding);
        // Whoever told of the pod has told its owner.
        if !self.teller.tell(key, uid, notice.clone()).await {
            return;
        }
        // Nobody looks at a pod that is gone already.
        let owner = controller(pod).filter(|owner| owner.kind != "Node" && !self.pods.is_lacking(key, uid));
        if let Some(owner) = owner {
            let name = ObjectKey::new(&*key.namespace, &*owner.name);
            let owner = reference(&owner.api_version, &owner.kind, &name, &owner.uid);
            self.teller.events.publish(&owner, notice).await;
        }
    }
}

/// Whether injectors may still tell of a pod.
fn is_new(created: Option<Timestamp>) -> bool {
    created.is_some_and(|at| Timestamp::now().duration_since(at) < NEW)
}
