//! The first load of Configuration and Components, and the tasks that follow them afterwards.

use std::sync::Arc;

use anyhow::Context;
use outrigger_core::{TrustDomain, control_plane::Service};
use outrigger_identity::Expect;
use outrigger_process::{health::Target, logs, tasks::Tasks};
use tokio::sync::{mpsc, watch};
use tonic::transport::Channel;

use super::Start;
use crate::{
    components::{loader::Loader, metadata},
    metrics::Metrics,
    reload,
    reports::{Rejection, Reports, stream::Reporter},
    resources::{authorise::DenyList, configuration::Configuration, disk, identify},
    settings::{Mode, Settings},
    stream::{
        follow::{Unknown, follow},
        operator::Operator,
    },
};

/// Messages that wait for the loader. Beyond that the stream waits, and the operator coalesces.
const EVENTS: usize = 16;

/// What the servers need from here.
pub struct Loaded {
    pub configuration: Configuration,
    pub registry: prometheus::Registry,
    pub metrics: Metrics,
}

/// Loads everything once, and starts to follow changes.
pub async fn load(context: &Start, waiting: &Target, tasks: &mut Tasks) -> anyhow::Result<Loaded> {
    let settings = &context.settings;
    let registry = outrigger_process::metrics::registry();
    let metrics = Metrics::new(&registry, &settings.app_id, &settings.namespace).context("cannot register metrics")?;
    context
        .identity_metrics
        .register(&registry)
        .context("cannot register metrics")?;
    let configuration = match settings.mode {
        Mode::Kubernetes => from_operator(context, waiting, &metrics, tasks).await?,
        Mode::Standalone => from_files(context, &metrics, tasks).await?,
    };
    context.metadata.set_features(configuration.enabled_features());
    Ok(Loaded {
        configuration,
        registry,
        metrics,
    })
}

async fn from_operator(
    context: &Start,
    waiting: &Target,
    metrics: &Metrics,
    tasks: &mut Tasks,
) -> anyhow::Result<Configuration> {
    let settings = &context.settings;
    let (operator, channel) = operator(context)?;
    let mut reporter = Reporter {
        channel,
        reports: Reports::default(),
        app: settings.app_id.clone(),
        pod: settings.pod_name.clone().unwrap_or_else(logs::hostname),
        follows: Vec::new(),
    };
    let configuration = match follow_operator(context, operator, waiting, metrics, &reporter.reports, tasks).await {
        Ok(configuration) => configuration,
        Err(error) => {
            // The resource's status is where people look; the log of a container that is gone is not.
            if reporter.reports.any_rejected() {
                reporter.last_words().await;
            }
            return Err(error);
        }
    };
    if configuration.hot_reload() {
        reporter.follows.push("Component");
        if !settings.config.is_empty() {
            reporter.follows.push(Configuration::KIND);
        }
    }
    tasks.spawn("reports", reporter.run(context.stop.clone()));
    Ok(configuration)
}

async fn follow_operator(
    context: &Start,
    operator: Operator,
    waiting: &Target,
    metrics: &Metrics,
    reports: &Reports,
    tasks: &mut Tasks,
) -> anyhow::Result<Configuration> {
    let settings = &context.settings;
    let stop = &context.stop;
    tracing::info!("resources of the kinds Component and Configuration are loaded; this release serves no others");
    let configuration = match settings.config.as_slice() {
        [] => Configuration::default(),
        [name, more @ ..] => {
            if !more.is_empty() {
                tracing::warn!(name, "several Configurations are given; only the first is used");
            }
            let json = operator
                .configuration(name, waiting)
                .await
                .context("error loading configuration")?;
            read_configuration(name, &json, reports).context("error loading configuration")?
        }
    };
    check(&configuration)?;
    let (deny, denied) = watch::channel(DenyList::new(configuration.denied_components()));
    let mut loader = loader(context, metrics, &configuration, reports.clone());
    let target = context.health.target("component-reconciler");
    let list = async |loader: &mut Loader| {
        let listed = operator.first_components(waiting).await?;
        for (json, error) in &listed.unreadable {
            loader.unreadable(json, error);
        }
        loader.start(listed.components).await?;
        waiting.not_ready("starting");
        anyhow::Ok(())
    };
    if !configuration.hot_reload() {
        tracing::info!("Hot reloading disabled. Daprd will not reload resources.");
        target.ready();
        list(&mut loader).await?;
        return Ok(configuration);
    }
    let (sender, mut events) = mpsc::channel(EVENTS);
    tasks.spawn("component stream", {
        let (operator, stop) = (operator.clone(), stop.clone());
        async move {
            follow(
                "components",
                Unknown::Retry,
                || operator.component_updates(),
                sender,
                stop,
            )
            .await
        }
    });
    reload::stream_first(&mut events).await;
    list(&mut loader).await?;
    tracing::info!(
        "Hot reloading enabled. Daprd will reload 'Component' resources when they are added, updated or deleted."
    );
    let components = reload::from_operator(
        loader,
        operator.clone(),
        events,
        denied,
        settings.reconcile,
        target,
        stop.clone(),
    );
    tasks.spawn("component reload", components);
    if let Some(name) = settings.config.first() {
        let (sender, events) = mpsc::channel(EVENTS);
        let current = configuration.clone();
        tasks.spawn(
            "configuration reload",
            reload::configuration(
                name.clone(),
                current,
                operator.clone(),
                events,
                deny,
                reports.clone(),
                stop.clone(),
            ),
        );
        let stop = stop.clone();
        tasks.spawn("configuration stream", async move {
            follow(
                "configurations",
                Unknown::Idle,
                || operator.configuration_updates(),
                sender,
                stop,
            )
            .await
        });
    }
    Ok(configuration)
}

async fn from_files(context: &Start, metrics: &Metrics, tasks: &mut Tasks) -> anyhow::Result<Configuration> {
    let settings = &context.settings;
    let configuration = disk::configuration(&settings.config, |name| std::env::var(name).ok())
        .context("error loading configuration")?;
    check(&configuration)?;
    let mut loader = loader(context, metrics, &configuration, Reports::default());
    let read = disk::components(&settings.resources, &settings.namespace, &settings.app_id)
        .context("failed to load components")?;
    loader.start(read.components).await?;
    if configuration.hot_reload() && !settings.resources.is_empty() {
        tracing::info!(
            "Hot reloading enabled. Daprd will reload 'Component' resources when they are added, updated or deleted."
        );
        let task = reload::from_folders(
            loader,
            settings.resources.clone(),
            settings.namespace.clone(),
            settings.app_id.clone(),
            settings.reconcile,
            context.stop.clone(),
        );
        tasks.spawn("component reload", task);
    }
    Ok(configuration)
}

/// Reads the Configuration that the sidecar starts with.
fn read_configuration(name: &str, json: &[u8], reports: &Reports) -> anyhow::Result<Configuration> {
    let (_, revision) = identify(json).unwrap_or_default();
    match Configuration::from_json(json) {
        Ok(configuration) => {
            reload::judge(reports, name, &revision, &configuration, &configuration);
            Ok(configuration)
        }
        Err(error) => {
            reports.rejected(Configuration::KIND, name, &revision, Rejection::unreadable(&error));
            Err(error).with_context(|| format!("configuration {name} cannot be read"))
        }
    }
}

/// The operator's API, and the channel to it.
fn operator(context: &Start) -> anyhow::Result<(Operator, Channel)> {
    let Settings {
        operator: address,
        trust_domain,
        control_plane_namespace,
        ..
    } = &*context.settings;
    let id = Service::Operator.spiffe_id(&TrustDomain::new(trust_domain)?, control_plane_namespace)?;
    let identity = context
        .identity
        .as_ref()
        .context("Kubernetes mode without an identity")?;
    let channel = identity
        .channel(address, Expect::Id(id))
        .context("--control-plane-address")?;
    let operator = Operator::new(channel.clone(), context.settings.identity_namespace(), address);
    Ok((operator, channel))
}

fn loader(context: &Start, metrics: &Metrics, configuration: &Configuration, reports: Reports) -> Loader {
    let settings = &context.settings;
    let resolution = metadata::Context {
        app_id: settings.app_id.clone(),
        namespace: settings.namespace.clone(),
        pod_name: settings.pod_name.clone(),
        kubernetes: settings.mode == Mode::Kubernetes,
        env_keys: settings.env_keys.clone(),
        env: |name| std::env::var(name).ok(),
    };
    let deny = DenyList::new(configuration.denied_components());
    Loader::new(
        Arc::clone(&context.components),
        resolution,
        deny,
        metrics.clone(),
        reports,
    )
}

/// Refuses a Configuration that closes something which would stay open here.
fn check(configuration: &Configuration) -> anyhow::Result<()> {
    let fields = configuration.not_enforced();
    anyhow::ensure!(
        fields.is_empty(),
        "the Configuration sets {}, which this release does not enforce: it does not start, so that nothing is open that should be closed",
        fields.join(" and ")
    );
    if configuration.wants_tracing() {
        tracing::warn!(
            field = "spec.tracing",
            "this release records no spans; trace headers are passed on"
        );
    }
    Ok(())
}
