//! Connections to other sidecars, shared by all calls and closed when nobody has used them for a while.

use std::{collections::HashMap, time::Duration};

use outrigger_identity::{Expect, Identity, plain_channel};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// Pings notice a peer that vanished without a word.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// A connection that nobody used for this long is closed.
const IDLE: Duration = Duration::from_secs(180);
const SWEEP: Duration = Duration::from_secs(45);

/// Who is expected at an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Peer {
    pub address: String,
    pub namespace: String,
    pub app_id: String,
}

/// Makes and keeps channels.
pub struct Pool {
    /// `None` without mutual TLS.
    identity: Option<Identity>,
    channels: Mutex<HashMap<Peer, (Channel, Instant)>>,
}

impl Pool {
    pub fn new(identity: Option<Identity>) -> Self {
        Self {
            identity,
            channels: Mutex::default(),
        }
    }

    /// A channel that connects when it is used.
    ///
    /// # Errors
    /// When the address is not `host:port`.
    pub fn channel(&self, peer: &Peer) -> Result<Channel, outrigger_identity::Error> {
        let now = Instant::now();
        if let Some((channel, used)) = self.channels.lock().get_mut(peer) {
            *used = now;
            return Ok(channel.clone());
        }
        let channel = match &self.identity {
            Some(identity) => {
                let expect = Expect::Workload {
                    namespace: peer.namespace.clone(),
                    app_id: peer.app_id.clone(),
                };
                identity.channel_with_keepalive(&peer.address, expect, KEEPALIVE)?
            }
            None => plain_channel(&peer.address, KEEPALIVE)?,
        };
        self.channels.lock().insert(peer.clone(), (channel.clone(), now));
        Ok(channel)
    }

    /// Forgets a channel that failed, so that the next call connects and resolves anew. Calls in flight keep theirs.
    pub fn evict(&self, peer: &Peer) {
        self.channels.lock().remove(peer);
    }

    /// Closes idle connections until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(SWEEP) => {}
            }
            let now = Instant::now();
            self.channels
                .lock()
                .retain(|_, (_, used)| now.duration_since(*used) < IDLE);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn peer(address: &str) -> Peer {
        Peer {
            address: address.into(),
            namespace: "shop".into(),
            app_id: "cart".into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn idle_channels_are_closed_and_used_ones_stay() {
        let pool = Arc::new(Pool::new(None));
        pool.channel(&peer("a:1")).unwrap();
        pool.channel(&peer("b:1")).unwrap();
        let stop = CancellationToken::new();
        let (sweeper, token) = (pool.clone(), stop.clone());
        let task = tokio::spawn(async move { sweeper.run(token).await });
        tokio::time::sleep(IDLE - Duration::from_secs(1)).await;
        pool.channel(&peer("b:1")).unwrap();
        tokio::time::sleep(SWEEP).await;
        assert_eq!(pool.channels.lock().keys().cloned().collect::<Vec<_>>(), [peer("b:1")]);
        pool.evict(&peer("b:1"));
        assert!(pool.channels.lock().is_empty());
        stop.cancel();
        task.await.unwrap();
    }

    #[tokio::test]
    async fn an_address_without_a_port_is_refused() {
        assert!(Pool::new(None).channel(&peer("cart")).is_err());
    }
}
