//! Keeps the conversion webhook registered in the definition of Subscriptions: with our trust anchors, which no chart renders,
//! and the namespace of our Service, which the chart's fixed file cannot know.
//!
//! Both are written by server-side apply with a field manager of our own, and written again within a second when somebody
//! renders, replaces or re-creates the definition. The UID of the object that was seen goes with the write: an apply would
//! otherwise create what somebody just deleted. Every replica does this, since each needs it and the result is the same.

use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::{
    ByteString,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        CustomResourceConversion, CustomResourceDefinition, WebhookClientConfig,
    },
};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
    runtime::watcher,
};
use outrigger_identity::Anchors;
use outrigger_process::kubernetes::{
    client::Clients,
    pace::Pace,
    slim::{Part, Slim},
    watch::{Change, changes},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::Metrics;
use crate::{FIELD_MANAGER, deadline::in_time};

const DEFINITION: &str = "subscriptions.dapr.io";
/// The Service of the webhook, as the definition names it.
const SERVICE: &str = "dapr-webhook";
const STRATEGY: &str = "Webhook";

/// The task that owns the registration.
pub struct Registration {
    pub clients: Clients,
    /// Of the control plane, where the Service is.
    pub namespace: String,
    pub anchors: watch::Receiver<Arc<Anchors>>,
    pub metrics: Metrics,
}

/// A definition without its schemas.
type Definition = Slim<CustomResourceDefinition, Spec>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    conversion: Option<CustomResourceConversion>,
}

impl Part for Spec {}

/// What is known of the definition.
enum Seen {
    NotYet,
    Missing,
    /// Neither watched nor read, and why.
    Unreadable(String),
    Definition(Box<Definition>),
}

/// What is to be done about it.
#[derive(Debug, PartialEq)]
enum Verdict {
    Wait,
    Registered,
    /// Nothing that we may repair.
    Unusable(String),
    Apply(Value),
}

impl Registration {
    /// Heals the registration until `stop`. Without the right to watch (upstream's chart grants none) the definition is read
    /// every half minute instead, and a right that is granted later is noticed.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.heal() => {}
        }
    }

    async fn heal(&self) {
        let watched: Api<Definition> = Api::all(self.clients.watches.clone());
        let only = watcher::Config::default().fields(&format!("metadata.name={DEFINITION}"));
        let mut changes = std::pin::pin!(changes(watched, only));
        let mut anchors = self.anchors.clone();
        let mut seen = Seen::NotYet;
        let mut pace = Pace::default();
        let mut report = Report::default();
        loop {
            anchors.mark_unchanged();
            let verdict = self.judge(&seen);
            self.metrics.registered.set((verdict == Verdict::Registered).into());
            let application = match verdict {
                Verdict::Wait => None,
                Verdict::Registered => {
                    report.fine();
                    None
                }
                Verdict::Unusable(why) => {
                    report.problem(why);
                    None
                }
                Verdict::Apply(application) => Some(application),
            };
            tokio::select! {
                Some(change) = changes.next() => match change {
                    Change::Apply(definition) => seen = Seen::Definition(Box::new(definition)),
                    Change::Delete(_) | Change::Absent => {
                        seen = Seen::Missing;
                        // The next one is another object, which nobody has written against us.
                        pace = Pace::default();
                    }
                    Change::Synced if !matches!(seen, Seen::Definition(_)) => seen = Seen::Missing,
                    Change::Synced => {}
                    Change::Forbidden => match self.look().await {
                        Ok(looked) => seen = looked,
                        // What is known stays: most likely the API server is away for a moment.
                        Err(why) if matches!(seen, Seen::Definition(_)) => tracing::warn!("{why}; trying again"),
                        Err(why) => seen = Seen::Unreadable(why),
                    },
                },
                Ok(()) = anchors.changed() => {}
                () = sleep_until(pace.next()), if application.is_some() => {
                    pace.wrote(Instant::now());
                    match self.write(application).await {
                        Ok(definition) => seen = Seen::Definition(Box::new(definition)),
                        Err(error) => report.problem(format!("cannot write the CA bundle into {DEFINITION}: {error}")),
                    }
                }
            }
        }
    }

    fn judge(&self, seen: &Seen) -> Verdict {
        let definition = match seen {
            Seen::NotYet => return Verdict::Wait,
            Seen::Missing => return Verdict::Unusable(format!("there is no CustomResourceDefinition {DEFINITION}")),
            Seen::Unreadable(why) => return Verdict::Unusable(why.clone()),
            Seen::Definition(definition) => definition,
        };
        let anchors = self.anchors.borrow();
        if anchors.pem().is_empty() {
            return Verdict::Wait;
        }
        judge(definition, &self.namespace, &ByteString(anchors.pem().into()))
    }

    /// # Errors
    /// Why it cannot be read.
    async fn look(&self) -> Result<Seen, String> {
        let api: Api<Definition> = Api::all(self.clients.calls.clone());
        match in_time(api.get_opt(DEFINITION)).await {
            Ok(Some(definition)) => Ok(Seen::Definition(Box::new(definition))),
            Ok(None) => Ok(Seen::Missing),
            Err(error) => Err(format!("{DEFINITION} may not be watched and cannot be read: {error}")),
        }
    }

    async fn write(&self, application: Option<Value>) -> kube::Result<Definition> {
        let api: Api<Definition> = Api::all(self.clients.calls.clone());
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let written = in_time(api.patch(DEFINITION, &params, &Patch::Apply(application))).await;
        let result = match &written {
            Ok(_) => "success",
            Err(kube::Error::Api(status)) if status.is_forbidden() => "forbidden",
            Err(_) => "failure",
        };
        self.metrics.writes.with_label_values(&[result]).inc();
        if written.is_ok() {
            tracing::info!(object = DEFINITION, "wrote the CA bundle of the conversion webhook");
        }
        written
    }
}

/// Says once what is wrong, and once that it is not any more.
#[derive(Default)]
struct Report {
    problem: Option<String>,
}

impl Report {
    fn problem(&mut self, problem: String) {
        if self.problem.as_ref() != Some(&problem) {
            tracing::warn!(
                problem,
                "Subscriptions are not converted between v1alpha1 and v2alpha1; trying again"
            );
            self.problem = Some(problem);
        }
    }

    fn fine(&mut self) {
        if self.problem.take().is_some() {
            tracing::info!("Subscriptions are converted between v1alpha1 and v2alpha1");
        }
    }
}

fn judge(definition: &Definition, namespace: &str, bundle: &ByteString) -> Verdict {
    let conversion = definition.spec.conversion.as_ref();
    let client = conversion
        .filter(|conversion| conversion.strategy == STRATEGY)
        .and_then(|conversion| conversion.webhook.as_ref()?.client_config.as_ref());
    match client {
        Some(WebhookClientConfig {
            url: Some(_),
            ca_bundle,
            ..
        }) => match ca_bundle.as_ref() == Some(bundle) {
            true => Verdict::Registered,
            false => Verdict::Apply(application(definition, &json!({ "caBundle": bundle }))),
        },
        Some(WebhookClientConfig {
            service: Some(service),
            ca_bundle,
            ..
        }) if service.name == SERVICE => match service.namespace == namespace && ca_bundle.as_ref() == Some(bundle) {
            true => Verdict::Registered,
            false => {
                let client = json!({ "caBundle": bundle, "service": { "namespace": namespace } });
                Verdict::Apply(application(definition, &client))
            }
        },
        _ => Verdict::Unusable(format!(
            "{DEFINITION} does not name the Service {SERVICE} under spec.conversion.webhook.clientConfig: apply the \
             definition of this release"
        )),
    }
}

/// Only what is ours, on exactly the object that was seen.
fn application(definition: &Definition, client: &Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": DEFINITION, "uid": definition.uid() },
        "spec": { "conversion": { "webhook": { "clientConfig": client } } },
    })
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use kube::{Client, client::Body};
    use outrigger_testkit::Workloads;
    use tokio::sync::Notify;

    use super::*;

    fn definition(conversion: Value) -> Value {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": DEFINITION, "uid": "u"}, "spec": {"group": "dapr.io", "conversion": conversion},
        })
    }

    fn verdict(conversion: Value) -> Verdict {
        let definition = serde_json::from_value(definition(conversion)).unwrap();
        judge(&definition, "dapr-system", &ByteString(b"pem".to_vec()))
    }

    fn webhook(client: Value) -> Value {
        json!({"strategy": "Webhook", "webhook": {"clientConfig": client, "conversionReviewVersions": ["v1"]}})
    }

    fn applied(client: Value) -> Verdict {
        Verdict::Apply(json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": DEFINITION, "uid": "u"},
            "spec": {"conversion": {"webhook": {"clientConfig": client}}},
        }))
    }

    #[test]
    fn writes_the_bundle_and_the_services_namespace() {
        let service =
            |namespace: &str| json!({"name": SERVICE, "namespace": namespace, "path": "/convert", "port": 443});
        let ours = applied(json!({"caBundle": "cGVt", "service": {"namespace": "dapr-system"}}));
        for (client, expected) in [
            (
                json!({"service": service("dapr-system"), "caBundle": "cGVt"}),
                Verdict::Registered,
            ),
            (json!({"service": service("dapr-system"), "caBundle": "b2xk"}), ours),
            (
                json!({"service": service("replaceme")}),
                applied(json!({"caBundle": "cGVt", "service": {"namespace": "dapr-system"}})),
            ),
            (
                json!({"url": "https://a/convert", "caBundle": "cGVt"}),
                Verdict::Registered,
            ),
            (
                json!({"url": "https://a/convert"}),
                applied(json!({"caBundle": "cGVt"})),
            ),
        ] {
            assert_eq!(verdict(webhook(client)), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_fails_makes_nothing_known_unknown() {
        let pem = Workloads::new().unwrap().anchors();
        let (asked, third) = (AtomicUsize::new(0), Arc::new(Notify::new()));
        let anchors = Arc::new(Anchors::from_pem(&pem).unwrap());
        let reached = third.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let is_look = request.uri().path().ends_with(DEFINITION);
            let look = if is_look {
                asked.fetch_add(1, Ordering::SeqCst) + 1
            } else {
                0
            };
            if look == 3 {
                reached.notify_one();
            }
            let client = json!({"service": {"name": SERVICE, "namespace": "dapr-system"}, "caBundle": ByteString(pem.clone().into())});
            let (status, body) = match look {
                0 => (
                    403,
                    json!({"kind": "Status", "apiVersion": "v1", "code": 403, "metadata": {}}),
                ),
                1 => (200, definition(webhook(client))),
                _ => (
                    503,
                    json!({"kind": "Status", "apiVersion": "v1", "code": 503, "metadata": {}}),
                ),
            };
            let response = http::Response::builder().status(status);
            async move { Ok::<_, Infallible>(response.body(Body::from(body.to_string().into_bytes())).unwrap()) }
        });
        let client = Client::new(service, "default");
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        let (_sender, anchors) = watch::channel(anchors);
        let registration = Registration {
            clients: Clients {
                calls: client.clone(),
                watches: client,
            },
            namespace: "dapr-system".into(),
            anchors,
            metrics: metrics.clone(),
        };
        tokio::select! {
            () = registration.heal() => {}
            () = third.notified() => {}
        }
        assert_eq!(metrics.registered.get(), 1);
    }

    #[test]
    fn what_somebody_decided_otherwise_is_not_touched() {
        let other = json!({"service": {"name": "other", "namespace": "dapr-system"}});
        for conversion in [
            json!(null),
            json!({"strategy": "None"}),
            webhook(other),
            webhook(json!(null)),
        ] {
            let verdict = verdict(conversion);
            assert!(
                matches!(&verdict, Verdict::Unusable(why) if why.contains("apply the definition")),
                "{verdict:?}"
            );
        }
    }
}
