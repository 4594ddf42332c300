//! Sentry: the certificate authority that gives every process its SPIFFE identity.

mod api;
mod args;
mod bundle;
pub mod ca;
mod identity;
mod metrics;
mod names;
mod rotation;
mod settings;
mod store;
mod validate;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use futures::StreamExt;
use kube::{Api, core::DynamicObject};
use outrigger_core::{cluster_domain, control_plane::Service};
use outrigger_identity::{AnchorSource, ClientAuth, Identity, KeyAlgorithm, Limits, Listener};
use outrigger_process::{
    health::{Health, Target},
    http,
    identity::renew,
    kubernetes::client::{self, Clients},
    logs,
    metrics::{registry, serve as serve_metrics},
    privileges,
    tasks::{Tasks, stop_on_signals},
};
use outrigger_proto::sentry::ca_server::CaServer;
use tokio_util::sync::CancellationToken;

pub use args::Args;
use args::{Mode, Options};
use bundle::Bundle;
use ca::Profile;
use metrics::Metrics;
use rotation::{Plan, RenewalMetrics, Reporter};
use settings::Settings;
use store::{FileStore, KubernetesStore, Store, store_changes};
use validate::{KubernetesValidator, Validators};

/// Calls in flight get this long at shutdown; clients wait three seconds for an answer.
const DRAIN: Duration = Duration::from_secs(5);

/// Connections at once. A client asks once and leaves, so more than it takes to keep the API server busy would only take memory;
/// a client's deadline begins when it is connected.
const CONNECTIONS: usize = 128;
/// After this a connection has to make room for others.
const CONNECTION_AGE: Duration = Duration::from_secs(10);

/// Runs until a signal.
///
/// # Errors
/// What stopped it.
pub async fn run(args: Args) -> anyhow::Result<()> {
    serve(args, stop_on_signals()?).await
}

/// Runs until `stop`.
///
/// # Errors
/// What stopped it.
pub async fn serve(args: Args, stop: CancellationToken) -> anyhow::Result<()> {
    let options = args.options()?;
    let clients = match options.mode {
        Mode::Standalone => None,
        Mode::Kubernetes => {
            privileges::refuse_root(privileges::root_is_allowed())?;
            Some(client::clients(args.kubeconfig.as_deref(), false).await?)
        }
    };
    let health = Health::default();
    // Registered before anybody can ask, or the health server alone would count as ready.
    let server_target = health.target("sentry-server");
    let registry = registry();
    let metrics = Metrics::register(&registry)?;
    let reporter = Reporter::new(
        RenewalMetrics::register(&registry)?,
        health.target("sentry-authority"),
        clients.as_ref().map(|clients| clients.calls.clone()),
        logs::hostname(),
    );
    let mut tasks = Tasks::new(stop.clone());
    tasks.spawn("health server", {
        let (health, host, port, stop) = (
            health.clone(),
            args.healthz_listen_address.clone(),
            args.healthz_port,
            stop.clone(),
        );
        async move { health.serve(&host, port, stop).await }
    });
    tasks.spawn(
        "metrics server",
        serve_metrics(args.metrics.clone(), registry, health.clone(), stop.clone()),
    );
    tasks.spawn(
        "certificate authority",
        authority(args, options, clients, health, server_target, (metrics, reporter), stop),
    );
    tasks.run(DRAIN).await
}

/// Loads the authority, then signs for itself and for others.
async fn authority(
    args: Args,
    options: Options,
    clients: Option<Clients>,
    health: Health,
    server_target: Target,
    (metrics, reporter): (Metrics, Reporter),
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let id = Service::Sentry
        .spiffe_id(&options.trust_domain, &options.namespace)
        .context("own identity")?;
    let settings = match &clients {
        None => settings::from_file(&args.config)?,
        Some(clients) => kubernetes_settings(clients, &options.namespace, &args.config).await?,
    };
    let (store, validators) = match &clients {
        None => {
            tracing::warn!("every identity is granted to everyone: this mode is for a machine of one's own");
            (
                Store::Files(FileStore::new(options.names.clone())),
                Validators::Insecure,
            )
        }
        Some(clients) => (
            Store::Kubernetes(Box::new(KubernetesStore::new(
                clients.calls.clone(),
                &options.namespace,
                &options.names,
            ))),
            Validators::Kubernetes(Box::new(KubernetesValidator::new(
                clients.calls.clone(),
                &id,
                &options.namespace,
            ))),
        ),
    };
    let renewal = options.renewal;
    let plan = Plan {
        enabled: renewal.enabled,
        ttl: renewal.ttl,
        threshold: renewal.threshold,
        grace: renewal.grace,
        skew: settings.skew,
    };
    let profile = Profile {
        id: id.clone(),
        trust_domain: options.trust_domain.clone(),
        ttl: renewal.ttl,
        skew: settings.skew,
    };
    let mut bundle = Bundle::new(store, profile, plan, metrics.clone(), reporter);
    bundle.start(&server_target, &stop).await?;
    let Some(authority) = bundle.current.get() else {
        return Ok(());
    };

    let own = identity::OwnIssuer {
        current: bundle.current.clone(),
        id,
        settings,
    };
    let anchors = AnchorSource::Static(authority.anchors_pem().to_owned());
    let (own_identity, renewal) = Identity::with_issuer(anchors, KeyAlgorithm::Ed25519, Arc::new(own))?;
    let mut tasks = Tasks::new(stop.clone());
    tasks.spawn("own certificate", renew(renewal, health.clone(), stop.clone()));
    if let (Some(clients), Validators::Kubernetes(validator)) = (&clients, &validators) {
        let target = health.target("sentry-kubernetes-validator");
        tasks.spawn("pod watch", validator.watch(clients, target, stop.clone()));
    }
    let api = api::Api {
        current: bundle.current.clone(),
        validators: Arc::new(validators),
        settings,
        namespace: options.namespace.clone(),
        cluster_domain: cluster_domain(&options),
        metrics,
    };
    tasks.spawn("bundle", {
        let changes = match &clients {
            Some(clients) => store_changes(&clients.watches, &options.namespace).boxed(),
            None => futures::stream::pending().boxed(),
        };
        let stop = stop.clone();
        async move {
            bundle.follow(changes, stop).await;
            Ok(())
        }
    });
    tasks.spawn("server", async move {
        tokio::select! {
            () = own_identity.ready() => {}
            () = stop.cancelled() => return Ok(()),
        }
        // The port opens only once there is a certificate to show.
        let listener = http::bind(&args.listen_address, args.port, "certificate requests").await?;
        let listener = Listener::tls(
            listener,
            own_identity.server_tls(ClientAuth::None, &[b"h2"]),
            Limits {
                connections: Some(CONNECTIONS),
                ..Limits::default()
            },
        )?;
        server_target.ready();
        tonic::transport::Server::builder()
            .max_connection_age(CONNECTION_AGE)
            .max_connection_age_grace(DRAIN)
            .add_service(CaServer::new(api))
            .serve_with_incoming_shutdown(listener, stop.cancelled_owned())
            .await
            .context("gRPC server")
    });
    tasks.run(DRAIN).await
}

/// The Configuration of the control plane. It has to exist: lifetimes must not depend on what is installed first.
async fn kubernetes_settings(clients: &Clients, namespace: &str, name: &str) -> anyhow::Result<Settings> {
    let name = if name.is_empty() {
        outrigger_core::control_plane::SYSTEM_CONFIGURATION
    } else {
        name
    };
    let api: Api<DynamicObject> =
        Api::namespaced_with(clients.calls.clone(), namespace, &validate::configuration_resource());
    let object = api
        .get(name)
        .await
        .with_context(|| format!("cannot read the Configuration {namespace}/{name}"))?;
    let spec = object.data.get("spec").cloned().unwrap_or_default();
    let spec: settings::Spec = if spec.is_null() {
        settings::Spec::default()
    } else {
        serde_json::from_value(spec).with_context(|| format!("Configuration {namespace}/{name}: spec"))?
    };
    spec.settings()
        .with_context(|| format!("Configuration {namespace}/{name}"))
}

/// In Kubernetes from the resolver's search list; elsewhere, as upstream has it, the trust domain.
fn cluster_domain(options: &Options) -> String {
    match (options.mode, std::fs::read_to_string("/etc/resolv.conf")) {
        (Mode::Kubernetes, Ok(text)) => cluster_domain::from_resolv_conf(&text),
        _ => options.trust_domain.to_string(),
    }
}

/// What fuzz targets reach and nobody else; `cargo fuzz` sets the condition.
#[cfg(fuzzing)]
pub mod fuzzing {
    /// Reads a token, and a user name, as the Kubernetes validator does.
    pub fn token(text: &str) {
        crate::validate::fuzzing::token(text);
    }
}
