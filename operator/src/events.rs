//! Kubernetes Events: what people see on the object they look at.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::atomic::{AtomicBool, Ordering},
};

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use prometheus::IntCounterVec;

pub(crate) use outrigger_core::text::shortened;
use outrigger_process::kubernetes::{access::lacks_right, watch::ObjectKey};

use crate::deadline::in_time;

/// The API server refuses longer notes.
const MAX_NOTE: usize = 1024;

/// Publishes Events. Failing to is logged and counted, and stops nothing else.
pub struct Events {
    client: Client,
    reporter: Reporter,
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

/// What an Event is about.
pub(crate) fn reference(api_version: &str, kind: &str, key: &ObjectKey, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(api_version.to_owned()),
        kind: Some(kind.to_owned()),
        namespace: Some(key.namespace.clone()),
        name: Some(key.name.clone()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}

impl Events {
    pub fn new(client: Client, instance: String, results: IntCounterVec) -> Self {
        let reporter = Reporter {
            controller: "dapr-operator".into(),
            instance: Some(instance),
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter.clone()),
            client,
            reporter,
            results,
            forbidden: AtomicBool::new(false),
        }
    }

    pub async fn publish(&self, regarding: &ObjectReference, notice: Notice) {
        // The recorder adds what repeats to the first Event, and takes for that what says something else in its note only. Nobody
        // reads the action, so it tells them apart.
        let mut said = DefaultHasher::new();
        notice.note.hash(&mut said);
        let event = Event {
            type_: if notice.warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: notice.reason.into(),
            note: Some(shortened(notice.note, MAX_NOTE)),
            action: format!("{}-{:016x}", notice.action, said.finish()),
            secondary: None,
        };
        let result = in_time(self.recorder.publish(&event, regarding)).await;
        self.count(&result, regarding, &event.reason);
    }

    /// As `publish`, and only the first one about an object, whoever wrote it and under whatever reason: its name says so, and
    /// the API server takes a name once. Kubernetes forgets Events after an hour. Returns false when there is one already.
    pub async fn publish_once(&self, regarding: &ObjectReference, notice: Notice) -> bool {
        let namespace = regarding.namespace.as_deref().unwrap_or_default();
        let event = v1::Event {
            metadata: ObjectMeta {
                name: regarding.uid.as_ref().map(|uid| format!("missing-sidecar.{uid}")),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            action: Some(notice.action.into()),
            event_time: Some(MicroTime(jiff::Timestamp::now())),
            note: Some(shortened(notice.note, MAX_NOTE)),
            reason: Some(notice.reason.into()),
            regarding: Some(regarding.clone()),
            reporting_controller: Some(self.reporter.controller.clone()),
            reporting_instance: self.reporter.instance.clone(),
            type_: Some(if notice.warning { "Warning" } else { "Normal" }.into()),
            ..v1::Event::default()
        };
        let api: Api<v1::Event> = Api::namespaced(self.client.clone(), namespace);
        let result = in_time(api.create(&PostParams::default(), &event)).await.map(drop);
        self.count(&result, regarding, notice.reason);
        !matches!(result, Err(error) if is_conflict(&error))
    }

    fn count(&self, result: &kube::Result<()>, regarding: &ObjectReference, reason: &str) {
        let label = match result {
            Ok(()) => "published",
            Err(error) if is_conflict(error) => "known",
            Err(kube::Error::Api(status)) if lacks_right(status) => {
                if !self.forbidden.swap(true, Ordering::Relaxed) {
                    tracing::warn!("not allowed to create Events; users will not see them");
                }
                "forbidden"
            }
            Err(error) => {
                let (kind, name) = (&regarding.kind, &regarding.name);
                tracing::warn!(kind, name, reason, %error, "cannot publish an Event");
                "error"
            }
        };
        self.results.with_label_values(&[label]).inc();
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
