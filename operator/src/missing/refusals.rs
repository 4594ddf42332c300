//! What injectors told lately, for whoever finds one of these pods.

use std::{collections::VecDeque, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use outrigger_proto::outrigger::operator::v1::Refusal;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::decide::controller;

/// The oldest are dropped beyond this.
const MAX: usize = 1024;
/// A pod is found within seconds of its creation, or was there before.
const KEEP: Duration = Duration::from_secs(30);

/// Refusals of the last half minute.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<VecDeque<(Instant, Refusal)>>);

impl Refusals {
    pub fn add(&self, refusal: Refusal, now: Instant) {
        let mut refusals = self.0.lock();
        while refusals.len() >= MAX || refusals.front().is_some_and(|(at, _)| *at + KEEP < now) {
            refusals.pop_front();
        }
        refusals.push_back((now, refusal));
    }

    /// The newest that is about the pod.
    pub fn about(&self, pod: &Pod, now: Instant) -> Option<Refusal> {
        let refusals = self.0.lock();
        let recent = refusals.iter().rev().filter(|(at, _)| now < *at + KEEP);
        let mut about = recent.filter(|(_, refusal)| is_about(refusal, pod));
        about.next().map(|(_, refusal)| refusal.clone())
    }
}

/// By name, or by what is known of a pod whose name was not chosen yet.
fn is_about(refusal: &Refusal, pod: &Pod) -> bool {
    if pod.metadata.namespace.as_deref() != Some(&refusal.namespace) || refusal.denied {
        return false;
    }
    let name = pod.name_any();
    if !refusal.pod.is_empty() {
        return refusal.pod == name;
    }
    match (&refusal.owner, controller(pod)) {
        (Some(told), Some(owner)) => told.uid == owner.uid,
        (None, None) => !refusal.generate_name.is_empty() && name.starts_with(&refusal.generate_name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use outrigger_proto::outrigger::operator::v1::Owner;
    use serde_json::json;

    use super::*;

    fn pod(name: &str, owner: Option<&str>) -> Pod {
        let owners: Vec<_> = owner
            .map(|uid| json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": uid, "controller": true}))
            .into_iter()
            .collect();
        serde_json::from_value(json!({"metadata": {"namespace": "shop", "name": name, "ownerReferences": owners}}))
            .unwrap()
    }

    fn told(pod: &str, generate_name: &str, owner: Option<&str>) -> Refusal {
        Refusal {
            namespace: "shop".into(),
            pod: pod.into(),
            generate_name: generate_name.into(),
            owner: owner.map(|uid| Owner {
                uid: uid.into(),
                ..Owner::default()
            }),
            ..Refusal::default()
        }
    }

    #[test]
    fn a_report_is_found_by_name_owner_or_prefix() {
        let now = Instant::now();
        let refusals = Refusals::default();
        for refusal in [
            told("bare", "", None),
            told("", "cart-", Some("r1")),
            told("", "job-", None),
        ] {
            refusals.add(refusal, now);
        }
        let found = |pod: &Pod| refusals.about(pod, now).is_some();
        assert!(found(&pod("bare", None)));
        assert!(found(&pod("cart-x", Some("r1"))));
        assert!(found(&pod("job-y", None)));
        assert!(!found(&pod("bare-2", None)));
        assert!(!found(&pod("cart-x", Some("r2"))));
        assert!(!found(&pod("job-y", Some("r2"))));
        let elsewhere = Pod {
            metadata: kube::api::ObjectMeta {
                namespace: Some("other".into()),
                ..pod("bare", None).metadata
            },
            ..Pod::default()
        };
        assert!(!found(&elsewhere));
        assert!(
            refusals.about(&pod("bare", None), now + KEEP).is_none(),
            "that was another one"
        );
    }

    #[test]
    fn their_number_is_bounded() {
        let now = Instant::now();
        let refusals = Refusals::default();
        for number in 0..=MAX {
            refusals.add(told(&format!("p{number}"), "", None), now);
        }
        assert!(refusals.about(&pod("p0", None), now).is_none());
        assert!(refusals.about(&pod("p1", None), now).is_some());
        refusals.add(told("late", "", None), now + KEEP * 2);
        assert_eq!(refusals.0.lock().len(), 1);
    }
}
