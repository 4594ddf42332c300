//! Whether a new pod would get its sidecar. As long as that is in doubt nothing is evicted.

use std::{collections::HashMap, time::Duration};

use k8s_openapi::api::{admissionregistration::v1::MutatingWebhookConfiguration, apps::v1::Deployment};
use kube::{Api, Client};
use outrigger_core::control_plane::SIDECAR_INJECTOR;
use outrigger_process::kubernetes::watch::{Change, ObjectKey};
use serde::Deserialize;
use tokio::time::Instant;

use crate::{
    deadline::in_time,
    slim::{Ignored, Part, Slim},
};

/// Selects the injector's Deployment.
pub(super) const LABELS: &str = "app=dapr-sidecar-injector";
/// From the first ready replica to the moment in which all of the cluster's proxies know it.
const SETTLE: Duration = Duration::from_secs(5);
/// How long an answer about the webhook configuration is good.
const WEBHOOK_FRESH: Duration = Duration::from_secs(10);

/// The injector's Deployment.
pub(super) type InjectorDeployment = Slim<Deployment, Ignored, Replicas>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Replicas {
    ready_replicas: i32,
}

impl Part for Replicas {}

/// What is known of the injector.
#[derive(Debug, Default)]
pub(super) struct Injector {
    /// Ready replicas and generation.
    deployments: HashMap<ObjectKey, (i32, Option<i64>)>,
    ready_since: Option<Instant>,
    version: u64,
    webhook: Option<(Instant, Webhook)>,
    /// Whether the missing right was logged.
    forbidden: bool,
}

/// What is known of the webhook configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Webhook {
    Usable,
    Unusable(&'static str),
    /// Not tellable now; worth another look.
    Unknown(String),
}

/// Whether pods may be evicted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Readiness {
    Ready,
    /// From then on, if nothing changes.
    Soon(Instant),
    NotReady(String),
}

impl Injector {
    pub(super) fn apply(&mut self, change: Change<InjectorDeployment>, now: Instant) {
        match change {
            Change::Apply(deployment) => {
                let state = (deployment.status.ready_replicas, deployment.metadata.generation);
                let old = self.deployments.insert(ObjectKey::of(&deployment), state);
                if old.and_then(|(_, generation)| generation) != state.1 {
                    self.version += 1;
                }
            }
            Change::Delete(key) => {
                self.deployments.remove(&key);
            }
            Change::Synced | Change::Absent | Change::Forbidden => {}
        }
        let ready = self.deployments.values().any(|(replicas, _)| *replicas >= 1);
        match (ready, self.ready_since) {
            (true, None) => {
                self.ready_since = Some(now);
                self.version += 1;
            }
            (false, _) => self.ready_since = None,
            (true, Some(_)) => {}
        }
    }

    /// Changes whenever the injector does: a new generation, or ready again.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Looks at what is known, and asks for the webhook configuration if that is too old.
    pub(super) async fn readiness(&mut self, client: &Client, now: Instant) -> Readiness {
        let Some(since) = self.ready_since else {
            return Readiness::NotReady("no replica of the sidecar injector is ready".to_owned());
        };
        if now < since + SETTLE {
            return Readiness::Soon(since + SETTLE);
        }
        let fresh = self.webhook.take().filter(|(at, _)| now < *at + WEBHOOK_FRESH);
        let (at, webhook) = match fresh {
            Some(known) => known,
            None => (now, self.ask(client).await),
        };
        let readiness = match &webhook {
            Webhook::Usable => Readiness::Ready,
            Webhook::Unusable(why) => Readiness::NotReady((*why).to_owned()),
            Webhook::Unknown(why) => Readiness::NotReady(why.clone()),
        };
        self.webhook = Some((at, webhook));
        readiness
    }

    async fn ask(&mut self, client: &Client) -> Webhook {
        let api: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
        match in_time(api.get_opt(SIDECAR_INJECTOR)).await {
            Ok(configuration) => judge(configuration.as_ref()),
            // Upstream's chart does not grant this look.
            Err(kube::Error::Api(status)) if status.is_forbidden() => {
                if !self.forbidden {
                    self.forbidden = true;
                    tracing::warn!("not allowed to look at the injector's webhook configuration; taking it for usable");
                }
                Webhook::Usable
            }
            Err(error) => Webhook::Unknown(format!("the injector's webhook configuration cannot be read: {error}")),
        }
    }
}

fn judge(configuration: Option<&MutatingWebhookConfiguration>) -> Webhook {
    let Some(configuration) = configuration else {
        return Webhook::Unusable("the MutatingWebhookConfiguration dapr-sidecar-injector does not exist");
    };
    let webhooks = configuration.webhooks.as_deref().unwrap_or_default();
    let trusted = webhooks.iter().any(|webhook| {
        webhook
            .client_config
            .ca_bundle
            .as_ref()
            .is_some_and(|bundle| !bundle.0.is_empty())
    });
    match trusted {
        true => Webhook::Usable,
        false => Webhook::Unusable("the MutatingWebhookConfiguration dapr-sidecar-injector has no caBundle"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(ready: i32, generation: i64) -> Change<InjectorDeployment> {
        let deployment = json!({
            "metadata": {"name": "dapr-sidecar-injector", "namespace": "dapr-system", "generation": generation},
            "status": {"readyReplicas": ready},
        });
        Change::Apply(serde_json::from_value(deployment).unwrap())
    }

    fn unreachable() -> Client {
        Client::new(
            tower::service_fn(|_: http::Request<kube::client::Body>| async {
                Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("not to be asked"))
            }),
            "default",
        )
    }

    #[tokio::test]
    async fn a_ready_injector_may_settle_first() {
        let (client, now) = (unreachable(), Instant::now());
        let mut injector = Injector::default();
        assert!(matches!(injector.readiness(&client, now).await, Readiness::NotReady(_)));
        injector.apply(deployment(1, 1), now);
        assert_eq!(injector.readiness(&client, now).await, Readiness::Soon(now + SETTLE));
        injector.webhook = Some((now + SETTLE, Webhook::Usable));
        assert_eq!(injector.readiness(&client, now + SETTLE).await, Readiness::Ready);
        injector.apply(deployment(0, 1), now);
        assert!(matches!(
            injector.readiness(&client, now + SETTLE).await,
            Readiness::NotReady(_)
        ));
    }

    #[test]
    fn its_version_tells_when_another_try_is_worth_it() {
        let now = Instant::now();
        let mut injector = Injector::default();
        injector.apply(deployment(1, 1), now);
        let first = injector.version();
        injector.apply(deployment(2, 1), now);
        assert_eq!(injector.version(), first);
        injector.apply(deployment(2, 2), now);
        let second = injector.version();
        assert_ne!(second, first);
        injector.apply(deployment(0, 2), now);
        injector.apply(deployment(1, 2), now);
        assert_ne!(injector.version(), second);
    }

    #[test]
    fn a_webhook_without_a_ca_injects_nothing() {
        let configuration = |ca: Option<&str>| {
            let configuration = json!({
                "webhooks": [{
                    "name": "sidecar-injector.dapr.io", "admissionReviewVersions": ["v1"], "sideEffects": "None",
                    "clientConfig": {"caBundle": ca},
                }],
            });
            serde_json::from_value::<MutatingWebhookConfiguration>(configuration).unwrap()
        };
        assert_eq!(judge(Some(&configuration(Some("Y2E=")))), Webhook::Usable);
        assert!(matches!(judge(Some(&configuration(Some("")))), Webhook::Unusable(_)));
        assert!(matches!(judge(Some(&configuration(None))), Webhook::Unusable(_)));
        assert!(matches!(judge(None), Webhook::Unusable(_)));
    }
}
