//! The gRPC service that sidecars report to.

use std::{sync::Arc, time::Duration};

use outrigger_proto::outrigger::operator::v1::{
    Hello, ReportRequest, ReportResponse, Verdicts, report_request::Message, reports_server::Reports,
};
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Entry, Invalid, Ledger, State, Verdict,
    check::{check_hello, check_objects, check_verdicts},
};
use crate::{
    api::{Caller, Client, Denied},
    metrics::Metrics,
    scope::Scope,
};

/// How long a sidecar may take for the first two messages.
const OPENING: Duration = Duration::from_secs(30);

/// Takes in reports. Every replica serves it.
pub struct Intake {
    ledger: Arc<Ledger>,
    scope: Scope,
    metrics: Metrics,
}

impl From<Invalid> for Status {
    fn from(invalid: Invalid) -> Self {
        let text = invalid.to_string();
        match invalid {
            // As for a service that is not there: the sidecar is newer, and goes on without.
            Invalid::Protocol(_) => Self::unimplemented(text),
            Invalid::OtherApp { .. } => Self::permission_denied(text),
            _ => Self::invalid_argument(text),
        }
    }
}

impl Intake {
    pub fn new(ledger: Arc<Ledger>, scope: Scope, metrics: Metrics) -> Self {
        Self { ledger, scope, metrics }
    }

    /// Takes in reports until the sidecar ends them.
    async fn take(&self, caller: &Caller, reports: &mut Streaming<ReportRequest>) -> Result<(), Status> {
        let opening = timeout(OPENING, self.open(caller, reports));
        let opened = opening.await;
        let Some(entry) = opened.map_err(|_| Status::deadline_exceeded("no hello and snapshot in time"))?? else {
            return Ok(());
        };
        while let Some(message) = reports.message().await? {
            let Some(Message::Changes(changes)) = message.message else {
                return Err(Invalid::OutOfOrder.into());
            };
            let verdicts = self.check(caller, &changes)?;
            check_objects(entry.judge(&verdicts))?;
        }
        Ok(())
    }

    /// Awaits hello and snapshot. `None` if the sidecar says nothing.
    async fn open(&self, caller: &Caller, reports: &mut Streaming<ReportRequest>) -> Result<Option<Entry>, Status> {
        let Some(first) = reports.message().await? else {
            return Ok(None);
        };
        let Some(Message::Hello(hello)) = first.message else {
            return Err(Invalid::NoHello.into());
        };
        let follows = check_hello(&hello, &caller.app)?;
        let Some(Message::Snapshot(snapshot)) = reports.message().await?.and_then(|second| second.message) else {
            return Err(Invalid::NoSnapshot.into());
        };
        let verdicts = self.check(caller, &snapshot)?;
        let Hello { pod, version, .. } = &hello;
        tracing::debug!(
            app = caller.app,
            namespace = caller.namespace,
            pod,
            version,
            "a sidecar reports"
        );
        let app = (caller.namespace.as_str(), caller.app.as_str());
        Ok(Some(self.ledger.enter(app, pod, &follows, &verdicts)))
    }

    fn check<'a>(&self, caller: &Caller, verdicts: &'a Verdicts) -> Result<Vec<Verdict<'a>>, Status> {
        let verdicts = check_verdicts(&verdicts.verdicts, jiff::Timestamp::now().as_second())?;
        for verdict in &verdicts {
            let state = match verdict.state {
                State::Loaded => "loaded",
                State::Removed => "removed",
                State::Rejected { reason, .. } => {
                    tracing::debug!(
                        kind = verdict.kind,
                        namespace = caller.namespace,
                        name = verdict.name,
                        app = caller.app,
                        generation = verdict.generation,
                        resource_version = verdict.resource_version,
                        reason,
                        "a sidecar rejects a resource"
                    );
                    "rejected"
                }
            };
            self.metrics.verdicts.with_label_values(&[verdict.kind, state]).inc();
        }
        Ok(verdicts)
    }

    fn refuse(&self, caller: &Caller, status: Status) -> Status {
        // Other codes are those of connections that broke.
        if matches!(
            status.code(),
            tonic::Code::InvalidArgument | tonic::Code::PermissionDenied | tonic::Code::OutOfRange
        ) {
            let (app, namespace) = (&caller.app, &caller.namespace);
            tracing::warn!(
                app,
                namespace,
                reason = status.message(),
                "refused the reports of a sidecar"
            );
            self.metrics.denied.with_label_values(&["bad_report"]).inc();
        }
        status
    }
}

#[tonic::async_trait]
impl Reports for Intake {
    async fn report(&self, request: Request<Streaming<ReportRequest>>) -> Result<Response<ReportResponse>, Status> {
        let client = request.extensions().get::<Client>().cloned();
        let Some((client, caller)) = client.and_then(|client| Some((client.clone(), client.caller()?))) else {
            self.metrics
                .denied
                .with_label_values(&[Denied::Unidentified.reason()])
                .inc();
            return Err(Denied::Unidentified.into());
        };
        if !self.scope.contains(&caller.namespace) {
            return Err(Status::failed_precondition(format!(
                "this operator does not watch the namespace {}",
                caller.namespace
            )));
        }
        client.attend(&self.ledger);
        let mut reports = request.into_inner();
        tokio::select! {
            taken = self.take(&caller, &mut reports) => taken.map_err(|status| self.refuse(&caller, status))?,
            () = client.end.cancelled() => {}
        }
        Ok(Response::new(ReportResponse {}))
    }
}
