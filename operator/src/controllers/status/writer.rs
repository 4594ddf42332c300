//! Writes statuses: on change only, at most once a second for an object.

use std::{collections::HashSet, sync::Arc, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
};
use outrigger_crds::{Status, status::ConditionType};
use parking_lot::Mutex;
use prometheus::IntCounterVec;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    board::{Board, Current, Id, View},
    decision::{SecretState, judge, next_status},
};
use crate::{
    FIELD_MANAGER,
    deadline::in_time,
    events::{Events, Notice},
    index::State,
    kinds::Indexes,
    secrets::{Found, Secrets},
};

/// Least time between two writes of one object's status.
const PACE: Duration = Duration::from_secs(1);
/// How soon an object is looked at again whose references are missing, or cannot be looked up now.
const RECHECK_MISSING: Duration = Duration::from_secs(5);
/// How soon one is whose references are all there.
const RECHECK_FOUND: Duration = Duration::from_secs(300);

/// Writes what the board says.
pub struct Writer {
    pub board: Arc<Board>,
    pub client: Client,
    pub secrets: Arc<Secrets>,
    pub indexes: Indexes,
    pub events: Arc<Events>,
    pub writes: IntCounterVec,
    /// Kinds whose missing right was logged.
    pub forbidden: Mutex<HashSet<&'static str>>,
}

enum Written {
    Done,
    /// Trying again changes nothing: no right, or nothing to write to.
    Refused(&'static str),
    Failed(String),
}

impl Writer {
    /// Works until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        self.board.requeue_all(Instant::now());
        loop {
            let id = tokio::select! {
                () = stop.cancelled() => return,
                id = self.board.queue.next() => id,
            };
            // A write in progress is finished: it ends within its deadline.
            self.look_at(&id).await;
        }
    }

    async fn look_at(&self, id: &Id) {
        let Some(view) = self.board.view(id) else {
            return;
        };
        let secrets = self.secret_state(id, &view).await;
        if view.depends_on_others() {
            let recheck = match &secrets {
                Some(SecretState::Checked(unresolved)) if unresolved.is_empty() => RECHECK_FOUND,
                _ => RECHECK_MISSING,
            };
            self.board.queue.add(id.clone(), Instant::now() + recheck);
        }
        let Some(secrets) = secrets else {
            return;
        };
        let verdict = judge(&view.finding, &secrets);
        let Some(current) = self.current(id, &view).await else {
            return;
        };
        let now = Time(jiff::Timestamp::now());
        let Some(next) = next_status(&verdict, view.generation, current.as_ref(), now) else {
            return;
        };
        let written = self.write(id, &view, &next.status).await;
        let result = match &written {
            Written::Done => "written",
            Written::Refused(why) => why,
            Written::Failed(_) => "error",
        };
        self.writes.with_label_values(&[id.kind, result]).inc();
        match written {
            Written::Done => {
                tracing::debug!(kind = id.kind, object = %id.key, reason = verdict.reason.as_str(), "status written");
                self.board.written(id, &view, next.status, Instant::now() + PACE);
                if next.notable {
                    self.publish(&view, &verdict).await;
                }
            }
            Written::Refused(_) => {}
            Written::Failed(error) => {
                tracing::warn!(kind = id.kind, object = %id.key, error, "cannot write the status; trying again");
                self.board.failed(id);
            }
        }
    }

    /// `None` while nothing can be said: the last status stays, rather than changing with every hiccup of the API server.
    async fn secret_state(&self, id: &Id, view: &View) -> Option<SecretState> {
        let namespace = &id.key.namespace;
        if let Some(store) = &view.secret_store {
            let components = &self.indexes.components;
            // The store may be one that has not been seen yet.
            if matches!(components.state(), State::Syncing | State::Forbidden) {
                return None;
            }
            if components.get(namespace, store).is_none() {
                return Some(SecretState::NoSuchStore(store.clone()));
            }
        }
        let Some(references) = &view.secrets else {
            return Some(SecretState::Checked(Vec::new()));
        };
        let found = match self.secrets.find(namespace, references.names()).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(kind = id.kind, object = %id.key, %error, "cannot check the Secrets; trying again");
                return None;
            }
        };
        let forbidden: Vec<_> = found
            .iter()
            .filter(|(_, found)| matches!(found, Found::Forbidden))
            .map(|(name, _)| format!("{name:?}"))
            .collect();
        if !forbidden.is_empty() {
            return Some(SecretState::Unknown(format!(
                "the operator is not allowed to read the Secrets {} in this namespace",
                forbidden.join(", ")
            )));
        }
        Some(SecretState::Checked(references.unresolved(&found)))
    }

    /// The object's status; `None` if it cannot be read now.
    async fn current(&self, id: &Id, view: &View) -> Option<Option<Status>> {
        if let Current::Known(status) = &view.current {
            return Some(status.clone());
        }
        let object = match in_time(self.api(id, view).get(&id.key.name)).await {
            Ok(object) => object,
            Err(kube::Error::Api(status)) if status.is_not_found() => return None,
            Err(error) => {
                tracing::warn!(kind = id.kind, object = %id.key, %error, "cannot read the status; trying again");
                self.board.failed(id);
                return None;
            }
        };
        // A status that does not fit is replaced.
        Some(
            object
                .data
                .get("status")
                .and_then(|status| serde_json::from_value(status.clone()).ok()),
        )
    }

    async fn write(&self, id: &Id, view: &View, status: &Status) -> Written {
        let object = json!({
            "apiVersion": view.resource.api_version,
            "kind": view.resource.kind,
            // The uid keeps a status from landing on another object of the same name.
            "metadata": {"name": id.key.name, "namespace": id.key.namespace, "uid": view.reference.uid},
            "status": status,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let api = self.api(id, view);
        let patch = Patch::Apply(&object);
        match in_time(api.patch_status(&id.key.name, &params, &patch)).await {
            Ok(_) => Written::Done,
            // The object is gone, or an older definition without a status is installed. A conflict is tried again: it is
            // another object of the name, which the watch will show, or others are writing.
            Err(kube::Error::Api(status)) if status.is_not_found() => Written::Refused("not_found"),
            Err(kube::Error::Api(status)) if status.is_forbidden() => {
                if self.forbidden.lock().insert(id.kind) {
                    tracing::warn!(kind = id.kind, "not allowed to write the status of this kind");
                }
                Written::Refused("forbidden")
            }
            Err(error) => Written::Failed(error.to_string()),
        }
    }

    fn api(&self, id: &Id, view: &View) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &id.key.namespace, &*view.resource)
    }

    async fn publish(&self, view: &View, verdict: &super::Verdict) {
        let notice = Notice {
            warning: verdict.accepted != Some(true),
            reason: verdict.reason.as_str(),
            action: ConditionType::Accepted.as_str(),
            note: verdict.message.clone(),
        };
        self.events.publish(&view.reference, notice).await;
    }
}
