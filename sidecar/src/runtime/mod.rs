//! The life of the process: the order of the start, the tasks, the end.

mod servers;
mod sources;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use outrigger_core::TrustDomain;
use outrigger_identity::{AnchorSource, Identity, KeyAlgorithm, Metrics as IdentityMetrics};
use outrigger_process::{
    health::{Health, Target},
    identity::renew,
    metrics::MetricsArgs,
    privileges,
    tasks::{Tasks, stop_on_signals},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use crate::{
    app::{self, channel::AppChannel},
    args::Args,
    components::Components,
    http,
    metadata::Metadata,
    settings::{Mode, Settings},
    shutdown,
};

/// Tasks end as fast as they can; the grace period is enforced for the whole process.
const NO_DEADLINE: Duration = Duration::MAX;

/// What all steps of the start share.
#[derive(Clone)]
struct Start {
    settings: Arc<Settings>,
    components: Arc<Components>,
    metadata: Metadata,
    health: Health,
    identity: Option<Identity>,
    identity_metrics: IdentityMetrics,
    stop: CancellationToken,
}

/// Runs until a signal, the shutdown API or a failure; SIGHUP shuts down and starts again.
///
/// # Errors
/// What failed.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let settings = Arc::new(Settings::new(&args, |name| std::env::var(name).ok())?);
    if settings.mode == Mode::Kubernetes {
        privileges::refuse_root(privileges::root_is_allowed())?;
    }
    report_unused(&args);
    let signalled = stop_on_signals()?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot handle SIGHUP")?;
    loop {
        let stop = CancellationToken::new();
        let ending = [signalled.clone(), stop.clone()];
        let mut life = std::pin::pin!(live(
            settings.clone(),
            args.metrics.clone(),
            signalled.clone(),
            stop.clone()
        ));
        tokio::select! {
            result = &mut life => return result.inspect(|()| tracing::info!("Daprd shutdown gracefully")),
            () = restart(&mut hangup, &ending) => {
                tracing::info!("Received signal 'hangup'; restarting");
                stop.cancel();
                life.await?;
            }
        }
    }
}

/// Waits for a SIGHUP. One that comes when the process ends already must not bring it back.
async fn restart(hangup: &mut Signal, ending: &[CancellationToken]) {
    loop {
        hangup.recv().await;
        if !ending.iter().any(CancellationToken::is_cancelled) {
            return;
        }
        tracing::info!("Received signal 'hangup' during shutdown; not restarting");
    }
}

/// One start, and everything until its end.
async fn live(
    settings: Arc<Settings>,
    metrics: MetricsArgs,
    signalled: CancellationToken,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let deadline = tokio::spawn(shutdown::enforce(settings.grace, stop.clone()));
    let components = Arc::new(Components::default());
    let health = Health::default();
    let ready = health.target("runtime");
    let probed = settings.app.as_ref().is_some_and(|app| app.probe.is_some());
    let (app_healthy, app_health) = watch::channel(!probed);
    let (outbound, outbound_ready) = watch::channel(false);
    let metadata = Metadata::new(&settings.app_id, settings.app.as_ref(), components.clone());

    let mut tasks = Tasks::new(stop.clone());
    tasks.spawn("signals", {
        let (signalled, stop, block, app_health) =
            (signalled, stop.clone(), settings.block_shutdown, app_health.clone());
        async move {
            shutdown::follow_signals(signalled, stop, block, app_health).await;
            Ok(())
        }
    });
    // Before everything that may wait: probes see why it waits, and the kubelet that the process lives.
    let public = http::Public {
        app_id: settings.app_id.as_str().into(),
        health: health.clone(),
        outbound: outbound_ready,
        metadata: metadata.clone(),
    };
    servers::public(&settings, public.clone(), &mut tasks).await?;
    let identity_metrics = IdentityMetrics::new(&settings.app_id).context("cannot make metrics")?;
    let identity = identity(&settings, &health, &identity_metrics, &mut tasks)?;
    let context = Start {
        settings,
        components,
        metadata,
        health,
        identity,
        identity_metrics,
        stop: stop.clone(),
    };
    tasks.spawn("runtime", async move {
        let mut inner = Tasks::new(stop.clone());
        let start = async {
            let app = AppChannel::new(context.settings.app.as_ref(), app_health)?;
            if let Some(identity) = &context.identity {
                identity.ready().await;
            }
            let loaded = sources::load(&context, &ready, &mut inner).await?;
            let app_channel = app.clone();
            servers::start(&context, loaded, metrics, public, app, &mut inner).await?;
            outbound.send_replace(true);
            anyhow::Ok(app_channel)
        };
        let app = tokio::select! {
            biased;
            // First: what fails because of the stop is no failure.
            () = stop.cancelled() => return inner.run(NO_DEADLINE).await,
            result = start => result?,
        };
        inner.spawn("application", application(context, app, app_healthy, ready, started));
        inner.run(NO_DEADLINE).await
    });
    let result = tasks.run(NO_DEADLINE).await;
    deadline.abort();
    tracing::info!("Dapr runtime stopped");
    result
}

/// Waits for the application, then watches its health.
async fn application(
    context: Start,
    channel: AppChannel,
    healthy: watch::Sender<bool>,
    ready: Target,
    started: Instant,
) -> anyhow::Result<()> {
    let stop = context.stop;
    match &context.settings.app {
        None => tracing::warn!("app channel is not initialized. did you configure an app-port?"),
        Some(app) => {
            ready.not_ready(format!("waiting for the application on port {}", app.port));
            tokio::select! {
                () = app::wait_for_port(app) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }
    ready.ready();
    // Who reads that it runs may ask for its health next.
    tokio::select! {
        () = context.health.until_ready() => {}
        () = stop.cancelled() => return Ok(()),
    }
    tracing::info!(
        "dapr initialized. Status: Running. Init Elapsed {}ms",
        started.elapsed().as_millis()
    );
    match context.settings.app.as_ref().and_then(|app| app.probe.clone()) {
        Some(probe) => app::health::watch(probe, channel, healthy, stop).await,
        None => stop.cancelled().await,
    }
    Ok(())
}

/// The identity that the mode asks for, and the task that keeps it.
fn identity(
    settings: &Settings,
    health: &Health,
    metrics: &IdentityMetrics,
    tasks: &mut Tasks,
) -> anyhow::Result<Option<Identity>> {
    let Some(wanted) = &settings.identity else {
        tracing::warn!("mTLS is disabled. Skipping certificate request and tls validation");
        health.target("security-provider").ready();
        return Ok(None);
    };
    let anchors = match (wanted.anchors.clone(), wanted.anchors_file.clone()) {
        (Some(pem), Some(file)) => AnchorSource::StaticAndFile { pem, file },
        (Some(pem), None) => AnchorSource::Static(pem),
        (None, Some(file)) => AnchorSource::File(file),
        (None, None) => anyhow::bail!("no trust anchors"),
    };
    let (identity, renewal) = Identity::new(outrigger_identity::Options {
        trust_domain: TrustDomain::new(&settings.trust_domain)?,
        control_plane_namespace: settings.control_plane_namespace.clone(),
        app_id: settings.app_id.clone(),
        namespace: settings.identity_namespace().to_owned(),
        sentry_address: settings.sentry.clone(),
        anchors,
        key: KeyAlgorithm::Ed25519,
        kubernetes: settings.mode == Mode::Kubernetes,
        jwt_audiences: wanted.jwt_audiences.clone(),
    })
    .context("cannot prepare the identity")?;
    let renewal = renewal.with_metrics(metrics.clone());
    tasks.spawn("identity", renew(renewal, health.clone(), tasks.stop().clone()));
    Ok(Some(identity))
}

/// Flags that ask for something that this release does not have.
fn report_unused(args: &Args) {
    let asked = [
        (
            !args.placement_host_address.is_empty() || !args.actors_service.is_empty(),
            "placement-host-address",
            "actors",
        ),
        (
            args.scheduler_host_address.iter().any(|host| !host.is_empty()),
            "scheduler-host-address",
            "jobs",
        ),
        (args.enable_profiling, "enable-profiling", "the profiler"),
        (
            !args.allowed_origins.is_empty(),
            "allowed-origins",
            "CORS: browsers are refused",
        ),
    ];
    for (_, flag, what) in asked.into_iter().filter(|(asked, _, _)| *asked) {
        tracing::warn!(flag, "this release does not have {what}");
    }
}
