//! The Event on a pod that has no sidecar.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::Resource;
use outrigger_process::kubernetes::watch::ObjectKey;
use outrigger_proto::outrigger::operator::v1::Refusal;
use prometheus::IntCounterVec;

use super::reason::{Finding, Reason};
use crate::events::{Events, Notice, reference};

/// Writes these Events, and counts the pods by reason.
#[derive(Clone)]
pub struct Teller {
    pub events: Arc<Events>,
    pub found: IntCounterVec,
}

impl Teller {
    /// Tells of the pod with this uid, unless somebody has. Returns whether nobody had.
    pub async fn tell(&self, pod: &ObjectKey, uid: &str, notice: Notice) -> bool {
        let (reason, note) = (notice.reason, notice.note.clone());
        let first = self.events.publish_once(&pod_reference(pod, uid), notice).await;
        if first {
            tracing::warn!(%pod, reason, "{note}");
            self.found.with_label_values(&[reason]).inc();
        }
        first
    }
}

fn pod_reference(pod: &ObjectKey, uid: &str) -> ObjectReference {
    reference(&Pod::api_version(&()), &Pod::kind(&()), pod, uid)
}

impl From<Finding> for Notice {
    fn from(Finding { reason, note }: Finding) -> Self {
        notice(reason.as_str(), note)
    }
}

/// In the injector's words.
impl From<Refusal> for Notice {
    fn from(refusal: Refusal) -> Self {
        // An injector of another version may have more reasons.
        let reason = Reason::told(&refusal.reason).map_or("SidecarMissing", Reason::as_str);
        notice(reason, refusal.message)
    }
}

fn notice(reason: &'static str, note: String) -> Notice {
    Notice {
        warning: true,
        reason,
        action: "Inject",
        note,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_injector_told_is_told_in_its_words_also_for_reasons_that_are_not_known() {
        let told = |reason: &str| {
            Notice::from(Refusal {
                reason: reason.into(),
                message: "no Dapr sidecar: why".into(),
                ..Refusal::default()
            })
        };
        let known = told("CreatorNotAllowed");
        assert_eq!(
            (known.reason, &*known.note),
            ("CreatorNotAllowed", "no Dapr sidecar: why")
        );
        assert_eq!(told("Tomorrow").reason, "SidecarMissing");
    }
}
