//! Update streams. Thousands of them wait at the same time, so one is a small value that is polled, and no task or timer of its
//! own.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt, future::BoxFuture};
use http::HeaderMap;
use http_body::{Body, Frame};
use outrigger_proto::{codec::YIELD, operator::ResourceEventType};
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

/// Pause before Secrets are read again that could not be read for an event.
const SECRETS_RETRY: Duration = Duration::from_secs(1);

/// An open stream. Sends what the index offers; ends, with OK, when told to.
pub(super) struct Updates<K: Kind> {
    subscription: Subscription<K>,
    secrets: Arc<Secrets>,
    /// The operator stops, or the connection has reached its age. `None` once that was said.
    end: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
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
            end: Some(Box::pin(end.cancelled_owned())),
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

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        loop {
            if let Some(busy) = &mut self.busy {
                let step = ready!(busy.poll_unpin(cx));
                self.busy = None;
                match step {
                    Step::Read(event, Ok(payload)) => {
                        self.count(&event);
                        return Poll::Ready(K::event(payload, event.type_));
                    }
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
                self.count(&event);
                return Poll::Ready(event.version.event(event.type_, K::event));
            }
            let (secrets, namespace) = (self.secrets.clone(), self.subscription.namespace().clone());
            self.busy = Some(Box::pin(async move {
                let payload = secrets.payload(&namespace, &event.version).await;
                Step::Read(event, payload)
            }));
        }
    }

    /// The next events, as they are sent: those that wait together. One alone is shared with all who are sent the same.
    fn poll_events(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        let first = ready!(self.poll_event(cx));
        let mut all = BytesMut::new();
        while all.len().max(first.len()) < YIELD
            && let Poll::Ready(next) = self.poll_event(cx)
        {
            if all.is_empty() {
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&next);
        }
        Poll::Ready(if all.is_empty() { first } else { all.freeze() })
    }

    fn count(&mut self, event: &Event<K>) {
        self.delayed = 0;
        if let (Some(unsent), Some(since)) = (&self.unsent, event.since) {
            unsent.add(since);
        }
        self.subscription.index().metrics().sent.inc();
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

impl<K: Kind> Body for Updates<K> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(end) = &mut self.end else {
            return Poll::Ready(None);
        };
        if end.poll_unpin(cx).is_ready() {
            self.end = None;
            let mut trailers = HeaderMap::new();
            Status::ok("").add_header(&mut trailers)?;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        self.poll_events(cx).map(|events| Some(Ok(Frame::data(events))))
    }

    fn is_end_stream(&self) -> bool {
        self.end.is_none()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use outrigger_crds::{Component, decode};
    use outrigger_process::kubernetes::watch::ObjectKey;
    use outrigger_proto::operator::{
        ComponentUpdateEvent,
        ResourceEventType::{Created, Updated},
    };
    use prometheus::Registry;
    use prost::Message;
    use serde_json::json;
    use tokio::time::Instant;

    use super::*;
    use crate::{
        index::{Index, State},
        metrics::Metrics,
        secrets::{Found, Source},
    };

    /// Nothing here refers to Secrets.
    struct NoSecrets;

    impl Source for NoSecrets {
        fn read(&self, key: ObjectKey) -> Pin<Box<dyn Future<Output = Result<Found, Unavailable>> + Send + '_>> {
            Box::pin(async move { Err(Unavailable::new(key, "not asked for")) })
        }
    }

    fn apply(index: &Index<Component>, name: &str, type_: &str) {
        let component = json!({
            "metadata": {"name": name, "namespace": "shop", "resourceVersion": "1"},
            "spec": {"type": type_, "version": "v1", "metadata": []},
        });
        let component = decode(&component.to_string()).unwrap();
        index.apply(component, Instant::now()).unwrap();
    }

    /// Names and types of the events in what is sent.
    fn events(mut sent: Bytes) -> Vec<(ResourceEventType, String)> {
        let mut events = Vec::new();
        while !sent.is_empty() {
            let prefix = sent.split_to(5);
            assert_eq!(prefix[0], 0, "not compressed");
            let length = u32::from_be_bytes(prefix[1..].try_into().unwrap());
            let event = ComponentUpdateEvent::decode(sent.split_to(length as usize)).unwrap();
            let component: serde_json::Value = serde_json::from_slice(&event.component).unwrap();
            events.push((
                event.r#type(),
                component["metadata"]["name"].as_str().unwrap().to_owned(),
            ));
        }
        events
    }

    #[tokio::test]
    async fn sidecars_share_what_they_are_sent_and_get_at_once_what_waits() {
        let metrics = Metrics::new(&Registry::new()).unwrap();
        let index = Arc::new(Index::<Component>::new(metrics.kind::<Component>()));
        index.set_state(State::Synced);
        let (secrets, end) = (
            Arc::new(Secrets::new(Box::new(NoSecrets), metrics)),
            CancellationToken::new(),
        );
        let subscribe = |app| {
            let subscription = index.subscribe("shop", app, Instant::now());
            Updates::new(subscription, secrets.clone(), end.clone(), None)
        };
        let (mut cart, mut orders) = (subscribe("cart"), subscribe("orders"));
        let sent = async |updates: &mut Updates<Component>| updates.frame().await.unwrap().unwrap();

        apply(&index, "db", "state.redis");
        let first = sent(&mut cart).await.into_data().unwrap();
        let second = sent(&mut orders).await.into_data().unwrap();
        assert_eq!(first.as_ptr(), second.as_ptr());
        assert_eq!(events(first), [(Created, "db".to_owned())]);

        apply(&index, "queue", "pubsub.redis");
        apply(&index, "db", "state.postgresql");
        let both = sent(&mut cart).await.into_data().unwrap();
        assert_eq!(
            events(both),
            [(Created, "queue".to_owned()), (Updated, "db".to_owned())]
        );

        end.cancel();
        let trailers = sent(&mut cart).await.into_trailers().unwrap();
        assert_eq!(trailers["grpc-status"], "0");
        assert!(cart.frame().await.is_none() && cart.is_end_stream());
    }
}
