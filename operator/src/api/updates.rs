//! Update streams.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, stream::BoxStream};
use outrigger_crds::DaprResource;
use outrigger_proto::operator::ResourceEventType;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    index::{Event, Subscription},
    kinds::Kind,
    pods::Assigned,
    secrets::Secrets,
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
    pub(super) ends_at: Instant,
    pub(super) stop: CancellationToken,
}

impl<K: Kind> Updates<K> {
    /// Sends what the index offers. Ends, with OK, when the operator stops or the connection has reached its age.
    pub(super) fn into_stream(self) -> impl Stream<Item = Result<K::Event, Status>> + Send + 'static {
        futures::stream::unfold(self, |mut updates| async move {
            let (stop, ends_at) = (updates.stop.clone(), updates.ends_at);
            let (type_, payload) = tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                () = sleep_until(ends_at) => return None,
                next = updates.next() => next,
            };
            updates.subscription.index().metrics().sent.inc();
            Some((Ok(K::event(payload, type_)), updates))
        })
    }

    async fn next(&mut self) -> (ResourceEventType, Bytes) {
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
            return (event.type_, self.payload(&event).await);
        }
    }

    /// Values of Secrets are filled in, but not for what is gone: its Secrets may be gone too.
    async fn payload(&self, event: &Event<K>) -> Bytes {
        if event.type_ == ResourceEventType::Deleted {
            return event.version.payload().clone();
        }
        loop {
            let namespace = self.subscription.namespace();
            match self.secrets.payload(namespace, &event.version).await {
                Ok(payload) => return payload,
                Err(error) => {
                    let name = &**event.version.name();
                    tracing::warn!(kind = K::KIND, namespace, name, %error, "event delayed");
                    sleep(SECRETS_RETRY).await;
                }
            }
        }
    }
}

/// False when nobody can assign any more.
async fn wait_for_assignment(assigned: &mut watch::Receiver<Assigned>) -> bool {
    assigned.wait_for(Option::is_some).await.is_ok()
}
