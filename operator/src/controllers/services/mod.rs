//! The Services `<app-id>-dapr` of workloads that ask for sidecars: how sidecars find each other.

mod claims;
mod decision;
mod desired;
mod workload;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{Stream, StreamExt};
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::{ObjectReference, Service},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    runtime::watcher,
};
use outrigger_core::{annotations, backoff::Backoff};
use outrigger_crds::status::EventReason;
use outrigger_process::kubernetes::{
    client::Clients,
    watch::{Change, ObjectKey, changes},
};
use prometheus::IntCounterVec;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::{
    claims::{Claims, WorkloadId},
    decision::{Action, decide},
    desired::{Desired, Wanted, wanted},
    workload::{Owner, Workload},
};
use crate::{
    FIELD_MANAGER,
    deadline::in_time,
    events::{Events, Notice},
    metrics::Metrics,
    queue::Queue,
    scope::Scope,
    slim::Slim,
};

/// Pauses after failed writes of a Service.
const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));
/// Kinds of workloads that get Services.
const KINDS: [&str; 2] = ["Deployment", "StatefulSet"];

/// Keeps the Services of apps.
pub struct Services {
    client: Client,
    /// Whether sidecars call each other with mTLS.
    mtls: bool,
    metrics: Metrics,
    events: Arc<Events>,
    claims: Claims,
    /// Kinds whose workloads are all known.
    known: BTreeSet<&'static str>,
    /// Kinds for which nothing more is to be waited for: known, or not to be had.
    settled: BTreeSet<&'static str>,
    queue: Queue<ObjectKey>,
    failing: HashMap<ObjectKey, Backoff>,
    /// What each workload was told last.
    told: HashMap<Owner, String>,
    /// Whether the right to apply is missing, as it is in upstream's chart.
    cannot_apply: bool,
}

impl Services {
    pub fn new(client: Client, mtls: bool, metrics: Metrics, events: Arc<Events>) -> Self {
        Self {
            client,
            mtls,
            metrics,
            events,
            claims: Claims::default(),
            known: BTreeSet::new(),
            settled: BTreeSet::new(),
            queue: Queue::default(),
            failing: HashMap::new(),
            told: HashMap::new(),
            cannot_apply: false,
        }
    }

    /// Works until `stop`.
    pub async fn run(mut self, clients: &Clients, scope: &Scope, stop: CancellationToken) {
        let watch = watcher::Config::default;
        let ours = format!("{}=true", annotations::ENABLED);
        let deployments = changes(scope.api::<Workload<Deployment>>(&clients.watches), watch());
        let stateful_sets = changes(scope.api::<Workload<StatefulSet>>(&clients.watches), watch());
        let services = changes(scope.api::<Slim<Service>>(&clients.watches), watch().labels(&ours));
        self.follow(deployments, stateful_sets, services, stop).await;
    }

    async fn follow(
        &mut self,
        deployments: impl Stream<Item = Change<Workload<Deployment>>>,
        stateful_sets: impl Stream<Item = Change<Workload<StatefulSet>>>,
        services: impl Stream<Item = Change<Slim<Service>>>,
        stop: CancellationToken,
    ) {
        let mut deployments = std::pin::pin!(deployments);
        let mut stateful_sets = std::pin::pin!(stateful_sets);
        let mut services = std::pin::pin!(services);
        loop {
            // Wishes that are not known yet could look like wishes given up.
            let settled = self.settled.len() == KINDS.len();
            tokio::select! {
                () = stop.cancelled() => return,
                Some(change) = deployments.next() => self.workload(KINDS[0], change).await,
                Some(change) = stateful_sets.next() => self.workload(KINDS[1], change).await,
                Some(change) = services.next() => match change {
                    Change::Apply(service) => self.queue.add(ObjectKey::of(&service), Instant::now()),
                    Change::Delete(key) => self.queue.add(key, Instant::now()),
                    Change::Synced | Change::Absent | Change::Forbidden => {}
                },
                key = self.queue.next(), if settled => self.reconcile(key).await,
            }
        }
    }

    async fn workload<K: Resource<DynamicType = ()>>(&mut self, kind: &'static str, change: Change<Workload<K>>) {
        match change {
            Change::Apply(workload) => {
                let id: WorkloadId = (kind, ObjectKey::of(&workload));
                let desired = match wanted(&workload, self.mtls) {
                    Wanted::Nothing => {
                        self.forget_told(&id);
                        None
                    }
                    Wanted::Service(desired) => Some(*desired),
                    Wanted::Invalid(why) => {
                        self.refuse(
                            &Owner::of(&workload),
                            "invalid",
                            format!("no Service for this app: {why}"),
                        )
                        .await;
                        None
                    }
                };
                self.claim(id, desired);
            }
            Change::Delete(key) => {
                let id = (kind, key);
                self.forget_told(&id);
                self.claim(id, None);
            }
            Change::Synced => {
                self.known.insert(kind);
                self.settled.insert(kind);
            }
            Change::Absent | Change::Forbidden => {
                self.settled.insert(kind);
            }
        }
    }

    fn forget_told(&mut self, (kind, key): &WorkloadId) {
        self.told.retain(|owner, _| owner.kind != *kind || owner.key != *key);
    }

    fn claim(&mut self, workload: WorkloadId, desired: Option<Desired>) {
        for service in self.claims.set(workload, desired) {
            self.queue.add(service, Instant::now());
        }
    }

    async fn reconcile(&mut self, key: ObjectKey) {
        let (desired, rivals) = match self.claims.of(&key) {
            Some((desired, rivals)) => (Some(desired.clone()), rivals.into_iter().cloned().collect()),
            None => (None, Vec::new()),
        };
        for rival in rivals {
            let winner = desired
                .as_ref()
                .map(|desired| desired.owner.key.name.as_str())
                .unwrap_or_default();
            let why = format!(
                "Service {} belongs to the older workload {winner} with the same app id",
                key.name
            );
            self.refuse(&rival, "conflict", why).await;
        }
        match self.settle(&key, desired.as_ref()).await {
            Ok(()) => {
                self.failing.remove(&key);
            }
            Err(error) => {
                let pause = self.failing.entry(key.clone()).or_insert(RETRY).next_pause();
                tracing::warn!(service = %key, error, "cannot settle the Service of an app; trying again");
                self.queue.add(key, Instant::now() + pause);
            }
        }
    }

    async fn settle(&mut self, key: &ObjectKey, desired: Option<&Desired>) -> Result<(), String> {
        let api: Api<Service> = Api::namespaced(self.client.clone(), &key.namespace);
        let existing = in_time(api.get_opt(&key.name))
            .await
            .map_err(|error| error.to_string())?;
        let action = decide(existing.as_ref(), desired, &self.known);
        let app = |service: &Service| {
            service
                .annotations()
                .get(annotations::APP_ID)
                .cloned()
                .unwrap_or_default()
        };
        match (action, existing, desired) {
            (Action::Create, existing, Some(desired)) => {
                let created = self.metrics.service_created.clone();
                self.write(&api, desired, existing, &created).await?;
            }
            (Action::Update, existing, Some(desired)) => {
                let updated = self.metrics.service_updated.clone();
                self.write(&api, desired, existing, &updated).await?;
            }
            (Action::Delete, Some(existing), _) => {
                delete(&api, key, &existing).await?;
                self.metrics.service_deleted.with_label_values(&[&app(&existing)]).inc();
                tracing::info!(service = %key, "deleted the Service of an app that is no more");
            }
            (Action::Refuse(why), _, Some(desired)) => {
                let why = format!("Service {} exists and is not changed: {why}", key.name);
                self.refuse(&desired.owner, "foreign", why).await;
            }
            _ => {}
        }
        Ok(())
    }

    /// Writes and counts; what the API server calls invalid is reported and not tried again.
    async fn write(
        &mut self,
        api: &Api<Service>,
        desired: &Desired,
        existing: Option<Service>,
        counter: &IntCounterVec,
    ) -> Result<(), String> {
        let object = desired.object();
        let name = object.name_any();
        let mut result = Ok(());
        if !self.cannot_apply {
            let params = PatchParams::apply(FIELD_MANAGER).force();
            result = call(api.patch(&name, &params, &Patch::Apply(&object))).await;
            if matches!(&result, Err(Failure::Forbidden)) {
                tracing::warn!("not allowed to apply Services; creating and updating them instead");
                self.cannot_apply = true;
            }
        }
        if self.cannot_apply {
            let params = PostParams {
                field_manager: Some(FIELD_MANAGER.to_owned()),
                ..Default::default()
            };
            result = match existing {
                None => call(api.create(&params, &object)).await,
                Some(existing) => call(api.replace(&name, &params, &merged(existing, object))).await,
            };
        }
        match result {
            Ok(()) => {
                tracing::info!(service = %desired.key(), app = desired.app_id, "Service of an app written");
                self.told.remove(&desired.owner);
                counter.with_label_values(&[&desired.app_id]).inc();
                Ok(())
            }
            Err(Failure::Invalid(why)) => {
                self.refuse(&desired.owner, "invalid", why).await;
                Ok(())
            }
            Err(Failure::Forbidden) => Err("not allowed".to_owned()),
            Err(Failure::Other(error)) => Err(error),
        }
    }

    /// Tells a workload once why it gets no Service.
    async fn refuse(&mut self, owner: &Owner, reason: &'static str, note: String) {
        if self.told.get(owner) == Some(&note) {
            return;
        }
        self.metrics.service_refused.with_label_values(&[reason]).inc();
        tracing::warn!(kind = owner.kind, workload = %owner.key, reason, note, "no Service for a workload");
        self.told.insert(owner.clone(), note.clone());
        let regarding = ObjectReference {
            api_version: Some(owner.api_version.clone()),
            kind: Some(owner.kind.clone()),
            namespace: Some(owner.key.namespace.clone()),
            name: Some(owner.key.name.clone()),
            uid: Some(owner.uid.clone()),
            ..Default::default()
        };
        let notice = Notice {
            warning: true,
            reason: EventReason::ServiceRefused.as_str(),
            action: "ReconcileService",
            note,
        };
        self.events.publish(&regarding, notice).await;
    }
}

enum Failure {
    Forbidden,
    /// The API server will refuse it again.
    Invalid(String),
    Other(String),
}

async fn call<T>(request: impl Future<Output = kube::Result<T>>) -> Result<(), Failure> {
    match in_time(request).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_forbidden() => Err(Failure::Forbidden),
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 422) => Err(Failure::Invalid(status.message)),
        Err(error) => Err(Failure::Other(error.to_string())),
    }
}

/// Deletes exactly what was looked at.
async fn delete(api: &Api<Service>, key: &ObjectKey, existing: &Service) -> Result<(), String> {
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: existing.uid(),
            resource_version: existing.resource_version(),
        }),
        ..Default::default()
    };
    match in_time(api.delete(&key.name, &params)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// What `PUT` takes: the existing object with our fields in it.
fn merged(mut existing: Service, desired: Service) -> Service {
    existing
        .labels_mut()
        .extend(desired.metadata.labels.unwrap_or_default());
    existing
        .annotations_mut()
        .extend(desired.metadata.annotations.unwrap_or_default());
    existing.metadata.owner_references = desired.metadata.owner_references;
    existing.metadata.managed_fields = None;
    if let (Some(spec), Some(ours)) = (&mut existing.spec, desired.spec) {
        spec.ports = ours.ports;
        spec.selector = ours.selector;
    }
    existing
}
