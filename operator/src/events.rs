//! Kubernetes Events: what people see on the object they look at.

use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use prometheus::IntCounterVec;

pub(crate) use outrigger_core::text::shortened;

use crate::deadline::in_time;

/// The API server refuses longer notes.
const MAX_NOTE: usize = 1024;

/// Publishes Events. Failing to is logged and counted, and stops nothing else.
pub struct Events {
    recorder: Recorder,
    results: IntCounterVec,
    /// Whether the missing right was logged.
    forbidden: AtomicBool,
}

/// What happened to an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub warning: bool,
    /// One word in CamelCase.
    pub reason: &'static str,
    /// What the operator was doing, one word in CamelCase.
    pub action: &'static str,
    pub note: String,
}

impl Events {
    pub fn new(client: Client, instance: String, results: IntCounterVec) -> Self {
        let reporter = Reporter {
            controller: "dapr-operator".into(),
            instance: Some(instance),
        };
        Self {
            recorder: Recorder::new(client, reporter),
            results,
            forbidden: AtomicBool::new(false),
        }
    }

    pub async fn publish(&self, regarding: &ObjectReference, notice: Notice) {
        let event = Event {
            type_: if notice.warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: notice.reason.into(),
            note: Some(shortened(notice.note, MAX_NOTE)),
            action: notice.action.into(),
            secondary: None,
        };
        let result = in_time(self.recorder.publish(&event, regarding)).await;
        let label = match &result {
            Ok(()) => "published",
            Err(kube::Error::Api(status)) if status.is_forbidden() => {
                if !self.forbidden.swap(true, Ordering::Relaxed) {
                    tracing::warn!("not allowed to create Events; users will not see them");
                }
                "forbidden"
            }
            Err(error) => {
                let (kind, name) = (&regarding.kind, &regarding.name);
                tracing::warn!(kind, name, reason = event.reason, %error, "cannot publish an Event");
                "error"
            }
        };
        self.results.with_label_values(&[label]).inc();
    }
}
