//! Flags, and the wiring of the process.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use clap::Parser;
use outrigger_core::{cluster_domain, control_plane::Service};
use outrigger_identity::{
    AnchorSource, ClientAuth, Expect, Identity, KeyAlgorithm, Limits, Listener, Options, token_is_mounted,
};
use outrigger_process::{
    health::Health,
    http, identity,
    kubernetes::{client, trust_bundle, webhook as server},
    logs::LogArgs,
    metrics::{self, MetricsArgs},
    privileges,
    tasks::{self, Tasks},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::{Cluster, accounts, components, configuration, version},
    environment::Environment,
    metrics::Metrics,
    refusals::{Refusals, Teller},
    registration::Registration,
    settings::Settings,
    webhook::Webhook,
};

/// Tasks get this long to end.
const DRAIN: Duration = Duration::from_secs(6);
/// Reviews are answered without the Configuration after this long: mTLS is on by default.
const CONFIGURATION_DEADLINE: Duration = Duration::from_secs(10);
/// Injects Dapr sidecars into pods.
#[derive(Parser, Debug)]
#[command(name = "injector", disable_version_flag = true)]
pub struct Args {
    /// Port of the webhook.
    #[arg(long, default_value_t = 4000)]
    port: u16,
    /// Address of the webhook; empty for all.
    #[arg(long, default_value = "")]
    listen_address: String,
    /// Port of the health checks.
    #[arg(long, default_value_t = 8080)]
    healthz_port: u16,
    /// Address of the health checks; empty for all.
    #[arg(long, default_value = "")]
    healthz_listen_address: String,
    #[command(flatten)]
    metrics: MetricsArgs,
    /// Whether sidecars are told the scheduler's address.
    #[arg(long, default_value_t = true)]
    scheduler_enabled: bool,
    /// Kubeconfig, used only outside a cluster [default: $HOME/.kube/config].
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    pub logs: LogArgs,
}

impl Args {
    /// Runs the injector until a signal.
    ///
    /// # Errors
    /// Whatever keeps it from starting, and the first task that fails.
    pub async fn run(self) -> anyhow::Result<()> {
        let Self {
            port,
            listen_address,
            healthz_port,
            healthz_listen_address,
            metrics: metrics_args,
            scheduler_enabled,
            kubeconfig,
            logs: _,
        } = self;
        let stop = tasks::stop_on_signals()?;
        let env = Environment::parse(&std::env::vars().collect())?;
        privileges::refuse_root(env.skip_root_check)?;
        let kubeconfig = kubeconfig.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".kube/config")));
        let clients = client::clients(kubeconfig.as_deref(), false).await?;
        let (identity, renewal) = Identity::new(options(&env, clients.calls.clone())).with_context(|| {
            format!(
                "cannot set up the identity (DAPR_SENTRY_ADDRESS is {:?})",
                env.sentry_address
            )
        })?;

        let health = Health::default();
        let registry = metrics::registry();
        let injector_metrics = Metrics::new(&registry)?;
        let cluster = Cluster::default();
        let settings = Settings::new(&env, &cluster_domain(&env), scheduler_enabled, token_is_mounted());
        let operator = Service::Operator.spiffe_id(&env.trust_domain, &env.namespace)?;
        let operator = identity.channel(&settings.operator_address, Expect::Id(operator))?;
        let (refusals, queue) = Refusals::new(injector_metrics.clone());
        let teller = Teller::new(queue, operator, injector_metrics.clone());
        let webhook = Webhook::new(
            settings,
            env.allowed.clone(),
            cluster.clone(),
            identity.anchors(),
            refusals,
            injector_metrics.clone(),
        );
        let registration = Registration {
            clients: clients.clone(),
            anchors: identity.anchors(),
            target: health.target("webhook-configuration"),
            metrics: injector_metrics,
        };
        let injector = health.target("injector-service");

        let mut tasks = Tasks::new(stop.clone());
        tasks.spawn(
            "metrics",
            metrics::serve(metrics_args, registry, health.clone(), stop.clone()),
        );
        tasks.spawn("identity", identity::renew(renewal, health.clone(), stop.clone()));
        tasks.spawn("health", {
            let stop = stop.clone();
            async move { health.serve(&healthz_listen_address, healthz_port, stop).await }
        });
        tasks.spawn("service accounts", {
            let accounts = accounts::follow(clients.calls.clone(), env.allowed.literals().to_vec(), cluster.clone());
            until(stop.clone(), accounts)
        });
        tasks.spawn("configuration", {
            let configuration = configuration::follow(clients.clone(), env.namespace.clone(), cluster.clone());
            until(stop.clone(), configuration)
        });
        tasks.spawn("refusals", until(stop.clone(), teller.run()));
        tasks.spawn("version", {
            let version = version::follow(clients.calls.clone(), cluster.clone());
            until(stop.clone(), version)
        });
        tasks.spawn(
            "components",
            until(
                stop.clone(),
                components::follow(clients, env.namespace, cluster.clone()),
            ),
        );
        tasks.spawn("webhook registration", {
            let stop = stop.clone();
            async move {
                registration.run(stop).await;
                Ok(())
            }
        });
        tasks.spawn("webhook", async move {
            let tcp = http::bind(&listen_address, port, "admission reviews").await?;
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = identity.ready() => {}
            }
            if tokio::time::timeout(CONFIGURATION_DEADLINE, cluster.mtls_known())
                .await
                .is_err()
            {
                tracing::warn!("the Configuration is not known yet; sidecars are injected with mTLS");
            }
            let tls = identity.server_tls(ClientAuth::None, &[b"h2", b"http/1.1"]);
            let listener = Listener::tls(tcp, tls, Limits::default())?;
            tracing::info!(port, "the webhook is served");
            injector.ready();
            server::serve(listener, webhook.router(), stop).await;
            Ok(())
        });
        tasks.run(DRAIN).await
    }
}

fn options(env: &Environment, client: kube::Client) -> Options {
    Options {
        trust_domain: env.trust_domain.clone(),
        control_plane_namespace: env.namespace.clone(),
        app_id: Service::Injector.app_id().to_owned(),
        namespace: env.namespace.clone(),
        sentry_address: env.sentry_address.clone(),
        anchors: AnchorSource::FileOrElse {
            file: env.trust_anchors_file.clone(),
            elsewhere: trust_bundle::anchors(client, &env.namespace),
        },
        // Some managed API servers refuse webhooks that serve Ed25519 certificates.
        key: KeyAlgorithm::Rsa2048,
        kubernetes: true,
        jwt_audiences: Vec::new(),
    }
}

fn cluster_domain(env: &Environment) -> String {
    if !env.cluster_domain.is_empty() {
        return env.cluster_domain.clone();
    }
    let resolver = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    cluster_domain::from_resolv_conf(&resolver)
}

/// Work that never ends by itself, as a task.
async fn until(stop: CancellationToken, work: impl Future<Output = ()>) -> anyhow::Result<()> {
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
    Ok(())
}
