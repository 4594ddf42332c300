//! What stands between a new pod and its sidecar: the webhook's registration in the API server, the injector's Service, and
//! replicas that are ready. Followed by watches of exactly these objects.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::StreamExt;
use k8s_openapi::api::{
    admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration},
    core::v1::Service,
    discovery::v1::EndpointSlice,
};
use kube::{Api, runtime::watcher};
use outrigger_core::control_plane::SIDECAR_INJECTOR;
use outrigger_process::kubernetes::{
    client::Clients,
    slim::Slim,
    watch::{Change, ObjectKey, changes},
};
use tokio::sync::watch;

use super::reason::{Finding, Reason};

/// The injector's webhook in the configuration.
const WEBHOOK: &str = "sidecar-injector.dapr.io";

/// What is known of an object.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Seen<T> {
    #[default]
    NotYet,
    /// The API server does not let us see it.
    Unreadable,
    Absent,
    Present(T),
}

/// What is known of all of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Admission {
    pub registration: Seen<Arc<MutatingWebhookConfiguration>>,
    pub service: Seen<()>,
    /// Addresses of replicas that are ready, by the slice that has them.
    pub endpoints: Seen<BTreeMap<ObjectKey, BTreeSet<String>>>,
    version: u64,
}

impl<T> Seen<T> {
    fn take<K>(&mut self, change: Change<K>, make: impl FnOnce(K) -> T) {
        match change {
            Change::Apply(object) => *self = Self::Present(make(object)),
            Change::Delete(_) => *self = Self::Absent,
            Change::Synced if matches!(self, Self::NotYet | Self::Unreadable) => *self = Self::Absent,
            Change::Forbidden => *self = Self::Unreadable,
            Change::Synced | Change::Absent => {}
        }
    }

    fn is_known(&self) -> bool {
        !matches!(self, Self::NotYet)
    }
}

impl Admission {
    /// Whether every object has been looked for.
    pub fn complete(&self) -> bool {
        self.registration.is_known() && self.service.is_known() && self.endpoints.is_known()
    }

    /// Changes whenever anything does: another try may be worth it.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The injector's webhook.
    ///
    /// # Errors
    /// Why the API server asks nobody.
    pub fn webhook(&self) -> Result<&MutatingWebhook, Finding> {
        let configuration = match &self.registration {
            Seen::Present(configuration) => configuration,
            Seen::Absent => {
                let why =
                    format!("there is no MutatingWebhookConfiguration {SIDECAR_INJECTOR}; is the injector installed?");
                return Err(Finding::new(Reason::WebhookMissing, why));
            }
            Seen::NotYet | Seen::Unreadable => return Err(unreadable("MutatingWebhookConfiguration")),
        };
        let mut webhooks = configuration.webhooks.iter().flatten();
        webhooks.find(|webhook| webhook.name == WEBHOOK).ok_or_else(|| {
            let why = format!("the MutatingWebhookConfiguration {SIDECAR_INJECTOR} has no webhook {WEBHOOK}");
            Finding::new(Reason::WebhookIncomplete, why)
        })
    }

    /// Why no pod at all gets a sidecar. `namespace` is the control plane's; `anchors` are its trust anchors, DER.
    pub fn outage(&self, namespace: &str, anchors: &[Vec<u8>]) -> Option<Finding> {
        let webhook = match self.webhook() {
            Ok(webhook) => webhook,
            Err(finding) => return Some(finding),
        };
        let found = |reason, why: String| Some(Finding::new(reason, why));
        let bundle = webhook.client_config.ca_bundle.as_ref();
        let Some(bundle) = bundle.filter(|bundle| !bundle.0.is_empty()) else {
            let why = format!(
                "the MutatingWebhookConfiguration {SIDECAR_INJECTOR} has no caBundle, which the injector writes"
            );
            return found(Reason::CaBundleMissing, why);
        };
        let trusted = outrigger_identity::pem::certificates(&bundle.0).unwrap_or_default();
        let ours = |certificate: &[u8]| anchors.iter().any(|anchor| anchor == certificate);
        if !anchors.is_empty() && !trusted.iter().any(|certificate| ours(certificate)) {
            let why = format!(
                "the caBundle of the MutatingWebhookConfiguration {SIDECAR_INJECTOR} has none of the control plane's trust anchors"
            );
            return found(Reason::CaBundleForeign, why);
        }
        let Some(service) = &webhook.client_config.service else {
            // An address: nothing in the cluster says whether somebody is there.
            return None;
        };
        if (&*service.namespace, &*service.name) != (namespace, SIDECAR_INJECTOR) {
            let why = format!(
                "the webhook calls the Service {}/{}, and the injector's is {namespace}/{SIDECAR_INJECTOR}",
                service.namespace, service.name
            );
            return found(Reason::ServiceForeign, why);
        }
        match (&self.service, &self.endpoints) {
            (Seen::Absent, _) => found(
                Reason::ServiceMissing,
                format!("the Service {namespace}/{SIDECAR_INJECTOR} does not exist"),
            ),
            (Seen::Present(()), Seen::Present(slices)) if slices.values().any(|slice| !slice.is_empty()) => None,
            (Seen::Present(()), Seen::Absent | Seen::Present(_)) => found(
                Reason::InjectorNotReady,
                format!("no replica of the injector is ready (Service {namespace}/{SIDECAR_INJECTOR})"),
            ),
            _ => Some(unreadable("Service and EndpointSlices of the injector")),
        }
    }

    fn take_slice(&mut self, change: Change<EndpointSlice>) {
        let mut slices = match std::mem::take(&mut self.endpoints) {
            Seen::Present(slices) => slices,
            other => {
                self.endpoints = other;
                BTreeMap::new()
            }
        };
        match change {
            Change::Apply(slice) => {
                slices.insert(ObjectKey::of(&slice), ready_addresses(slice));
            }
            Change::Delete(key) => {
                slices.remove(&key);
            }
            Change::Synced => {}
            Change::Forbidden => {
                self.endpoints = Seen::Unreadable;
                return;
            }
            Change::Absent => return,
        }
        self.endpoints = Seen::Present(slices);
    }
}

fn unreadable(what: &str) -> Finding {
    let why = format!("unknown, since the operator may not read the {what}");
    Finding::new(Reason::WebhookUnreadable, why)
}

fn ready_addresses(slice: EndpointSlice) -> BTreeSet<String> {
    let endpoints = slice.endpoints.into_iter();
    // Not said means ready.
    let ready = endpoints.filter(|endpoint| endpoint.conditions.as_ref().and_then(|known| known.ready) != Some(false));
    ready.flat_map(|endpoint| endpoint.addresses).collect()
}

/// Keeps `state` as the API server has it, for ever. `namespace` is the control plane's.
pub async fn follow(clients: &Clients, namespace: &str, state: watch::Sender<Admission>) {
    let client = || clients.watches.clone();
    let only = watcher::Config::default().fields(&format!("metadata.name={SIDECAR_INJECTOR}"));
    let of_service = watcher::Config::default().labels(&format!("kubernetes.io/service-name={SIDECAR_INJECTOR}"));
    let registrations = changes(Api::<MutatingWebhookConfiguration>::all(client()), only.clone());
    let services = changes(Api::<Slim<Service>>::namespaced(client(), namespace), only);
    let slices = changes(Api::<EndpointSlice>::namespaced(client(), namespace), of_service);
    let (mut registrations, mut services) = (std::pin::pin!(registrations), std::pin::pin!(services));
    let mut slices = std::pin::pin!(slices);
    let mut current = Admission::default();
    loop {
        let before = current.clone();
        tokio::select! {
            Some(change) = registrations.next() => current.registration.take(change, Arc::new),
            Some(change) = services.next() => current.service.take(change, |_| ()),
            Some(change) = slices.next() => current.take_slice(change),
        }
        if current != before {
            current.version += 1;
            state.send_replace(current.clone());
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What an installation of the chart looks like, after `change`.
    pub(crate) fn admission(change: impl FnOnce(&mut Value)) -> Admission {
        let mut configuration = json!({
            "metadata": {"name": SIDECAR_INJECTOR, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "webhooks": [{
                "name": WEBHOOK, "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Ignore",
                "clientConfig": {"caBundle": "", "service": {"namespace": "dapr-system", "name": SIDECAR_INJECTOR, "path": "/mutate"}},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
                "namespaceSelector": {"matchExpressions": [{
                    "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", "dapr-system"],
                }]},
            }],
        });
        configuration["webhooks"][0]["clientConfig"]["caBundle"] =
            serde_json::to_value(k8s_openapi::ByteString(anchor().pem().into_bytes())).unwrap();
        change(&mut configuration);
        let key = ObjectKey::new("dapr-system", "dapr-sidecar-injector-x");
        Admission {
            registration: Seen::Present(Arc::new(serde_json::from_value(configuration).unwrap())),
            service: Seen::Present(()),
            endpoints: Seen::Present([(key, ["10.0.0.1".to_owned()].into())].into()),
            version: 1,
        }
    }

    /// The control plane's authority.
    pub(crate) fn anchor() -> &'static outrigger_testkit::certs::Authority {
        static ANCHOR: std::sync::LazyLock<outrigger_testkit::certs::Authority> =
            std::sync::LazyLock::new(|| outrigger_testkit::certs::Authority::new("ours").unwrap());
        &ANCHOR
    }

    pub(crate) fn anchors() -> Vec<Vec<u8>> {
        let certificates = outrigger_identity::pem::certificates(anchor().pem().as_bytes()).unwrap();
        certificates.into_iter().map(|der| der.to_vec()).collect()
    }

    fn outage(admission: &Admission) -> Option<Reason> {
        admission
            .outage("dapr-system", &anchors())
            .map(|finding| finding.reason)
    }

    #[test]
    fn a_healthy_installation_has_no_outage() {
        assert_eq!(outage(&admission(|_| {})), None);
        let address = admission(|c| c["webhooks"][0]["clientConfig"]["service"] = Value::Null);
        assert_eq!(outage(&address), None, "nobody knows what is behind an address");
    }

    #[test]
    fn every_missing_part_has_a_reason_of_its_own() {
        let healthy = || admission(|_| {});
        let absent = Admission {
            registration: Seen::Absent,
            ..healthy()
        };
        assert_eq!(outage(&absent), Some(Reason::WebhookMissing));
        let other = admission(|c| c["webhooks"][0]["name"] = "other.example.com".into());
        assert_eq!(outage(&other), Some(Reason::WebhookIncomplete));
        for none in [Value::Null, "".into()] {
            let bundle = admission(|c| c["webhooks"][0]["clientConfig"]["caBundle"] = none);
            assert_eq!(outage(&bundle), Some(Reason::CaBundleMissing));
        }
        let other = outrigger_testkit::certs::Authority::new("other").unwrap().pem();
        let bundle = serde_json::to_value(k8s_openapi::ByteString(other.into_bytes())).unwrap();
        let foreign = admission(|c| c["webhooks"][0]["clientConfig"]["caBundle"] = bundle);
        assert_eq!(outage(&foreign), Some(Reason::CaBundleForeign));
        assert_eq!(
            foreign.outage("dapr-system", &[]),
            None,
            "our own anchors are not known yet"
        );
        let elsewhere = admission(|c| c["webhooks"][0]["clientConfig"]["service"]["namespace"] = "old".into());
        assert_eq!(outage(&elsewhere), Some(Reason::ServiceForeign));
        let service = Admission {
            service: Seen::Absent,
            ..healthy()
        };
        assert_eq!(outage(&service), Some(Reason::ServiceMissing));
        for endpoints in [Seen::Absent, Seen::Present(BTreeMap::new())] {
            let nobody = Admission { endpoints, ..healthy() };
            assert_eq!(outage(&nobody), Some(Reason::InjectorNotReady));
        }
        let unreadable = Admission {
            registration: Seen::Unreadable,
            ..healthy()
        };
        assert_eq!(outage(&unreadable), Some(Reason::WebhookUnreadable));
    }

    #[test]
    fn slices_are_added_up_and_unready_addresses_do_not_count() {
        let slice = |name: &str, ready: Value| {
            let slice = json!({
                "metadata": {"namespace": "dapr-system", "name": name}, "addressType": "IPv4",
                "endpoints": [{"addresses": [name], "conditions": {"ready": ready}}],
            });
            Change::Apply(serde_json::from_value::<EndpointSlice>(slice).unwrap())
        };
        let mut admission = admission(|_| {});
        admission.endpoints = Seen::NotYet;
        assert!(!admission.complete());
        admission.take_slice(Change::Synced);
        assert_eq!(outage(&admission), Some(Reason::InjectorNotReady));
        admission.take_slice(slice("a", false.into()));
        assert_eq!(outage(&admission), Some(Reason::InjectorNotReady));
        admission.take_slice(slice("b", Value::Null));
        assert_eq!(outage(&admission), None);
        admission.take_slice(Change::Delete(ObjectKey::new("dapr-system", "b")));
        assert_eq!(outage(&admission), Some(Reason::InjectorNotReady));
        admission.take_slice(Change::Forbidden);
        assert_eq!(outage(&admission), Some(Reason::WebhookUnreadable));
    }
}
