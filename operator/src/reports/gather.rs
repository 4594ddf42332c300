//! The side of the leader: takes in what all replicas have summed up, its own included.

use std::{sync::Arc, time::Duration};

use outrigger_core::SpiffeId;
use outrigger_proto::outrigger::operator::v1::{ShareRequest, ShareResponse, gathering_server::Gathering as Service};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::Ledger;
use crate::{api::Client, controllers::status::Board, metrics::Metrics};

/// Before a feed that ended begins anew.
const PAUSE: Duration = Duration::from_secs(1);

/// Brings reports onto the board while this replica leads.
#[derive(Clone)]
pub struct Gatherer {
    board: Arc<Board>,
    ledger: Arc<Ledger>,
    leading: watch::Sender<bool>,
}

/// The gRPC service that other replicas share with. Every replica serves it, and only the leader accepts.
pub struct Gathering {
    /// Who may call: the operator itself.
    operator: SpiffeId,
    board: Arc<Board>,
    leading: watch::Receiver<bool>,
    metrics: Metrics,
}

/// What one replica has shared, until this is dropped.
struct Replica<'a> {
    board: &'a Board,
    number: u64,
}

impl Gatherer {
    pub fn new(board: Arc<Board>, ledger: Arc<Ledger>) -> Self {
        Self {
            board,
            ledger,
            leading: watch::Sender::new(false),
        }
    }

    /// Gathers until `stop`: from this replica's own sidecars, and from who shares.
    pub async fn run(&self, stop: CancellationToken) {
        self.board.begin_gathering(Instant::now());
        self.leading.send_replace(true);
        stop.run_until_cancelled(self.gather_own()).await;
        self.leading.send_replace(false);
    }

    /// Gathers from this replica's own sidecars, for ever. Its feed ends when another one takes over, since another replica
    /// leads as far as this one knows, and when too much was pending. While this one leads it begins anew.
    async fn gather_own(&self) {
        loop {
            let own = Replica::new(&self.board);
            let mut feed = self.ledger.feed();
            while let Some(batch) = feed.next().await {
                own.take(batch);
            }
            drop(own);
            sleep(PAUSE).await;
        }
    }

    /// The service for replicas with this identity.
    pub fn service(&self, operator: SpiffeId, metrics: Metrics) -> Gathering {
        Gathering {
            operator,
            board: self.board.clone(),
            leading: self.leading.subscribe(),
            metrics,
        }
    }
}

impl<'a> Replica<'a> {
    fn new(board: &'a Board) -> Self {
        Self {
            board,
            number: board.replica(),
        }
    }

    fn take(&self, request: ShareRequest) {
        self.board.gather(self.number, request, Instant::now());
    }
}

impl Drop for Replica<'_> {
    fn drop(&mut self) {
        self.board.forget_replica(self.number, Instant::now());
    }
}

#[tonic::async_trait]
impl Service for Gathering {
    async fn share(&self, request: Request<Streaming<ShareRequest>>) -> Result<Response<ShareResponse>, Status> {
        let client = request.extensions().get::<Client>().cloned();
        let Some(client) = client.filter(|client| client.peer.id.as_ref() == Some(&self.operator)) else {
            tracing::warn!("denied a call of somebody who is no operator");
            self.metrics.denied.with_label_values(&["no_operator"]).inc();
            return Err(Status::permission_denied(
                "only the operator may share what sidecars report",
            ));
        };
        let mut leading = self.leading.clone();
        if !*leading.borrow() {
            return Err(Status::failed_precondition("this replica does not lead"));
        }
        let replica = Replica::new(&self.board);
        let mut batches = request.into_inner();
        tracing::debug!(peer = %client.peer.addr, "another replica shares what its sidecars report");
        let ended = async {
            tokio::select! {
                _ = leading.wait_for(|leading| !leading) => {}
                () = client.end.cancelled() => {}
            }
        };
        let mut ended = std::pin::pin!(ended);
        loop {
            tokio::select! {
                batch = batches.message() => match batch? {
                    Some(batch) => replica.take(batch),
                    None => break,
                },
                () = &mut ended => break,
            }
        }
        Ok(Response::new(ShareResponse {}))
    }
}

#[cfg(test)]
mod tests {
    use outrigger_process::kubernetes::watch::ObjectKey;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_leader_takes_its_own_feed_back() {
        let board = Board::new(ObjectKey::new("dapr-system", "daprsystem"), Arc::default());
        let ledger = Arc::<Ledger>::default();
        let gatherer = Gatherer::new(Arc::new(board), ledger.clone());
        let stop = CancellationToken::new();
        let taken = async {
            for _ in 0..3 {
                let mut other = ledger.feed();
                let ended = async { while other.next().await.is_some() {} };
                tokio::time::timeout(PAUSE * 2, ended).await.unwrap();
            }
            stop.cancel();
        };
        tokio::join!(gatherer.run(stop.clone()), taken);
        assert!(!*gatherer.leading.borrow());
    }
}
