//! Update streams. Thousands of them wait at the same time, so one is a small value that is polled, and no task or timer of its
//! own.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream::BoxStream};
use outrigger_proto::operator::ResourceEventType;
use tokio::time::sleep;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
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

/// An open stream. Sends what the index offers; ends, with OK, when told to.
pub(super) struct Updates<K: Kind> {
    subscription: Subscription<K>,
    secrets: Arc<Secrets>,
    /// The operator stops, or the connection has reached its age.
    end: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Where the time of what is sent is noted until it is written.
    unsent: Option<Arc<Unsent>>,
    only: Option<Only>,
    /// An event whose Secrets are being read, or a pause.
    busy: Option<BoxFuture<'static, Step<K>>>,
    /// Events that were put back since the last one that could be sent.
    delayed: i64,
}

/// Only events of the object with the assigned name are sent. While there is none, events wait: the stream may be open before
/// its pod is seen.
struct Only {
    changes: WatchStream<Assigned>,
    assigned: Assigned,
}

enum Step<K> {
    Read(Event<K>, Result<Bytes, Unavailable>),
    Paused,
}

impl<K: Kind> Updates<K> {
    pub(super) fn new(
        subscription: Subscription<K>,
        secrets: Arc<Secrets>,
        end: CancellationToken,
        unsent: Option<Arc<Unsent>>,
    ) -> Self {
        Self {
            subscription,
            secrets,
            end: Box::pin(end.cancelled_owned()),
            unsent,
            only: None,
            busy: None,
            delayed: 0,
        }
    }

    /// Restricts the stream to what is assigned.
    pub(super) fn only(mut self, assigned: tokio::sync::watch::Receiver<Assigned>) -> Self {
        self.only = Some(Only {
            changes: WatchStream::new(assigned),
            assigned: None,
        });
        self
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<K::Event> {
        loop {
            if let Some(busy) = &mut self.busy {
                let step = ready!(busy.poll_unpin(cx));
                self.busy = None;
                match step {
                    Step::Read(event, Ok(payload)) => return Poll::Ready(self.message(&event, payload)),
                    Step::Read(event, Err(error)) => self.delay(event, &error),
                    Step::Paused => {}
                }
                continue;
            }
            if let Some(only) = &mut self.only {
                while let Poll::Ready(Some(assigned)) = only.changes.poll_next_unpin(cx) {
                    only.assigned = assigned;
                }
                if only.assigned.is_none() {
                    return Poll::Pending;
                }
            }
            let event = ready!(self.subscription.poll_next(cx));
            let wanted = self.only.as_ref().and_then(|only| only.assigned.as_ref());
            if wanted.is_some_and(|name| name != event.version.name()) {
                continue;
            }
            // Values of Secrets are filled in, but not for what is gone: its Secrets may be gone too.
            if event.type_ == ResourceEventType::Deleted || event.version.with_secrets().is_none() {
                let payload = event.version.payload().clone();
                return Poll::Ready(self.message(&event, payload));
            }
            let (secrets, namespace) = (self.secrets.clone(), self.subscription.namespace().clone());
            self.busy = Some(Box::pin(async move {
                let payload = secrets.payload(&namespace, &event.version).await;
                Step::Read(event, payload)
            }));
        }
    }

    fn message(&mut self, event: &Event<K>, payload: Bytes) -> K::Event {
        self.delayed = 0;
        if let (Some(unsent), Some(since)) = (&self.unsent, event.since) {
            unsent.add(since);
        }
        self.subscription.index().metrics().sent.inc();
        K::event(payload, event.type_)
    }

    /// It holds up no other; when nothing else is left, some time passes before the next try.
    fn delay(&mut self, event: Event<K>, error: &Unavailable) {
        let (namespace, name) = (&**self.subscription.namespace(), &**event.version.name());
        tracing::warn!(kind = K::KIND, namespace, name, %error, "event delayed");
        self.subscription.put_back(event);
        self.delayed += 1;
        if self.delayed >= self.subscription.pending() {
            self.delayed = 0;
            self.busy = Some(Box::pin(sleep(SECRETS_RETRY).map(|()| Step::Paused)));
        }
    }
}

impl<K: Kind> Stream for Updates<K> {
    type Item = Result<K::Event, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.end.poll_unpin(cx).is_ready() {
            return Poll::Ready(None);
        }
        self.poll_event(cx).map(|event| Some(Ok(event)))
    }
}
