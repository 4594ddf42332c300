//! One update stream's place in the index.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures::task::AtomicWaker;
use outrigger_crds::DaprResource;
use parking_lot::Mutex;

use super::{
    Index,
    outbox::{Event, Offered, Outbox, Transition},
};

/// A stream that is told of changes.
pub(super) struct Subscriber<K> {
    app: Arc<str>,
    outbox: Mutex<Outbox<K>>,
    /// Wakes the stream when the outbox is no longer empty.
    wake: AtomicWaker,
}

impl<K: DaprResource> Subscriber<K> {
    pub(super) fn new(app: Arc<str>) -> Self {
        Self {
            app,
            outbox: Mutex::default(),
            wake: AtomicWaker::new(),
        }
    }

    pub(super) fn app(&self) -> &str {
        &self.app
    }

    pub(super) fn offer(&self, change: &Transition<K>, certain: bool) -> Offered {
        let offered = self.outbox.lock().offer(&self.app, change, certain);
        if offered == Offered::Queued {
            self.wake.wake();
        }
        offered
    }

    /// How many events wait.
    pub(super) fn pending(&self) -> i64 {
        i64::try_from(self.outbox.lock().len()).unwrap_or(i64::MAX)
    }
}

/// A registered subscriber; dropping it ends the registration.
pub struct Subscription<K: DaprResource> {
    index: Arc<Index<K>>,
    namespace: Arc<str>,
    subscriber: Arc<Subscriber<K>>,
}

impl<K: DaprResource> Subscription<K> {
    pub(super) fn new(index: Arc<Index<K>>, namespace: Arc<str>, subscriber: Arc<Subscriber<K>>) -> Self {
        Self {
            index,
            namespace,
            subscriber,
        }
    }

    pub fn namespace(&self) -> &Arc<str> {
        &self.namespace
    }

    pub fn app(&self) -> &str {
        self.subscriber.app()
    }

    /// What is waiting, without waiting for it.
    pub fn try_next(&self) -> Option<Event<K>> {
        let event = self.subscriber.outbox.lock().pop();
        if event.is_some() {
            self.index.metrics.pending.dec();
        }
        event
    }

    /// How many events wait.
    pub fn pending(&self) -> i64 {
        self.subscriber.pending()
    }

    /// Takes back an event that cannot be sent now; it comes after all others.
    pub fn put_back(&self, event: Event<K>) {
        let metrics = &self.index.metrics;
        match self.subscriber.outbox.lock().put_back(event) {
            Offered::Queued => metrics.pending.inc(),
            Offered::Cancelled => metrics.pending.dec(),
            Offered::Coalesced | Offered::Invisible => {}
        }
    }

    /// The next event, for one task at a time.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Event<K>> {
        if let Some(event) = self.try_next() {
            return Poll::Ready(event);
        }
        self.subscriber.wake.register(cx.waker());
        // One may have come in the meantime.
        self.try_next().map_or(Poll::Pending, Poll::Ready)
    }

    /// The next event. Cancelling loses nothing.
    pub async fn next(&self) -> Event<K> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    pub fn index(&self) -> &Index<K> {
        &self.index
    }
}

impl<K: DaprResource> Drop for Subscription<K> {
    fn drop(&mut self) {
        self.index.unsubscribe(&self.namespace, &self.subscriber);
    }
}
