//! The pods without a label that says that they have a sidecar, and what is to be done about each.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt};
use outrigger_process::kubernetes::watch::ObjectKey;
use tokio::time::Instant;

use super::{
    decision::{Decision, Skip, decide},
    evictor::label,
    owners::Owner,
};
use crate::{deadline::in_time, metrics::Metrics, pods::Lacking};

/// A pod that could not be read is read again after this.
const UNREAD: Duration = Duration::from_secs(5);
/// Calls at one time.
pub(super) const CALLS: usize = 16;
/// Pods that are read in one go.
const READS: usize = 64;
/// Pods that are labelled in one go: as long as the slowest of these calls takes, nothing is evicted.
const LABELS: usize = CALLS;

/// All of them.
pub(super) struct Candidates {
    client: Client,
    metrics: Metrics,
    can_label: bool,
    pods: BTreeMap<ObjectKey, Candidate>,
}

struct Candidate {
    uid: String,
    /// `None` until it has been read.
    decision: Option<Decision>,
    /// Nothing is tried again before this.
    not_before: Option<Instant>,
}

impl Candidate {
    fn is_due(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|then| then <= now)
    }

    fn has_work(&self) -> bool {
        matches!(self.decision, None | Some(Decision::Label))
    }
}

impl Candidates {
    pub(super) fn new(client: Client, metrics: Metrics, can_label: bool) -> Self {
        Self {
            client,
            metrics,
            can_label,
            pods: BTreeMap::new(),
        }
    }

    /// Takes over which pods there are.
    pub(super) fn follow(&mut self, lacking: Vec<Lacking>) {
        let lacking: HashMap<_, _> = lacking.into_iter().map(|pod| (pod.key, pod.uid)).collect();
        self.pods
            .retain(|key, candidate| lacking.get(key) == Some(&candidate.uid));
        for (key, uid) in lacking {
            self.pods.entry(key).or_insert_with(|| Candidate {
                uid,
                decision: None,
                not_before: None,
            });
        }
    }

    /// Reads some of the pods that nothing is known of, whole.
    pub(super) async fn read(&mut self, now: Instant) {
        let unread = self.due(now, |decision| decision.is_none(), READS);
        let client = &self.client;
        let reads = stream::iter(unread).map(async |(key, uid)| (read(client, &key, &uid).await, key));
        let read: Vec<_> = reads.buffer_unordered(CALLS).collect().await;
        for (pod, key) in read {
            match pod {
                Ok(pod) => self.judge(&key, pod.as_ref()),
                Err(error) => {
                    tracing::warn!(pod = %key, %error, "cannot read a pod; trying again");
                    self.put_off(&key, now + UNREAD);
                }
            }
        }
    }

    /// Pods that are to be evicted, as they are now: they may have ended since they were read. One answer for each key.
    pub(super) async fn read_again(
        &mut self,
        keys: impl Iterator<Item = &ObjectKey> + Clone,
    ) -> Vec<kube::Result<Option<Pod>>> {
        let (client, pods) = (&self.client, &self.pods);
        let reads: Vec<_> = keys
            .clone()
            .map(async |key| match pods.get(key) {
                Some(candidate) => read(client, key, &candidate.uid).await,
                None => Ok(None),
            })
            .collect();
        let mut answers: Vec<_> = stream::iter(reads).buffered(CALLS).collect().await;
        for (key, answer) in keys.zip(&mut answers) {
            let Ok(pod) = answer else { continue };
            self.judge(key, pod.as_ref());
            let decision = self.pods.get(key).and_then(|candidate| candidate.decision.as_ref());
            if !matches!(decision, Some(Decision::Evict(_))) {
                *pod = None;
            }
        }
        answers
    }

    /// Decides about a pod as it is now; `None` is one that is gone.
    fn judge(&mut self, key: &ObjectKey, pod: Option<&Pod>) {
        let Some(pod) = pod else {
            self.remove(key);
            return;
        };
        let Some(candidate) = self.pods.get_mut(key) else {
            return;
        };
        let before = candidate.decision.replace(decide(pod, self.can_label));
        // Why it has no sidecar, and what its users can do, is told of every such pod.
        if let Some(Decision::Leave(reason)) = &candidate.decision
            && before != candidate.decision
        {
            let reason = reason.as_str();
            tracing::warn!(pod = %key, reason, "a pod lacks its sidecar and is not evicted");
            self.metrics.watchdog_pods.with_label_values(&["left", reason]).inc();
        }
    }

    /// Pods to evict and their owners, in a stable order.
    pub(super) fn evictable(&self) -> Vec<(ObjectKey, Owner)> {
        let owned = self.pods.iter().filter_map(|(key, candidate)| {
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

    /// Takes in that a pod was evicted. Its uid stays known to the index until it is gone.
    pub(super) fn set_evicted(&mut self, key: &ObjectKey) {
        self.decide(key, Decision::Skip(Skip::Terminating));
    }

    /// Takes in that there is no such pod any more.
    pub(super) fn remove(&mut self, key: &ObjectKey) {
        self.pods.remove(key);
    }

    /// Labels some of the pods that have a sidecar; those that cannot be are tried again after `retry`, if ever.
    pub(super) async fn label(&mut self, now: Instant, retry: Option<Duration>) {
        let unlabelled = self.due(now, |decision| matches!(decision, Some(Decision::Label)), LABELS);
        let client = &self.client;
        let calls = stream::iter(unlabelled).map(async |(key, _)| (label(client, &key).await, key));
        let labelled: Vec<_> = calls.buffer_unordered(CALLS).collect().await;
        for (result, key) in labelled {
            let done = Decision::Skip(Skip::HasSidecar);
            match (result, retry) {
                (Ok(()), _) => {
                    let labels = ["labelled", "has_sidecar"];
                    self.metrics.watchdog_pods.with_label_values(&labels).inc();
                    self.decide(&key, done);
                }
                (Err(error), Some(retry)) => {
                    tracing::warn!(pod = %key, error, "cannot label a pod that has a sidecar; trying again");
                    self.put_off(&key, now + retry);
                }
                (Err(error), None) => {
                    tracing::warn!(pod = %key, error, "cannot label a pod that has a sidecar");
                    self.decide(&key, done);
                }
            }
        }
    }

    /// When there is something to read or to label.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let with_work = self.pods.values().filter(|candidate| candidate.has_work());
        with_work.map(|candidate| candidate.not_before.unwrap_or(now)).min()
    }

    /// Keys and uids of some pods about which something is to be done now.
    fn due(&self, now: Instant, what: impl Fn(Option<&Decision>) -> bool, count: usize) -> Vec<(ObjectKey, String)> {
        let due = self
            .pods
            .iter()
            .filter(|(_, candidate)| candidate.is_due(now) && what(candidate.decision.as_ref()));
        let due = due.map(|(key, candidate)| (key.clone(), candidate.uid.clone()));
        due.take(count).collect()
    }

    fn decide(&mut self, key: &ObjectKey, decision: Decision) {
        if let Some(candidate) = self.pods.get_mut(key) {
            candidate.decision = Some(decision);
        }
    }

    fn put_off(&mut self, key: &ObjectKey, then: Instant) {
        if let Some(candidate) = self.pods.get_mut(key) {
            candidate.not_before = Some(then);
        }
    }
}

/// The pod with this uid, unless it is gone.
async fn read(client: &Client, key: &ObjectKey, uid: &str) -> kube::Result<Option<Pod>> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &key.namespace);
    let pod = in_time(api.get_opt(&key.name)).await?;
    Ok(pod.filter(|pod| pod.uid().as_deref() == Some(uid)))
}
