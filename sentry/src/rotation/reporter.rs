//! What people see of the renewal: Events on the Secret, metrics, a warning in the health detail, log lines.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{self, Event, EventType, Recorder},
};
use outrigger_core::text::{chain, shortened};
use outrigger_process::health::Target;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use time::OffsetDateTime;

use super::{Decision, Step, Unattended};
use crate::bundle::BundleError;

/// Events are kept for an hour: a warning that still holds is repeated.
const REPEAT: Duration = Duration::from_secs(3600);
/// Different warnings within that time. What is said anew with every attempt does not become an Event each time.
const MAX_WARNINGS: usize = 16;
/// The API server takes Events with notes of less than a kibibyte.
const MAX_NOTE: usize = 1000;
/// How long a call of the API server may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Series about the renewal. The first four are those that upstream announced.
#[derive(Clone)]
pub(crate) struct RenewalMetrics {
    renewals: IntCounter,
    switchovers: IntCounter,
    pending: IntGauge,
    switchover_time: IntGauge,
    failures: IntCounterVec,
    unattended: IntGaugeVec,
}

impl RenewalMetrics {
    /// # Errors
    /// When the registry already has a metric of the same name.
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            renewals: IntCounter::new(
                "dapr_sentry_ca_renewal_total",
                "Roots and issuers that this replica generated ahead of the expiry of those in use.",
            )?,
            switchovers: IntCounter::new(
                "dapr_sentry_ca_switchover_total",
                "Switches to an announced issuer that this replica made.",
            )?,
            pending: IntGauge::new(
                "dapr_sentry_ca_renewal_pending",
                "1 while an announced issuer waits for its switchover.",
            )?,
            switchover_time: IntGauge::new(
                "dapr_sentry_ca_switchover_timestamp",
                "When the announced issuer takes over, in unix seconds; 0 when none is announced.",
            )?,
            failures: IntCounterVec::new(
                Opts::new(
                    "dapr_sentry_ca_renewal_failures_total",
                    "Steps of the renewal, and looks at the stored authority, that failed and are tried again.",
                ),
                &["step"],
            )?,
            unattended: IntGaugeVec::new(
                Opts::new(
                    "dapr_sentry_ca_expiring_unattended",
                    "1 while the authority nears its expiry and is not renewed, by reason.",
                ),
                &["reason"],
            )?,
        };
        registry.register(Box::new(metrics.renewals.clone()))?;
        registry.register(Box::new(metrics.switchovers.clone()))?;
        registry.register(Box::new(metrics.pending.clone()))?;
        registry.register(Box::new(metrics.switchover_time.clone()))?;
        registry.register(Box::new(metrics.failures.clone()))?;
        registry.register(Box::new(metrics.unattended.clone()))?;
        Ok(metrics)
    }
}

/// Tells people.
pub(crate) struct Reporter {
    metrics: RenewalMetrics,
    target: Target,
    /// In Kubernetes only.
    recorder: Option<Recorder>,
    /// What Events are about.
    regarding: Option<ObjectReference>,
    /// Warnings that were published, and when.
    warned: Vec<(String, Instant)>,
}

impl Reporter {
    pub(crate) fn new(metrics: RenewalMetrics, target: Target, client: Option<Client>, instance: String) -> Self {
        let reporter = events::Reporter {
            controller: "dapr-sentry".into(),
            instance: Some(instance),
        };
        Self {
            metrics,
            target,
            recorder: client.map(|client| Recorder::new(client, reporter)),
            regarding: None,
            warned: Vec::new(),
        }
    }

    /// Events are about this object from now on.
    pub(crate) fn regard(&mut self, object: Option<ObjectReference>) {
        self.regarding = object;
    }

    /// A step that this process made; `expired` says that it came too late for the authority in use.
    pub(crate) async fn made(&self, step: Step, expired: bool) {
        let (reason, note) = match step {
            Step::Announce => {
                self.metrics.renewals.inc();
                (
                    "RootAnnounced",
                    "a new root is among the trust anchors; the issuer below it takes over once it is known everywhere",
                )
            }
            Step::Switch => {
                self.metrics.switchovers.inc();
                ("IssuerSwitched", "certificates are signed by the new issuer")
            }
            Step::Retire => ("RootRetired", "an expired root is no longer among the trust anchors"),
            Step::Abandon => (
                "AnnouncementWithdrawn",
                "the announced issuer cannot be used and was removed",
            ),
        };
        tracing::info!(reason, "{note}");
        self.publish(EventType::Normal, reason, note.to_owned()).await;
        if expired && step == Step::Switch {
            let note = "the authority had expired before it was renewed: pods whose sidecars do not follow the trust anchors have to be restarted";
            tracing::warn!("{note}");
            self.publish(EventType::Warning, "AuthorityReplaced", note.to_owned())
                .await;
        }
    }

    /// What the last look led to; `failed` is a step that will be tried again, and why.
    pub(crate) async fn stands(
        &mut self,
        decision: &Decision,
        expires: OffsetDateTime,
        failed: Option<(Step, &BundleError)>,
    ) {
        self.metrics.pending.set(i64::from(decision.switchover.is_some()));
        let switchover = decision.switchover.map_or(0, OffsetDateTime::unix_timestamp);
        self.metrics.switchover_time.set(switchover);
        for (reason, label) in [(Unattended::Supplied, "supplied"), (Unattended::Disabled, "disabled")] {
            let holds = i64::from(decision.unattended == Some(reason));
            self.metrics.unattended.with_label_values(&[label]).set(holds);
        }
        match (failed, decision.unattended) {
            (Some((step, error)), _) => {
                let label = label(step);
                self.metrics.failures.with_label_values(&[label]).inc();
                let note = format!(
                    "the renewal of the certificate authority failed (step {label}) and is tried again: {}",
                    chain(error)
                );
                self.warn("RenewalFailed", note).await;
            }
            (None, Some(reason)) => self.warn("AuthorityExpires", expiring(reason, expires)).await,
            (None, None) => self.target.ready(),
        }
    }

    /// What is stored cannot be used. The last good authority, if there is one, goes on signing.
    pub(crate) async fn not_loaded(&mut self, error: &BundleError) {
        self.metrics.failures.with_label_values(&["load"]).inc();
        let note = format!("the stored certificate authority cannot be used: {}", chain(error));
        self.warn("AuthorityNotLoaded", note).await;
    }

    /// Shown as long as it holds, and published once an hour.
    async fn warn(&mut self, reason: &str, note: String) {
        self.target.ready_with_warning(&note);
        self.warned.retain(|(_, at)| at.elapsed() < REPEAT);
        if self.warned.len() < MAX_WARNINGS && self.warned.iter().all(|(known, _)| *known != note) {
            tracing::warn!(reason, "{note}");
            self.publish(EventType::Warning, reason, note.clone()).await;
            self.warned.push((note, Instant::now()));
        }
    }

    async fn publish(&self, type_: EventType, reason: &str, note: String) {
        let (Some(recorder), Some(regarding)) = (&self.recorder, &self.regarding) else {
            return;
        };
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(shortened(note, MAX_NOTE)),
            action: "RenewAuthority".to_owned(),
            secondary: None,
        };
        match tokio::time::timeout(DEADLINE, recorder.publish(&event, regarding)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(reason, %error, "cannot publish an Event"),
            Err(_) => tracing::warn!(reason, "cannot publish an Event in time"),
        }
    }
}

fn label(step: Step) -> &'static str {
    match step {
        Step::Announce => "announce",
        Step::Switch => "switch",
        Step::Retire => "retire",
        Step::Abandon => "abandon",
    }
}

fn expiring(reason: Unattended, expires: OffsetDateTime) -> String {
    let why = match reason {
        Unattended::Supplied => "it was supplied, so it is not renewed; supply a new one",
        Unattended::Disabled => "--ca-renewal-enabled is false; renew it, or switch renewal on",
    };
    // Seconds are enough, and the same text counts as the same Event.
    let expires = expires.replace_nanosecond(0).unwrap_or(expires);
    format!("the certificate authority expires at {expires}, and with it all certificates: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::MaterialError;
    use outrigger_process::health::Health;

    #[tokio::test]
    async fn an_unattended_end_is_seen_and_withdrawn() {
        let registry = Registry::new();
        let health = Health::default();
        let metrics = RenewalMetrics::register(&registry).unwrap();
        let mut reporter = Reporter::new(metrics.clone(), health.target("sentry-authority"), None, "x".into());
        let mut decision = Decision {
            unattended: Some(Unattended::Supplied),
            ..Decision::default()
        };
        reporter.stands(&decision, OffsetDateTime::UNIX_EPOCH, None).await;
        let gauge = |reason| metrics.unattended.with_label_values(&[reason]).get();
        assert_eq!((gauge("supplied"), gauge("disabled")), (1, 0));
        assert!(health.is_ready(), "it still signs");
        let warnings = health.warnings();
        assert!(warnings[0].1.contains("expires at 1970-01-01"), "{warnings:?}");

        decision.unattended = None;
        reporter.stands(&decision, OffsetDateTime::UNIX_EPOCH, None).await;
        assert_eq!(gauge("supplied"), 0);
        assert!(health.warnings().is_empty());
    }

    #[tokio::test]
    async fn failures_are_counted_each_and_told_once() {
        let registry = Registry::new();
        let health = Health::default();
        let metrics = RenewalMetrics::register(&registry).unwrap();
        let mut reporter = Reporter::new(metrics.clone(), health.target("sentry-authority"), None, "x".into());
        let decision = Decision::default();
        let error = |text: &str| BundleError::Material(MaterialError::Cross(text.to_owned()));
        for _ in 0..3 {
            for text in ["one", "two"] {
                let failed = Some((Step::Switch, &error(text)));
                reporter.stands(&decision, OffsetDateTime::UNIX_EPOCH, failed).await;
            }
        }
        assert_eq!(metrics.failures.with_label_values(&["switch"]).get(), 6);
        assert_eq!(reporter.warned.len(), 2, "each reason once");
        let warnings = health.warnings();
        assert!(
            warnings[0]
                .1
                .contains("step switch) and is tried again: cross certificates: two"),
            "{warnings:?}"
        );

        reporter.not_loaded(&error("three")).await;
        assert_eq!(metrics.failures.with_label_values(&["load"]).get(), 1);
        assert!(health.is_ready() && health.warnings()[0].1.ends_with("three"));
        for number in 0..100 {
            reporter.not_loaded(&error(&number.to_string())).await;
        }
        assert_eq!(reporter.warned.len(), MAX_WARNINGS);

        reporter.stands(&decision, OffsetDateTime::UNIX_EPOCH, None).await;
        assert!(health.warnings().is_empty());
    }
}
