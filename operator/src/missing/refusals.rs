//! What injectors told lately, for whoever finds one of these pods.

use std::{collections::VecDeque, time::Duration};

use outrigger_proto::outrigger::operator::v1::Refusal;
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use crate::pods::Lacking;

/// The oldest are dropped beyond this.
const MAX: usize = 1024;
/// A pod is found within seconds of its creation, or was there before.
const KEEP: Duration = Duration::from_secs(30);

/// Refusals of the last half minute.
#[derive(Debug, Default)]
pub struct Refusals {
    told: Mutex<VecDeque<(Instant, Refusal)>>,
    changes: watch::Sender<()>,
}

impl Refusals {
    pub fn add(&self, refusal: Refusal, now: Instant) {
        let mut told = self.told.lock();
        while told.len() >= MAX || told.front().is_some_and(|(at, _)| *at + KEEP < now) {
            told.pop_front();
        }
        told.push_back((now, refusal));
        drop(told);
        self.changes.send_replace(());
    }

    /// Marked changed whenever there is another one.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Whether there is any.
    pub fn any(&self, now: Instant) -> bool {
        self.told.lock().back().is_some_and(|(at, _)| now < *at + KEEP)
    }

    /// The newest that is about the pod.
    pub fn about(&self, pod: &Lacking, now: Instant) -> Option<Refusal> {
        let told = self.told.lock();
        let recent = told.iter().rev().filter(|(at, _)| now < *at + KEEP);
        let mut about = recent.filter(|(_, refusal)| is_about(refusal, pod));
        about.next().map(|(_, refusal)| refusal.clone())
    }
}

/// By name, or by what is known of a pod whose name was not chosen yet.
fn is_about(refusal: &Refusal, pod: &Lacking) -> bool {
    // There is no pod that was denied.
    if refusal.denied || pod.key.namespace != refusal.namespace {
        return false;
    }
    if !refusal.pod.is_empty() {
        return refusal.pod == pod.key.name;
    }
    match (&refusal.owner, &pod.owner) {
        (Some(told), Some(owner)) => told.uid == *owner,
        (None, None) => is_generated(&pod.key.name, &refusal.generate_name),
        _ => false,
    }
}

/// The API server appends five characters to a `generateName`, to 58 of it at most.
fn is_generated(name: &str, generate_name: &str) -> bool {
    let kept = generate_name.get(..58).unwrap_or(generate_name);
    let appended = name.strip_prefix(kept).filter(|_| !kept.is_empty());
    appended.is_some_and(|appended| appended.len() == 5)
}

#[cfg(test)]
mod tests {
    use outrigger_process::kubernetes::watch::ObjectKey;
    use outrigger_proto::outrigger::operator::v1::Owner;

    use super::*;

    fn pod(name: &str, owner: Option<&str>) -> Lacking {
        Lacking {
            key: ObjectKey::new("shop", name),
            uid: name.into(),
            owner: owner.map(Into::into),
            created: None,
        }
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
        let found = |pod: &Lacking| refusals.about(pod, now).is_some();
        assert!(found(&pod("bare", None)));
        assert!(found(&pod("cart-x", Some("r1"))));
        assert!(found(&pod("job-7x2vq", None)));
        assert!(!found(&pod("job-night-7x2vq", None)), "made from another prefix");
        assert!(!found(&pod("bare-2", None)));
        assert!(!found(&pod("cart-x", Some("r2"))));
        assert!(!found(&pod("job-7x2vq", Some("r2"))));
        let elsewhere = Lacking {
            key: ObjectKey::new("other", "bare"),
            ..pod("bare", None)
        };
        assert!(!found(&elsewhere));
        assert!(
            refusals.about(&pod("bare", None), now + KEEP).is_none(),
            "that was another one"
        );
        assert!(refusals.any(now) && !refusals.any(now + KEEP));
    }

    #[test]
    fn long_prefixes_are_cut() {
        let prefix = "p".repeat(60);
        assert!(is_generated(&format!("{}7x2vq", &prefix[..58]), &prefix));
        assert!(!is_generated(&format!("{prefix}7x2vq"), &prefix));
        assert!(!is_generated("7x2vq", ""));
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
        assert_eq!(refusals.told.lock().len(), 1);
    }
}
