//! Listening for gRPC: the API for the application, and the internal server for other sidecars.

use std::time::Duration;

use axum::middleware;
use outrigger_identity::Listener as IdentityListener;
use outrigger_proto::{
    internals::service_invocation_server::ServiceInvocationServer, runtime::dapr_server::DaprServer,
};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    service::Routes,
    transport::{Server, server::TcpIncoming},
};

use super::{Api, steps};
use crate::{
    http::server::Listener,
    invoke::{service::Service, wire},
};

/// Room for headers. Upstream multiplies its buffer size by 1024, which comes to this.
const HEADER_LIST: u32 = 4 << 20;
const PING: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves the API until `stop`.
///
/// # Errors
/// When accepting fails for good.
pub async fn serve(listener: Listener, api: Api, stop: CancellationToken) -> anyhow::Result<()> {
    let service = DaprServer::new(api.clone())
        .max_decoding_message_size(api.max_body)
        .max_encoding_message_size(usize::MAX);
    let router = Routes::new(service)
        .into_axum_router()
        .layer(middleware::from_fn_with_state(api, steps::around));
    let server = builder().add_routes(Routes::from(router));
    match listener {
        Listener::Tcp(listener) => {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            server
                .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
                .await?;
        }
        Listener::Unix(listener, _file) => {
            server
                .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop.cancelled_owned())
                .await?;
        }
    }
    Ok(())
}

/// Serves other sidecars until `stop`.
///
/// # Errors
/// When accepting fails for good.
pub async fn serve_internal(
    listener: IdentityListener,
    service: Service,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let limit = wire::largest_message(service.max_body);
    let service = ServiceInvocationServer::new(service)
        .max_decoding_message_size(limit)
        .max_encoding_message_size(usize::MAX);
    builder()
        .add_service(service)
        .serve_with_incoming_shutdown(listener, stop.cancelled_owned())
        .await?;
    Ok(())
}

fn builder() -> Server {
    Server::builder()
        .http2_max_header_list_size(HEADER_LIST)
        .http2_keepalive_interval(Some(PING))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
}
