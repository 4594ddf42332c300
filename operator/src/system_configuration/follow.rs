//! The control plane's Configuration while the operator runs. What can change without harm takes effect at once; of the rest
//! people are told that it waits for a restart.

use std::sync::Arc;

use futures::StreamExt;
use kube::{Api, Client, Resource, runtime::watcher};
use outrigger_crds::status::EventReason;
use outrigger_process::kubernetes::{
    slim::{self, Slim},
    watch::{Change, ObjectKey, changes},
};
use serde_json::Value;
use tokio::{sync::watch, time::Instant};

use super::{SystemConfiguration, parse};
use crate::{
    controllers::status::Board,
    events::{Events, Notice},
};

type Configuration = Slim<slim::Configuration, Value>;

/// Follows the Configuration that the operator began with.
pub struct Follower {
    pub key: ObjectKey,
    /// What was read at the start.
    pub used: SystemConfiguration,
    /// Whether sidecars call each other with mTLS.
    pub mtls: watch::Sender<bool>,
    pub board: Arc<Board>,
    pub events: Arc<Events>,
}

impl Follower {
    /// Works for ever.
    pub async fn run(self, client: Client) {
        let api: Api<Configuration> = Api::namespaced(client, &self.key.namespace);
        let only = watcher::Config::default().fields(&format!("metadata.name={}", self.key.name));
        let mut changes = std::pin::pin!(changes(api, only));
        let mut told = None;
        while let Some(change) = changes.next().await {
            match change {
                Change::Apply(configuration) => {
                    let waiting = self.take(&configuration.spec);
                    if waiting != told {
                        if let Some(note) = &waiting {
                            self.tell(&configuration, note).await;
                        }
                        told = waiting;
                    }
                }
                Change::Delete(key) => {
                    tracing::warn!(configuration = %key, "the control plane's Configuration is gone: its defaults hold for Services of apps");
                    self.set_mtls(true);
                    told = None;
                }
                Change::Synced | Change::Absent | Change::Forbidden => {}
            }
        }
    }

    /// Returns what has to wait for a restart.
    fn take(&self, spec: &Value) -> Option<String> {
        let newer = parse(spec, &self.key.namespace);
        if let Ok(newer) = &newer {
            self.set_mtls(newer.mtls);
        }
        let waiting = waiting(&self.used, &newer);
        self.board.control_plane_waits(waiting.clone(), Instant::now());
        waiting
    }

    fn set_mtls(&self, on: bool) {
        let changed = self.mtls.send_if_modified(|mtls| std::mem::replace(mtls, on) != on);
        if changed {
            tracing::info!(
                mtls = on,
                "the Services of apps follow the control plane's Configuration"
            );
        }
    }

    async fn tell(&self, configuration: &Configuration, note: &str) {
        tracing::warn!(configuration = %self.key, "{note}");
        let notice = Notice {
            warning: true,
            reason: EventReason::RestartRequired.as_str(),
            action: "Configure",
            note: note.to_owned(),
        };
        self.events.publish(&configuration.object_ref(&()), notice).await;
    }
}

/// What of a newer version does not take effect before a restart. Running sidecars know the operator by the trust domain that
/// was injected into them, and would refuse it under another one. Another address of sentry would first be used for the next
/// renewal, hours later and with nobody there to see a mistake in it; after a restart readiness tells.
fn waiting(used: &SystemConfiguration, newer: &anyhow::Result<SystemConfiguration>) -> Option<String> {
    let newer = match newer {
        Ok(newer) => newer,
        Err(error) => {
            return Some(format!(
                "{error:#}; the operator goes on with what it read before, and would not start with this"
            ));
        }
    };
    let fields = [
        (
            "spec.mtls.controlPlaneTrustDomain",
            newer.trust_domain.as_str(),
            used.trust_domain.as_str(),
        ),
        ("spec.mtls.sentryAddress", &newer.sentry_address, &used.sentry_address),
    ];
    let changed: Vec<_> = fields
        .iter()
        .filter(|(_, found, used)| found != used)
        .map(|(field, found, used)| {
            format!("{field}: found {found:?}, the operator goes on with {used:?} until it is restarted")
        })
        .collect();
    (!changed.is_empty()).then(|| changed.join("; "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_cannot_change_while_the_operator_runs_is_told_by_its_field() {
        let read = |mtls: Value| parse(&json!({"mtls": mtls}), "dapr-system");
        let used = read(json!({"sentryAddress": "s:1"})).unwrap();
        let waiting = |mtls| waiting(&used, &read(mtls));
        let same = json!({"sentryAddress": "s:1", "enabled": false, "allowedClockSkew": "1m"});
        assert_eq!(waiting(same), None);
        assert_eq!(
            waiting(json!({"sentryAddress": "s:2", "controlPlaneTrustDomain": "example.org"})).unwrap(),
            "spec.mtls.controlPlaneTrustDomain: found \"example.org\", the operator goes on with \"cluster.local\" until it is \
             restarted; spec.mtls.sentryAddress: found \"s:2\", the operator goes on with \"s:1\" until it is restarted"
        );
        let wrong = waiting(json!({"controlPlaneTrustDomain": "Not Legal"})).unwrap();
        assert!(wrong.starts_with("spec.mtls.controlPlaneTrustDomain: "), "{wrong}");
        assert!(wrong.ends_with("would not start with this"), "{wrong}");
    }
}
