//! The listeners: the ports of the APIs are bound first, all of them, so that a port in use ends the start before anything is served.

use std::sync::Arc;

use outrigger_identity::{ClientAuth, Limits as Handshakes, Listener as InternalListener};
use outrigger_process::{metrics::MetricsArgs, tasks::Tasks};

use super::{Start, sources::Loaded};
use crate::{
    app::channel::AppChannel,
    components::state::api::StateApi,
    grpc, host,
    http::{
        self,
        server::{Limits, Listener, bind, bind_unix, serve},
    },
    invoke::{Invoker, pool::Pool, resolver::Resolver, service::Service},
    resources::configuration::ApiLogging,
    settings::Settings,
    shutdown::Shutdown,
};

/// Serves the public port, if there is one.
pub async fn public(settings: &Settings, state: http::Public, tasks: &mut Tasks) -> anyhow::Result<()> {
    let Some((address, port)) = &settings.public else {
        return Ok(());
    };
    for listener in bind(
        std::slice::from_ref(address),
        *port,
        "the public HTTP server (--dapr-public-port)",
    )
    .await?
    {
        tracing::info!(address = %listener.local_addr()?, "public HTTP server is running");
        let stop = tasks.stop().clone();
        tasks.spawn(
            "public HTTP server",
            serve(
                Listener::Tcp(listener),
                http::public(state.clone()),
                limits(settings),
                stop,
            ),
        );
    }
    Ok(())
}

/// Binds everything else and serves it.
pub async fn start(
    context: &Start,
    loaded: Loaded,
    metrics_args: MetricsArgs,
    public: http::Public,
    app: AppChannel,
    tasks: &mut Tasks,
) -> anyhow::Result<()> {
    let settings = &context.settings;
    let stop = &context.stop;
    let (grpc_ready, internal_ready) = (
        context.health.target("grpc-api-server"),
        context.health.target("grpc-internal-server"),
    );
    let Loaded {
        configuration,
        registry,
        metrics,
    } = loaded;

    let internal = internal(context).await?;
    let internal_port = internal.local_addr().port();
    tracing::info!(address = %internal.local_addr(), mtls = settings.mtls, "internal gRPC server is running");
    let http_listeners = listeners(settings, "http", settings.http_port, "the HTTP API (--dapr-http-port)").await?;
    let grpc_listeners = listeners(settings, "grpc", settings.grpc_port, "the gRPC API (--dapr-grpc-port)").await?;

    let metrics_args = MetricsArgs {
        enable_metrics: metrics_args.enable_metrics && configuration.metrics_enabled(),
        ..metrics_args
    };
    let exporter = outrigger_process::metrics::serve(metrics_args, registry, context.health.clone(), stop.clone());
    tasks.spawn("metrics server", exporter);

    let pool = Arc::new(Pool::new(context.identity.clone().filter(|_| settings.mtls)));
    tasks.spawn("connection pool", {
        let (pool, stop) = (pool.clone(), stop.clone());
        async move {
            pool.run(stop).await;
            Ok(())
        }
    });
    let invoker = Arc::new(Invoker {
        app: app.clone(),
        app_id: settings.app_id.clone(),
        namespace: settings.identity_namespace().to_owned(),
        resolver: Resolver::new(settings.mode, configuration.name_resolution.as_ref()),
        pool,
        internal_port,
        host: host::address(settings.host_ip.as_deref()),
        max_body: settings.max_body,
        metrics: metrics.clone(),
    });
    let logging = ApiLogging {
        enabled: settings.api_logging.unwrap_or(configuration.api_logging().enabled),
        ..configuration.api_logging()
    };
    let state = StateApi::new(context.components.clone(), &settings.app_id, metrics.clone());
    let shutdown = Shutdown::new(stop.clone());
    let token: Option<Arc<str>> = settings.api_token.as_deref().map(Arc::from);

    let service = Service {
        app,
        max_body: settings.max_body,
        metrics: metrics.clone(),
    };
    tasks.spawn(
        "internal gRPC server",
        grpc::server::serve_internal(internal, service, stop.clone()),
    );
    internal_ready.ready();

    let grpc_api = grpc::Api {
        state: state.clone(),
        metadata: context.metadata.clone(),
        invoker: invoker.clone(),
        shutdown: shutdown.clone(),
        metrics: metrics.clone(),
        logging,
        token: token.clone(),
        max_body: settings.max_body,
    };
    for listener in grpc_listeners {
        tasks.spawn(
            "gRPC API server",
            grpc::server::serve(listener, grpc_api.clone(), stop.clone()),
        );
    }
    grpc_ready.ready();

    let api = http::Api {
        public,
        state,
        invoker,
        shutdown,
        metrics,
        logging,
        token,
        max_header: settings.max_header,
    };
    for listener in http_listeners {
        tasks.spawn(
            "HTTP API server",
            serve(listener, http::api(api.clone()), limits(settings), stop.clone()),
        );
    }
    Ok(())
}

fn limits(settings: &Settings) -> Limits {
    Limits {
        max_body: settings.max_body,
        max_header: settings.max_header,
        h2c: settings.h2c,
    }
}

/// The sockets of an API: each address, or one Unix socket.
async fn listeners(settings: &Settings, api: &str, port: u16, purpose: &'static str) -> anyhow::Result<Vec<Listener>> {
    if let Some(folder) = &settings.socket_folder {
        let path = folder.join(format!("dapr-{}-{api}.socket", settings.app_id));
        let listener = bind_unix(&path)?;
        tracing::info!(path = %path.display(), "{api} API server is running");
        return Ok(vec![listener]);
    }
    let listeners = bind(&settings.listen, port, purpose).await?;
    for listener in &listeners {
        tracing::info!(address = %listener.local_addr()?, "{api} API server is running");
    }
    Ok(listeners.into_iter().map(Listener::Tcp).collect())
}

async fn internal(context: &Start) -> anyhow::Result<InternalListener> {
    let settings = &context.settings;
    let listen = async |port| {
        let purpose = "other sidecars (--dapr-internal-grpc-port)";
        outrigger_process::http::bind(&settings.internal_address, port, purpose).await
    };
    let tcp = match settings.internal_port {
        0 => match listen(host::stable_port(&settings.app_id)).await {
            Ok(tcp) => tcp,
            // Another sidecar was faster: any free port will do.
            Err(_) => listen(0).await?,
        },
        port => listen(port).await?,
    };
    Ok(match context.identity.as_ref().filter(|_| settings.mtls) {
        Some(identity) => {
            let tls = identity.server_tls(ClientAuth::Required, &[b"h2"]);
            InternalListener::tls(tcp, tls, Handshakes::default())?
        }
        None => InternalListener::plain(tcp)?,
    })
}
