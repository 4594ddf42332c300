//! Keeps the webhook's registration in the API server pointing at our certificate authority: the chart renders no CA bundle, so
//! that nothing rendered changes later, and whoever renders again or recreates the object takes nothing away for long.
//!
//! The bundle is written by server-side apply with a field manager of its own. The UID of the object that was seen goes with
//! it: an apply would otherwise create an object that somebody just deleted.

use std::{fmt::Debug, sync::Arc};

use futures::{Stream, StreamExt};
use json_patch::{AddOperation, PatchOperation, TestOperation, jsonptr::PointerBuf};
use k8s_openapi::{ByteString, api::admissionregistration::v1::MutatingWebhookConfiguration};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
    runtime::watcher,
};
use outrigger_core::control_plane::SIDECAR_INJECTOR;
use outrigger_identity::Anchors;
use outrigger_process::{
    health::Target,
    kubernetes::{
        access::{Objects, granted},
        client::Clients,
        pace::{Pace, backoff},
        watch::{Change, changes},
    },
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{cluster::POLL, metrics::Metrics};

/// The webhook in the configuration.
const WEBHOOK: &str = "sidecar-injector.dapr.io";
const MANAGER: &str = "outrigger-injector";
const NO_ANCHORS: &str = "there are no trust anchors yet";

/// The task that owns the registration's CA bundle.
pub struct Registration {
    pub clients: Clients,
    pub anchors: watch::Receiver<Arc<Anchors>>,
    pub target: Target,
    pub metrics: Metrics,
}

/// What the watch says of the object.
enum Seen {
    NotYet,
    Missing,
    Object(Box<MutatingWebhookConfiguration>),
}

impl Registration {
    /// Heals the bundle until `stop`. With upstream's grants, which have no watch, it is written every half minute instead.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.run_for_ever() => {}
        }
    }

    async fn run_for_ever(&self) {
        let this = Objects {
            namespace: None,
            name: Some(SIDECAR_INJECTOR),
        };
        loop {
            let watched: Api<MutatingWebhookConfiguration> = Api::all(self.clients.watches.clone());
            let only = watcher::Config::default().fields(&format!("metadata.name={SIDECAR_INJECTOR}"));
            self.heal(changes(watched, only)).await;
            tokio::select! {
                () = granted::<MutatingWebhookConfiguration>(&self.clients.calls, this) => {
                    tracing::info!(object = SIDECAR_INJECTOR, "the webhook's registration may be watched now");
                }
                () = self.write_blindly() => {}
            }
        }
    }

    /// Returns when the watch is forbidden.
    async fn heal(&self, changes: impl Stream<Item = Change<MutatingWebhookConfiguration>>) {
        let mut changes = std::pin::pin!(changes);
        let mut anchors = self.anchors.clone();
        let mut seen = Seen::NotYet;
        let mut pace = Pace::default();
        loop {
            anchors.mark_unchanged();
            let needed = self.judge(&seen);
            tokio::select! {
                Some(change) = changes.next() => match change {
                    Change::Apply(object) => seen = Seen::Object(Box::new(object)),
                    Change::Delete(_) => {
                        seen = Seen::Missing;
                        // The next one is another object, which nobody has written against us.
                        pace = Pace::default();
                    }
                    Change::Synced if matches!(seen, Seen::NotYet) => seen = Seen::Missing,
                    Change::Synced | Change::Absent => {}
                    Change::Forbidden => return,
                },
                Ok(()) = anchors.changed() => {}
                () = sleep_until(pace.next()), if needed.is_some() => {
                    pace.wrote(Instant::now());
                    let params = PatchParams::apply(MANAGER).force();
                    if let Some(object) = self.write(&params, &Patch::Apply(needed)).await {
                        tracing::info!(object = SIDECAR_INJECTOR, "wrote the CA bundle into the webhook's registration");
                        seen = Seen::Object(Box::new(object));
                    }
                }
            }
        }
    }

    /// What has to be applied to the object that was seen, if anything; reports on the rest.
    fn judge(&self, seen: &Seen) -> Option<Value> {
        let object = match seen {
            Seen::NotYet => return None,
            Seen::Missing => {
                self.target.not_ready(format!(
                    "there is no MutatingWebhookConfiguration {SIDECAR_INJECTOR}: pods get no sidecars until it is installed"
                ));
                return None;
            }
            Seen::Object(object) => object,
        };
        let Some(bundle) = self.bundle() else {
            self.target.not_ready(NO_ANCHORS);
            return None;
        };
        match drift(object, &bundle) {
            Drift::None => {
                self.target.ready();
                None
            }
            Drift::NoWebhook => {
                self.target.not_ready(format!(
                    "MutatingWebhookConfiguration {SIDECAR_INJECTOR} has no webhook {WEBHOOK}"
                ));
                None
            }
            Drift::Bundle => Some(application(object, &bundle)),
        }
    }

    /// For clusters that grant only `patch`.
    async fn write_blindly(&self) {
        tracing::warn!(
            object = SIDECAR_INJECTOR,
            seconds = POLL.as_secs(),
            "the webhook's registration may not be watched; the CA bundle is written periodically instead"
        );
        let mut anchors = self.anchors.clone();
        let mut failures = 0;
        loop {
            anchors.mark_unchanged();
            let pause = match self.bundle() {
                None => {
                    self.target.not_ready(NO_ANCHORS);
                    POLL
                }
                Some(bundle) => match self.write(&PatchParams::default(), &blind_patch(&bundle)).await {
                    Some(_) => {
                        failures = 0;
                        self.target.ready();
                        POLL
                    }
                    None => {
                        failures += 1;
                        backoff(failures)
                    }
                },
            };
            tokio::select! {
                () = sleep(pause) => {}
                Ok(()) = anchors.changed() => {}
            }
        }
    }

    /// The object afterwards, or `None` after a failure, which is reported.
    async fn write<P: Serialize + Debug>(
        &self,
        params: &PatchParams,
        patch: &Patch<P>,
    ) -> Option<MutatingWebhookConfiguration> {
        let api: Api<MutatingWebhookConfiguration> = Api::all(self.clients.calls.clone());
        let result = api.patch(SIDECAR_INJECTOR, params, patch).await;
        self.metrics.configuration_write(result.is_ok());
        result
            .inspect_err(|error| {
                tracing::warn!(object = SIDECAR_INJECTOR, %error, "cannot write the CA bundle into the webhook's registration");
                self.target
                    .not_ready(format!("cannot write the CA bundle into {SIDECAR_INJECTOR}: {error}"));
            })
            .ok()
    }

    /// The trust anchors as the API server wants them.
    fn bundle(&self) -> Option<ByteString> {
        let anchors = self.anchors.borrow();
        Some(anchors.pem())
            .filter(|pem| !pem.is_empty())
            .map(|pem| ByteString(pem.as_bytes().to_vec()))
    }
}

/// How an object differs from what it should be.
#[derive(Debug, PartialEq, Eq)]
enum Drift {
    None,
    Bundle,
    NoWebhook,
}

fn drift(object: &MutatingWebhookConfiguration, bundle: &ByteString) -> Drift {
    let mut webhooks = object.webhooks.iter().flatten();
    match webhooks.find(|webhook| webhook.name == WEBHOOK) {
        None => Drift::NoWebhook,
        Some(webhook) if webhook.client_config.ca_bundle.as_ref() == Some(bundle) => Drift::None,
        Some(_) => Drift::Bundle,
    }
}

/// Without a look at the object: a test on the webhook's name keeps the patch from hitting another one.
fn blind_patch(bundle: &ByteString) -> Patch<()> {
    let webhook = |field: &str| PointerBuf::from_tokens(["webhooks", "0"].into_iter().chain(field.split('/')));
    Patch::Json(json_patch::Patch(vec![
        PatchOperation::Test(TestOperation {
            path: webhook("name"),
            value: WEBHOOK.into(),
        }),
        PatchOperation::Add(AddOperation {
            path: webhook("clientConfig/caBundle"),
            value: json!(bundle),
        }),
    ]))
}

/// Only what is ours, on exactly the object that was seen.
pub fn application(object: &MutatingWebhookConfiguration, bundle: &ByteString) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": SIDECAR_INJECTOR, "uid": object.uid()},
        "webhooks": [{"name": WEBHOOK, "clientConfig": {"caBundle": bundle}}],
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::admissionregistration::v1::MutatingWebhook;

    use super::*;

    fn configuration(name: &str, bundle: Option<&str>) -> MutatingWebhookConfiguration {
        let mut webhook = MutatingWebhook {
            name: name.to_owned(),
            ..MutatingWebhook::default()
        };
        webhook.client_config.ca_bundle = bundle.map(|text| ByteString(text.into()));
        MutatingWebhookConfiguration {
            webhooks: Some(vec![MutatingWebhook::default(), webhook]),
            ..MutatingWebhookConfiguration::default()
        }
    }

    #[test]
    fn only_our_webhooks_bundle_matters() {
        let bundle = ByteString(b"pem".to_vec());
        assert_eq!(drift(&configuration(WEBHOOK, Some("pem")), &bundle), Drift::None);
        assert_eq!(drift(&configuration(WEBHOOK, Some("other")), &bundle), Drift::Bundle);
        assert_eq!(drift(&configuration(WEBHOOK, None), &bundle), Drift::Bundle);
        assert_eq!(drift(&configuration("other", Some("pem")), &bundle), Drift::NoWebhook);
    }

    #[test]
    fn the_application_has_nothing_but_the_bundle() {
        let mut object = configuration(WEBHOOK, None);
        object.metadata.uid = Some("u".into());
        assert_eq!(
            application(&object, &ByteString(b"pem".to_vec())),
            json!({
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "MutatingWebhookConfiguration",
                "metadata": {"name": "dapr-sidecar-injector", "uid": "u"},
                "webhooks": [{"name": "sidecar-injector.dapr.io", "clientConfig": {"caBundle": "cGVt"}}],
            })
        );
    }
}
