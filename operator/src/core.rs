//! The operator's parts, put together: what is read, what is served from it, what is written.

use std::{sync::Arc, time::Duration};

use outrigger_core::SpiffeId;
use outrigger_crds::{DaprResource, Subscription};
use outrigger_process::{
    health::Target,
    kubernetes::{client::Clients, watch::ObjectKey},
    tasks::Tasks,
};
use tokio::{
    sync::watch,
    time::{Instant, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::Api,
    controllers::{
        services,
        status::{Board, Writer},
    },
    events::Events,
    index::Index,
    injections::{self, Injections},
    kinds::{Indexes, Kind, Visitor},
    metrics::Metrics,
    missing::{self, Admission, Finder, Probe, Refusals, Refused, Teller},
    pods::{Pods, Selection},
    reports::{Gatherer, Gathering, Ledger},
    scope::Scope,
    secrets::{Follower, FromApiServer, KEEP, Secrets},
    system_configuration::{self, SystemConfiguration},
    trust,
    watchdog::{self, Watchdog},
    watches::{Caches, PODS, follow_kind, follow_pods},
};

/// Readiness waits no longer for the list of Subscriptions. The API server may have to convert what it lists, and call for that
/// the webhook of this very process, to which upstream's chart lets it only once the process is ready.
const CONVERTED_GRACE: Duration = Duration::from_secs(5);

/// What the operator knows, shared by its parts.
pub struct Core {
    clients: Clients,
    scope: Scope,
    metrics: Metrics,
    indexes: Indexes,
    pods: Arc<Pods>,
    secrets: Arc<Secrets>,
    board: Arc<Board>,
    events: Arc<Events>,
    ledger: Arc<Ledger>,
    gatherer: Gatherer,
    refusals: Arc<Refusals>,
}

impl Core {
    /// Nothing is read yet. `system` is the control plane's own Configuration; `instance` names this process in Events.
    pub fn new(clients: Clients, scope: Scope, metrics: Metrics, system: ObjectKey, instance: String) -> Self {
        let source = FromApiServer(clients.calls.clone());
        let events = Events::new(clients.calls.clone(), instance, metrics.kubernetes_events.clone());
        let (pods, ledger) = (Arc::<Pods>::default(), Arc::<Ledger>::default());
        let board = Arc::new(Board::new(system, pods.clone()));
        Self {
            indexes: Indexes::new(&metrics),
            pods,
            secrets: Arc::new(Secrets::new(Box::new(source), metrics.clone())),
            gatherer: Gatherer::new(board.clone(), ledger.clone()),
            ledger,
            board,
            events: Arc::new(events),
            refusals: Arc::default(),
            clients,
            scope,
            metrics,
        }
    }

    /// Starts the watches. `caches` becomes ready when all first lists are complete.
    pub fn spawn_watches(&self, tasks: &mut Tasks, caches: Target) {
        let mut names = Names(PODS.to_vec());
        self.indexes.visit(&mut names);
        let caches = Arc::new(Caches::new(caches, names.0));
        self.indexes.visit(&mut Spawner {
            core: self,
            tasks,
            caches: &caches,
        });
        let (waived, stop) = (caches.clone(), tasks.stop().clone());
        tasks.spawn("readiness without Subscriptions", async move {
            let waiver = tokio::time::timeout(CONVERTED_GRACE, stop.cancelled());
            if waiver.await.is_err() {
                waived.ready(Subscription::PLURAL);
            }
            stop.cancelled().await;
            Ok(())
        });
        for selection in Selection::ALL {
            let pods = follow_pods(
                self.clients.watches.clone(),
                self.scope.clone(),
                selection,
                self.pods.clone(),
                self.board.clone(),
                caches.clone(),
                tasks.stop().clone(),
            );
            tasks.spawn("pod watch", async move {
                pods.await;
                Ok(())
            });
        }
        let follower = Follower::new(
            self.secrets.clone(),
            self.indexes.clone(),
            self.board.clone(),
            self.clients.watches.clone(),
        );
        let stop = tasks.stop().clone();
        tasks.spawn("secrets", async move {
            tokio::select! {
                () = follower.run() => {}
                () = stop.cancelled() => {}
            }
            Ok(())
        });
        let stop = tasks.stop().clone();
        let (indexes, secrets) = (self.indexes.clone(), self.secrets.clone());
        tasks.spawn("sweep", async move {
            tokio::select! {
                () = sweep(indexes, secrets) => {}
                () = stop.cancelled() => {}
            }
            Ok(())
        });
    }

    /// The API for sidecars; its streams end with `stop`.
    pub fn api(&self, stop: CancellationToken) -> Api {
        Api {
            indexes: self.indexes.clone(),
            pods: self.pods.clone(),
            secrets: self.secrets.clone(),
            metrics: self.metrics.clone(),
            scope: self.scope.clone(),
            reports: self.ledger.clone(),
            gathering: None,
            injections: None,
            stop,
        }
    }

    /// Follows the control plane's Configuration, of which `used` was read.
    pub fn follow_system(
        &self,
        used: SystemConfiguration,
        key: ObjectKey,
        mtls: watch::Sender<bool>,
        tasks: &mut Tasks,
    ) {
        let follower = system_configuration::Follower {
            key,
            used,
            mtls,
            board: self.board.clone(),
            events: self.events.clone(),
        };
        let (client, stop) = (self.clients.watches.clone(), tasks.stop().clone());
        tasks.spawn("control plane's Configuration", async move {
            stop.run_until_cancelled(follower.run(client)).await;
            Ok(())
        });
    }

    /// What the sidecars of this replica report.
    pub fn ledger(&self) -> Arc<Ledger> {
        self.ledger.clone()
    }

    /// The service that replicas with this identity share reports with.
    pub fn gathering(&self, operator: SpiffeId) -> Gathering {
        self.gatherer.service(operator, self.metrics.clone())
    }

    /// The service that injectors with this identity call, and what has to run beside it.
    pub fn injections(&self, injector: SpiffeId) -> (Injections, injections::Writer) {
        let refused = Refused {
            pods: self.pods.clone(),
            refusals: self.refusals.clone(),
            teller: self.teller(),
        };
        let (client, scope) = (self.clients.calls.clone(), self.scope.clone());
        Injections::new(injector, client, refused, scope, self.metrics.clone())
    }

    fn teller(&self) -> Teller {
        Teller {
            events: self.events.clone(),
            found: self.metrics.missing_sidecars.clone(),
        }
    }

    /// Does the writing, as the replica that holds the lease, until `stop`.
    pub async fn write(&self, features: Features, stop: CancellationToken) {
        let Features {
            services,
            missing,
            watchdog,
            trust,
        } = features;
        tokio::join!(
            self.gatherer.run(stop.clone()),
            self.write_statuses(stop.clone()),
            self.keep_services(services, stop.clone()),
            self.look_after_pods(missing, watchdog, stop.clone()),
            self.distribute_trust(trust, stop)
        );
    }

    async fn write_statuses(&self, stop: CancellationToken) {
        let client = self.clients.calls.clone();
        let (board, secrets, events) = (self.board.clone(), self.secrets.clone(), self.events.clone());
        let statuses = Writer::new(board, client, secrets, events, &self.metrics);
        statuses.run(stop).await;
    }

    /// What a change of mTLS means for each Service is found by looking at all workloads again.
    async fn keep_services(&self, services: Option<Services>, stop: CancellationToken) {
        let Some(Services { mut mtls, rollouts }) = services else {
            return;
        };
        while !stop.is_cancelled() {
            let settings = services::Settings {
                mtls: *mtls.borrow_and_update(),
                rollouts,
            };
            let client = self.clients.calls.clone();
            let services = services::Services::new(client, settings, self.metrics.clone(), self.events.clone());
            let ending = stop.child_token();
            let changed = async {
                if mtls.changed().await.is_ok() {
                    ending.cancel();
                }
            };
            tokio::join!(
                services.run(&self.clients, &self.scope, ending.clone()),
                ending.run_until_cancelled(changed)
            );
        }
    }

    async fn distribute_trust(&self, trust: Option<trust::Settings>, stop: CancellationToken) {
        let Some(settings) = trust else {
            return;
        };
        let client = self.clients.calls.clone();
        let (events, writes) = (self.events.clone(), self.metrics.trust_writes.clone());
        let distributor = trust::Distributor::new(client, settings, self.pods.clone(), events, writes);
        distributor.run(&self.clients, &self.scope, stop).await;
    }

    async fn look_after_pods(
        &self,
        missing: Option<missing::Settings>,
        watchdog: Option<watchdog::Settings>,
        stop: CancellationToken,
    ) {
        let Some(settings) = missing else {
            return;
        };
        let (client, namespace) = (self.clients.calls.clone(), settings.control_plane_namespace.clone());
        let (state, admission) = watch::channel(Admission::default());
        let probe = Probe::new(client.clone(), settings, admission);
        let (events, pods) = (self.events.clone(), self.pods.clone());
        let finder = Finder {
            client: client.clone(),
            probe: probe.clone(),
            pods: pods.clone(),
            refusals: self.refusals.clone(),
            teller: self.teller(),
        };
        let ending = stop.clone();
        let following = async {
            tokio::select! {
                () = missing::follow(&self.clients, &namespace, state) => {}
                () = ending.cancelled() => {}
            }
        };
        let watching = async {
            if let Some(settings) = watchdog {
                let watchdog = Watchdog {
                    settings,
                    client,
                    probe,
                    metrics: self.metrics.clone(),
                    events,
                    pods,
                };
                watchdog.run(stop.clone()).await;
            }
        };
        tokio::join!(following, finder.run(stop.clone()), watching);
    }
}

/// What is written besides statuses.
#[derive(Debug, Clone, Default)]
pub struct Features {
    pub services: Option<Services>,
    /// Telling why pods have no sidecar.
    pub missing: Option<missing::Settings>,
    /// Works on what is known when `missing` is set, and not without it.
    pub watchdog: Option<watchdog::Settings>,
    pub trust: Option<trust::Settings>,
}

/// How Services of apps are written.
#[derive(Debug, Clone)]
pub struct Services {
    /// Whether sidecars call each other with mTLS, now and later.
    pub mtls: watch::Receiver<bool>,
    /// Whether Argo Rollouts get Services too.
    pub rollouts: bool,
}

struct Names(Vec<&'static str>);

impl Visitor for Names {
    fn visit<K: Kind>(&mut self, _: &Arc<Index<K>>) {
        self.0.push(K::PLURAL);
    }
}

struct Spawner<'a> {
    core: &'a Core,
    tasks: &'a mut Tasks,
    caches: &'a Arc<Caches>,
}

impl Visitor for Spawner<'_> {
    fn visit<K: Kind>(&mut self, index: &Arc<Index<K>>) {
        let following = follow_kind(
            self.core.clients.watches.clone(),
            self.core.scope.clone(),
            index.clone(),
            self.core.board.clone(),
            self.caches.clone(),
            self.tasks.stop().clone(),
        );
        self.tasks.spawn(K::PLURAL, async move {
            following.await;
            Ok(())
        });
    }
}

/// Throws away what is kept for a few seconds only.
async fn sweep(indexes: Indexes, secrets: Arc<Secrets>) {
    struct Expire(Instant);
    impl Visitor for Expire {
        fn visit<K: Kind>(&mut self, index: &Arc<Index<K>>) {
            index.expire(self.0);
        }
    }
    let mut ticks = interval(KEEP);
    loop {
        let now = ticks.tick().await;
        indexes.visit(&mut Expire(now));
        secrets.expire(now);
    }
}
