//! Sentry: the certificate authority that gives every process its SPIFFE identity.

mod api;
mod args;
mod bundle;
pub mod ca;
mod expand;
mod follow;
mod identity;
mod jwt;
mod metrics;
mod names;
mod oidc;
mod rotation;
mod settings;
mod store;
mod validate;

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use arc_swap::ArcSwapOption;
use outrigger_core::{SpiffeId, cluster_domain, control_plane::Service};
use outrigger_identity::{AnchorSource, Changes, ClientAuth, Identity, KeyAlgorithm, Limits, Listener};
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
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use args::Args;
use args::{Mode, Options};
use bundle::Bundle;
use ca::Profile;
use follow::Follower;
use jwt::{JwtKeys, JwtStore};
use metrics::Metrics;
use names::Names;
use oidc::Oidc;
use rotation::{Plan, RenewalMetrics, Reporter};
use settings::{Configured, LiveSettings, Settings, Source};
use store::{FileStore, KubernetesStore, Store, TrustBundle, store_changes};
use validate::{InsecureValidator, KubernetesValidator, Validators};

/// Calls in flight get this long at shutdown; clients wait three seconds for an answer.
const DRAIN: Duration = Duration::from_secs(5);

/// Connections at once. A client asks once and leaves, so more than it takes to keep the API server busy would only take memory;
/// a client's deadline begins when it is connected.
const CONNECTIONS: usize = 64;
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
    let source = configuration(&args.config, &options, clients.as_ref());
    let configured = source.load().await?;
    let settings = LiveSettings::new(configured.settings);
    let validators = Arc::new(validators(&options, &configured, clients.as_ref(), &id));
    let (store, jwt_store) = stores(&options, clients.as_ref());
    let renewal = renewal(&options, &id, configured.settings);
    let mut bundle = Bundle::new(store, renewal, settings.clone(), metrics.clone(), reporter);
    bundle.start(&server_target, &stop).await?;
    let mut jwt = JwtKeys::new(jwt_store, options.jwt.clone());
    jwt.start(&server_target, &stop).await?;
    let Some(authority) = bundle.current.get() else {
        return Ok(());
    };

    let own = identity::OwnIssuer {
        current: bundle.current.clone(),
        id: id.clone(),
        settings: settings.clone(),
        metrics: metrics.clone(),
    };
    let anchors = AnchorSource::Static(authority.anchors_pem().to_owned());
    let (own_identity, renewal) = Identity::with_issuer(anchors, KeyAlgorithm::Ed25519, Arc::new(own))?;
    let mut tasks = Tasks::new(stop.clone());
    tasks.spawn("own certificate", renew(renewal, health.clone(), stop.clone()));
    if let (Some(clients), Some(validator)) = (&clients, &validators.kubernetes) {
        tasks.spawn("pod watch", validator.watch(clients, &health, stop.clone()));
    }
    let api = api::Api {
        current: bundle.current.clone(),
        minter: jwt.current(),
        minting: Semaphore::new(std::thread::available_parallelism().map_or(2, std::num::NonZero::get)),
        validators: validators.clone(),
        settings: settings.clone(),
        names: Names {
            namespace: options.namespace.clone(),
            cluster_domain: cluster_domain(&args, &options),
            scheduler_replicas: options.policy.scheduler_replicas,
        },
        policy: options.policy.clone(),
        metrics,
    };
    if let Some(server) = oidc_server(&options, &jwt) {
        let target = health.target("oidc-server");
        tasks.spawn("OIDC server", oidc::serve(server, target, stop.clone()));
    }
    let follower = Follower::new((source, configured), settings, validators, id, health, &stop);
    until_stopped(&mut tasks, "configuration", follower.follow(stop.clone()));
    let changes = changes(&options);
    if let Some(clients) = &clients {
        let watched = changes.forward(store_changes(&clients.watches, &options.namespace));
        let stop = stop.clone();
        until_stopped(&mut tasks, "trust bundle watch", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = watched => {}
            }
        });
    }
    until_stopped(&mut tasks, "bundle", bundle.follow(changes.clone(), stop.clone()));
    if options.jwt.enabled {
        until_stopped(&mut tasks, "JWT signing key", jwt.follow(changes, stop.clone()));
    }
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
            .add_service(CaServer::new(api).max_decoding_message_size(api::MAX_REQUEST))
            .serve_with_incoming_shutdown(listener, stop.cancelled_owned())
            .await
            .context("gRPC server")
    });
    tasks.run(DRAIN).await
}

/// A task that does nothing but follow something until it is told to stop.
fn until_stopped(tasks: &mut Tasks, name: &'static str, following: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn(name, async move {
        following.await;
        Ok(())
    });
}

/// Where the control plane's Configuration is.
fn configuration(name: &str, options: &Options, clients: Option<&Clients>) -> Source {
    let Some(clients) = clients else {
        return Source::File(name.to_owned());
    };
    let name = if name.is_empty() {
        outrigger_core::control_plane::SYSTEM_CONFIGURATION
    } else {
        name
    };
    Source::Kubernetes {
        client: clients.calls.clone(),
        namespace: options.namespace.clone(),
        name: name.to_owned(),
    }
}

/// Those that are on from the start. The JWKS validator joins them where it is configured, and outside Kubernetes replaces the
/// insecure one.
fn validators(options: &Options, configured: &Configured, clients: Option<&Clients>, id: &SpiffeId) -> Validators {
    let accounts = options.policy.control_plane_accounts.clone();
    let kubernetes = clients.map(|clients| {
        Box::new(KubernetesValidator::new(
            clients.calls.clone(),
            id,
            &options.namespace,
            accounts,
        ))
    });
    let insecure = (kubernetes.is_none() && configured.jwks.is_none()).then(|| {
        tracing::warn!("every identity is granted to everyone: this mode is for a machine of one's own");
        InsecureValidator {
            control_plane_local_only: options.policy.control_plane_local_only,
        }
    });
    Validators {
        insecure,
        kubernetes,
        jwks: Arc::new(ArcSwapOption::empty()),
    }
}

/// When and how the authority is renewed, and what a new one says.
fn renewal(options: &Options, id: &SpiffeId, settings: Settings) -> (Profile, Plan) {
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
    (profile, plan)
}

/// Of the authority's material, and of the key that signs JWT-SVIDs.
fn stores(options: &Options, clients: Option<&Clients>) -> (Store, JwtStore) {
    match clients {
        None => (
            Store::Files(FileStore::new(options.names.clone())),
            JwtStore::Files(options.jwt.clone()),
        ),
        Some(clients) => {
            let objects = TrustBundle::new(clients.calls.clone(), &options.namespace);
            (
                Store::Kubernetes(Box::new(KubernetesStore::new(objects.clone(), &options.names))),
                JwtStore::kubernetes(objects, &options.jwt),
            )
        }
    }
}

/// The folders of all material. In Kubernetes the Secret is mounted there: nothing is read from it, but its change tells that it is time to
/// look.
fn changes(options: &Options) -> Changes {
    let names = &options.names;
    let files = [
        &names.anchors,
        &names.issuer_chain,
        &names.issuer_key,
        &options.jwt.key,
        &options.jwt.jwks,
    ];
    Changes::of(files.map(AsRef::<Path>::as_ref))
}

fn oidc_server(options: &Options, jwt: &JwtKeys) -> Option<Oidc> {
    let oidc = options.oidc.clone()?;
    if options.jwt.issuer.as_deref().unwrap_or_default().is_empty() {
        tracing::warn!(
            "tokens have no issuer while --jwt-issuer is not set, but the discovery document names one: OIDC clients will refuse them"
        );
    }
    Some(Oidc {
        current: jwt.current(),
        options: oidc,
        jwt_issuer: options.jwt.issuer.clone(),
        algorithm: options.jwt.algorithm.name(),
    })
}

/// The flag; else in Kubernetes what the resolver's search list says, and elsewhere, as upstream has it, the trust domain.
fn cluster_domain(args: &Args, options: &Options) -> String {
    if let Some(domain) = args
        .policy
        .cluster_domain
        .as_deref()
        .filter(|domain| !domain.is_empty())
    {
        return domain.trim_matches('.').to_owned();
    }
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

    /// Reads a set of keys and verifies a token with it, as the JWKS validator does.
    pub fn signed_token(token: &str, keys: &str) {
        crate::validate::fuzzing::signed_token(token, keys);
        crate::jwt::fuzzing::claims(token);
    }
}
