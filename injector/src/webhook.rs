//! The webhook over HTTP: reads a review, has it decided, writes the answer.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use outrigger_core::text::shortened;
use outrigger_identity::Anchors;
use outrigger_process::kubernetes::webhook::{read, refusal};
use tokio::sync::watch;

use crate::{
    authorise::Allowed,
    cluster::Cluster,
    decision::{self, Context, Decision, MAX_MESSAGE, MAX_NAME, Outcome},
    metrics::{Failure, Metrics},
    refusals::Refusals,
    review::{self, Answer, Reply, Types},
    settings::Settings,
    warnings,
};

/// What the webhook works with; clones share it.
#[derive(Clone)]
pub struct Webhook {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    allowed: Allowed,
    cluster: Cluster,
    anchors: watch::Receiver<Arc<Anchors>>,
    refusals: Refusals,
    metrics: Metrics,
}

impl Webhook {
    pub fn new(
        settings: Settings,
        allowed: Allowed,
        cluster: Cluster,
        anchors: watch::Receiver<Arc<Anchors>>,
        refusals: Refusals,
        metrics: Metrics,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                settings,
                allowed,
                cluster,
                anchors,
                refusals,
                metrics,
            }),
        }
    }

    /// `/mutate`, for any method as upstream has it.
    pub fn router(self) -> Router {
        Router::new()
            .route("/mutate", any(mutate))
            .fallback(|| async { refusal(StatusCode::NOT_FOUND, "404 page not found") })
            .with_state(self)
    }

    /// Answers the bytes of a review.
    fn answer(&self, body: &[u8]) -> Response {
        let metrics = &self.shared.metrics;
        let review = match review::decode(body) {
            Ok(review) => review,
            Err(broken) => {
                let error = shortened(broken.error.to_string(), MAX_MESSAGE);
                tracing::error!(error, "a review cannot be decoded");
                metrics.failed("", Failure::Patch);
                return self.encode(
                    &Reply {
                        types: broken.types,
                        uid: broken.uid,
                        answer: Answer::denied(format!("the body is not an AdmissionReview: {error}")),
                        warnings: Vec::new(),
                        audit: BTreeMap::new(),
                    },
                    "",
                );
            }
        };
        let Some(request) = review.request else {
            return refusal(StatusCode::BAD_REQUEST, "the AdmissionReview has no request");
        };
        let anchors = self.shared.anchors.borrow().clone();
        let decision = decision::decide(
            &request,
            Context {
                settings: &self.shared.settings,
                allowed: &self.shared.allowed,
                cluster: &self.shared.cluster,
                trust_anchors: Some(anchors.pem()).filter(|pem| !pem.is_empty()),
            },
        );
        log(&request, &decision);
        let audit = decision.audit();
        metrics.outcome(decision.outcome, &decision.app_id);
        if let Some(refusal) = decision.refusal {
            self.shared.refusals.tell(refusal);
        }
        self.encode(
            &Reply {
                types: Types {
                    api_version: review.api_version,
                    kind: review.kind,
                },
                uid: request.uid,
                answer: decision.answer,
                warnings: warnings::fit(decision.warnings),
                audit,
            },
            &decision.app_id,
        )
    }

    fn encode(&self, reply: &Reply<'_>, app_id: &str) -> Response {
        match reply.encode() {
            Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
            Err(error) => {
                tracing::error!(%error, "an answer cannot be encoded");
                self.shared.metrics.failed(app_id, Failure::Response);
                let message = format!("could not encode response: {error}");
                refusal(StatusCode::INTERNAL_SERVER_ERROR, &message)
            }
        }
    }
}

async fn mutate(State(webhook): State<Webhook>, request: Request) -> Response {
    webhook.shared.metrics.request();
    let (head, body) = match read(request).await {
        Ok(read) => read,
        Err(refusal) => return refusal,
    };
    if !is_json(&head.headers) {
        return refusal(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "invalid Content-Type, expected `application/json`",
        );
    }
    let start = Instant::now();
    let response = webhook.answer(&body);
    webhook.shared.metrics.took(start.elapsed());
    response
}

/// Exactly, without parameters: that is what the API server sends and upstream takes.
fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|found| found.as_bytes() == b"application/json")
}

/// One line for each pod that asked for a sidecar, and one for each warning.
fn log(request: &review::Request<'_>, decision: &Decision) {
    // Whoever sends a review chooses how long these are.
    let [namespace, app_id, uid, user, operation] = [
        &*request.namespace,
        &decision.app_id,
        &request.uid,
        &request.user_info.username,
        &request.operation,
    ]
    .map(|text| shortened(text.to_owned(), MAX_NAME));
    match (decision.outcome, &decision.answer) {
        (Outcome::NotEnabled | Outcome::NotAPod | Outcome::NotCreated, _) => {}
        (Outcome::NotAllowed, _) => {
            tracing::error!(namespace, app_id, uid, user, "no sidecar: the requester is not allowed");
        }
        (_, Answer::Denied(reason)) => {
            tracing::error!(namespace, app_id, uid, user, reason, "the pod was denied");
        }
        (outcome, _) => {
            tracing::info!(namespace, app_id, uid, user, operation, ?outcome, "reviewed a pod");
        }
    }
    for warning in &decision.warnings {
        let warning = shortened(warning.clone(), MAX_MESSAGE);
        tracing::warn!(namespace, app_id, uid, warning, "warned the requester");
    }
}

#[cfg(test)]
mod tests;
