//! The process: what is started in which order, and how it ends.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, anyhow};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use outrigger_core::control_plane::Service;
use outrigger_identity::{AnchorSource, ClientAuth, Identity, KeyAlgorithm, Limits, Listener, Options};
use outrigger_process::{
    health::{Health, Target},
    http,
    identity::renew,
    kubernetes::{
        client::{self, Clients},
        lease::{Election, Params},
        trust_bundle,
        watch::ObjectKey,
        webhook,
    },
    metrics,
    tasks::{Tasks, stop_on_signals},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    api::Api,
    args::Args,
    convert::{self, Registration},
    core::{Core, Features, Services},
    environment::Environment,
    metrics::Metrics,
    missing,
    reports::Relay,
    scope::Scope,
    system_configuration::{self, SystemConfiguration},
    trust, watchdog,
};

/// Name of the Lease that decides who writes.
const LEASE: &str = "operator.dapr.io";
/// How long everything together may take to stop, as in upstream.
const DRAIN: Duration = Duration::from_secs(30);

/// Runs the operator until a signal.
///
/// # Errors
/// Anything that it cannot go on without.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let Args {
        config,
        watch_interval,
        max_pod_restarts_per_minute,
        disable_leader_election,
        disable_service_reconciler,
        watch_namespace,
        enable_argo_rollout_service_reconciler,
        watchdog_can_patch_pod_labels,
        trust_anchors_file,
        trust_distribution,
        trust_anchors_configmap_name,
        port,
        listen_address,
        healthz_port,
        healthz_listen_address,
        webhook_server_port,
        webhook_server_listen_address,
        cache_sync_period: _,
        kubeconfig,
        logs: _,
        metrics: metrics_args,
    } = args;
    let environment = Environment::read()?;
    let watchdog = watchdog::Mode::parse(&watch_interval).map_err(|error| anyhow!(error))?;
    let watchdog = watchdog.map(|mode| watchdog::Settings {
        mode,
        per_minute: max_pod_restarts_per_minute,
        can_label: watchdog_can_patch_pod_labels,
    });
    if watchdog.is_some() && disable_leader_election {
        tracing::warn!("without leader election every replica's watchdog evicts pods: run a single replica");
    }
    let stop = stop_on_signals()?;
    let health = Health::default();
    let registry = metrics::registry();
    let metrics = Metrics::new(&registry).context("metrics")?;
    // Not built when there are none: readiness waits for every target that is registered.
    let conversion = match environment.webhooks {
        true => Some(Conversion {
            listen: (webhook_server_listen_address, webhook_server_port),
            target: health.target("operator-webhook"),
            metrics: convert::Metrics::new(&registry).context("metrics")?,
        }),
        false => None,
    };
    let operator = Operator {
        clients: client::clients(Some(Path::new(&kubeconfig)), true).await?,
        config,
        scope: Scope::new(&watch_namespace),
        leader_election: !disable_leader_election,
        service_reconciler: !disable_service_reconciler,
        rollouts: enable_argo_rollout_service_reconciler,
        watchdog,
        trust_anchors_file,
        trust_distribution: trust_distribution.then_some(trust_anchors_configmap_name),
        listen: (listen_address, port),
        conversion,
        environment,
        health: health.clone(),
        targets: Targets::register(&health),
        metrics,
    };

    let mut tasks = Tasks::new(stop.clone());
    tasks.spawn(
        "metrics server",
        metrics::serve(metrics_args, registry, health.clone(), stop.clone()),
    );
    tasks.spawn("health server", {
        let stop = stop.clone();
        async move { health.serve(&healthz_listen_address, healthz_port, stop).await }
    });
    tasks.spawn("operator", operator.run(stop));
    tasks.run(DRAIN).await
}

/// What is left of the flags once they are understood.
struct Operator {
    clients: Clients,
    /// Name of the control plane's Configuration.
    config: String,
    environment: Environment,
    scope: Scope,
    leader_election: bool,
    service_reconciler: bool,
    rollouts: bool,
    watchdog: Option<watchdog::Settings>,
    trust_anchors_file: PathBuf,
    /// Name of the ConfigMaps with the trust anchors.
    trust_distribution: Option<String>,
    /// Address and port of the API.
    listen: (String, u16),
    /// `None` when webhooks are switched off.
    conversion: Option<Conversion>,
    health: Health,
    targets: Targets,
    metrics: Metrics,
}

/// The conversion webhook.
#[derive(Clone)]
struct Conversion {
    listen: (String, u16),
    target: Target,
    metrics: convert::Metrics,
}

/// What readiness needs, registered before anything is waited for.
#[derive(Clone)]
struct Targets {
    configuration: Target,
    cache: Target,
    security: Target,
    api_server: Target,
}

impl Targets {
    fn register(health: &Health) -> Self {
        Self {
            configuration: health.target("operator-configuration"),
            cache: health.target("operator-cache"),
            security: health.target("operator-security"),
            api_server: health.target("operator-api-server"),
        }
    }
}

impl Operator {
    async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let targets = self.targets.clone();
        let namespace = &self.environment.namespace;
        let loading = system_configuration::load(
            self.clients.calls.clone(),
            namespace,
            &self.config,
            &targets.configuration,
        );
        let system = tokio::select! {
            system = loading => system?,
            () = stop.cancelled() => return Ok(()),
        };
        let options = self.identity_options(&system);
        let (identity, renewal) = Identity::new(options.clone()).context("security provider")?;

        let anchors = identity.anchors();
        let configuration = ObjectKey::new(namespace, &self.config);
        let core = Core::new(
            self.clients.clone(),
            self.scope.clone(),
            self.metrics.clone(),
            configuration.clone(),
            self.environment.hostname.clone(),
        );
        let core = Arc::new(core);
        let mut tasks = Tasks::new(stop.child_token());
        core.spawn_watches(&mut tasks, targets.cache.clone());
        let (changed, mtls) = watch::channel(system.mtls);
        core.follow_system(system.clone(), configuration, changed, &mut tasks);
        tasks.spawn(
            "security provider",
            renew(renewal, self.health.clone(), tasks.stop().clone()),
        );
        if let Some(conversion) = &self.conversion {
            let registration = Registration {
                clients: self.clients.clone(),
                namespace: namespace.clone(),
                anchors: identity.anchors(),
                metrics: conversion.metrics.clone(),
            };
            let stop = tasks.stop().clone();
            tasks.spawn("conversion registration", async move {
                registration.run(stop).await;
                Ok(())
            });
            let options = Options {
                // Some managed API servers refuse a webhook's certificate otherwise. Sidecars are not asked to wait for it: to
                // sign with RSA takes as long as the rest of their handshake.
                key: KeyAlgorithm::Rsa2048,
                ..options
            };
            let (identity, renewal) = Identity::new(options).context("security provider")?;
            let stop = tasks.stop().clone();
            // What it reports the other one reports too: sentry is the same.
            tasks.spawn("webhook certificate", async move {
                renewal.run(|_| {}, stop).await.map_err(Into::into)
            });
            let serving = serve_conversions(conversion.clone(), identity, tasks.stop().clone());
            tasks.spawn("conversion webhook", serving);
        }
        let injector = Service::Injector.spiffe_id(&system.trust_domain, namespace)?;
        let (injections, writer) = core.injections(injector);
        let ending = tasks.stop().clone();
        tasks.spawn("Events about injections", async move {
            tokio::select! {
                () = writer.run() => {}
                () = ending.cancelled() => {}
            }
            Ok(())
        });
        let own_id = Service::Operator.spiffe_id(&system.trust_domain, namespace)?;
        let election = self.election();
        if let Some(election) = &election {
            let relay = Relay {
                ledger: core.ledger(),
                identity: identity.clone(),
                operator: own_id.clone(),
                pods: kube::Api::<Pod>::namespaced(self.clients.calls.clone(), &self.environment.lease_namespace),
                port: self.listen.1,
                me: election.identity().to_owned(),
                holder: election.holder(),
                refused: self.metrics.relay_refused.clone(),
            };
            let stop = tasks.stop().clone();
            tasks.spawn("reports for the leader", async move {
                relay.run(stop).await;
                Ok(())
            });
        }
        let api = Api {
            gathering: Some(core.gathering(own_id)),
            injections: Some(injections),
            ..core.api(tasks.stop().clone())
        };
        let serving = serve(api, identity, self.listen.clone(), targets, tasks.stop().clone());
        tasks.spawn("API server", serving);
        let features = Features {
            services: self.service_reconciler.then_some(Services {
                mtls,
                rollouts: self.rollouts,
            }),
            missing: Some(missing::Settings {
                control_plane_namespace: namespace.clone(),
                anchors: anchors.clone(),
            }),
            watchdog: self.watchdog.clone(),
            trust: self
                .trust_distribution
                .clone()
                .map(|name| trust::Settings { name, anchors }),
        };
        tasks.spawn("leader election", lead(election, core, features, tasks.stop().clone()));
        tasks.run(DRAIN).await
    }

    fn identity_options(&self, system: &SystemConfiguration) -> Options {
        let namespace = &self.environment.namespace;
        Options {
            trust_domain: system.trust_domain.clone(),
            control_plane_namespace: namespace.clone(),
            app_id: Service::Operator.app_id().to_owned(),
            namespace: namespace.clone(),
            sentry_address: system.sentry_address.clone(),
            anchors: AnchorSource::FileOrElse {
                file: self.trust_anchors_file.clone(),
                elsewhere: trust_bundle::anchors(self.clients.calls.clone(), namespace),
            },
            key: KeyAlgorithm::Ed25519,
            kubernetes: true,
            jwt_audiences: Vec::new(),
        }
    }

    /// `None` without election.
    fn election(&self) -> Option<Election> {
        self.leader_election.then(|| {
            let api: kube::Api<Lease> =
                kube::Api::namespaced(self.clients.calls.clone(), &self.environment.lease_namespace);
            // Other replicas find this one's address by what stands before the underscore.
            let identity = format!("{}_{}", self.environment.hostname, uuid::Uuid::new_v4());
            Election::new(api, Params::new(LEASE, identity))
        })
    }
}

/// Writes whenever this replica holds the lease, or at once without election.
async fn lead(
    election: Option<Election>,
    core: Arc<Core>,
    features: Features,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    match election {
        None => core.write(features, stop).await,
        Some(election) => {
            let work = |token| {
                let (core, features) = (core.clone(), features.clone());
                async move { core.write(features, token).await }
            };
            election.lead(stop, work).await;
        }
    }
    Ok(())
}

/// Opens the port once there is a certificate. Until the caches are complete, calls are answered `Unavailable`.
async fn serve(
    api: Api,
    identity: Identity,
    (address, port): (String, u16),
    targets: Targets,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    targets.security.not_ready("waiting for the first certificate");
    tokio::select! {
        () = identity.ready() => targets.security.ready(),
        () = stop.cancelled() => return Ok(()),
    }
    let tcp = http::bind(&address, port, "the API of sidecars").await?;
    let tls = identity.server_tls(ClientAuth::Required, &[b"h2"]);
    let listener = Listener::tls(tcp, tls, Limits::default()).context("API listener")?;
    tracing::info!(address = %listener.local_addr(), "serving the API of sidecars");
    targets.api_server.ready();
    api.serve(listener).await.context("API server")
}

/// Serves the conversion webhook once there is a certificate, and waits for nothing else: lists of Subscriptions may wait for
/// conversions.
async fn serve_conversions(conversion: Conversion, identity: Identity, stop: CancellationToken) -> anyhow::Result<()> {
    let Conversion {
        listen: (address, port),
        target,
        metrics,
    } = conversion;
    let tcp = http::bind(&address, port, "conversion reviews").await?;
    tokio::select! {
        () = identity.ready() => {}
        () = stop.cancelled() => return Ok(()),
    }
    // No client certificate: API servers have none by default.
    let tls = identity.server_tls(ClientAuth::None, &[b"h2", b"http/1.1"]);
    let listener = Listener::tls(tcp, tls, Limits::default()).context("webhook listener")?;
    tracing::info!(address = %listener.local_addr(), "serving the conversion webhook");
    target.ready();
    webhook::serve(listener, convert::router(metrics), stop).await;
    Ok(())
}
