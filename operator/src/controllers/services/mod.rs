//! The Services `<app-id>-dapr` of workloads that ask for sidecars: how sidecars find each other.

mod claims;
mod decision;
mod desired;
mod workload;
mod write;

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Debug,
    sync::Arc,
    time::Duration,
};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::{DaemonSet, Deployment, StatefulSet},
        core::v1::Service,
    },
};
use kube::{Api, Client, Resource, ResourceExt, runtime::watcher};
use outrigger_core::{annotations, backoff::Backoff};
use outrigger_crds::status::EventReason;
use outrigger_process::kubernetes::{
    client::Clients,
    owner::controller,
    slim::Slim,
    watch::{Change, ObjectKey, changes},
};
use prometheus::IntCounterVec;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::workload::Rollout;
use self::{
    claims::{Claims, WorkloadId},
    decision::{Action, decide},
    desired::{Desired, Wanted, wanted},
    workload::{Kind, Owner, Workload},
    write::{Failure, Writer, delete},
};
use crate::{
    deadline::in_time,
    events::{Events, Notice, reference},
    metrics::Metrics,
    queue::Queue,
    scope::Scope,
};

/// Pauses after failed writes of a Service.
const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));
/// How often it is looked whether a Service that is somebody else's is still there: it does not have the label that is watched.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// How Services are written.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Whether sidecars call each other with mTLS.
    pub mtls: bool,
    /// Whether Argo Rollouts get Services too.
    pub rollouts: bool,
}

/// Keeps the Services of apps.
pub struct Services {
    client: Client,
    settings: Settings,
    metrics: Metrics,
    events: Arc<Events>,
    writer: Writer,
    claims: Claims,
    /// Kinds whose workloads are all known.
    known: BTreeSet<Kind>,
    /// Kinds for which nothing more is to be waited for: known, or not to be had.
    settled: BTreeSet<Kind>,
    queue: Queue<ObjectKey>,
    failing: HashMap<ObjectKey, Backoff>,
    /// What the API server called invalid: it is not tried again.
    hopeless: HashMap<ObjectKey, Desired>,
    /// What each workload was told last.
    told: HashMap<Owner, String>,
}

/// What is watched.
enum Event {
    Workload(Kind, Seen),
    Service(Change<Slim<Service>>),
}

/// What is seen of the workloads of a kind.
enum Seen {
    Workload(Owner, Wanted),
    Gone(ObjectKey),
    /// All of them have been seen.
    All,
    /// The kind is not served.
    Absent,
    /// They may not be watched.
    Forbidden,
}

impl Services {
    pub fn new(client: Client, settings: Settings, metrics: Metrics, events: Arc<Events>) -> Self {
        Self {
            client,
            settings,
            metrics,
            events,
            writer: Writer::default(),
            claims: Claims::default(),
            known: BTreeSet::new(),
            settled: BTreeSet::new(),
            queue: Queue::default(),
            failing: HashMap::new(),
            hopeless: HashMap::new(),
            told: HashMap::new(),
        }
    }

    /// Works until `stop`.
    pub async fn run(mut self, clients: &Clients, scope: &Scope, stop: CancellationToken) {
        let (client, mtls) = (&clients.watches, self.settings.mtls);
        let ours = watcher::Config::default().labels(&format!("{}=true", annotations::ENABLED));
        let mut watches = vec![
            workloads::<Deployment>(Kind::DEPLOYMENT, scope.api(client), mtls),
            workloads::<StatefulSet>(Kind::STATEFUL_SET, scope.api(client), mtls),
            workloads::<DaemonSet>(Kind::DAEMON_SET, scope.api(client), mtls),
        ];
        if self.settings.rollouts {
            // While the definition is absent the watch goes on trying.
            watches.push(workloads::<Rollout>(Kind::ROLLOUT, scope.api(client), mtls));
        }
        let kinds = watches.len();
        watches.push(changes(scope.api(client), ours).map(Event::Service).boxed());
        let mut events = stream::select_all(watches);
        loop {
            // Wishes that are not known yet could look like wishes given up.
            let settled = self.settled.len() == kinds;
            tokio::select! {
                () = stop.cancelled() => return,
                Some(event) = events.next() => self.take(event).await,
                key = self.queue.next(), if settled => self.reconcile(key).await,
            }
        }
    }

    async fn take(&mut self, event: Event) {
        match event {
            Event::Workload(kind, seen) => self.workload(kind, seen).await,
            Event::Service(Change::Apply(service)) => self.queue.add(ObjectKey::of(&service), Instant::now()),
            Event::Service(Change::Delete(key)) => self.queue.add(key, Instant::now()),
            Event::Service(Change::Synced | Change::Absent | Change::Forbidden) => {}
        }
    }

    async fn workload(&mut self, kind: Kind, seen: Seen) {
        match seen {
            Seen::Workload(owner, wanted) => {
                let id: WorkloadId = (kind, owner.key.clone());
                let desired = match wanted {
                    Wanted::Nothing => {
                        self.forget_told(&id);
                        None
                    }
                    Wanted::Service(desired) => Some(*desired),
                    Wanted::Invalid(why) => {
                        let note = format!("no Service for this app: {why}");
                        self.refuse(&owner, "invalid", note).await;
                        None
                    }
                };
                let concerned = self.claims.set(id, desired);
                self.look_at(concerned);
            }
            Seen::Gone(key) => {
                let id = (kind, key);
                self.forget_told(&id);
                let concerned = self.claims.set(id, None);
                self.look_at(concerned);
            }
            Seen::All => {
                self.known.insert(kind);
                self.settled.insert(kind);
            }
            Seen::Absent => {
                self.known.remove(&kind);
                self.settled.insert(kind);
                // They went with their definition.
                let concerned = self.claims.forget(kind);
                self.look_at(concerned);
            }
            Seen::Forbidden => {
                self.known.remove(&kind);
                self.settled.insert(kind);
            }
        }
    }

    fn forget_told(&mut self, (kind, key): &WorkloadId) {
        self.told.retain(|owner, _| (&owner.kind, &owner.key) != (kind, key));
    }

    fn look_at(&self, services: Vec<ObjectKey>) {
        for service in services {
            self.queue.add(service, Instant::now());
        }
    }

    async fn reconcile(&mut self, key: ObjectKey) {
        match self.settle(&key).await {
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

    async fn settle(&mut self, key: &ObjectKey) -> Result<(), String> {
        let api: Api<Service> = Api::namespaced(self.client.clone(), &key.namespace);
        let existing = in_time(api.get_opt(&key.name))
            .await
            .map_err(|error| error.to_string())?;
        let holder = existing.as_ref().and_then(controller);
        let (desired, rivals) = match self.claims.of(key, holder.map(|owner| owner.uid.as_str())) {
            Some((desired, rivals)) => (Some(desired.clone()), rivals.into_iter().cloned().collect()),
            None => (None, Vec::new()),
        };
        if let Some(winner) = desired.as_ref().map(|desired| &desired.owner) {
            for rival in rivals {
                let why = format!(
                    "Service {} belongs to {} {}, which has the same app id",
                    key.name, winner.kind.kind, winner.key.name
                );
                self.refuse(&rival, "conflict", why).await;
            }
        }
        let action = decide(existing.as_ref(), desired.as_ref(), &self.known);
        if self.hopeless.get(key) != desired.as_ref() {
            self.hopeless.remove(key);
        }
        match (action, existing, desired) {
            (Action::Create | Action::Update, _, Some(_)) if self.hopeless.contains_key(key) => {}
            (Action::Create, existing, Some(desired)) => {
                let created = self.metrics.service_created.clone();
                self.write(&api, desired, existing, &created).await?;
            }
            (Action::Update, existing, Some(desired)) => {
                let updated = self.metrics.service_updated.clone();
                self.write(&api, desired, existing, &updated).await?;
            }
            (Action::Delete, Some(existing), desired) => {
                delete(&api, key, &existing).await?;
                let app = existing.annotations().get(annotations::APP_ID);
                let app = app.map(String::as_str).unwrap_or_default();
                self.metrics.service_deleted.with_label_values(&[app]).inc();
                tracing::info!(service = %key, "deleted the Service of an app that is no more");
                if desired.is_some() {
                    self.queue.add(key.clone(), Instant::now());
                }
            }
            (Action::Refuse(why), _, Some(desired)) => {
                let why = format!("Service {} exists and is not changed: {why}", key.name);
                self.refuse(&desired.owner, "foreign", why).await;
                self.queue.add(key.clone(), Instant::now() + LOOK_AGAIN);
            }
            _ => {}
        }
        Ok(())
    }

    /// Writes and counts; what the API server calls invalid is reported and not tried again.
    async fn write(
        &mut self,
        api: &Api<Service>,
        desired: Desired,
        existing: Option<Service>,
        counter: &IntCounterVec,
    ) -> Result<(), String> {
        match self.writer.write(api, &desired, existing).await {
            Ok(()) => {
                tracing::info!(service = %desired.key(), app = desired.app_id, "Service of an app written");
                self.told.remove(&desired.owner);
                counter.with_label_values(&[&desired.app_id]).inc();
                Ok(())
            }
            Err(Failure::Invalid(why)) => {
                self.refuse(&desired.owner, "invalid", why).await;
                self.hopeless.insert(desired.key(), desired);
                Ok(())
            }
            Err(Failure::Forbidden(error) | Failure::Other(error)) => Err(error),
        }
    }

    /// Tells a workload once why it gets no Service.
    async fn refuse(&mut self, owner: &Owner, reason: &'static str, note: String) {
        if self.told.get(owner) == Some(&note) {
            return;
        }
        self.metrics.service_refused.with_label_values(&[reason]).inc();
        tracing::warn!(kind = owner.kind.kind, workload = %owner.key, reason, note, "no Service for a workload");
        self.told.insert(owner.clone(), note.clone());
        let regarding = reference(owner.kind.api_version, owner.kind.kind, &owner.key, &owner.uid);
        let notice = Notice {
            warning: true,
            reason: EventReason::ServiceRefused.as_str(),
            action: "ReconcileService",
            note,
        };
        self.events.publish(&regarding, notice).await;
    }
}

/// The workloads of a kind, and what they want.
fn workloads<K>(kind: Kind, api: Api<Workload<K>>, mtls: bool) -> BoxStream<'static, Event>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + 'static,
    Workload<K>: Clone + Debug + Send,
{
    let seen = move |change: Change<Workload<K>>| match change {
        Change::Apply(workload) => Seen::Workload(Owner::of(kind, &workload), wanted(kind, &workload, mtls)),
        Change::Delete(key) => Seen::Gone(key),
        Change::Synced => Seen::All,
        Change::Absent => Seen::Absent,
        Change::Forbidden => Seen::Forbidden,
    };
    changes(api, watcher::Config::default())
        .map(move |change| Event::Workload(kind, seen(change)))
        .boxed()
}
