//! The side of a replica that does not lead: finds the leader and shares with it.

use std::{net::IpAddr, sync::Arc, time::Duration};

use futures::stream;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};
use outrigger_core::{SpiffeId, backoff::Backoff};
use outrigger_identity::{Expect, Identity};
use outrigger_proto::outrigger::operator::v1::gathering_client::GatheringClient;
use prometheus::IntGaugeVec;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::Ledger;
use crate::deadline::in_time;

/// Pauses between tries to reach the same leader.
const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
/// A stream that lasted this long worked.
const WORKED: Duration = Duration::from_secs(60);

/// Shares this replica's reports with whichever replica leads.
pub struct Relay {
    pub ledger: Arc<Ledger>,
    pub identity: Identity,
    /// The operator's own identity, which the leader has too.
    pub operator: SpiffeId,
    /// Pods of the operator's own namespace.
    pub pods: Api<Pod>,
    /// Port of the API, the same at every replica.
    pub port: u16,
    /// This replica in the Lease.
    pub me: String,
    /// Who holds the Lease; empty if nobody does.
    pub holder: watch::Receiver<String>,
    /// 1 while the leader cannot be shared with, by reason.
    pub refused: IntGaugeVec,
}

/// Why the leader could not be shared with.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Upstream's charts may grant less than ours.
    #[error("not allowed to look up pods in the operator's own namespace")]
    Forbidden,
    #[error("cannot look up the leader's pod: {0}")]
    Lookup(kube::Error),
    #[error("the holder of the Lease is no pod of this namespace that has an address")]
    NoAddress,
    #[error("{0}")]
    Channel(outrigger_identity::Error),
    #[error("{}: {}", .0.code(), .0.message())]
    Call(Status),
}

impl Failure {
    /// Label of the metric.
    fn reason(&self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            // Upstream's operator leads.
            Self::Call(status) if status.code() == Code::Unimplemented => "unimplemented",
            Self::Lookup(_) | Self::NoAddress | Self::Channel(_) | Self::Call(_) => "unreachable",
        }
    }

    /// Whether only another leader can change it.
    fn is_final(&self) -> bool {
        self.reason() != "unreachable"
    }
}

impl Relay {
    /// Shares until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut warned = false;
        loop {
            let holder = self.holder.borrow_and_update().clone();
            let mut changes = self.holder.clone();
            let sharing = async {
                if !holder.is_empty() && holder != self.me {
                    self.share(&holder, &mut warned).await;
                }
                std::future::pending::<()>().await;
            };
            let goes_on = tokio::select! {
                () = stop.cancelled() => return,
                () = sharing => true,
                changed = changes.changed() => changed.is_ok(),
            };
            self.refused.reset();
            if !goes_on {
                // No election any more: the process ends.
                stop.cancelled().await;
                return;
            }
        }
    }

    /// Shares with one leader, for as long as that can work.
    async fn share(&self, holder: &str, warned: &mut bool) {
        let mut retry = RETRY;
        loop {
            let begun = Instant::now();
            let failure = self.once(holder).await.err();
            if begun.elapsed() > WORKED {
                retry.reset();
            }
            if let Some(failure) = &failure {
                self.refused.with_label_values(&[failure.reason()]).set(1);
                if failure.is_final() {
                    if !std::mem::replace(warned, true) {
                        tracing::warn!(
                            leader = holder,
                            error = %failure,
                            "what this replica's sidecars report is not shared with the leader, so statuses do not count them"
                        );
                    }
                    return;
                }
                tracing::info!(leader = holder, error = %failure, "cannot share reports with the leader yet");
            }
            sleep(retry.next_pause()).await;
        }
    }

    /// Shares until the leader or the connection ends it.
    async fn once(&self, holder: &str) -> Result<(), Failure> {
        let address = self.address(holder).await?;
        let channel = self.identity.channel(&address, Expect::Id(self.operator.clone()));
        let mut leader = GatheringClient::new(channel.map_err(Failure::Channel)?);
        let feed = self.ledger.feed();
        let refused = self.refused.clone();
        let batches = stream::unfold(feed, move |mut feed| {
            let refused = refused.clone();
            async move {
                let batch = feed.next().await?;
                refused.reset();
                Some((batch, feed))
            }
        });
        tracing::debug!(leader = holder, address, "sharing reports with the leader");
        leader.share(batches).await.map(drop).map_err(Failure::Call)
    }

    /// Where the leader serves. A list of one name needs no other right than the watch of pods does.
    async fn address(&self, holder: &str) -> Result<String, Failure> {
        let name = pod_of(holder).ok_or(Failure::NoAddress)?;
        let params = ListParams::default().fields(&format!("metadata.name={name}"));
        let found = match in_time(self.pods.list(&params)).await {
            Ok(found) => found.items.into_iter().next(),
            Err(kube::Error::Api(status)) if status.is_forbidden() => return Err(Failure::Forbidden),
            Err(error) => return Err(Failure::Lookup(error)),
        };
        let ip = found.and_then(|pod| pod.status?.pod_ip).ok_or(Failure::NoAddress)?;
        match ip.parse() {
            Ok(ip) => Ok(std::net::SocketAddr::new(ip, self.port).to_string()),
            Err::<IpAddr, _>(_) => Err(Failure::NoAddress),
        }
    }
}

/// The pod in a holder identity: upstream and we write its host name, an underscore and a random id.
pub fn pod_of(holder: &str) -> Option<&str> {
    let (pod, _) = holder.rsplit_once('_')?;
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    (!pod.is_empty() && pod.chars().all(legal)).then_some(pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_is_in_the_holder_identity() {
        assert_eq!(
            pod_of("dapr-operator-6d4f-x2x_0b0e3a52-8f6e-4b5b-9d3d-1f5d3c9a7c11"),
            Some("dapr-operator-6d4f-x2x")
        );
        for other in ["", "dapr-operator", "_id", "a,b=c_id", "Host Name_id"] {
            assert_eq!(pod_of(other), None, "{other}");
        }
    }
}
