//! Update streams.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, stream::BoxStream};
use outrigger_crds::DaprResource;
use outrigger_proto::operator::ResourceEventType;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::connection::Unsent;
use crate::{
    index::{Event, Subscription},
    kinds::Kind,
    pods::Assigned,
    secrets::{Secrets, Unavailable},
};

/// What tonic sends.
pub(super) type EventStream<E> = BoxStream<'static, Result<E, Status>>;

/// Pause before Secrets are read again that could not be read for an event.
const SECRETS_RETRY: Duration = Duration::from_secs(1);

/// An open stream.
pub(super) struct Updates<K: DaprResource> {
    pub(super) subscription: Subscription<K>,
    pub(super) secrets: Arc<Secrets>,
    /// Only events of the object with the assigned name are sent. While there is none, events wait: the stream may be open
    /// before its pod is seen.
    pub(super) only: Option<watch::Receiver<Assigned>>,
    /// Ends the stream: the operator stops, or the connection has reached its age.
    pub(super) end: CancellationToken,
    /// Where the time of what is sent is noted until it is written.
    pub(super) unsent: Option<Arc<Unsent>>,
}

impl<K: Kind> Updates<K> {
    /// Sends what the index offers. Ends, with OK, when told to.
    pub(super) fn into_stream(self) -> impl Stream<Item = Result<K::Event, Status>> + Send + 'static {
        futures::stream::unfold(self, |mut updates| async move {
            let end = updates.end.clone();
            let event = tokio::select! {
                biased;
                () = end.cancelled() => return None,
                event = updates.next() => event,
            };
            updates.subscription.index().metrics().sent.inc();
            Some((Ok(event), updates))
        })
    }

    async fn next(&mut self) -> K::Event {
        let mut delayed = 0;
        loop {
            let event = match &mut self.only {
                None => self.subscription.next().await,
                Some(assigned) => {
                    if !wait_for_assignment(assigned).await {
                        // Nothing can come any more; the select above ends the stream.
                        return std::future::pending().await;
                    }
                    let event = self.subscription.next().await;
                    if assigned.borrow().as_ref() != Some(event.version.name()) {
                        continue;
                    }
                    event
                }
            };
            match self.payload(&event).await {
                Ok(payload) => {
                    if let (Some(unsent), Some(since)) = (&self.unsent, event.since) {
                        unsent.add(since);
                    }
                    return K::event(payload, event.type_);
                }
                // It holds up no other.
                Err(error) => {
                    let (namespace, name) = (self.subscription.namespace(), &**event.version.name());
                    tracing::warn!(kind = K::KIND, namespace, name, %error, "event delayed");
                    self.subscription.put_back(event);
                    delayed += 1;
                    if delayed >= self.subscription.pending() {
                        delayed = 0;
                        sleep(SECRETS_RETRY).await;
                    }
                }
            }
        }
    }

    /// Values of Secrets are filled in, but not for what is gone: its Secrets may be gone too.
    async fn payload(&self, event: &Event<K>) -> Result<Bytes, Unavailable> {
        if event.type_ == ResourceEventType::Deleted {
            return Ok(event.version.payload().clone());
        }
        self.secrets.payload(self.subscription.namespace(), &event.version).await
    }
}

/// False when nobody can assign any more.
async fn wait_for_assignment(assigned: &mut watch::Receiver<Assigned>) -> bool {
    assigned.wait_for(Option::is_some).await.is_ok()
}
