//! Writes statuses: on change only, at most once a second for an object.

use std::{sync::Arc, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
};
use outrigger_crds::{
    Status,
    status::{ConditionType, Reason},
};
use outrigger_process::kubernetes::access::lacks_right;
use prometheus::IntCounterVec;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    board::{Board, Id, PACE},
    decision::{Outcome, SecretState, Verdict, judge, next_status},
    gate::{Gate, Refusal},
    view::View,
    workers::one_at_a_time,
};
use crate::{
    FIELD_MANAGER,
    deadline::in_time,
    events::{Events, Notice},
    metrics::Metrics,
    secrets::Secrets,
};

/// How soon an object is looked at again that refers to Secrets which are missing, or cannot be looked up now.
const RECHECK_MISSING: Duration = Duration::from_secs(5);
/// How soon one is whose Secrets are all there: they seldom vanish.
const RECHECK_FOUND: Duration = Duration::from_secs(180);

/// Writes what the board says.
pub struct Writer {
    board: Arc<Board>,
    client: Client,
    secrets: Arc<Secrets>,
    events: Arc<Events>,
    writes: IntCounterVec,
    gate: Gate,
}

enum Written {
    Done,
    /// The object is gone, which the watch will show.
    Gone,
    Refused(Refusal),
    Failed(String),
}

impl Writer {
    pub fn new(
        board: Arc<Board>,
        client: Client,
        secrets: Arc<Secrets>,
        events: Arc<Events>,
        metrics: &Metrics,
    ) -> Self {
        Self {
            board,
            client,
            secrets,
            events,
            writes: metrics.status_writes.clone(),
            gate: Gate::new(metrics.status_refused.clone()),
        }
    }

    /// Works until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        self.board.begin_term(Instant::now());
        // What is in progress is finished: it ends within its deadlines.
        one_at_a_time(
            &self.board.queue,
            &stop,
            |id: Id| async move { self.look_at(&id).await },
        )
        .await;
    }

    async fn look_at(&self, id: &Id) {
        let Some(look) = self.board.look(id, Instant::now()) else {
            return;
        };
        let view = &look.view;
        let Some(secrets) = self.secret_state(id, view).await else {
            return;
        };
        let verdict = judge(&view.finding, &look.surroundings, &secrets);
        let now = Time(jiff::Timestamp::now());
        let current = look.current.as_ref();
        let Some(status) = next_status(&verdict, &look.reported, view.generation, current, &now) else {
            return;
        };
        if let Some(until) = self.gate.closed_until(id, Instant::now()) {
            self.board.queue.add(id.clone(), until);
            self.tell(id, view, current, verdict, &status).await;
            return;
        }
        let written = self.write(id, view, &status).await;
        let now = Instant::now();
        let result = match &written {
            Written::Done => "written",
            Written::Gone => "gone",
            Written::Refused(refusal) => refusal.as_str(),
            Written::Failed(_) => "error",
        };
        self.writes.with_label_values(&[id.kind, result]).inc();
        match written {
            Written::Done => {
                let reason = verdict.outcome.reason.as_str();
                tracing::debug!(kind = id.kind, object = %id.key, reason, "status written");
                self.gate.open(id);
                self.board.written(id, view, status.clone(), now + PACE);
                self.tell(id, view, current, verdict, &status).await;
            }
            Written::Gone => {}
            Written::Refused(refusal) => {
                let until = self.gate.close(id, refusal, now);
                self.board.queue.add(id.clone(), until);
                self.tell(id, view, current, verdict, &status).await;
            }
            Written::Failed(error) => {
                tracing::warn!(kind = id.kind, object = %id.key, error, "cannot write the status; trying again");
                // That is no refusal, and the write may have happened: then none follows that would say so.
                self.gate.open(id);
                self.board.failed(id, now);
                // It may never succeed: the API server writes no status to an object that its own schema cannot read.
                self.tell(id, view, current, verdict, &status).await;
            }
        }
    }

    /// `None` while nothing can be said: the last status stays, rather than changing with every hiccup of the API server.
    async fn secret_state(&self, id: &Id, view: &View) -> Option<SecretState> {
        let Some(references) = &view.secrets else {
            return Some(SecretState::default());
        };
        let (state, recheck) = match self.secrets.find(&id.key.namespace, references.names()).await {
            Err(error) => {
                tracing::warn!(kind = id.kind, object = %id.key, %error, "cannot check the Secrets; trying again");
                (None, RECHECK_MISSING)
            }
            Ok(found) => {
                let state = SecretState::of(references.as_ref(), &found);
                let recheck = match state.unresolved.is_empty() {
                    true => RECHECK_FOUND,
                    false => RECHECK_MISSING,
                };
                (Some(state), recheck)
            }
        };
        self.board.queue.add(id.clone(), Instant::now() + recheck);
        state
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
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &id.key.namespace, &*view.resource);
        let patch = Patch::Apply(&object);
        match in_time(api.patch_status(&id.key.name, &params, &patch)).await {
            Ok(_) => Written::Done,
            Err(kube::Error::Api(status)) if lacks_right(&status) => Written::Refused(Refusal::Forbidden),
            // An admission policy, which holds for the object alone.
            Err(kube::Error::Api(status)) if status.code == 403 => Written::Failed(status.message),
            // The API server answers the same for an object and for a status that does not exist.
            Err(kube::Error::Api(status)) if status.code == 404 => {
                match in_time(api.get_metadata_opt(&id.key.name)).await {
                    Ok(Some(found)) if found.metadata.uid == view.reference.uid => Written::Refused(Refusal::NoStatus),
                    // Another object may have the name by now, which the watch will show.
                    Ok(_) => Written::Gone,
                    Err(error) => Written::Failed(error.to_string()),
                }
            }
            // Among them a conflict: another object has the name by now, which the watch will show, or others are writing.
            Err(error) => Written::Failed(error.to_string()),
        }
    }

    /// Publishes an Event if there is news, of the object itself or of its sidecars.
    async fn tell(&self, id: &Id, view: &View, before: Option<&Status>, verdict: Verdict, after: &Status) {
        if self.board.is_news(id, before.and_then(Outcome::of), verdict.outcome) {
            let notice = Notice {
                warning: !verdict.outcome.accepted,
                reason: verdict.outcome.reason.as_str(),
                action: ConditionType::Accepted.as_str(),
                note: verdict.message,
            };
            self.events.publish(&view.reference, notice).await;
        }
        let Some((now, ready)) = rejection(after) else { return };
        let before = before.and_then(rejection).is_some_and(|(before, _)| before);
        let reason = Reason::ALL.iter().find(|reason| reason.as_str() == ready.reason);
        if let Some(reason) = reason
            && self.board.is_news_of_sidecars(id, before, now)
        {
            let notice = Notice {
                warning: now,
                reason: reason.as_str(),
                action: ConditionType::Ready.as_str(),
                note: ready.message.clone(),
            };
            self.events.publish(&view.reference, notice).await;
        }
    }
}

/// Whether sidecars reject the object, and the condition that says so. `None` while that is not decided.
fn rejection(status: &Status) -> Option<(bool, &Condition)> {
    let ready = status.condition(ConditionType::Ready)?;
    let undecided = ready.status == "Unknown" || ready.reason == Reason::NotAccepted.as_str();
    (!undecided).then(|| (ready.reason == Reason::Rejected.as_str(), ready))
}
