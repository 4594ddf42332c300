//! The gRPC API that sidecars call: lists and update streams, answered from the index.

mod authorise;
mod body;
mod connection;
mod service;
mod updates;

use std::{future::Future, io, sync::Arc, time::Duration};

use futures::{Stream, StreamExt};
use outrigger_core::SpiffeId;
use outrigger_crds::DaprResource;
use outrigger_identity::Peer;
use outrigger_proto::{
    operator::operator_server::OperatorServer,
    outrigger::operator::v1::{
        gathering_server::GatheringServer, injections_server::InjectionsServer, reports_server::ReportsServer,
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    service::LayerExt,
    transport::{Server, server::Connected},
};
use tower::util::MapResponseLayer;

pub use self::{
    authorise::{Caller, Denied, authorise},
    connection::{Client, MAX_AGE, SILENCE, SPREAD},
};
use crate::{
    index::{Index, State},
    injections::Injections,
    kinds::Indexes,
    metrics::Metrics,
    pods::Pods,
    reports::{Gathering, Intake, Ledger},
    scope::Scope,
    secrets::Secrets,
};

/// How long after a client was last heard it is sent a ping. Who does not answer is cut off after [`SILENCE`].
const PING_INTERVAL: Duration = Duration::from_secs(9);
/// Calls in flight get this long at shutdown, as upstream's.
pub const DRAIN: Duration = Duration::from_secs(5);
/// Largest message of a sidecar's report: more than every verdict that it may have.
const LARGEST_REPORT: usize = 2 << 20;

/// What the calls are answered from.
pub struct Api {
    pub indexes: Indexes,
    pub pods: Arc<Pods>,
    pub secrets: Arc<Secrets>,
    pub metrics: Metrics,
    pub scope: Scope,
    /// What sidecars report.
    pub reports: Arc<Ledger>,
    /// What replicas share their reports with, if they may.
    pub gathering: Option<Gathering>,
    /// What injectors call, if they may.
    pub injections: Option<Injections>,
    /// Ends the streams.
    pub stop: CancellationToken,
}

/// A call that passed authorisation.
struct Authorised {
    caller: Caller,
    /// Ends the connection's streams.
    end: CancellationToken,
    client: Option<Client>,
}

impl Api {
    /// Serves connections until `stop`, then ends all streams with OK and drains.
    ///
    /// # Errors
    /// When the server fails, which single connections do not cause.
    pub async fn serve<IO>(
        mut self,
        connections: impl Stream<Item = io::Result<IO>>,
    ) -> Result<(), tonic::transport::Error>
    where
        IO: Connected<ConnectInfo = Peer> + AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stop = self.stop.clone();
        let (metrics, ending) = (self.metrics.clone(), self.stop.clone());
        let connections =
            connections.map(move |io| io.map(|io| connection::Connection::new(io, &metrics, &ending, Instant::now())));
        let injections = self.injections.take().map(InjectionsServer::new);
        let gathering = self.gathering.take().map(GatheringServer::new);
        let intake = Intake::new(self.reports.clone(), self.scope.clone(), self.metrics.clone());
        let intake = ReportsServer::new(intake).max_decoding_message_size(LARGEST_REPORT);
        let server = Server::builder()
            .http2_keepalive_interval(Some(PING_INTERVAL))
            // Longer than what ends the connection: the HTTP/2 library would first wait until it can say good-bye.
            .http2_keepalive_timeout(Some(2 * SILENCE))
            .max_connection_age(MAX_AGE)
            .trace_fn(call_span)
            .add_optional_service(injections)
            .add_optional_service(gathering)
            .add_service(intake)
            .add_service(MapResponseLayer::new(body::put_in_place).named_layer(OperatorServer::new(self)))
            .serve_with_incoming_shutdown(connections, stop.clone().cancelled_owned());
        within_drain(server, stop).await
    }

    /// Authorises a call, before anything else is looked at.
    fn authorise<R>(&self, request: &Request<R>, namespace: &str) -> Result<Authorised, Denied> {
        let client = request.extensions().get::<Client>();
        let id = client.and_then(|client| client.peer.id.as_ref());
        match authorise(id, namespace) {
            Ok(caller) => Ok(Authorised {
                caller,
                end: client.map_or_else(|| self.stop.clone(), |client| client.end.clone()),
                client: client.cloned(),
            }),
            Err(denied) => {
                let peer = client.map(|client| client.peer.addr.to_string());
                let id = id.map(ToString::to_string);
                tracing::warn!(peer, id, reason = %denied, "denied a call");
                self.metrics.denied.with_label_values(&[denied.reason()]).inc();
                Err(denied)
            }
        }
    }

    /// Whether an index can answer for a namespace: what sidecars take for final must be true.
    fn check_ready<K: DaprResource>(&self, index: &Index<K>, namespace: &str) -> Result<(), Status> {
        if self.stop.is_cancelled() {
            return Err(Status::unavailable("operator is shutting down"));
        }
        if !self.scope.contains(namespace) {
            return Err(Status::failed_precondition(format!(
                "this operator does not watch the namespace {namespace}"
            )));
        }
        match index.state() {
            State::Synced | State::Absent => Ok(()),
            State::Syncing => Err(Status::unavailable(format!(
                "the operator has not read all {} yet",
                K::PLURAL
            ))),
            State::Forbidden => Err(Status::unavailable(format!(
                "the operator is not allowed to watch {}",
                K::PLURAL
            ))),
        }
    }
}

/// The verified identity of whoever makes a call.
pub(crate) fn peer_id<R>(request: &Request<R>) -> Option<&SpiffeId> {
    request.extensions().get::<Client>()?.peer.id.as_ref()
}

/// Off unless somebody asks for the level `debug`.
fn call_span(request: &http::Request<()>) -> tracing::Span {
    let peer = request.extensions().get::<Client>().map(|client| &client.peer);
    let id = peer.and_then(|peer| peer.id.as_ref()).map(tracing::field::display);
    tracing::debug_span!("call", method = request.uri().path(), id)
}

/// Awaits a server, but not for longer than the drain deadline after `stop`.
async fn within_drain(
    server: impl Future<Output = Result<(), tonic::transport::Error>>,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let mut server = std::pin::pin!(server);
    tokio::select! {
        result = &mut server => return result,
        () = stop.cancelled() => {}
    }
    timeout(DRAIN, server).await.unwrap_or_else(|_| {
        tracing::warn!(
            seconds = DRAIN.as_secs(),
            "connections still open after the drain deadline are cut"
        );
        Ok(())
    })
}
